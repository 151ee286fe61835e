//! The pause that accepting makes while there are no descriptors or no memory left for another
//! connection: failed accepts in, when to try again out.
//!
//! Such an accept fails at once and again, as the connection stays in the listener's queue. Knows
//! no listener.
//!
//! Invariant: accepting goes on `PAUSE_MS` after the last accept that failed so.

use std::io::Error;

use tracing::{debug, warn};

/// Time from an accept that failed for want of descriptors or memory to the next.
pub(crate) const PAUSE_MS: u64 = 100;

/// One core's pause.
#[derive(Debug, Default)]
pub(crate) struct AcceptPause {
    ends_at_ms: Option<u64>,
    /// It was logged, and no accept has succeeded since.
    is_logged: bool,
}

impl AcceptPause {
    /// An accept succeeded.
    #[inline]
    pub(crate) fn accepted(&mut self) {
        self.is_logged = false;
    }

    /// An accept failed. Returns whether a pause begins, or goes on; all other failures concern one
    /// connection only.
    pub(crate) fn failed(&mut self, error: &Error, now_ms: u64) -> bool {
        if !is_exhaustion(error) {
            // The connection is gone already, or a signal came.
            debug!(%error, "accept");
            return false;
        }
        if !std::mem::replace(&mut self.is_logged, true) {
            let remedy = match error.raw_os_error() {
                Some(libc::EMFILE) => "raise the limit with --file-descriptors or LimitNOFILE=",
                Some(libc::ENFILE) => "the whole host has none left: raise the sysctl fs.file-max",
                _ => "free memory on this host",
            };
            warn!(%error, "accepting pauses: {remedy}");
        }
        self.ends_at_ms = Some(now_ms + PAUSE_MS);
        true
    }

    /// Whether accepting pauses.
    pub(crate) fn is_on(&self) -> bool {
        self.ends_at_ms.is_some()
    }

    /// When the pause ends.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        self.ends_at_ms
    }

    /// Ends the pause once its time is over; returns `true` then.
    #[inline]
    pub(crate) fn poll_end(&mut self, now_ms: u64) -> bool {
        self.ends_at_ms.take_if(|at_ms| *at_ms <= now_ms).is_some()
    }

    /// Ends the pause, as there is nothing to accept from any more.
    pub(crate) fn cancel(&mut self) {
        self.ends_at_ms = None;
    }
}

/// Whether an accept failed because the process or the host has no descriptors or memory left.
fn is_exhaustion(error: &Error) -> bool {
    let exhausted = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|number| exhausted.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepting_pauses_while_descriptors_are_exhausted_and_for_nothing_else() {
        let mut pause = AcceptPause::default();
        assert!(!pause.failed(&Error::from_raw_os_error(libc::ECONNABORTED), 1000));
        assert_eq!((pause.is_on(), pause.poll_end(1000)), (false, false));
        assert!(pause.failed(&Error::from_raw_os_error(libc::EMFILE), 1000));
        assert!(pause.failed(&Error::from_raw_os_error(libc::ENOMEM), 1050));
        assert_eq!((pause.is_on(), pause.deadline_ms()), (true, Some(1050 + PAUSE_MS)));
        assert!(!pause.poll_end(1049 + PAUSE_MS), "the last failure counts");
        assert!(pause.poll_end(1050 + PAUSE_MS));
        assert!(!pause.is_on() && !pause.poll_end(2000), "it ends once");
        assert!(pause.is_logged, "one line for one shortage");
        pause.accepted();
        assert!(!pause.is_logged);
    }
}
