//! Connections that migrate: submissions that put their descriptors into other cores' rings out,
//! completions in.
//!
//! The kernel copies a descriptor into the other ring and says its place there, which is then sent
//! to the other core by message. Knows nothing of why a connection migrates.
//!
//! Invariant: a connection that is `leaving` keeps its key until that completion has come.

use std::io::Error;
use std::os::fd::AsRawFd;

use io_uring::opcode;
use io_uring::types::{DestinationSlot, Fd};
use tracing::debug;

use super::Uring;
use super::operation::Operation;
use crate::engine::{ConnId, Now};
use crate::io::links::{Links, Socket};

/// The receiving ring gets no completion: io_uring(7), `IORING_MSG_RING_CQE_SKIP`.
const MSG_RING_CQE_SKIP: u32 = 1;

impl<L: Links> Uring<L> {
    /// Has the kernel put a connection into the ring of the core that it migrates to.
    pub(super) fn hand_over(&mut self, key: usize, conn: ConnId) {
        let connection = &mut self.connections[key];
        if connection.leaving.is_some() {
            return;
        }
        let Some(hand_over) = self.runtime.begin_hand_over(conn) else { return };
        let Some(ring) = self.runtime.rings.get(hand_over.to()).and_then(|ring| ring.get()) else {
            return self.runtime.cancel_hand_over(hand_over);
        };
        connection.leaving = Some(Box::new(hand_over));
        let ring = Fd(ring.as_raw_fd());
        let anywhere = DestinationSlot::auto_target();
        let message = opcode::MsgRingSendFd::new(ring, connection.file, anywhere, 0)
            .opcode_flags(MSG_RING_CQE_SKIP)
            .build();
        self.submit(message.user_data(Operation::HandOver.user_data(key)));
    }

    pub(super) fn handle_handed_over(&mut self, key: usize, result: i32, now: Now) {
        let connection = &mut self.connections[key];
        let hand_over = connection.leaving.take().map(|it| *it);
        let (Some(conn), Some(hand_over)) = (connection.conn, hand_over) else {
            return self.close_if_quiet(key);
        };
        match (u32::try_from(result), connection.number.take()) {
            (Ok(file), Some(number)) => {
                connection.conn = None;
                self.runtime.send_connection(hand_over, Socket::Direct(file, number), now);
                self.close_if_quiet(key);
            }
            (_, number) => {
                connection.number = number;
                let error = Error::from_raw_os_error(-result);
                debug!(conn = conn.number(), %error, "can't be handed over");
                self.runtime.cancel_hand_over(hand_over);
            }
        }
    }
}
