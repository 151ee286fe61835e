//! Letters between cores: bounded rings from each core to each other one, and doorbells.
//!
//! Letters in, the same letters out at another core, in order; what a ring has no room for waits at
//! the sender. A core is rung out of its sleep, and only out of that, so under load no system call
//! is made. The rings are `rtrb`'s: single producer, single consumer, with padded and cached
//! indices, checked by its authors under Miri. Knows of what travels only how large it is.
//!
//! Invariant: a letter that was sent and flushed is received, or its receiver is awake or has been
//! rung; `send` and `receive` never block, so two cores that are both congested drain each other.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;
use nix::sys::eventfd::{EfdFlags, EventFd};
use rtrb::{Consumer, Producer, PushError, RingBuffer};

use super::sleep_flag::Doze;
use super::utilization::{self, Busy};

/// Letters that a ring has room for when there are few cores.
const RING_LETTERS_MAX: usize = 1024;
/// The same when there are many.
const RING_LETTERS_MIN: usize = 64;
/// Letters that all the rings out of one core have room for, within these bounds.
const CORE_LETTERS: usize = 16 << 10;
/// A core with more letters that wait for room at one other core than this is congested.
const WAITING_LETTERS_MAX: usize = 4096;
/// So is one with more bytes in such letters.
const WAITING_BYTES_MAX: usize = 16 << 20;
/// Congestion ends when no more is left than this part of either.
const RELIEF_SHARE: usize = 2;

/// What one core has in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Memory, in bytes, with letters that it sent and without those that it got: all cores' sum
    /// is what they take together, one core's may be below zero.
    pub(crate) bytes: isize,
    /// Connections.
    pub(crate) connections: usize,
    /// Jobs that are to be finished before the server may end, with letters that wait for room.
    pub(crate) jobs: usize,
    /// Jobs assigned to workers.
    pub(crate) running: usize,
    /// Jobs left to the next server.
    pub(crate) kept: usize,
    /// The largest outbox beyond 1 MiB; all cores' maximum is what counts.
    pub(crate) largest_unread_bytes: usize,
}

/// A core's `Load` as the other cores see it. Connections come and go so rarely that their line
/// stays in the caches of all cores; the others change with every turn.
#[derive(Debug, Default)]
struct Gauge {
    connections: CachePadded<AtomicUsize>,
    /// See `utilization`; seldom, too.
    busy: CachePadded<AtomicU64>,
    bytes: AtomicIsize,
    jobs: AtomicUsize,
    running: AtomicUsize,
    kept: AtomicUsize,
    largest_unread_bytes: AtomicUsize,
}

#[derive(Debug)]
struct Bell {
    doze: CachePadded<Doze>,
    event: EventFd,
}

/// Wakes one core. Any thread may have a clone.
#[derive(Clone, Debug)]
pub(crate) struct Doorbell(Arc<Bell>);

impl Doorbell {
    fn new() -> std::io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_value_and_flags(0, flags)?;
        Ok(Self(Arc::new(Bell { doze: CachePadded::new(Doze::new()), event })))
    }

    /// Wakes the core if it may be asleep. Comes after whatever it is to find.
    pub(crate) fn ring(&self) {
        if self.0.doze.must_ring_for_work() {
            self.strike();
        }
    }

    /// Wakes the core if it sleeps though it has letters that wait for room.
    fn ring_for_room(&self) {
        if self.0.doze.must_ring_for_room() {
            self.strike();
        }
    }

    fn strike(&self) {
        // It fails only when the count would overflow, and then the descriptor is readable anyway.
        let struck = self.0.event.write(1);
        debug_assert!(matches!(struck, Ok(_) | Err(nix::Error::EAGAIN)), "{struck:?}");
    }
}

/// What one core has for another one.
#[derive(Debug)]
struct Peer<T> {
    core: usize,
    outgoing: Producer<T>,
    /// Letters that found the ring full, the oldest first.
    waiting: VecDeque<T>,
    waiting_bytes: usize,
    congested: bool,
    incoming: Consumer<T>,
    bell: Doorbell,
    /// Letters came into the ring since the bell was last rung.
    unannounced: bool,
}

