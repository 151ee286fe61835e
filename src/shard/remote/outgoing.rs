//! Messages of one core on their way out, and the connections that wait until fewer are.
//!
//! A message is kept here until the driver takes it; its bytes count until it has arrived. The
//! driver says for which cores too much waits; a connection whose frames have more for those isn't
//! read from meanwhile. Knows nothing of what messages say.
//!
//! Invariant: only frames of this core's own connections ever wait. What other cores send is
//! handled and answered whatever waits, so a core that is congested still empties the rings of all
//! others: two that are congested towards each other come free, and no connection waits for the
//! answer to what another may not send.

use tracing::trace;

use super::message::Message;
use crate::engine::ConnId;
use crate::shard::Shard;
use crate::shard::cores::{Core, CoreSet};

/// With more messages of one turn than these, a connection that causes more waits for the next
/// turn.
pub(in crate::shard) const MESSAGES_PAUSE: usize = 4096;

/// Messages on their way out.
#[derive(Clone, Debug, Default)]
pub(in crate::shard) struct Outgoing {
    /// Those that the driver hasn't taken yet.
    untaken: Vec<(Core, Message)>,
    /// Bytes of all that this core has sent, less those of all that came.
    bytes: isize,
    /// Cores for which too much waits.
    congested: CoreSet,
    /// Cores that the frame which is being handled has messages for.
    pressed: CoreSet,
    /// Connections that wait until messages to some of these cores have left.
    blocked: Vec<(ConnId, CoreSet)>,
}

impl Outgoing {
    pub(in crate::shard) fn send(&mut self, to: Core, message: Message) {
        trace!(to, content = ?message, "message to another core");
        self.bytes += message.bytes().cast_signed();
        self.pressed.insert(to);
        self.untaken.push((to, message));
    }

    /// A message of another core has arrived.
    pub(in crate::shard) fn count_received(&mut self, message: &Message) {
        self.bytes -= message.bytes().cast_signed();
    }

    /// A connection leaves for another core, with this many bytes that weren't handled.
    pub(in crate::shard) fn count_detached(&mut self, held_bytes: usize) {
        self.bytes += held_bytes.cast_signed();
    }

    /// A connection has come from another core.
    pub(in crate::shard) fn count_attached(&mut self, held_bytes: usize) {
        self.bytes -= held_bytes.cast_signed();
    }

    /// Bytes of all that this core has sent, less those of all that came. Negative when this core
    /// freed messages that other cores allocated.
    #[inline]
    pub(in crate::shard) fn bytes(&self) -> isize {
        self.bytes
    }

    /// Before a frame is handled.
    #[inline]
    pub(in crate::shard) fn begin_frame(&mut self) {
        self.pressed.clear();
    }

    /// A frame has been handled. Returns the cores for which it has caused more than may wait.
    #[inline]
    fn overload(&self) -> CoreSet {
        match self.untaken.len() {
            0..MESSAGES_PAUSE => self.pressed & self.congested,
            _ => self.pressed,
        }
    }

    /// A connection is gone.
    pub(in crate::shard) fn forget(&mut self, conn: ConnId) {
        self.blocked.retain(|&(other, _)| other != conn);
    }

    /// The messages that the driver hasn't taken yet. For tests.
    #[cfg(debug_assertions)]
    pub(in crate::shard) fn untaken_messages(&self) -> &[(Core, Message)] {
        &self.untaken
    }

    /// How many messages the driver hasn't taken yet.
    #[cfg(test)]
    pub(in crate::shard) fn untaken(&self) -> usize {
        self.untaken.len()
    }

    /// Whether no connection waits.
    #[cfg(test)]
    pub(in crate::shard) fn is_free(&self) -> bool {
        self.blocked.is_empty()
    }
}

impl Shard {
    /// Moves the messages to other cores into `messages`, which must be empty.
    #[inline]
    pub fn take_messages(&mut self, messages: &mut Vec<(Core, Message)>) {
        debug_assert!(messages.is_empty());
        std::mem::swap(&mut self.outgoing.untaken, messages);
    }

    /// Sets the cores for which too much waits for connections to cause more; to be called
    /// whenever messages were taken. A connection that writes to such a core has its next requests
    /// wait until it is none any more, and then `has_resumed`.
    pub fn set_congested(&mut self, cores: CoreSet) {
        let Self { outgoing, connections, .. } = self;
        outgoing.congested = cores;
        outgoing.blocked.retain(|&(conn, by)| {
            let waits = !(by & cores).is_empty();
            if !waits && let Some(connection) = connections.get_mut(conn) {
                connection.blocked = false;
                connections.resume(conn);
            }
            waits
        });
    }

    /// What this core adds to the memory that all cores take together: its own, with messages that
    /// it sent and without those that came. Negative when this core freed messages that other cores
    /// allocated.
    #[inline]
    #[must_use]
    pub fn load_bytes(&self) -> isize {
        (self.memory_bytes() + self.registry_bytes()).cast_signed() + self.outgoing.bytes()
    }

    /// A frame has been handled: the connection waits if it has caused messages of which there are
    /// too many.
    #[inline]
    pub(in crate::shard) fn check_messages(&mut self, conn: ConnId) {
        let by = self.outgoing.overload();
        if !by.is_empty() {
            self.outgoing.blocked.push((conn, by));
            self.connections[conn].blocked = true;
        }
    }
}
