//! The whole server stands still: what its peers said meanwhile is read before time-outs and leases
//! end, as its drivers do.
//!
//! Invariant: a result that came in time is taken, however long the server stood still.

use super::World;
use crate::wire::Request;
use ringgear::wire::Command;

impl World {
    /// Workers finish jobs and peers ask, all while nothing is read and no timer fires.
    pub(super) fn pause(&mut self) {
        if self.flooding.is_some() {
            return;
        }
        let ms = *self.choose(&[1, 150, 2000, 20_000]);
        self.note(|_| format!("it stands still for {ms} ms"));
        let mut finished = Vec::new();
        for conn in self.conns.keys().copied().collect::<Vec<_>>() {
            if !self.can_speak(conn) || !self.conns[&conn].requests.is_empty() {
                continue;
            }
            if let Some(handle) = self.running(conn).first() {
                self.queue(
                    conn,
                    Request::packet(Command::WorkComplete, &[handle], b"in time".to_vec()),
                );
                finished.push((conn, handle.clone()));
            }
            if self.rng.bool() {
                self.ask_something(conn);
            }
        }
        self.now.mono_ms += ms;
        self.now.unix_ms += ms;
        self.model.stand_still(self.now);
        let mut conns: Vec<_> = self.conns.keys().copied().collect();
        self.rng.shuffle(&mut conns);
        for conn in conns {
            self.deliver(conn, usize::MAX);
        }
        for (conn, handle) in finished {
            if self.conns.get(&conn).is_some_and(|peer| peer.requests.is_empty()) {
                assert!(!self.running(conn).contains(&handle), "a result in time is refused");
                self.model.tally.count("finished after a pause");
            }
        }
        self.advance_to(self.now.mono_ms);
    }
}
