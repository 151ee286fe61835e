//! Messages between cores: a bounded ring from each core to each other one, and a waker per core.
//!
//! Messages in, the same messages out at another core, in order; what a ring has no space for waits
//! at the sender. A core is woken only while it sleeps, so under load no system call is made. The
//! rings are `rtrb`'s: single producer, single consumer, with padded and cached indices, checked by
//! its authors under Miri. Of the messages it knows only their sizes.
//!
//! Invariant: after `send` and `flush` the receiver has the message, is awake, or has been woken.
//! `send` and `receive` never block, so two cores that are both congested drain each other.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crossbeam_utils::CachePadded;
use nix::sys::eventfd::{EfdFlags, EventFd};
use rtrb::{Consumer, Producer, PushError, RingBuffer};

use super::sleep_flag::SleepFlag;
use crate::shard::cores::CoreSet;

/// Messages that fit a ring when there are few cores.
const RING_MESSAGES_MAX: usize = 1024;
/// The same when there are many.
const RING_MESSAGES_MIN: usize = 64;
/// Messages that fit all rings out of one core together, within these bounds.
const CORE_MESSAGES: usize = 16 << 10;
/// A core is congested when more messages than this wait at it for one other core.
const CONGESTED_MESSAGES: usize = 4096;
/// The same for the bytes of these messages.
const CONGESTED_BYTES: usize = 16 << 20;
/// Congestion ends when both are down to this part of their limits, so that it doesn't begin again
/// with the next message.
const CONGESTION_END_DIVISOR: usize = 2;

/// What wakes a core: the flag says whether it may sleep, the event ends the sleep.
#[derive(Debug)]
struct Wakeup {
    flag: CachePadded<SleepFlag>,
    event: EventFd,
}

/// Wakes one core. Any thread may have a clone.
#[derive(Clone, Debug)]
pub(crate) struct CoreWaker(Arc<Wakeup>);

impl CoreWaker {
    fn new() -> std::io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_value_and_flags(0, flags)?;
        Ok(Self(Arc::new(Wakeup { flag: CachePadded::new(SleepFlag::new()), event })))
    }

    /// Wakes the core if it may be asleep. Must be called after the work for it was left.
    pub(crate) fn wake(&self) {
        if self.0.flag.must_wake_for_work() {
            self.signal();
        }
    }

    /// Wakes the core if it sleeps while messages wait at it for space in a ring.
    fn wake_for_space(&self) {
        if self.0.flag.must_wake_for_space() {
            self.signal();
        }
    }

    fn signal(&self) {
        // Fails only when the count would overflow, and then the descriptor is readable anyway.
        let written = self.0.event.write(1);
        debug_assert!(matches!(written, Ok(_) | Err(nix::Error::EAGAIN)), "{written:?}");
    }
}

/// One core's connection to another one.
#[derive(Debug)]
struct Peer<T> {
    core: usize,
    outgoing: Producer<T>,
    /// Messages that found the ring full, the oldest first.
    overflow: VecDeque<T>,
    overflow_bytes: usize,
    congested: bool,
    incoming: Consumer<T>,
    waker: CoreWaker,
    /// Messages were put into the ring since the other core was last woken.
    unannounced: bool,
}

impl<T> Peer<T> {
    fn new(core: usize, outgoing: Producer<T>, incoming: Consumer<T>, waker: &CoreWaker) -> Self {
        Self {
            core,
            outgoing,
            overflow: VecDeque::new(),
            overflow_bytes: 0,
            congested: false,
            incoming,
            waker: waker.clone(),
            unannounced: false,
        }
    }

    /// Moves overflow into the ring as far as it fits; returns the number of messages moved.
    fn drain_overflow(&mut self, message_bytes: fn(&T) -> usize) -> usize {
        let count = self.outgoing.slots().min(self.overflow.len());
        for message in self.overflow.drain(..count) {
            self.overflow_bytes -= message_bytes(&message);
            let pushed = self.outgoing.push(message);
            debug_assert!(pushed.is_ok(), "there was space, and no other thread sends here");
        }
        self.unannounced |= count > 0;
        count
    }

