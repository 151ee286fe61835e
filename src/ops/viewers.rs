//! Viewers of events, and the events on their way to them.
//!
//! Knows nothing of what events say.
//!
//! Invariant: events aren't kept for a viewer that doesn't read: it is dropped once it has missed
//! some.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::broadcast;
use tokio::time::timeout;

/// Most viewers.
pub(super) const VIEWERS_MAX: usize = 1000;
/// A comment is sent after so long without an event.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events that are kept for viewers that are late.
const KEPT_EVENTS: usize = 4;

/// All viewers.
#[derive(Debug)]
pub(super) struct Viewers {
    sender: broadcast::Sender<Bytes>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    count: usize,
    /// Whether events are made.
    has_source: bool,
}

/// One viewer.
#[derive(Debug)]
pub(super) struct Viewer {
    viewers: Arc<Viewers>,
    receiver: broadcast::Receiver<Bytes>,
}

impl Default for Viewers {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(KEPT_EVENTS), state: Mutex::default() }
    }
}

impl Viewers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new viewer, and whether events have to be made from now on; `None` where there are as many
    /// as there may be.
    pub(super) fn enter(self: &Arc<Self>) -> Option<(Viewer, bool)> {
        let mut state = self.lock();
        if state.count >= VIEWERS_MAX {
            return None;
        }
        state.count += 1;
        let is_first = !std::mem::replace(&mut state.has_source, true);
        let receiver = self.sender.subscribe();
        Some((Viewer { viewers: Arc::clone(self), receiver }, is_first))
    }

    /// Sends an event to all.
    pub(super) fn send(&self, event: Bytes) {
        // Without viewers none misses it.
        drop(self.sender.send(event));
    }

    /// Whether no more events have to be made: there is no viewer.
    pub(super) fn end_if_none(&self) -> bool {
        let mut state = self.lock();
        state.has_source = state.count > 0;
        !state.has_source
    }

    /// No more events are made, as the server ends.
    pub(super) fn end(&self) {
        self.lock().has_source = false;
    }
}

impl Viewer {
    /// What it gets next: an event, or a comment after some time without; nothing more once it
    /// missed an event.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        match timeout(KEEP_ALIVE, self.receiver.recv()).await {
            Ok(event) => event.ok(),
            Err(_) => Some(Bytes::from_static(b": \n\n")),
        }
    }
}

/// It is gone.
impl Drop for Viewer {
    fn drop(&mut self) {
        self.viewers.lock().count -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_viewer_that_misses_events_is_dropped() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.unwrap().block_on(async {
            let viewers = Arc::new(Viewers::default());
            let (mut viewer, _) = viewers.enter().unwrap();
            ["a", "b", "c", "d"].into_iter().for_each(|event| viewers.send(event.into()));
            assert_eq!(viewer.next().await.unwrap(), "a");
            ["e", "f"].into_iter().for_each(|event| viewers.send(event.into()));
            assert_eq!(viewer.next().await, None);
        });
    }

    #[test]
    fn events_are_made_once_while_there_are_viewers() {
        let viewers = Arc::new(Viewers::default());
        let entered: Vec<_> = (0..VIEWERS_MAX).map(|_| viewers.enter().unwrap()).collect();
        assert_eq!(entered.iter().filter(|(_, is_first)| *is_first).count(), 1);
        assert!(viewers.enter().is_none());
        assert!(!viewers.end_if_none());
        drop(entered);
        assert!(viewers.end_if_none());
        assert!(viewers.enter().unwrap().1, "they are made anew");
    }
}
