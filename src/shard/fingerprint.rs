//! Copies of a shard, and a text of its state, for tests that walk through all states of several
//! shards.
//!
//! Two shards with the same text do the same from now on, as far as the rules between cores go. The
//! text has neither counters nor times, and names records by what they stand for: a connection by
//! the descriptor that its test gave it, a job by its payload, a function by its name. `dirty` is
//! left out: connections are flushed in any order.
//!
//! Invariant: changes nothing; exists in debug builds only.

use std::fmt::Write as _;

use super::Shard;
use super::connections::Connection;
use super::cores::Core;
use super::remote::message::{ConnKey, HomeConnId, Message};
use super::remote::migration::{MigratingConnection, Migration};
use super::remote::urgency::Urgency;
use crate::engine::function::{READY, WAKING};
use crate::engine::{ConnId, FunctionId};

/// A number for a connection that a message is about: of its home, and of its number and generation
/// there. A connection that is there has its descriptor, another one any number above `LEFT` and
/// all descriptors.
pub type Namer<'a> = &'a dyn Fn(Core, ConnKey) -> u32;

/// Names of connections that were offloaded and whose new home hasn't written start here.
const LEFT: u32 = 1000;

impl Shard {
    /// A copy that publishes to `urgency`. Buffers for large bodies are shared.
    #[must_use]
    pub fn fork(&self, urgency: Urgency) -> Self {
        let mut fork = self.clone();
        fork.settings.urgency = urgency;
        fork
    }

    /// The number by which this core's engine knows a connection of `home`.
    #[must_use]
    pub fn number_here(&self, home: Core, conn: HomeConnId) -> Option<ConnId> {
        if home == self.settings.cores.own {
            return Some(conn.at_home());
        }
        self.proxies[home].get(&conn).copied()
    }

    /// The descriptor of a connection whose home is this core, unless it has gone.
    #[must_use]
    pub fn descriptor_of(&self, key: ConnKey) -> Option<i32> {
        let connection = self.connections.get(key.conn.at_home())?;
        let is_it = connection.is_local() && connection.generation == key.generation;
        is_it.then_some(connection.origin.fd)
    }

    /// The generation of the connection with a number, if its home is this core.
    #[must_use]
    pub fn generation_of(&self, conn: HomeConnId) -> Option<u32> {
        let connection = self.connections.get(conn.at_home())?;
        connection.is_local().then_some(connection.generation)
    }

    /// Appends the state that the rules between cores depend on.
    pub fn describe(&self, name: Namer<'_>, out: &mut String) {
        let labelled = self.connections.iter_all().map(|(conn, connection)| {
            let label = self.label(conn, name);
            (label, conn, connection)
        });
        let mut connections: Vec<(u32, ConnId, &Connection)> = labelled.collect();
        connections.sort_unstable_by_key(|&(label, ..)| label);
        for (label, conn, connection) in connections {
            describe_connection(label, conn, connection, out);
            self.describe_worker(conn, out);
        }
        let labels = |conns: &[ConnId]| -> Vec<u32> {
            let there = conns.iter().filter(|&&conn| self.connections.get(conn).is_some());
            there.map(|&conn| self.label(conn, name)).collect()
        };
        let (next, chosen) = self.offload.plan();
        put(out, format_args!("|{:?}", labels(self.connections.resumed())));
        put(out, format_args!("{:?}", labels(&self.engine.new_sleepers)));
        put(out, format_args!("{next:?} {:?}", labels(chosen)));
        self.describe_functions(name, out);
        let cores = self.settings.cores;
        for core in cores.others() {
            let messages = self.outgoing.untaken_messages().iter().filter(|(to, _)| *to == core);
            messages.for_each(|(_, message)| {
                describe_message(cores.own, core, message, name, out);
            });
        }
    }

    /// A connection's name.
    fn label(&self, conn: ConnId, name: Namer<'_>) -> u32 {
        let connection = &self.connections[conn];
        let descriptor = connection.origin.fd.cast_unsigned();
        match connection.proxy_for {
            None => descriptor,
            Some(_) if connection.migration == Migration::Offloaded => LEFT + descriptor,
            Some((home, key)) => name(home, key),
        }
    }

    /// What the engine knows of a worker.
    fn describe_worker(&self, conn: ConnId, out: &mut String) {
        let engine = &self.engine;
        let Some(peer) = engine.peers.get(conn) else { return };
        let records = &engine.abilities.records;
        let nap = if engine.is_asleep(conn) {
            'a'
        } else if engine.is_woken(conn) {
            'w'
        } else {
            '-'
        };
        put(out, format_args!(" {nap}{}", u8::from(peer.is_remote)));
        if let Some(function) = engine.leased_for(conn) {
            self.put_name(function, out);
        }
        for (priority, list) in peer.maybe_ready.iter().enumerate() {
            out.push('r');
            for id in list.iter(records, READY[priority]) {
                self.put_name(records[id].function, out);
            }
        }
        out.push('o');
        for function in engine.functions_of(conn) {
            out.push_str(&String::from_utf8_lossy(function));
            out.push(' ');
        }
        for (_, ability) in records.iter().filter(|(_, ability)| ability.conn == conn) {
            for id in ability.running.iter(engine.jobs(), 0) {
                put(out, format_args!("j{:?}", engine.jobs()[id].payload().bytes()));
            }
        }
    }

