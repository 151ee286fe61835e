//! All connections of one core, and the sums of what they have on its way.
//!
//! A connection's bytes, its session and what it has to do with other cores change in here only, in
//! a closure that the caller gives: before and after it the sums are brought up to date. Which
//! connections the driver, or the shard itself, has to look at is kept beside. Knows no engine, no
//! messages and no limits.
//!
//! Invariant: `slots`, `proxies`, `unix`, `with_tls` and what ends with `_bytes` are the sums
//! over all connections whenever no method of the table is running, but for the inbound side that
//! is taken out (`take_inbound`).

mod access;
mod connection;
mod end_reason;
mod transport;

pub(in crate::shard) use self::access::Access;
pub use self::connection::CONNECTION_BYTES;
pub(in crate::shard) use self::connection::{Closing, Connection};
pub(in crate::shard) use self::end_reason::{END_REASONS, EndReason};
use self::transport::SpareBuffers;
pub(in crate::shard) use self::transport::Transport;
use crate::engine::ConnId;
use crate::engine::table::Table;
use crate::protocol::session::Session;
use crate::shard::cores::{Core, Cores};
use crate::shard::driver::Origin;
use crate::shard::remote::message::{ConnKey, HomeConnId};
use crate::shard::remote::state::RemoteState;
use crate::wire::inbound::Inbound;
use crate::wire::outbox::{Chunk, Outbox, Slot};
use crate::wire::tls::TLS_CONNECTION_BYTES;

/// Connections and proxies by number.
#[derive(Clone, Debug)]
pub(in crate::shard) struct Connections {
    cores: Cores,
    table: Table<ConnId, Connection>,
    /// Connections about which the driver may have something new to do.
    dirty: Vec<ConnId>,
    /// Connections whose requests may go on.
    resumed: Vec<ConnId>,
    /// Connections whose requests may go on in the next turn.
    later: Vec<ConnId>,
    proxies: usize,
    /// Connections by Unix sockets, proxies not among them.
    unix: usize,
    /// Connections that this core has taken in so far; the last one's generation.
    generation: u32,
    inbound_bytes: usize,
    outbox_bytes: usize,
    /// Replies that wait, or wait behind one that does.
    slots: usize,
    /// Memory of what connections know of other cores.
    remote_bytes: usize,
    /// Connections that speak TLS.
    with_tls: usize,
    /// Memory of what the access list says of connections.
    access_bytes: usize,
    /// For records.
    spare_buffers: SpareBuffers,
}

impl Connections {
    pub(in crate::shard) fn new(cores: Cores) -> Self {
        Self {
            cores,
            table: Table::default(),
            dirty: Vec::new(),
            resumed: Vec::new(),
            later: Vec::new(),
            proxies: 0,
            unix: 0,
            generation: 0,
            inbound_bytes: 0,
            outbox_bytes: 0,
            slots: 0,
            remote_bytes: 0,
            with_tls: 0,
            access_bytes: 0,
            spare_buffers: SpareBuffers::default(),
        }
    }

    /// Connections whose socket this core has.
    pub(in crate::shard) fn len(&self) -> usize {
        self.table.len() - self.proxies
    }

    /// Connections whose socket this core has: plain ones, those that speak TLS, and those by Unix
    /// sockets.
    pub(in crate::shard) fn kinds(&self) -> [usize; 3] {
        [self.len() - self.with_tls - self.unix, self.with_tls, self.unix]
    }

    /// Connections whose socket another core has.
    #[cfg(debug_assertions)]
    pub(in crate::shard) fn proxies(&self) -> usize {
        self.proxies
    }

    /// Bytes that have come and weren't handled yet.
    #[inline]
    pub(in crate::shard) fn inbound_bytes(&self) -> usize {
        self.inbound_bytes
    }

    /// Bytes that wait to leave.
    #[inline]
    pub(in crate::shard) fn outbox_bytes(&self) -> usize {
        self.outbox_bytes
    }

    /// Replies that wait, or wait behind one that does.
    pub(in crate::shard) fn slots(&self) -> usize {
        self.slots
    }

    /// Memory of what connections know of other cores.
    #[inline]
    pub(in crate::shard) fn remote_bytes(&self) -> usize {
        self.remote_bytes
    }

