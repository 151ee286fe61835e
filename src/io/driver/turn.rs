//! One turn of an event loop, whose order all drivers share.
//!
//! A driver looks at the kernel, remembers what it finds, and runs a turn; the trait's required
//! methods are the steps that differ. Knows no file descriptor and no Gearman.
//!
//! Invariant: what another thread left before the driver looked at the kernel is handled before
//! what that look found, and messages that requests cause are sent before replies leave.

use crate::engine::{ConnId, Now};
use crate::io::links::{Links, Socket};
use crate::io::runtime::CoreRuntime;
use crate::io::store_link::StoreLost;

/// What an event loop does in a turn. The calls are known at compile time: none is dynamic.
pub(super) trait EventSource {
    /// What the core has to do with other threads.
    type Links: Links;

    /// The core's runtime.
    fn runtime(&mut self) -> &mut CoreRuntime<Self::Links>;

    /// Reads from the connections that the last look at the kernel found readable, and handles the
    /// rest of what it found.
    fn handle_events(&mut self, now: Now);

    /// Accepts connections, if that is due.
    fn accept(&mut self, now: Now);

    /// Ends connections whose peers' hosts are gone.
    fn look_for_lost_hosts(&mut self, now: Now);

    /// Attaches a connection that migrated from another core.
    fn attach_migrated(&mut self, conn: ConnId, socket: Socket, now: Now);

    /// Takes the connections that had more to write in the turn before than their share.
    fn take_unfinished(&mut self) -> Vec<ConnId>;

    /// Writes what a connection has to send, and does what the service wants done about it then.
    fn flush(&mut self, conn: ConnId, now: Now);

    /// Has the kernel acknowledge at once what a connection received, if that is due. `key`: as
    /// `QuickAcks` got it.
    fn acknowledge(&mut self, key: usize);