    fn describe_functions(&self, name: Namer<'_>, out: &mut String) {
        let engine = &self.engine;
        let records = &engine.abilities.records;
        let mut functions: Vec<_> = engine.functions().iter_from(FunctionId::FIRST).collect();
        functions.sort_unstable_by_key(|(_, function)| &function.name);
        for (id, function) in functions {
            out.push('\n');
            self.put_name(id, out);
            put(out, format_args!("{} {}", function.woken, u8::from(function.has_lapsed)));
            for queue in &function.queues {
                out.push('q');
                for job in
                    queue.held.iter(engine.jobs(), 0).chain(queue.jobs.iter(engine.jobs(), 0))
                {
                    put(out, format_args!("{:?}", engine.jobs()[job].payload().bytes()));
                }
            }
            for id in function.maybe_asleep.iter(records, WAKING) {
                let label = self.label(records[id].conn, name);
                put(out, format_args!("c{label}"));
            }
        }
        out.push('s');
        engine.wakeup_checks.iter().for_each(|&id| self.put_name(id, out));
    }

    fn put_name(&self, id: FunctionId, out: &mut String) {
        let found = self.engine.functions().iter_from(id).next();
        if let Some((_, function)) = found.filter(|&(found, _)| found == id) {
            out.push_str(&String::from_utf8_lossy(&function.name));
        }
        out.push(' ');
    }
}

fn describe_connection(label: u32, conn: ConnId, connection: &Connection, out: &mut String) {
    let Connection { migration, closing, ended, paused, blocked, .. } = connection;
    put(out, format_args!("\n{label}: {migration:?} {closing:?}"));
    put(out, format_args!("{:?}", [*ended, *paused, *blocked].map(u8::from)));
    if connection.is_local() || *migration == Migration::Offloaded {
        // Messages name it by its number.
        put(out, format_args!("{conn}"));
    }
    if let Some(remote) = connection.remote() {
        put(out, format_args!("{remote:?}"));
    }
    if !connection.outbox().is_empty() {
        put(out, format_args!("{:?}", connection.outbox()));
    }
    if connection.inbound().held_bytes() > 0 {
        put(out, format_args!("{:?}", connection.inbound()));
    }
}

fn put(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string doesn't fail.
    let _ = out.write_fmt(arguments);
}

/// Appends a message of one core to another.
pub fn describe_message(
    from: Core,
    to: Core,
    message: &Message,
    name: Namer<'_>,
    out: &mut String,
) {
    let mut message = message.clone();
    let home = if message.is_to_owner() { from } else { to };
    if let Some(key) = message.key_mut() {
        key.generation = name(home, *key);
    }
    put(out, format_args!("\n>{message:?}"));
}

/// Appends a connection that `from` let go.
pub fn describe_migrating(
    from: Core,
    migrating: &MigratingConnection,
    name: Namer<'_>,
    out: &mut String,
) {
    let MigratingConnection { key, origin, inbound, rest, ended, interest, .. } = migrating;
    let label = name(from, *key);
    put(out, format_args!("\n@{} {label} {rest:?} {ended} {interest:?}", origin.fd));
    if inbound.held_bytes() > 0 {
        put(out, format_args!("{inbound:?}"));
    }
}

impl Message {
    /// Whether it is about a connection of its sender.
    #[must_use]
    pub fn is_to_owner(&self) -> bool {
        self.key().is_none() && !matches!(self, Self::Answer { .. } | Self::OperatorReply { .. })
    }

    /// The connection that it is about, if it names its generation.
    pub fn key_mut(&mut self) -> Option<&mut ConnKey> {
        match self {
            Self::Introduced { key, .. }
            | Self::Request { key, .. }
            | Self::Grab { key, .. }
            | Self::Sleep(key)
            | Self::Declined(key)
            | Self::Line { key, .. }
            | Self::Task { key, .. }
            | Self::MigrationRequested { key, .. }
            | Self::MigrationCancelled(key)
            | Self::Offloaded { key, .. }
            | Self::Revoke { key, .. }
            | Self::Reply { key, .. }
            | Self::Push { key, .. }
            | Self::Forward { key, .. }
            | Self::Assigned { key, .. }
            | Self::Empty { key, .. }
            | Self::CancelNotice { key, .. }
            | Self::Late { key, .. }
            | Self::Hint { key, .. }
            | Self::Noop { key, .. }
            | Self::Joined(key)
            | Self::MigrationAccepted(key)
            | Self::Leaving(key)
            | Self::Left(key)
            | Self::Rows { key, .. } => Some(key),
            Self::Gone(_)
            | Self::Access(_)
            | Self::Policies(_)
            | Self::TrimDead
            | Self::Refused { .. }
            | Self::Tls(_)
            | Self::Operator { .. }
            | Self::OperatorReply { .. }
            | Self::Ask { .. }
            | Self::Answer { .. } => None,
        }
    }
}