    /// Memory of keys and buffers of connections that speak TLS.
    #[inline]
    pub(in crate::shard) fn tls_bytes(&self) -> usize {
        self.with_tls * TLS_CONNECTION_BYTES
    }

    /// Memory of what the access list says of connections.
    #[inline]
    pub(in crate::shard) fn access_bytes(&self) -> usize {
        self.access_bytes
    }

    /// Notes what the access list says of a connection.
    pub(in crate::shard) fn set_access(&mut self, conn: ConnId, access: Option<Box<Access>>) {
        let bytes = |access: &Option<Box<Access>>| access.as_ref().map_or(0, |it| it.bytes());
        let place = &mut self.table[conn].access;
        self.access_bytes -= bytes(place);
        self.access_bytes += bytes(&access);
        *place = access;
    }

    /// A generation that no earlier connection of this core has had, but for one of long ago.
    pub(in crate::shard) fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    pub(in crate::shard) fn insert(&mut self, connection: Connection) -> ConnId {
        self.add(&connection);
        self.table.insert(connection)
    }

    /// Takes a connection out; its number may be given to the next one at once.
    pub(in crate::shard) fn remove(&mut self, conn: ConnId) -> Connection {
        let connection = self.table.remove(conn);
        self.subtract(&connection);
        connection
    }

    #[inline]
    pub(in crate::shard) fn get(&self, conn: ConnId) -> Option<&Connection> {
        self.table.get(conn)
    }

    #[inline]
    pub(in crate::shard) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Connection> {
        self.table.get_mut(conn)
    }

    /// Numbers below this one may have connections; all others have none.
    pub(in crate::shard) fn places(&self) -> u32 {
        self.table.places()
    }

    /// The connections whose socket this core has, with their numbers.
    pub(in crate::shard) fn iter_local(&self) -> impl Iterator<Item = (ConnId, &Connection)> {
        self.table.iter().filter(|(_, connection)| connection.is_local())
    }

    /// The same and all proxies. For tests.
    #[cfg(debug_assertions)]
    pub(in crate::shard) fn iter_all(&self) -> impl Iterator<Item = (ConnId, &Connection)> {
        self.table.iter()
    }

    /// Connections whose requests may go on. For tests.
    #[cfg(debug_assertions)]
    pub(in crate::shard) fn resumed(&self) -> &[ConnId] {
        &self.resumed
    }

    /// Changes a connection's outbox. Returns what `change` does, and the bytes that wait to leave.
    #[inline(always)]
    pub(in crate::shard) fn with_outbox<T>(
        &mut self,
        conn: ConnId,
        change: impl FnOnce(&mut Outbox) -> T,
    ) -> (T, usize) {
        self.with_session(conn, |_, outbox| change(outbox))
    }

    /// Lets a session handle something, and write to its outbox. Returns likewise.
    #[inline(always)]
    pub(in crate::shard) fn with_session<T>(
        &mut self,
        conn: ConnId,
        change: impl FnOnce(&mut Session, &mut Outbox) -> T,
    ) -> (T, usize) {
        let Connection { session, outbox, .. } = &mut self.table[conn];
        self.outbox_bytes -= outbox.bytes();
        self.slots -= outbox.held();
        let result = change(session, outbox);
        let bytes = outbox.bytes();
        self.outbox_bytes += bytes;
        self.slots += outbox.held();
        (result, bytes)
    }

    /// Keeps the place of a reply that is to come.
    pub(in crate::shard) fn hold(&mut self, conn: ConnId) -> Slot {
        self.with_outbox(conn, Outbox::hold).0
    }

    /// What is to be sent next, and whether more waits behind it. It counts until `sent`.
    #[inline]
    pub(in crate::shard) fn take_chunk(&mut self, conn: ConnId) -> Option<(Chunk, bool)> {
        self.table[conn].outbox.take()
    }

    /// The same of a connection that speaks TLS. `look` sees what is sealed.
    pub(in crate::shard) fn take_records(
        &mut self,
        conn: ConnId,
        look: impl FnMut(&Chunk),
    ) -> Option<(Chunk, bool)> {
        let connection = &mut self.table[conn];
        let is_closing = connection.is_closing();
        let Connection { transport, outbox, .. } = connection;
        self.outbox_bytes -= outbox.bytes();
        let records = transport.seal_next(outbox, &mut self.spare_buffers, is_closing, look);
        self.outbox_bytes += outbox.bytes();
        Some((records?, transport.has_records(outbox, is_closing)))
    }