impl<T> Peer<T> {
    /// Moves letters that wait into the ring; answers how many.
    fn advance(&mut self, bytes: fn(&T) -> usize) -> usize {
        let room = self.outgoing.slots().min(self.waiting.len());
        for letter in self.waiting.drain(..room) {
            self.waiting_bytes -= bytes(&letter);
            let pushed = self.outgoing.push(letter);
            debug_assert!(pushed.is_ok(), "there was room, and nobody else sends");
        }
        self.unannounced |= room > 0;
        room
    }

    fn wait(&mut self, letter: T, bytes: fn(&T) -> usize) {
        self.waiting_bytes += bytes(&letter);
        self.waiting.push_back(letter);
    }

    fn is_congested(&self) -> bool {
        let share = if self.congested { RELIEF_SHARE } else { 1 };
        self.waiting.len() > WAITING_LETTERS_MAX / share
            || self.waiting_bytes > WAITING_BYTES_MAX / share
    }
}

/// One core's end of the mesh.
#[derive(Debug)]
pub(crate) struct Post<T> {
    core: usize,
    /// The other cores, by number.
    peers: Vec<Peer<T>>,
    bell: Doorbell,
    /// By core.
    gauges: Arc<[Gauge]>,
    /// Letters that wait, for all peers together.
    waiting: usize,
    /// Some peer was congested when last asked.
    was_congested: bool,
    /// A letter's size.
    bytes: fn(&T) -> usize,
}

/// Connects so many cores, each with each other one; the posts are in the cores' order. `bytes` is
/// a letter's size, which must not change on its way.
///
/// # Errors
/// If the kernel has no descriptors left for the doorbells.
pub(crate) fn mesh<T: Send>(cores: usize, bytes: fn(&T) -> usize) -> std::io::Result<Vec<Post<T>>> {
    let bells: Vec<Doorbell> =
        (0..cores).map(|_| Doorbell::new()).collect::<std::io::Result<_>>()?;
    let gauges: Arc<[Gauge]> = (0..cores).map(|_| Gauge::default()).collect();
    let others = cores.saturating_sub(1).max(1);
    let room = (CORE_LETTERS / others).clamp(RING_LETTERS_MIN, RING_LETTERS_MAX);
    let post = |core| Post {
        core,
        peers: Vec::with_capacity(others),
        bell: bells[core].clone(),
        gauges: Arc::clone(&gauges),
        waiting: 0,
        was_congested: false,
        bytes,
    };
    let mut posts: Vec<Post<T>> = (0..cores).map(post).collect();
    for low in 0..cores {
        for high in low + 1..cores {
            let (up, from_low) = RingBuffer::new(room);
            let (down, from_high) = RingBuffer::new(room);
            posts[low].peers.push(Peer::new(high, up, from_high, &bells[high]));
            posts[high].peers.push(Peer::new(low, down, from_low, &bells[low]));
        }
    }
    Ok(posts)
}

impl<T> Peer<T> {
    fn new(core: usize, outgoing: Producer<T>, incoming: Consumer<T>, bell: &Doorbell) -> Self {
        Self {
            core,
            outgoing,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            congested: false,
            incoming,
            bell: bell.clone(),
            unannounced: false,
        }
    }
}

impl<T: Send> Post<T> {
    /// This core's number.
    #[must_use]
    pub(crate) fn core(&self) -> usize {
        self.core
    }

