//! What the shards do in a call: what they have for peers and store in, the model's view of it out.
//!
//! Counts what was handled in a call, and has the model go through that and what came of it. Knows
//! no choices. Invariant: after each call the model has seen everything that the shards sent.

use std::collections::VecDeque;
use std::fmt::Write;
use std::hash::Hash;

use ringgear::engine::{ConnId, Now};
use ringgear::shard::Intake;

use super::{CERTAINLY_READ_REPLIES, ENDING_BYTES, MUCH_UNREAD_BYTES, REPLIES_MAX, Seen, World};
use crate::mesh::Mesh;
use crate::model::Output;
use crate::wire::{Packet, Request};

impl World {
    /// Calls the shard, and has the model look at everything that came of it.
    pub(super) fn call(&mut self, conn: Option<ConnId>, what: impl FnOnce(&mut Mesh, Now)) {
        what(&mut self.mesh, self.now);
        let (own, others) = self.collect(conn);
        if let Some(conn) = conn {
            self.handled(conn, own);
            self.end_one(conn);
        } else {
            assert_eq!(own.frames, 0, "requests of nobody");
            self.model.tick(self.now);
        }
        self.settle(others);
    }

    /// The end of every call. Requests of the flooding connection may have been handled in it, too.
    pub(super) fn settle(&mut self, others: Seen) {
        self.model.check_replies();
        if others.frames + others.malformed > 0 {
            let Some(conn) = self.flooding else { panic!("requests of nobody") };
            self.model.tally.count("resumed");
            self.handled(conn, others);
            self.model.check_replies();
        }
        for conn in self.conns.keys().copied().collect::<Vec<_>>() {
            self.end_one(conn);
            self.check_pause(conn);
        }
        let floods = |&conn: &ConnId| {
            !self.conns[&conn].requests.is_empty()
                || self.mesh.intake(conn) == Intake::Pause
                || self.model.open_replies(conn) > CERTAINLY_READ_REPLIES
        };
        self.flooding = self.flooding.filter(floods);
        self.model.end();
    }

    /// A connection that has sent all and got all replies that had to wait is gone for all others.
    fn end_one(&mut self, conn: ConnId) {
        let peer = &self.conns[&conn];
        if peer.ended
            && !self.model.has_left(conn)
            && !peer.ledger.is_waiting()
            && peer.unsent_bytes <= ENDING_BYTES
        {
            self.model.leave(conn);
        }
    }

    /// A connection that nothing waits for is listened to; one that waits for too much isn't.
    fn check_pause(&self, conn: ConnId) {
        let peer = &self.conns[&conn];
        let replies = self.model.open_replies(conn);
        assert!(replies <= REPLIES_MAX, "{conn} waits for {replies} replies");
        let replies = peer.ledger.is_waiting();
        // One that moves to another core waits until everything has left.
        let throttled =
            peer.unsent_bytes > 0 && (self.mesh.cores().count > 1 || self.was_short_of_memory());
        let waits = replies || throttled;
        if !waits && !peer.ended && !peer.malformed {
            assert_ne!(self.mesh.intake(conn), Intake::Pause, "{conn} is never listened to again");
        }
    }

    /// The shard has handled more requests of a connection; what else has arrived is handled unless
    /// there is a reason to wait.
    pub(super) fn handled(&mut self, conn: ConnId, more: Seen) {
        for _ in 0..more.frames {
            self.handled_one(conn);
        }
        self.check_handled(conn, more.malformed);
    }

    fn handled_one(&mut self, conn: ConnId) {
        let peer = self.conns.get_mut(&conn).unwrap();
        let Some((_, request)) = peer.requests.pop_front() else {
            panic!("a frame that {conn} didn't send");
        };
        self.model.handle(conn, &request);
        if matches!(request, Request::SixWords | Request::LacksArgument) {
            peer.malformed = true;
        }
    }

    fn check_handled(&mut self, conn: ConnId, malformed: u64) {
        let intake = self.mesh.intake(conn);
        let peer = self.conns.get_mut(&conn).unwrap();
        if malformed > 0 && !peer.malformed {
            let request = peer.requests.pop_front().map(|(_, request)| request);
            assert!(matches!(request, Some(Request::UnknownType)), "malformed: {request:?}");
            peer.malformed = true;
        }
        if peer.malformed {
            assert!(matches!(intake, Intake::Close | Intake::Pause));
        } else if !matches!(intake, Intake::Close | Intake::Pause) || peer.ended {
            let arrived = peer.base + peer.delivered as u64;
            if let Some((end, request)) = peer.requests.front() {
                assert!(*end > arrived, "{request} of {conn} has arrived and isn't handled");
            }
        }
        if peer.delivered > 1 << 16 || peer.delivered == peer.bytes_out.len() {
            peer.base += peer.delivered as u64;
            peer.bytes_out.drain(..peer.delivered);
            peer.delivered = 0;
        }
    }

    /// What has been handled since the last look.
    pub(super) fn look(&mut self) -> Seen {
        let (frames, malformed) = self.mesh.handled();
        let now = Seen { frames, malformed };
        let before = std::mem::replace(&mut self.seen, now);
        Seen { frames: now.frames - before.frames, malformed: now.malformed - before.malformed }
    }