    /// Puts another transport in the place of a connection's. Returns the earlier one.
    pub(in crate::shard) fn replace_transport(
        &mut self,
        conn: ConnId,
        transport: Transport,
    ) -> Transport {
        self.with_tls += usize::from(!transport.is_plain());
        let earlier = std::mem::replace(&mut self.table[conn].transport, transport);
        self.with_tls -= usize::from(!earlier.is_plain());
        earlier
    }

    /// A chunk has been sent whole. Returns its connection.
    #[inline]
    pub(in crate::shard) fn sent(&mut self, conn: ConnId, chunk: Chunk) -> &mut Connection {
        let counted = chunk.counted_bytes();
        self.outbox_bytes -= counted;
        let connection = &mut self.table[conn];
        match chunk {
            Chunk::Records { bytes, .. } => {
                connection.outbox.count_sent(counted);
                self.spare_buffers.give_back(bytes);
            }
            chunk => connection.outbox.sent(chunk),
        }
        connection
    }

    /// Takes a connection's inbound side out, to hand its frames to what changes the rest of it;
    /// `return_inbound` has to follow.
    #[inline]
    pub(in crate::shard) fn take_inbound(&mut self, conn: ConnId) -> Inbound {
        let inbound = std::mem::take(&mut self.table[conn].inbound);
        self.inbound_bytes -= inbound.held_bytes();
        inbound
    }

    /// Puts it back, for the driver to look at the connection. Returns the bytes that it holds.
    #[inline]
    pub(in crate::shard) fn return_inbound(&mut self, conn: ConnId, inbound: Inbound) -> usize {
        let held_bytes = inbound.held_bytes();
        self.inbound_bytes += held_bytes;
        let connection = &mut self.table[conn];
        connection.inbound = inbound;
        mark_dirty(&mut self.dirty, conn, connection);
        held_bytes
    }

    /// Lends the allocation that a large body is to be received into; see `Inbound::lend`. It goes
    /// on counting.
    pub(in crate::shard) fn lend(&mut self, conn: ConnId) -> Option<(Vec<u8>, usize)> {
        self.table[conn].inbound.lend()
    }

    /// Takes a lent allocation back. Returns how many bytes were received into it.
    pub(in crate::shard) fn give_back(&mut self, conn: ConnId, body: Vec<u8>) -> usize {
        let mut inbound = self.take_inbound(conn);
        let received = inbound.give_back(body);
        self.return_inbound(conn, inbound);
        received
    }

    /// Changes what a connection has to do with other cores.
    pub(in crate::shard) fn with_remote<T>(
        &mut self,
        conn: ConnId,
        change: impl FnOnce(&mut RemoteState) -> T,
    ) -> T {
        let remote = &mut self.table[conn].remote;
        let remote = remote.get_or_insert_with(|| Box::new(RemoteState::new(self.cores)));
        self.remote_bytes -= remote.function_bytes();
        let result = change(remote);
        self.remote_bytes += remote.function_bytes();
        result
    }

    /// A connection as other cores know it.
    pub(in crate::shard) fn key(&self, conn: ConnId) -> ConnKey {
        ConnKey { conn: HomeConnId::of(conn), generation: self[conn].generation }
    }

    /// A connection has nothing to do with other cores any more. Returns what it had.
    pub(in crate::shard) fn take_remote(&mut self, conn: ConnId) -> Option<Box<RemoteState>> {
        let remote = self.table[conn].remote.take();
        self.remote_bytes -= remote.as_ref().map_or(0, |remote| remote.function_bytes());
        remote
    }

    /// Puts a session in the place of a connection's. Returns the earlier one.
    pub(in crate::shard) fn replace_session(&mut self, conn: ConnId, session: Session) -> Session {
        std::mem::replace(&mut self.table[conn].session, session)
    }

    /// A connection of this core becomes a proxy, or a proxy another one's.
    pub(in crate::shard) fn become_proxy(&mut self, conn: ConnId, of: (Core, ConnKey)) {
        let connection = &mut self.table[conn];
        if connection.is_local() {
            self.unix -= usize::from(connection.is_local_unix());
            self.proxies += 1;
        }
        connection.proxy_for = Some(of);
    }

