//! An attempt in, its result out, after further attempts where waiting may help.
//!
//! The kernel tears the rings of a process down only after the process has gone, and with them
//! listeners and locked memory: a start right behind a kill finds both taken for a moment.
//!
//! Invariant: an attempt that fails in any other way is never repeated.

use std::thread;
use std::time::{Duration, Instant};

/// How long an attempt is repeated.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// Repeats an attempt that fails in a way that `may_pass`, for `PATIENCE`.
pub(crate) fn patiently<T, E>(
    may_pass: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let end = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            // Nothing tells when a port or memory comes free.
            Err(error) if may_pass(&error) && Instant::now() < end => thread::park_timeout(PAUSE),
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let mut failures = [Err("taken"), Err("taken"), Ok(7), Ok(8)].into_iter();
        assert_eq!(patiently(|&it| it == "taken", || failures.next().unwrap()), Ok(7));
        let mut failures = [Err("forbidden"), Ok(7)].into_iter();
        assert_eq!(patiently(|&it| it == "taken", || failures.next().unwrap()), Err("forbidden"));
    }
}
