//! What a connection is doing, and until when it may: sends heads in time, reads what it is sent,
//! isn't idle for ever. How many connections there are.
//!
//! Events in, the end of the connection's time out. Knows no endpoint and no socket.
//!
//! Invariant: a connection is counted once, as busy or as waiting.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

/// How long a client may take for the head of a request.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may be idle between requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may take nothing of what it is sent.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Most connections that aren't waiting for the result of a job or for events.
const BUSY_MAX: usize = 1024;
/// Most connections: besides, there are those that wait.
pub(in crate::ops) const CONNECTIONS_MAX: usize = BUSY_MAX + 10_000;

/// How many connections there are.
#[derive(Debug)]
pub(in crate::ops) struct Connections {
    /// Most of them.
    max: usize,
    counts: Mutex<Counts>,
    /// No more can be accepted, and those that are idle end.
    is_full: watch::Sender<bool>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    busy: usize,
    waiting: usize,
}

impl Connections {
    /// None yet, of at most `max`.
    pub(in crate::ops) fn new(max: usize) -> Self {
        Self { max, counts: Mutex::default(), is_full: watch::Sender::new(false) }
    }

    /// How many there are.
    pub(in crate::ops) fn count(&self) -> usize {
        let Counts { busy, waiting } = *self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        busy + waiting
    }

    /// Waits until there is room for another one.
    pub(super) async fn room(&self) {
        // The sender is there as long as `self`.
        drop(self.is_full.subscribe().wait_for(|&is_full| !is_full).await);
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut counts);
        let is_full = counts.busy >= BUSY_MAX || counts.busy + counts.waiting >= self.max;
        drop(counts);
        self.is_full.send_if_modified(|was| std::mem::replace(was, is_full) != is_full);
    }
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Nothing has come yet, or a part of a head: until then.
    Head(Instant),
    /// A request is at work.
    Work,
    /// A request waits, or its answer is on its way.
    Waiting,
    /// Between requests, until then.
    Idle(Instant),
}

/// What one connection is doing; an extension of its requests.
#[derive(Debug)]
pub(in crate::ops) struct Activity {
    state: Mutex<State>,
    changed: Notify,
    connections: Arc<Connections>,
}

#[derive(Debug)]
struct State {
    stage: Stage,
    /// Since when what is sent isn't taken.
    stalled: Option<Instant>,
    /// No byte of a body has come for too long.
    is_slow: bool,
}

impl Activity {
    /// A connection that was just accepted.
    pub(super) fn new(connections: &Arc<Connections>) -> Self {
        connections.change(|counts| counts.busy += 1);
        let stage = Stage::Head(Instant::now() + HEAD_TIMEOUT);
        Self {
            state: Mutex::new(State { stage, stalled: None, is_slow: false }),
            changed: Notify::new(),
            connections: Arc::clone(connections),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, stage: Stage) {
        let before = std::mem::replace(&mut self.lock().stage, stage);
        let is_waiting = |stage| matches!(stage, Stage::Waiting);
        match (is_waiting(before), is_waiting(stage)) {
            (false, true) => self.connections.change(|counts| {
                counts.busy -= 1;
                counts.waiting += 1;
            }),
            (true, false) => self.connections.change(|counts| {
                counts.waiting -= 1;
                counts.busy += 1;
            }),
            _ => {}
        }
        self.changed.notify_one();
    }

    /// The head of a request has come, or a request that waited is at work again.
    pub(in crate::ops) fn begin(&self) {
        self.enter(Stage::Work);
    }

    /// A request is no longer at work, and isn't done.
    pub(in crate::ops) fn wait(&self) {
        self.enter(Stage::Waiting);
    }

    /// An answer is given, and all of it is on its way.
    pub(super) fn end(&self) {
        self.enter(Stage::Idle(Instant::now() + IDLE_TIMEOUT));
    }

    /// Bytes have come.
    pub(super) fn received(&self) {
        let is_idle = matches!(self.lock().stage, Stage::Idle(_));
        if is_idle {
            self.enter(Stage::Head(Instant::now() + HEAD_TIMEOUT));
        }
    }

    /// Whether the client takes what it is sent.
    pub(super) fn sent(&self, takes: bool) {
        let mut state = self.lock();
        let had = state.stalled.is_some();
        if had == takes {
            state.stalled = if takes { None } else { Some(Instant::now()) };
            self.changed.notify_one();
        }
    }

    /// A body takes too long.
    pub(super) fn set_slow(&self) {
        self.lock().is_slow = true;
    }

    /// Whether a body took too long since the last call.
    pub(in crate::ops) fn take_slow(&self) -> bool {
        std::mem::take(&mut self.lock().is_slow)
    }

    /// Waits until the connection's time is over.
    pub(super) async fn over(&self) {
        let mut is_full = self.connections.is_full.subscribe();
        loop {
            let (stage, stalled) = {
                let state = self.lock();
                (state.stage, state.stalled)
            };
            let until = match stage {
                Stage::Head(until) | Stage::Idle(until) => Some(until),
                Stage::Work | Stage::Waiting => None,
            };
            let stalled = stalled.map(|since| since + STALL_TIMEOUT);
            let until = until.into_iter().chain(stalled).min();
            let late = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            let crowded = async {
                match stage {
                    Stage::Idle(_) => drop(is_full.wait_for(|&is_full| is_full).await),
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = late => return,
                () = crowded => return,
                () = self.changed.notified() => {}
            }
        }
    }
}

/// The connection is over.
impl Drop for Activity {
    fn drop(&mut self) {
        let is_waiting = matches!(self.lock().stage, Stage::Waiting);
        self.connections.change(|counts| match is_waiting {
            true => counts.waiting -= 1,
            false => counts.busy -= 1,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A runtime whose clock goes on when nothing else is to be done.
    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.unwrap().block_on(test);
    }

    #[test]
    fn connections_are_counted_once_whatever_they_do() {
        let connections = Arc::new(Connections::new(2));
        let first = Activity::new(&connections);
        let second = Activity::new(&connections);
        assert_eq!((connections.count(), *connections.is_full.borrow()), (2, true));
        first.begin();
        first.wait();
        first.wait();
        assert_eq!(connections.count(), 2);
        drop(second);
        assert_eq!((connections.count(), *connections.is_full.borrow()), (1, false));
        first.end();
        first.received();
        drop(first);
        assert_eq!(connections.count(), 0);
        let counts = *connections.counts.lock().unwrap();
        assert_eq!((counts.busy, counts.waiting), (0, 0));
    }

    #[test]
    fn waiting_connections_leave_room_for_others() {
        let connections = Arc::new(Connections::new(usize::MAX));
        let all: Vec<_> = (0..BUSY_MAX).map(|_| Activity::new(&connections)).collect();
        assert!(*connections.is_full.borrow());
        all[0].begin();
        all[0].wait();
        assert!(!*connections.is_full.borrow());
    }

    #[test]
    fn an_idle_connection_ends_when_others_need_the_room() {
        run(async {
            let connections = Arc::new(Connections::new(2));
            let idle = Activity::new(&connections);
            idle.begin();
            idle.end();
            let _other = Activity::new(&connections);
            idle.over().await;
        });
    }
}