    /// A proxy becomes a connection of this core.
    pub(in crate::shard) fn become_local(&mut self, conn: ConnId, origin: Origin) {
        let connection = &mut self.table[conn];
        debug_assert!(!connection.is_local());
        (connection.proxy_for, connection.origin) = (None, origin);
        self.proxies -= 1;
        self.unix += usize::from(connection.is_local_unix());
    }

    /// The driver is to look at a connection; it knows no proxies.
    #[inline]
    pub(in crate::shard) fn mark_dirty(&mut self, conn: ConnId) {
        mark_dirty(&mut self.dirty, conn, &mut self.table[conn]);
    }

    /// The driver needn't look at a connection any more.
    pub(in crate::shard) fn clear_dirty(&mut self, conn: ConnId) {
        self.table[conn].dirty = false;
    }

    /// The next connection that the driver is to look at.
    #[inline]
    pub(in crate::shard) fn pop_dirty(&mut self) -> Option<ConnId> {
        while let Some(conn) = self.dirty.pop() {
            // It may be gone, and its number another's.
            if let Some(connection) = self.table.get_mut(conn)
                && std::mem::take(&mut connection.dirty)
            {
                return Some(conn);
            }
        }
        None
    }

    /// Requests of a connection that waited may go on.
    #[inline]
    pub(in crate::shard) fn resume(&mut self, conn: ConnId) {
        self.resumed.push(conn);
    }

    /// Requests of a connection may go on when all others have had their turn.
    pub(in crate::shard) fn resume_next_turn(&mut self, conn: ConnId) {
        self.later.push(conn);
    }

    /// The turn is over: what was to go on in the next one may.
    #[inline]
    pub(in crate::shard) fn end_turn(&mut self) {
        if !self.later.is_empty() {
            self.resumed.append(&mut self.later);
        }
    }

    /// The next connection whose requests may go on.
    #[inline]
    pub(in crate::shard) fn pop_resumed(&mut self) -> Option<ConnId> {
        while let Some(conn) = self.resumed.pop() {
            // Its number may be another's by now, and a proxy's, which has no requests of its own.
            if self.table.get(conn).is_some_and(Connection::is_local) {
                return Some(conn);
            }
        }
        None
    }

    /// Whether requests wait for `pop_resumed`.
    #[inline]
    pub(in crate::shard) fn has_resumed(&self) -> bool {
        !self.resumed.is_empty()
    }

    /// Whether there are connections for `pop_dirty`.
    pub(in crate::shard) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    fn add(&mut self, connection: &Connection) {
        self.inbound_bytes += connection.inbound.held_bytes();
        self.outbox_bytes += connection.outbox.bytes();
        self.slots += connection.outbox.held();
        self.remote_bytes += connection.remote.as_ref().map_or(0, |it| it.function_bytes());
        self.proxies += usize::from(!connection.is_local());
        self.unix += usize::from(connection.is_local_unix());
        self.with_tls += usize::from(!connection.transport.is_plain());
        self.access_bytes += connection.access().map_or(0, Access::bytes);
    }

    fn subtract(&mut self, connection: &Connection) {
        self.inbound_bytes -= connection.inbound.held_bytes();
        self.outbox_bytes -= connection.outbox.bytes();
        self.slots -= connection.outbox.held();
        self.remote_bytes -= connection.remote.as_ref().map_or(0, |it| it.function_bytes());
        self.proxies -= usize::from(!connection.is_local());
        self.unix -= usize::from(connection.is_local_unix());
        self.with_tls -= usize::from(!connection.transport.is_plain());
        self.access_bytes -= connection.access().map_or(0, Access::bytes);
    }
}

/// Adds a connection to those that the driver is to look at.
#[inline]
fn mark_dirty(dirty: &mut Vec<ConnId>, conn: ConnId, connection: &mut Connection) {
    if !connection.dirty && connection.is_local() {
        connection.dirty = true;
        dirty.push(conn);
    }
}

impl std::ops::Index<ConnId> for Connections {
    type Output = Connection;

    #[inline]
    fn index(&self, conn: ConnId) -> &Connection {
        &self.table[conn]
    }
}

impl std::ops::IndexMut<ConnId> for Connections {
    #[inline]
    fn index_mut(&mut self, conn: ConnId) -> &mut Connection {
        &mut self.table[conn]
    }
}