    /// The descriptor to poll for reading: this core is wanted.
    #[must_use]
    pub(crate) fn bell_fd(&self) -> BorrowedFd<'_> {
        self.bell.0.event.as_fd()
    }

    /// This core's bell, for threads that leave it something elsewhere than here.
    #[must_use]
    pub(crate) fn doorbell(&self) -> Doorbell {
        self.bell.clone()
    }

    /// Sends a letter. It arrives behind all earlier ones to that core; `flush` makes sure that it
    /// is noticed.
    ///
    /// # Panics
    /// If there is no such core, or it is this one.
    #[inline]
    pub(crate) fn send(&mut self, to: usize, letter: T) {
        assert_ne!(to, self.core, "a core writes no letters to itself");
        let peer = &mut self.peers[to - usize::from(to > self.core)];
        debug_assert_eq!(peer.core, to);
        if !peer.waiting.is_empty() {
            peer.wait(letter, self.bytes);
            self.waiting += 1;
            return;
        }
        match peer.outgoing.push(letter) {
            Ok(()) => peer.unannounced = true,
            Err(PushError::Full(letter)) => {
                peer.wait(letter, self.bytes);
                self.waiting += 1;
            }
        }
    }

    /// Moves on what waits and rings for what was sent: once per turn, each bell at most once.
    #[inline]
    pub(crate) fn flush(&mut self) {
        for peer in &mut self.peers {
            if !peer.waiting.is_empty() {
                self.waiting -= peer.advance(self.bytes);
            }
            if std::mem::take(&mut peer.unannounced) {
                peer.bell.ring();
            }
        }
    }

    /// Cores for which so much waits that clients should cause no more of it, one bit each. What
    /// other cores send has to be received all the same. A core that is congested is woken when
    /// there is room.
    #[inline]
    #[must_use]
    pub(crate) fn congested(&mut self) -> u64 {
        if self.waiting == 0 && !self.was_congested {
            return 0;
        }
        let mut cores = 0;
        for peer in &mut self.peers {
            peer.congested = peer.is_congested();
            cores |= u64::from(peer.congested) << peer.core;
        }
        self.was_congested = cores != 0;
        cores
    }

    /// Hands out letters with the number of the core that sent each: at most `budget`, of which
    /// every other core has the same share. Answers how many.
    #[inline]
    pub(crate) fn receive(&mut self, budget: usize, mut take: impl FnMut(usize, T)) -> usize {
        let share = budget.div_ceil(self.peers.len().max(1));
        let mut received = 0;
        for peer in &mut self.peers {
            let mut left = share;
            while left > 0
                && let Ok(letter) = peer.incoming.pop()
            {
                take(peer.core, letter);
                left -= 1;
            }
            if left < share {
                received += share - left;
                peer.bell.ring_for_room();
            }
        }
        received
    }

    /// Whether other cores have sent letters that weren't received yet, or there is room for some
    /// that wait here.
    #[inline]
    #[must_use]
    pub(crate) fn is_wanted(&self) -> bool {
        self.peers.iter().any(|peer| {
            !peer.incoming.is_empty() || (!peer.waiting.is_empty() && peer.outgoing.slots() > 0)
        })
    }

    /// Letters that wait for room at other cores.
    #[must_use]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Before the core waits in the kernel, after `flush`: announces that it sleeps and looks once
    /// more for letters and room, and with `has_more` for whatever else comes with this bell.
    /// `true` if it may sleep until the bell's descriptor is readable, and then `awake` comes next;
    /// `false` if it has to look for events without waiting. A core that has more to do in any case
    /// needs not ask.
    #[inline]
    pub(crate) fn prepare_to_sleep(&mut self, has_more: impl FnOnce() -> bool) -> bool {
        // Nobody else has the bell: one core, and no other thread.
        if self.peers.is_empty() && Arc::strong_count(&self.bell.0) == 1 {
            return !has_more();
        }
        self.bell.0.doze.announce(self.waiting > 0);
        let may_sleep = !self.is_wanted() && !has_more();
        if !may_sleep {
            self.awake();
        }
        may_sleep
    }

    /// After the core has waited: nobody needs to ring until it sleeps again.
    #[inline]
    pub(crate) fn awake(&mut self) {
        self.bell.0.doze.cancel();
    }

    /// The bell's descriptor was readable: makes it silent again.
    pub(crate) fn answer_bell(&mut self) {
        let count = self.bell.0.event.read();
        debug_assert!(matches!(count, Ok(_) | Err(nix::Error::EAGAIN)), "{count:?}");
    }

    /// Says what this core has in use: once per turn.
    #[inline]
    pub(crate) fn publish(&self, load: Load) {
        let gauge = &self.gauges[self.core];
        // Only this core writes; a line that hasn't changed stays in the others' caches.
        let Gauge { bytes, connections, jobs, running, kept, largest_unread_bytes, .. } = gauge;
        let counts = [
            (&**connections, load.connections),
            (running, load.running),
            (kept, load.kept),
            (jobs, load.jobs),
            (largest_unread_bytes, load.largest_unread_bytes),
        ];
        if bytes.load(Ordering::Relaxed) != load.bytes {
            bytes.store(load.bytes, Ordering::Relaxed);
        }
        for (value, now) in counts {
            if value.load(Ordering::Relaxed) != now {
                // Who reads it sees the letters that were sent before.
                value.store(now, Ordering::Release);
            }
        }
    }

    /// What all the other cores together have in use, as they last published it. Cores that are
    /// busy have written to most of it since: too dear for every turn where there are many.
    #[must_use]
    pub(crate) fn elsewhere(&self) -> Load {
        self.others().fold(Load::default(), |sum, gauge| Load {
            bytes: sum.bytes + gauge.bytes.load(Ordering::Relaxed),
            connections: sum.connections + gauge.connections.load(Ordering::Relaxed),
            jobs: sum.jobs + gauge.jobs.load(Ordering::Acquire),
            running: sum.running + gauge.running.load(Ordering::Relaxed),
            kept: sum.kept + gauge.kept.load(Ordering::Relaxed),
            largest_unread_bytes: sum
                .largest_unread_bytes
                .max(gauge.largest_unread_bytes.load(Ordering::Relaxed)),
        })
    }

    /// Connections of all the other cores together.
    #[inline]
    #[must_use]
    pub(crate) fn connections_elsewhere(&self) -> usize {
        self.others().map(|gauge| gauge.connections.load(Ordering::Relaxed)).sum()
    }

    fn others(&self) -> impl Iterator<Item = &Gauge> {
        let gauges = self.gauges.iter().enumerate();
        gauges.filter(|(core, _)| *core != self.core).map(|(_, gauge)| gauge)
    }

    /// Says how busy this core has been; see `utilization`.
    pub(crate) fn publish_busy(&self, busy: Busy, now_ms: u64) {
        let report = utilization::report(busy, now_ms);
        self.gauges[self.core].busy.store(report, Ordering::Relaxed);
    }

    /// Cores that take in connections of this one whose jobs they have, one bit each: they have
    /// room, and time.
    #[must_use]
    pub(crate) fn hospitable(&self, room: usize, now_ms: u64) -> u64 {
        if self.peers.is_empty() {
            return 0;
        }
        let own = self.busy(self.core, now_ms);
        let takes_in = |core: &usize| utilization::takes_in(self.busy(*core, now_ms), own);
        self.roomy(room).filter(takes_in).fold(0, |mask, core| mask | 1 << core)
    }

    /// The core that should take in connections of this one, which has no time left, if one has.
    #[must_use]
    pub(crate) fn reliever(&self, room: usize, now_ms: u64) -> Option<usize> {
        let busy = |core| self.busy(core, now_ms);
        let others = self.roomy(room).filter(|&core| core != self.core);
        utilization::reliever(busy(self.core), others.map(|core| (core, busy(core))))
    }

    fn busy(&self, core: usize, now_ms: u64) -> Busy {
        utilization::of_report(self.gauges[core].busy.load(Ordering::Relaxed), now_ms)
    }

    /// Cores that have few enough connections to take in more from others: less than a quarter
    /// above an equal share, and than fifteen sixteenths of those that each has room for.
    fn roomy(&self, room: usize) -> impl Iterator<Item = usize> {
        let connections = |core: usize| self.gauges[core].connections.load(Ordering::Relaxed);
        let (count, total) = (self.gauges.len(), (0..self.gauges.len()).map(connections).sum());
        let limit = hospitable_max(count, total, room);
        (0..count).filter(move |&core| connections(core) < limit)
    }
}