    fn push_overflow(&mut self, message: T, message_bytes: fn(&T) -> usize) {
        self.overflow_bytes += message_bytes(&message);
        self.overflow.push_back(message);
    }

    fn is_congested(&self) -> bool {
        let divisor = if self.congested { CONGESTION_END_DIVISOR } else { 1 };
        self.overflow.len() > CONGESTED_MESSAGES / divisor
            || self.overflow_bytes > CONGESTED_BYTES / divisor
    }
}

/// One core's end of the mesh.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    core: usize,
    /// The other cores, by number.
    peers: Vec<Peer<T>>,
    waker: CoreWaker,
    /// Messages that wait for space, for all peers together.
    overflow: usize,
    /// Some peer was congested when `update_congestion` was last called.
    was_congested: bool,
    /// Returns a message's size.
    message_bytes: fn(&T) -> usize,
}

/// Connects `cores` cores, each with each other one; the mailboxes are in the cores' order.
/// `message_bytes` returns a message's size, which must not change between `send` and `receive`.
///
/// # Errors
/// If the kernel has no descriptors left for the wakers.
pub(crate) fn mesh<T: Send>(
    cores: usize,
    message_bytes: fn(&T) -> usize,
) -> std::io::Result<Vec<Mailbox<T>>> {
    let wakers: Vec<CoreWaker> =
        (0..cores).map(|_| CoreWaker::new()).collect::<std::io::Result<_>>()?;
    let others = cores.saturating_sub(1).max(1);
    let capacity = (CORE_MESSAGES / others).clamp(RING_MESSAGES_MIN, RING_MESSAGES_MAX);
    let mailbox = |core| Mailbox {
        core,
        peers: Vec::with_capacity(others),
        waker: CoreWaker::clone(&wakers[core]),
        overflow: 0,
        was_congested: false,
        message_bytes,
    };
    let mut mailboxes: Vec<Mailbox<T>> = (0..cores).map(mailbox).collect();
    for low in 0..cores {
        for high in low + 1..cores {
            let (up, from_low) = RingBuffer::new(capacity);
            let (down, from_high) = RingBuffer::new(capacity);
            mailboxes[low].peers.push(Peer::new(high, up, from_high, &wakers[high]));
            mailboxes[high].peers.push(Peer::new(low, down, from_low, &wakers[low]));
        }
    }
    Ok(mailboxes)
}

impl<T: Send> Mailbox<T> {
    /// This core's number.
    pub(crate) fn core(&self) -> usize {
        self.core
    }