    /// Runs one turn. The driver has looked at the kernel since the turn before.
    ///
    /// # Errors
    /// `StoreLost`: the server must stop.
    fn turn(&mut self, now: Now) -> Result<(), StoreLost> {
        let began = self.runtime().begin_turn();
        // Messages after the look at the kernel and before what it found: a core sends the hint
        // about a job before the client gets its JOB_CREATED, so a worker's grab that was written
        // after that is handled after the hint.
        self.runtime().receive(now)?;
        self.handle_events(now);
        self.accept(now);
        // Timers after reads: a result that came in time counts, however late the core is.
        self.runtime().tick(now);
        self.look_for_lost_hosts(now);
        // Before anything is flushed: a connection that has just come may have replies.
        for (conn, socket) in std::mem::take(&mut self.runtime().arrivals) {
            self.attach_migrated(conn, socket, now);
        }
        let unfinished = self.take_unfinished();
        if !unfinished.is_empty() {
            self.runtime().send_messages();
            unfinished.into_iter().for_each(|conn| self.flush(conn, now));
        }
        // It sends messages before it names a connection.
        while let Some(conn) = self.runtime().poll_dirty(now) {
            self.flush(conn, now);
        }
        // After replies, each of which carries an acknowledgement.
        while let Some(key) = self.runtime().quick_acks.next() {
            self.acknowledge(key);
        }
        self.runtime().send();
        self.runtime().end_turn(began);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::io::cores::mesh::{Mailbox, mesh};
    use crate::io::host::quick_ack::Stalls;
    use crate::io::links::{Envelope, ShardLinks};
    use crate::shard::cores::Cores;
    use crate::shard::remote::message::{HomeConnId, Message};
    use crate::shard::{Origin, Service, Settings, Shard};
    use crate::wire::{Command, Magic, encode};

    const NOW: Now = Now { mono_ms: 5000, unix_ms: 1_700_000_000_000 };

    /// A driver whose only connection is always readable.
    struct Recorder {
        runtime: CoreRuntime<ShardLinks>,
        /// The other core's end.
        other: Mailbox<Envelope>,
        conn: ConnId,
        request: Vec<u8>,
        unfinished: Vec<ConnId>,
        steps: Vec<&'static str>,
    }

    impl Recorder {
        fn new() -> Self {
            let cores = Cores { own: 0, count: 2 };
            let mut mailboxes = mesh(2, Envelope::bytes).unwrap();
            let other = mailboxes.pop().unwrap();
            let shard = Shard::new(Settings { cores, ..Settings::default() }, NOW);
            let mut runtime = CoreRuntime::without_threads(shard, mailboxes.remove(0));
            let origin = Origin { fd: 9, peer: (Ipv4Addr::LOCALHOST, 4001).into(), listener: 0 };
            let conn = runtime.service.connect(origin, NOW).unwrap();
            let mut names = (0..).map(|n| format!("f{n}"));
            let theirs = names.find(|name| cores.owner_of(name.as_bytes()) == 1).unwrap();
            let mut request = Vec::new();
            encode(&mut request, Magic::Request, Command::EchoReq, &[], b"");
            let arguments: [&[u8]; 2] = [theirs.as_bytes(), b""];
            encode(&mut request, Magic::Request, Command::SubmitJobBg, &arguments, b"");
            Self { runtime, other, conn, request, unfinished: Vec::new(), steps: Vec::new() }
        }
    }

    impl EventSource for Recorder {
        type Links = ShardLinks;

        fn runtime(&mut self) -> &mut CoreRuntime<ShardLinks> {
            &mut self.runtime
        }

        fn handle_events(&mut self, now: Now) {
            assert!(!self.runtime.mailbox().has_work(), "messages come before what was read");
            self.steps.push("events");
            self.runtime.service.received(self.conn, &self.request, now);
        }

        fn accept(&mut self, _: Now) {
            self.steps.push("accept");
        }

        fn look_for_lost_hosts(&mut self, _: Now) {
            self.steps.push("lost hosts");
        }

        fn attach_migrated(&mut self, _: ConnId, _: Socket, _: Now) {
            self.steps.push("attach");
        }

        fn take_unfinished(&mut self) -> Vec<ConnId> {
            std::mem::take(&mut self.unfinished)
        }

        fn flush(&mut self, conn: ConnId, now: Now) {
            assert!(self.other.has_work(), "messages are sent before replies leave");
            self.steps.push("flush");
            while let Some((chunk, _)) = self.runtime.service.take(conn) {
                self.runtime.service.sent(conn, chunk, now);
            }
        }

        fn acknowledge(&mut self, _: usize) {
            self.steps.push("acknowledge");
        }
    }

    #[test]
    fn messages_come_before_reads_and_leave_before_replies() {
        let mut driver = Recorder::new();
        driver
            .other
            .send(0, Envelope::Message(Message::Gone(HomeConnId::of(ConnId::from_number(7)))));
        driver.turn(NOW).unwrap();
        assert_eq!(driver.steps, ["events", "accept", "lost hosts", "flush"]);
    }

    #[test]
    fn replies_leave_before_anything_is_acknowledged_at_once() {
        let (mut driver, mut stalls) = (Recorder::new(), Stalls::new(true));
        for now_ms in [1000, 1044, 1088] {
            let key = (0, driver.conn);
            driver.runtime.quick_acks.received(&mut stalls, key, 12, now_ms);
        }
        driver.turn(NOW).unwrap();
        assert_eq!(driver.steps[3..], ["flush", "acknowledge"]);
    }

    /// A connection with more to write than its share was written to next before the messages of
    /// the requests in between were sent.
    #[test]
    fn messages_leave_before_the_rest_of_what_an_earlier_turn_had_to_write() {
        let mut driver = Recorder::new();
        driver.unfinished.push(driver.conn);
        driver.turn(NOW).unwrap();
        assert_eq!(driver.steps[3..], ["flush", "flush"]);
    }
}
