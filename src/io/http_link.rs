//! The end that the HTTP thread has of the links between cores: messages to and from them, memory
//! that it takes, and what the cores tell of their turns.
//!
//! To the cores it is one more core, which owns no functions and takes no connections. Knows no
//! HTTP and no runtime.
//!
//! Invariant: after `flush` a core has what was sent, is awake, or has been woken.

use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

use super::cores::gauges::{Gauges, Load};
pub use super::cores::gauges::{TURN_BOUNDS_US, TURN_BUCKETS, TurnTimes};
use super::cores::mesh::Mailbox;
use super::cores::utilization::thread_time;
use super::links::Envelope;
use crate::engine::handle::Handles;
use crate::shard::cores::{Core, Cores};
use crate::shard::remote::message::Message;

/// Most messages that are received before other work has its turn.
const MESSAGES_PER_TURN: usize = 1024;

/// Messages to and from the cores.
#[derive(Debug)]
pub struct HttpLink {
    mailbox: Mailbox<Envelope>,
    gauges: Gauges,
    /// Bytes of messages that were sent, less those of messages that came, and of what is held
    /// besides.
    bytes: isize,
    handles: Handles,
}

impl HttpLink {
    pub(super) fn new(mailbox: Mailbox<Envelope>, gauges: Gauges, handles: Handles) -> Self {
        Self { mailbox, gauges, bytes: 0, handles }
    }

    /// The cores; `own` is the HTTP thread's number.
    #[must_use]
    pub fn cores(&self) -> Cores {
        let count = self.gauges.count();
        Cores { own: count, count }
    }

    /// Converts job numbers to handles and back.
    #[must_use]
    pub fn handles(&self) -> &Handles {
        &self.handles
    }

    /// Sends a message to a core; `flush` wakes it.
    pub fn send(&mut self, to: Core, message: Message) {
        self.bytes += message.bytes().cast_signed();
        self.mailbox.send(to, Envelope::Message(message));
    }

    /// Wakes the cores that were sent something. `false`: more waits here for space in a ring, so
    /// that `prepare_to_sleep` has to be called.
    pub fn flush(&mut self) -> bool {
        self.mailbox.flush();
        self.publish();
        self.mailbox.overflow() == 0
    }

    /// Takes bytes that are held outside of messages into account, or with a negative number those
    /// that are held no more.
    pub fn hold(&mut self, bytes: isize) {
        self.bytes += bytes;
        self.publish();
    }

    /// Memory that all cores have taken, with what is counted here, in bytes.
    #[must_use]
    pub fn taken_bytes(&self) -> usize {
        0_usize.saturating_add_signed(self.bytes + self.gauges.elsewhere().bytes)
    }

    /// Passes messages that came to `take`. Returns whether there were any.
    pub fn receive(&mut self, mut take: impl FnMut(Core, Message)) -> bool {
        let Self { mailbox, bytes, .. } = self;
        let received = mailbox.receive(MESSAGES_PER_TURN, |from, envelope| match envelope {
            Envelope::Message(message) => {
                *bytes -= message.bytes().cast_signed();
                take(from, message);
            }
            Envelope::Connection(..) => debug_assert!(false, "no connection moves here"),
        });
        received > 0
    }

    /// Announces that the thread is about to wait. Returns whether it may, until what `woken`
    /// returned is readable; then it calls `wake`.
    pub fn prepare_to_sleep(&mut self) -> bool {
        self.mailbox.prepare_to_sleep(|| false)
    }

    /// The thread has waited.
    pub fn wake(&mut self) {
        self.mailbox.mark_awake();
        self.mailbox.clear_wakeup();
    }

    /// A descriptor that is readable once a core has sent something, for the runtime of the calling
    /// thread.
    ///
    /// # Errors
    /// If the kernel has no descriptor left.
    pub fn woken(&self) -> std::io::Result<AsyncFd<OwnedFd>> {
        let descriptor = self.mailbox.wakeup_fd().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` refers to the same open descriptor as long as it exists.
        #[allow(unsafe_code)]
        let registered = unsafe { AsyncFd::register(descriptor) };
        Ok(registered?)
    }

    /// How long the turns of a core took.
    #[must_use]
    pub fn turns(&self, core: Core) -> TurnTimes {
        self.gauges.turns(core)
    }

    /// How long a core's thread has run or waited for a processor, in seconds.
    #[must_use]
    pub fn busy_seconds(&self, core: Core) -> Option<f64> {
        let thread = self.turns(core).thread;
        thread_time(thread).map(|time| time.as_secs_f64())
    }

    fn publish(&self) {
        self.gauges.publish(Load { bytes: self.bytes, ..Load::default() });
    }
}