    /// The descriptor that is readable once this core was woken.
    pub(crate) fn wakeup_fd(&self) -> BorrowedFd<'_> {
        self.waker.0.event.as_fd()
    }

    /// This core's waker, for threads that leave work in other places than this mailbox.
    pub(crate) fn waker(&self) -> CoreWaker {
        self.waker.clone()
    }

    /// Sends a message. It arrives behind all earlier ones to that core; `flush` wakes the core.
    ///
    /// # Panics
    /// If there is no such core, or it is this one.
    #[inline]
    pub(crate) fn send(&mut self, to: usize, message: T) {
        assert_ne!(to, self.core, "a core sends no messages to itself");
        let peer = &mut self.peers[to - usize::from(to > self.core)];
        debug_assert_eq!(peer.core, to);
        if !peer.overflow.is_empty() {
            peer.push_overflow(message, self.message_bytes);
            self.overflow += 1;
            return;
        }
        match peer.outgoing.push(message) {
            Ok(()) => peer.unannounced = true,
            Err(PushError::Full(message)) => {
                peer.push_overflow(message, self.message_bytes);
                self.overflow += 1;
            }
        }
    }

    /// Moves overflow into the rings and wakes the receivers of what was sent: once a turn, each
    /// receiver at most once.
    #[inline]
    pub(crate) fn flush(&mut self) {
        for peer in &mut self.peers {
            if !peer.overflow.is_empty() {
                self.overflow -= peer.drain_overflow(self.message_bytes);
            }
            if std::mem::take(&mut peer.unannounced) {
                peer.waker.wake();
            }
        }
    }

    /// Returns the cores for which so much waits here that clients should cause no more of it. What
    /// other cores send has to be received all the same. A congested core is woken when there is
    /// space.
    #[inline]
    pub(crate) fn update_congestion(&mut self) -> CoreSet {
        if self.overflow == 0 && !self.was_congested {
            return CoreSet::default();
        }
        let mut cores = CoreSet::default();
        for peer in &mut self.peers {
            peer.congested = peer.is_congested();
            if peer.congested {
                cores.insert(peer.core);
            }
        }
        self.was_congested = !cores.is_empty();
        cores
    }

    /// Passes received messages to `take`, each with the number of the core that sent it: at most
    /// `budget`, of which every other core has the same share. Returns their number.
    #[inline]
    pub(crate) fn receive(&mut self, budget: usize, mut take: impl FnMut(usize, T)) -> usize {
        let share = budget.div_ceil(self.peers.len().max(1));
        let mut received = 0;
        for peer in &mut self.peers {
            let mut left = share;
            while left > 0
                && let Ok(message) = peer.incoming.pop()
            {
                take(peer.core, message);
                left -= 1;
            }
            if left < share {
                received += share - left;
                peer.waker.wake_for_space();
            }
        }
        received
    }

    /// Whether there are messages to receive, or space for some that wait here.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        self.peers.iter().any(|peer| {
            !peer.incoming.is_empty() || (!peer.overflow.is_empty() && peer.outgoing.slots() > 0)
        })
    }

    /// Messages that wait here for space in rings.
    pub(crate) fn overflow(&self) -> usize {
        self.overflow
    }

    /// Announces that the core is about to wait in the kernel, then looks once more for messages
    /// and space, and with `has_more` for all other work that comes with this waker. Must be called
    /// after `flush`. `true`: the core may wait until `wakeup_fd` is readable, and then calls
    /// `mark_awake`; `false`: it must not wait. A core that won't wait in any case needn't call it.
    #[inline]
    pub(crate) fn prepare_to_sleep(&mut self, has_more: impl FnOnce() -> bool) -> bool {
        // No other thread has a waker: there is one core and no store.
        if self.peers.is_empty() && Arc::strong_count(&self.waker.0) == 1 {
            return !has_more();
        }
        self.waker.0.flag.announce_sleep(self.overflow > 0);
        let may_sleep = !self.has_work() && !has_more();
        if !may_sleep {
            self.mark_awake();
        }
        may_sleep
    }

    /// After the core has waited: other threads needn't wake it until it sleeps again.
    #[inline]
    pub(crate) fn mark_awake(&mut self) {
        self.waker.0.flag.mark_awake();
    }

    /// Makes `wakeup_fd` unreadable again.
    pub(crate) fn clear_wakeup(&mut self) {
        let count = self.waker.0.event.read();
        debug_assert!(matches!(count, Ok(_) | Err(nix::Error::EAGAIN)), "{count:?}");
    }
}