/// So many connections a core may have that takes in more: it must have room for new ones, too.
fn hospitable_max(cores: usize, total: usize, room: usize) -> usize {
    (1 + total * 5 / (4 * cores)).min(room - room / 16)
}

const _: () = assert!(RING_LETTERS_MIN <= RING_LETTERS_MAX && RING_LETTERS_MAX <= CORE_LETTERS);

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use mio::unix::SourceFd;
    use mio::{Events, Interest, Poll, Token};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn two<T: Send>() -> (Post<T>, Post<T>) {
        let [one, other] = mesh(2, |_| 1).unwrap().try_into().ok().unwrap();
        (one, other)
    }

    #[test]
    fn cores_take_in_connections_up_to_a_quarter_above_their_share() {
        let (one, other) = two::<u8>();
        let publish = |post: &Post<u8>, connections| {
            post.publish(Load { connections, ..Load::default() });
        };
        assert_eq!(one.hospitable(1000, 0), 0b11, "with nobody anywhere");
        publish(&one, 60);
        publish(&other, 40);
        assert_eq!((one.hospitable(1000, 0), other.hospitable(1000, 0)), (0b11, 0b11));
        publish(&one, 63);
        publish(&other, 37);
        assert_eq!(one.hospitable(1000, 0), 0b10);
        assert_eq!(one.hospitable(39, 0), 0, "37 are too many for new ones to find room");
        assert_eq!(one.hospitable(40, 0), 0b10);
        assert_eq!(hospitable_max(4, 100, 1000), 32);
        assert_eq!(hospitable_max(3, 50_000, 19_936), 18_690);
        let [alone] = mesh::<u8>(1, |_| 1).unwrap().try_into().ok().unwrap();
        assert_eq!(alone.hospitable(1000, 0), 0, "there is nowhere to come from");
        assert_eq!(alone.reliever(1000, 0), None, "nor to go to");
    }

    #[test]
    fn a_core_without_time_takes_nobody_in_and_lets_go_to_one_with_room() {
        let (one, other) = two::<u8>();
        one.publish_busy(1000, 0);
        other.publish_busy(400, 0);
        assert_eq!((one.hospitable(1000, 0), other.hospitable(1000, 0)), (0b11, 0b10));
        assert_eq!((one.reliever(1000, 0), other.reliever(1000, 0)), (Some(1), None));
        other.publish_busy(1000, 0);
        assert_eq!(one.reliever(1000, 0), None);
        one.publish_busy(1000, 1000);
        assert_eq!(one.reliever(1000, 1000), Some(1), "who has said nothing since sleeps");
        other.publish(Load { connections: 100, ..Load::default() });
        assert_eq!(one.reliever(1000, 0), None, "the other one has more than its share");
    }

    fn received<T: Send>(post: &mut Post<T>, budget: usize) -> Vec<(usize, T)> {
        let mut letters = Vec::new();
        let count = post.receive(budget, |from, letter| letters.push((from, letter)));
        assert_eq!(count, letters.len());
        letters
    }

    /// How many times the bell was struck since it was last asked.
    fn strikes<T>(post: &Post<T>) -> u64 {
        post.bell.0.event.read().unwrap_or(0)
    }

    #[test]
    fn letters_arrive_in_order_at_the_core_they_are_for() {
        let mut posts = mesh(4, |_| 1).unwrap();
        for post in &mut posts {
            let others = |core| (0..4).filter(move |&to| to != core);
            (0..3).for_each(|letter| {
                others(post.core).for_each(|to| post.send(to, (to, letter)));
            });
        }
        for (core, post) in posts.iter_mut().enumerate() {
            assert_eq!(post.core, core);
            let others = (0..4).filter(|&from| from != core);
            let expected = others.flat_map(|from| [0, 1, 2].map(|letter| (from, (core, letter))));
            assert!(received(post, 100).into_iter().eq(expected));
        }
    }

    #[test]
    fn every_core_has_the_same_share_of_a_budget() {
        let mut posts = mesh(3, |_| 1).unwrap();
        (0..100).for_each(|letter| posts[0].send(2, letter));
        posts[1].send(2, 0);
        assert_eq!(received(&mut posts[2], 20).iter().map(|(from, _)| *from).max(), Some(1));
        assert_eq!(received(&mut posts[2], 20).len(), 10);
    }

    #[test]
    fn what_has_no_room_waits_in_its_place_and_congests() {
        let (mut one, mut other) = two();
        let letters = RING_LETTERS_MAX + WAITING_LETTERS_MAX;
        (0..letters).for_each(|letter| one.send(1, letter));
        assert_eq!(one.congested(), 0);
        one.send(1, letters);
        assert_eq!(one.congested(), 1 << 1);
        assert_eq!(other.congested(), 0, "the other way is free");
        let mut next = 0;
        while next <= letters {
            let batch = received(&mut other, 100);
            assert!(!batch.is_empty());
            // What was sent later stands behind what waits.
            batch.into_iter().for_each(|(_, letter)| {
                assert_eq!(letter, next);
                next += 1;
            });
            one.flush();
            // It ends when half has gone, so that it doesn't begin anew with the next letter.
            let congested = one.waiting > WAITING_LETTERS_MAX / RELIEF_SHARE;
            assert_eq!(one.congested(), u64::from(congested) << 1);
        }
        assert_eq!((one.waiting, one.peers[0].waiting_bytes), (0, 0));
        assert_eq!(received(&mut other, 1).len(), 0);
    }

    #[test]
    fn few_large_letters_congest_as_many_small_ones_do_and_one_core_only() {
        let mut posts = mesh::<usize>(3, |bytes| *bytes).unwrap();
        let large = WAITING_BYTES_MAX / 4;
        (0..RING_LETTERS_MAX + 4).for_each(|_| posts[0].send(2, large));
        assert_eq!(posts[0].congested(), 0);
        posts[0].send(2, 1);
        posts[0].send(1, large);
        assert_eq!(posts[0].congested(), 1 << 2);
        assert_eq!(posts[2].receive(6, |_, _| ()), 3);
        posts[0].flush();
        assert_eq!(posts[0].congested(), 0, "a quarter and a byte wait");
    }

    #[test]
    fn letters_that_are_never_received_are_dropped_with_the_mesh() {
        let letter = Arc::new(());
        let (mut one, other) = two();
        (0..RING_LETTERS_MAX + 5).for_each(|_| one.send(1, Arc::clone(&letter)));
        drop((one, other));
        assert_eq!(Arc::strong_count(&letter), 1);
    }

    #[test]
    fn what_a_core_sent_before_its_end_is_received() {
        let (mut one, mut other) = two();
        one.send(1, 'a');
        one.flush();
        drop(one);
        assert!(!other.prepare_to_sleep(|| false));
        assert_eq!(received(&mut other, 1), [(0, 'a')]);
    }

    #[test]
    fn a_bell_is_struck_once_and_only_for_a_sleeper() {
        let (mut one, mut other) = two();
        one.send(1, 'a');
        one.flush();
        assert_eq!(strikes(&other), 0, "it is awake");
        assert!(!other.prepare_to_sleep(|| false), "a letter is there");
        received(&mut other, 1);
        assert!(!other.prepare_to_sleep(|| true), "something else is");
        one.send(1, 'b');
        one.flush();
        assert_eq!(strikes(&other), 0, "it didn't sleep");
        received(&mut other, 1);

        assert!(other.prepare_to_sleep(|| false));
        one.flush();
        assert_eq!(strikes(&other), 0, "nothing was sent");
        one.send(1, 'c');
        assert_eq!(strikes(&other), 0, "not before the turn's end");
        one.flush();
        one.send(1, 'd');
        one.flush();
        other.doorbell().ring();
        assert_eq!(strikes(&other), 1);
        other.awake();
        assert_eq!(received(&mut other, 2).len(), 2);
        assert!(other.prepare_to_sleep(|| false));
        other.doorbell().ring();
        assert_eq!(strikes(&other), 1);
    }

    #[test]
    fn a_sender_is_woken_when_there_is_room_again() {
        let (mut one, mut other) = two();
        (0..=RING_LETTERS_MAX).for_each(|letter| one.send(1, letter));
        one.flush();
        assert!(one.prepare_to_sleep(|| false));
        received(&mut other, 1);
        assert_eq!(strikes(&one), 1);
        one.awake();
        assert!(!one.prepare_to_sleep(|| false), "it can move on what waits");
        one.flush();
        assert!(one.prepare_to_sleep(|| false));
        received(&mut other, 1);
        assert_eq!(strikes(&one), 0, "nothing of it waits");
    }

    #[test]
    fn each_core_knows_what_the_others_use() {
        let posts = mesh::<()>(3, |()| 0).unwrap();
        posts[0].publish(Load {
            bytes: 1,
            connections: 10,
            jobs: 1,
            largest_unread_bytes: 5,
            ..Load::default()
        });
        posts[1].publish(Load {
            bytes: -2,
            connections: 20,
            jobs: 2,
            largest_unread_bytes: 9,
            ..Load::default()
        });
        posts[2].publish(Load {
            bytes: 4,
            connections: 40,
            jobs: 4,
            largest_unread_bytes: 0,
            ..Load::default()
        });
        posts[1].publish(Load {
            bytes: -3,
            connections: 20,
            jobs: 3,
            largest_unread_bytes: 7,
            ..Load::default()
        });
        assert_eq!(
            posts[0].elsewhere(),
            Load { bytes: 1, connections: 60, jobs: 7, largest_unread_bytes: 7, ..Load::default() }
        );
        assert_eq!(
            posts[2].elsewhere(),
            Load {
                bytes: -2,
                connections: 30,
                jobs: 4,
                largest_unread_bytes: 7,
                ..Load::default()
            }
        );
    }

    #[test]
    fn one_core_alone_sleeps_until_another_thread_rings() {
        let mut post = mesh::<()>(1, |()| 0).unwrap().pop().unwrap();
        assert!(post.peers.is_empty());
        assert_eq!((post.elsewhere(), post.receive(9, |_, ()| {})), (Load::default(), 0));
        assert!(!post.prepare_to_sleep(|| true) && post.prepare_to_sleep(|| false));
        let (bell, (outcome, outcomes)) = (post.doorbell(), std::sync::mpsc::channel());
        let thread = std::thread::spawn(move || {
            outcome.send(7).unwrap();
            bell.ring();
        });
        let mut sleeper = Sleeper::new(&post);
        let mut found = None;
        while found.is_none() {
            if post.prepare_to_sleep(|| {
                found = outcomes.try_recv().ok();
                found.is_some()
            }) {
                sleeper.sleep(&mut post);
            }
        }
        assert_eq!(found, Some(7));
        thread.join().unwrap();
    }

    /// What a driver does to sleep.
    struct Sleeper {
        poll: Poll,
        events: Events,
        deadline: Instant,
    }

    impl Sleeper {
        fn new<T: Send>(post: &Post<T>) -> Self {
            use std::os::fd::AsRawFd as _;
            let poll = Poll::new().unwrap();
            let fd = post.bell_fd().as_raw_fd();
            poll.registry().register(&mut SourceFd(&fd), Token(0), Interest::READABLE).unwrap();
            Self { poll, events: Events::with_capacity(4), deadline: Instant::now() + DEADLINE }
        }

        fn sleep<T: Send>(&mut self, post: &mut Post<T>) {
            let left = self.deadline.saturating_duration_since(Instant::now());
            self.poll.poll(&mut self.events, Some(left)).unwrap();
            assert!(!self.events.is_empty(), "core {} was never rung", post.core);
            post.awake();
            post.answer_bell();
        }
    }

    #[test]
    fn sleepers_are_woken_and_congested_cores_drain_each_other() {
        const LETTERS: usize = 30_000;
        const CORES: usize = 3;
        let posts = mesh(CORES, |_| 1).unwrap();
        let run = |mut post: Post<usize>| {
            let mut sleeper = Sleeper::new(&post);
            let (mut sent, mut next) = (0, [0; CORES]);
            // Bursts of any length, so that rings run empty and full.
            let mut random = fastrand::Rng::with_seed(post.core as u64);
            loop {
                let burst_max = 1 << random.u32(..13);
                let burst = random.usize(..burst_max).min(LETTERS - sent);
                for letter in sent..sent + burst {
                    let others = (0..CORES).filter(|&to| to != post.core);
                    others.collect::<Vec<_>>().into_iter().for_each(|to| post.send(to, letter));
                }
                sent += burst;
                post.flush();
                post.receive(random.usize(1..500), |from, letter| {
                    assert_eq!(letter, next[from]);
                    next[from] += 1;
                });
                let done = sent == LETTERS && next.iter().sum::<usize>() == 2 * LETTERS;
                if done && post.waiting == 0 {
                    break post;
                }
                let congested = post.congested() != 0;
                if (sent == LETTERS || congested) && post.prepare_to_sleep(|| false) {
                    sleeper.sleep(&mut post);
                }
            }
        };
        let threads = posts.into_iter().map(|post| std::thread::spawn(move || run(post)));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().for_each(|thread| drop(thread.join().unwrap()));
    }
}
