//! Retries: an attempt in, its result out, after further attempts where waiting may help.
//!
//! The kernel frees the rings of a process, and with them listeners and locked memory, only after
//! the process has ended: a server that is started right after a kill finds both taken for a
//! moment.
//!
//! Invariant: only failures that may pass are retried.

use std::thread;
use std::time::{Duration, Instant};

/// How long an attempt is repeated.
const LIMIT: Duration = Duration::from_secs(1);
/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// Repeats an attempt while it fails in a way that `may_pass`, for `LIMIT` at most.
pub(crate) fn retry<T, E>(
    may_pass: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let end = Instant::now() + LIMIT;
    loop {
        match attempt() {
            // The kernel doesn't announce that a port or memory is free.
            Err(error) if may_pass(&error) && Instant::now() < end => thread::park_timeout(PAUSE),
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_that_may_pass_are_retried() {
        let mut failures = [Err("taken"), Err("taken"), Ok(7), Ok(8)].into_iter();
        assert_eq!(retry(|&it| it == "taken", || failures.next().unwrap()), Ok(7));
        let mut failures = [Err("forbidden"), Ok(7)].into_iter();
        assert_eq!(retry(|&it| it == "taken", || failures.next().unwrap()), Err("forbidden"));
    }
}
