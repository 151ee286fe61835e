//! Outgoing of one core on their way out, and the connections that wait until fewer are.
//!
//! A message is kept here until the driver takes it; its bytes count until it has arrived. The
//! driver says for which cores too much waits (`set_congested`); whose frames have more for those
//! isn't read from meanwhile. Knows nothing of what messages say.
//!
//! Invariant: only frames of this core's own connections ever wait. What other cores send is
//! handled and answered whatever waits, so a core that is congested still empties the rings of all
//! others: two that are congested towards each other come free, and no connection waits for the
//! answer to what another one may not say.

use crate::engine::ConnId;
use crate::shard::Shard;
use crate::shard::cores::Core;
use crate::shard::remote::message::Message;

/// With more messages of one turn than these, who causes more of them waits for the next turn.
pub(in crate::shard) const MESSAGES_PAUSE: usize = 4096;

/// Outgoing on their way out.
#[derive(Debug, Default)]
pub(in crate::shard) struct Outgoing {
    /// Those that the driver hasn't taken yet.
    pub(in crate::shard) untaken: Vec<(Core, Message)>,
    /// Bytes of all that this core has sent, less those of all that came.
    pub(in crate::shard) bytes: isize,
    /// Cores for which too much waits, one bit each.
    congested: u64,
    /// Cores that the frame which is being handled has messages for, one bit each.
    pressed: u64,
    /// Connections that wait until messages to some of these cores have left.
    blocked: Vec<(ConnId, u64)>,
}

impl Outgoing {
    pub(in crate::shard) fn send(&mut self, to: Core, message: Message) {
        self.bytes += message.bytes().cast_signed();
        self.pressed |= 1 << to;
        self.untaken.push((to, message));
    }

    /// Before a frame is handled.
    #[inline]
    pub(in crate::shard) fn begin(&mut self) {
        self.pressed = 0;
    }

    /// A connection is gone.
    pub(in crate::shard) fn forget(&mut self, conn: ConnId) {
        self.blocked.retain(|&(other, _)| other != conn);
    }

    /// Nobody waits.
    #[cfg(test)]
    pub(in crate::shard) fn is_free(&self) -> bool {
        self.blocked.is_empty()
    }
}

impl Shard {
    /// Moves the messages to other cores into `letters`, which must be empty.
    #[inline]
    pub fn take_messages(&mut self, messages: &mut Vec<(Core, Message)>) {
        debug_assert!(messages.is_empty());
        std::mem::swap(&mut self.messages.untaken, messages);
    }

    /// Says for which cores so much waits that nobody should cause more, one bit each; to be called
    /// whenever messages were taken. Who writes to such a core has its next requests wait until it
    /// is none any more, and then `has_resumed`.
    pub fn set_congested(&mut self, cores: u64) {
        let Self { messages, connections, resumed, .. } = self;
        messages.congested = cores;
        messages.blocked.retain(|&(conn, by)| {
            let waits = by & cores != 0;
            if !waits && let Some(connection) = connections.get_mut(conn as usize) {
                connection.blocked = false;
                resumed.push(conn);
            }
            waits
        });
    }

    /// Whether `next_dirty` has requests to see to that waited.
    #[must_use]
    pub fn has_resumed(&self) -> bool {
        !self.resumed.is_empty()
    }

    /// What this core adds to the memory that all cores take together: its own, with messages that
    /// it sent and without those that came. Below zero it has done away with more than it has.
    #[inline]
    #[must_use]
    pub fn load_bytes(&self) -> isize {
        (self.memory_bytes() + self.registry_bytes()).cast_signed() + self.messages.bytes
    }

    /// A frame has been handled: who has caused messages of which there are too many waits.
    #[inline]
    pub(in crate::shard) fn check_messages(&mut self, conn: ConnId) {
        let messages = &mut self.messages;
        let by = match messages.untaken.len() {
            0..MESSAGES_PAUSE => messages.pressed & messages.congested,
            _ => messages.pressed,
        };
        if by != 0 {
            messages.blocked.push((conn, by));
            self.connections[conn as usize].blocked = true;
        }
    }
}