    /// Takes what the shard has for its peers and its store, as a driver does after a batch, and
    /// gives it to the model. Answers with what has been handled before that, and during it.
    pub(super) fn collect(&mut self, acting: Option<ConnId>) -> (Seen, Seen) {
        let own = self.look();
        let ended = self.conns.iter().filter(|(_, peer)| peer.ended).map(|(&conn, _)| conn);
        let mut output = Output { ended: ended.collect(), ..Output::default() };
        let mut dirty: Vec<(ConnId, Vec<u8>)> = Vec::new();
        while let Some(conn) = self.mesh.next_dirty(self.now) {
            let Some(peer) = self.conns.get_mut(&conn) else { panic!("{conn} is gone") };
            let at = dirty.iter().position(|&(other, _)| other == conn).unwrap_or(dirty.len());
            if at == dirty.len() {
                dirty.push((conn, Vec::new()));
            }
            let bytes = &mut dirty[at].1;
            let before = bytes.len();
            while let Some((chunk, more)) = self.mesh.take(conn) {
                bytes.extend_from_slice(chunk.as_ref());
                peer.unsent_bytes += chunk.as_ref().len();
                peer.unsent.push_back(chunk);
                if !more {
                    break;
                }
            }
            if bytes.len() > before {
                (conn, &bytes[before..]).hash(&mut self.hasher);
            }
        }
        for (conn, bytes) in dirty {
            self.note_news(conn, &bytes, &mut output);
            let peer = &self.conns[&conn];
            if self.mesh.intake(conn) == Intake::Close {
                let bytes = peer.unsent_bytes + peer.waiting_bytes;
                if bytes > self.settings.outbox_bytes_max {
                    let said = output.packets.get(&conn).and_then(VecDeque::back);
                    // A reply that was waited for is no reason.
                    let filled = output.filled.get(&conn).into_iter().flatten().flatten();
                    let silent = if filled.count() > 0 { 0 } else { bytes };
                    let before = said.map_or(silent, |last| bytes - last.bytes());
                    let enough = before > self.settings.outbox_bytes_max;
                    // How much of a list came in one piece can't be told.
                    let unclear = matches!(said, Some(Packet::Line(_)));
                    assert!(enough || unclear, "{conn} is closed for {before} bytes");
                    output.slow.insert(conn);
                } else if bytes > MUCH_UNREAD_BYTES && self.was_short_of_memory() {
                    self.model.tally.count("closed: memory is short");
                    output.slow.insert(conn);
                } else {
                    assert!(!peer.ledger.is_waiting(), "{conn} is closed before its replies");
                }
                self.closing.push(conn);
            }
        }
        self.mesh.take_operations(&mut output.operations);
        if let Some(store) = &mut self.store {
            store.queue.extend(output.operations.iter().cloned());
        }
        let memory_bytes = self.mesh.memory_bytes();
        output.memory_bytes = self.memory_bytes.max(memory_bytes);
        self.memory_bytes = memory_bytes;
        output.functions = self.mesh.functions();
        output.starts_ms = self.mesh.starts_ms();
        output.dead = self.mesh.dead_numbers();
        self.check_memory();
        self.model.begin(acting, output);
        let others = self.look();
        if acting.is_some() && self.mesh.cores().count > 1 {
            // No connection floods, and a grab is handled when messages have come and gone.
            let frames = own.frames + others.frames;
            return (Seen { frames, malformed: own.malformed + others.malformed }, Seen::default());
        }
        (own, others)
    }

    /// What a connection has been told in a call, whether or not it waits.
    fn note_news(&mut self, conn: ConnId, bytes: &[u8], output: &mut Output) {
        let peer = self.conns.get_mut(&conn).unwrap();
        let news = peer.ledger.update(bytes, self.mesh.waiting(conn));
        let waiting = self.mesh.waiting(conn);
        peer.waiting_bytes = waiting
            .map(|(reply, behind)| reply.map_or(0, |reply| reply.len()) + behind.len())
            .sum();
        if !bytes.is_empty() || !news.said.is_empty() {
            let mut text = String::new();
            for packet in news.said.iter().take(6) {
                let _ = write!(text, " {packet:?};");
            }
            let waits = if peer.ledger.is_waiting() { " and waits" } else { "" };
            self.trace.add(format!("  {conn} gets {} bytes{waits}:{text}", bytes.len()));
        }
        if !news.said.is_empty() {
            output.packets.insert(conn, news.said.into());
        }
        if !news.filled.is_empty() {
            output.filled.insert(conn, news.filled);
        }
    }

    /// Whether more than three quarters of the memory were taken before the call or after it.
    pub(super) fn was_short_of_memory(&self) -> bool {
        let memory_bytes = self.mesh.memory_bytes().max(self.memory_bytes);
        memory_bytes > self.settings.memory_bytes_max / 4 * 3
    }

    fn check_memory(&self) {
        let job_bytes = self.mesh.job_bytes();
        let record = 256;
        let most = self.settings.memory_bytes_max.max(self.restored_bytes);
        assert!(job_bytes <= most + record, "{job_bytes} bytes of jobs");
        let unsent: usize = self.conns.values().map(|peer| peer.unsent_bytes).sum();
        assert!(self.mesh.memory_bytes() >= job_bytes + unsent, "unsent bytes are counted");
    }
}