const _: () = assert!(RING_MESSAGES_MIN <= RING_MESSAGES_MAX && RING_MESSAGES_MAX <= CORE_MESSAGES);

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use mio::unix::SourceFd;
    use mio::{Events, Interest, Poll, Token};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn two<T: Send>() -> (Mailbox<T>, Mailbox<T>) {
        let [one, other] = mesh(2, |_| 1).unwrap().try_into().ok().unwrap();
        (one, other)
    }

    fn received<T: Send>(mailbox: &mut Mailbox<T>, budget: usize) -> Vec<(usize, T)> {
        let mut messages = Vec::new();
        let count = mailbox.receive(budget, |from, message| messages.push((from, message)));
        assert_eq!(count, messages.len());
        messages
    }

    /// How many times the core was woken since the last call.
    fn wakeups<T>(mailbox: &Mailbox<T>) -> u64 {
        mailbox.waker.0.event.read().unwrap_or(0)
    }

    #[test]
    fn messages_arrive_in_order_at_the_core_they_are_for() {
        let mut mailboxes = mesh(4, |_| 1).unwrap();
        for mailbox in &mut mailboxes {
            let others = |core| (0..4).filter(move |&to| to != core);
            (0..3).for_each(|message| {
                others(mailbox.core).for_each(|to| mailbox.send(to, (to, message)));
            });
        }
        for (core, mailbox) in mailboxes.iter_mut().enumerate() {
            assert_eq!(mailbox.core, core);
            let others = (0..4).filter(|&from| from != core);
            let expected = others.flat_map(|from| [0, 1, 2].map(|message| (from, (core, message))));
            assert!(received(mailbox, 100).into_iter().eq(expected));
        }
    }

    #[test]
    fn every_core_has_the_same_share_of_a_budget() {
        let mut mailboxes = mesh(3, |_| 1).unwrap();
        (0..100).for_each(|message| mailboxes[0].send(2, message));
        mailboxes[1].send(2, 0);
        assert_eq!(received(&mut mailboxes[2], 20).iter().map(|(from, _)| *from).max(), Some(1));
        assert_eq!(received(&mut mailboxes[2], 20).len(), 10);
    }

    #[test]
    fn what_has_no_space_waits_in_order_and_congests() {
        let (mut one, mut other) = two();
        let messages = RING_MESSAGES_MAX + CONGESTED_MESSAGES;
        (0..messages).for_each(|message| one.send(1, message));
        assert!(one.update_congestion().is_empty());
        one.send(1, messages);
        assert_eq!(one.update_congestion(), CoreSet::of(1));
        assert!(other.update_congestion().is_empty(), "the other way is free");
        let mut next = 0;
        while next <= messages {
            let batch = received(&mut other, 100);
            assert!(!batch.is_empty());
            // Messages that were sent later are behind those that waited.
            batch.into_iter().for_each(|(_, message)| {
                assert_eq!(message, next);
                next += 1;
            });
            one.flush();
            // It ends when half has gone, so that it doesn't begin anew with the next message.
            let congested = one.overflow > CONGESTED_MESSAGES / CONGESTION_END_DIVISOR;
            assert_eq!(one.update_congestion().contains(1), congested);
        }
        assert_eq!((one.overflow, one.peers[0].overflow_bytes), (0, 0));
        assert_eq!(received(&mut other, 1).len(), 0);
    }

    #[test]
    fn few_large_messages_congest_as_many_small_ones_do_and_one_core_only() {
        let mut mailboxes = mesh::<usize>(3, |bytes| *bytes).unwrap();
        let large = CONGESTED_BYTES / 4;
        (0..RING_MESSAGES_MAX + 4).for_each(|_| mailboxes[0].send(2, large));
        assert!(mailboxes[0].update_congestion().is_empty());
        mailboxes[0].send(2, 1);
        mailboxes[0].send(1, large);
        assert_eq!(mailboxes[0].update_congestion(), CoreSet::of(2));
        assert_eq!(mailboxes[2].receive(6, |_, _| ()), 3);
        mailboxes[0].flush();
        assert!(mailboxes[0].update_congestion().is_empty(), "a quarter and a byte wait");
    }

    #[test]
    fn messages_that_are_never_received_are_dropped_with_the_mesh() {
        let message = Arc::new(());
        let (mut one, other) = two();
        (0..RING_MESSAGES_MAX + 5).for_each(|_| one.send(1, Arc::clone(&message)));
        drop((one, other));
        assert_eq!(Arc::strong_count(&message), 1);
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
    fn a_core_is_woken_once_and_only_while_it_sleeps() {
        let (mut one, mut other) = two();
        one.send(1, 'a');
        one.flush();
        assert_eq!(wakeups(&other), 0, "it is awake");
        assert!(!other.prepare_to_sleep(|| false), "a message is there");
        received(&mut other, 1);
        assert!(!other.prepare_to_sleep(|| true), "something else is");
        one.send(1, 'b');
        one.flush();
        assert_eq!(wakeups(&other), 0, "it didn't sleep");
        received(&mut other, 1);

        assert!(other.prepare_to_sleep(|| false));
        one.flush();
        assert_eq!(wakeups(&other), 0, "nothing was sent");
        one.send(1, 'c');
        assert_eq!(wakeups(&other), 0, "not before the turn's end");
        one.flush();
        one.send(1, 'd');
        one.flush();
        other.waker().wake();
        assert_eq!(wakeups(&other), 1);
        other.mark_awake();
        assert_eq!(received(&mut other, 2).len(), 2);
        assert!(other.prepare_to_sleep(|| false));
        other.waker().wake();
        assert_eq!(wakeups(&other), 1);
    }

    #[test]
    fn a_sender_is_woken_when_there_is_space_again() {
        let (mut one, mut other) = two();
        (0..=RING_MESSAGES_MAX).for_each(|message| one.send(1, message));
        one.flush();
        assert!(one.prepare_to_sleep(|| false));
        received(&mut other, 1);
        assert_eq!(wakeups(&one), 1);
        one.mark_awake();
        assert!(!one.prepare_to_sleep(|| false), "it can move on what waits");
        one.flush();
        assert!(one.prepare_to_sleep(|| false));
        received(&mut other, 1);
        assert_eq!(wakeups(&one), 0, "nothing of it waits");
    }

    #[test]
    fn one_core_alone_sleeps_until_another_thread_wakes_it() {
        let mut mailbox = mesh::<()>(1, |()| 0).unwrap().pop().unwrap();
        assert!(mailbox.peers.is_empty());
        assert_eq!(mailbox.receive(9, |_, ()| {}), 0);
        assert!(!mailbox.prepare_to_sleep(|| true) && mailbox.prepare_to_sleep(|| false));
        let (waker, (outcome, outcomes)) = (mailbox.waker(), std::sync::mpsc::channel());
        let thread = std::thread::spawn(move || {
            outcome.send(7).unwrap();
            waker.wake();
        });
        let mut sleeper = Sleeper::new(&mailbox);
        let mut found = None;
        while found.is_none() {
            if mailbox.prepare_to_sleep(|| {
                found = outcomes.try_recv().ok();
                found.is_some()
            }) {
                sleeper.sleep(&mut mailbox);
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
        fn new<T: Send>(mailbox: &Mailbox<T>) -> Self {
            use std::os::fd::AsRawFd as _;
            let poll = Poll::new().unwrap();
            let fd = mailbox.wakeup_fd().as_raw_fd();
            poll.registry().register(&mut SourceFd(&fd), Token(0), Interest::READABLE).unwrap();
            Self { poll, events: Events::with_capacity(4), deadline: Instant::now() + DEADLINE }
        }

        fn sleep<T: Send>(&mut self, mailbox: &mut Mailbox<T>) {
            let left = self.deadline.saturating_duration_since(Instant::now());
            self.poll.poll(&mut self.events, Some(left)).unwrap();
            assert!(!self.events.is_empty(), "core {} was never woken", mailbox.core);
            mailbox.mark_awake();
            mailbox.clear_wakeup();
        }
    }

    #[test]
    fn sleepers_are_woken_and_congested_cores_drain_each_other() {
        const MESSAGES: usize = 30_000;
        const CORES: usize = 3;
        let mailboxes = mesh(CORES, |_| 1).unwrap();
        let run = |mut mailbox: Mailbox<usize>| {
            let mut sleeper = Sleeper::new(&mailbox);
            let (mut sent, mut next) = (0, [0; CORES]);
            // Bursts of any length, so that rings run empty and full.
            let mut random = fastrand::Rng::with_seed(mailbox.core as u64);
            loop {
                let burst_max = 1 << random.u32(..13);
                let burst = random.usize(..burst_max).min(MESSAGES - sent);
                for message in sent..sent + burst {
                    let others = (0..CORES).filter(|&to| to != mailbox.core);
                    others.collect::<Vec<_>>().into_iter().for_each(|to| mailbox.send(to, message));
                }
                sent += burst;
                mailbox.flush();
                mailbox.receive(random.usize(1..500), |from, message| {
                    assert_eq!(message, next[from]);
                    next[from] += 1;
                });
                let done = sent == MESSAGES && next.iter().sum::<usize>() == 2 * MESSAGES;
                if done && mailbox.overflow == 0 {
                    break mailbox;
                }
                let congested = !mailbox.update_congestion().is_empty();
                if (sent == MESSAGES || congested) && mailbox.prepare_to_sleep(|| false) {
                    sleeper.sleep(&mut mailbox);
                }
            }
        };
        let threads = mailboxes.into_iter().map(|mailbox| std::thread::spawn(move || run(mailbox)));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().for_each(|thread| drop(thread.join().unwrap()));
    }
}
