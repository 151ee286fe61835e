//! What becomes of the jobs of a function: how often they are run again and when, what time they
//! may take, and how many there may be.
//!
//! Values that the configuration makes and the engine reads. Knows no files and no jobs.
//!
//! Invariant: the first policy with a pattern that matches a function's name is the function's, and
//! a function without one is treated as gearmand treats it.

use super::function::Durability;
use super::glob::Glob;
use super::reason::Reason;

/// When a job is run again after a failure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// Longest delay after the first failure, in milliseconds.
    pub first_ms: u64,
    /// By what the delay grows with each failure; at least 1.
    pub factor: f64,
    /// Longest delay of all, in milliseconds; at least `first_ms`.
    pub max_ms: u64,
    /// What part of the longest delay is random, from 0 to 1.
    pub jitter: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first_ms: 1000, factor: 4.0, max_ms: 3_600_000, jitter: 0.5 }
    }
}

impl Backoff {
    /// Longest delay after so many failures, in milliseconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn longest_ms(&self, failures: u16) -> u64 {
        let growth = self.factor.powi(i32::from(failures.max(1)) - 1);
        // An infinite product is cut to the largest delay.
        ((self.first_ms as f64 * growth).min(self.max_ms as f64)).round() as u64
    }

    /// Shortest delay after so many failures, in milliseconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn shortest_ms(&self, failures: u16) -> u64 {
        (self.longest_ms(failures) as f64 * (1.0 - self.jitter)).ceil() as u64
    }

    /// The delay after so many failures, in milliseconds; `random` has 64 random bits.
    #[must_use]
    pub fn delay_ms(&self, failures: u16, random: u64) -> u64 {
        let (low, high) = (self.shortest_ms(failures), self.longest_ms(failures));
        let choices = u128::from(high.saturating_sub(low)) + 1;
        let chosen = (u128::from(random) * choices) >> 64;
        low + u64::try_from(chosen).unwrap_or(0)
    }
}

/// How often jobs are run.
#[derive(Clone, Debug, PartialEq)]
pub struct Retries {
    /// Runs in all; 0 = no limit.
    pub attempts: u16,
    /// By `Reason`: whether a run that ended so is followed by another.
    pub retried: [bool; 4],
    /// When.
    pub backoff: Backoff,
    /// Whether jobs that only waiting clients want are treated as background jobs are.
    pub foreground: bool,
    /// Whether jobs that failed for good become dead letters.
    pub dead: bool,
}

impl Retries {
    /// What a policy with so many attempts says if it says nothing else.
    #[must_use]
    pub fn of(attempts: u16) -> Self {
        let backoff = Backoff::default();
        Self { attempts, retried: [true; 4], backoff, foreground: false, dead: true }
    }

    /// Whether a run that ended so is followed by another while there are attempts left.
    #[must_use]
    pub fn covers(&self, reason: Reason) -> bool {
        self.retried.get(reason as usize).copied().unwrap_or(false)
    }

    /// Whether a job that was run so often isn't run again.
    #[must_use]
    pub fn is_exhausted(&self, runs: u16) -> bool {
        self.attempts > 0 && runs >= self.attempts
    }
}

/// For how long a job may wait for its first start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// From when the job could have been started, in milliseconds.
    pub after_ms: u64,
    /// Whether it becomes a dead letter; otherwise it is gone.
    pub dead: bool,
}

/// What becomes of the jobs of some functions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// Names of the functions.
    pub patterns: Vec<Glob>,
    /// `None` = as in gearmand.
    pub retries: Option<Retries>,
    /// `None` = jobs don't expire.
    pub expiry: Option<Expiry>,
    /// How long a job may run at a worker that registered without a timeout, in milliseconds; 0 =
    /// no limit.
    pub timeout_ms: u32,
    /// Longest timeout that workers may choose, in milliseconds; 0 = no limit.
    pub timeout_max_ms: u32,
    /// Whether WORK_STATUS, WORK_DATA and WORK_WARNING start the clock of the timeout again.
    pub touch: bool,
    /// Number of jobs from which submissions of each priority are refused; 0 = no limit. `None` =
    /// not said.
    pub queue_max: Option<[u32; 3]>,
    /// Durability of background jobs; `None` = not said.
    pub durability: Option<Durability>,
}

impl Policy {
    /// Whether it is the policy of a function, if no earlier one is.
    #[must_use]
    pub fn matches(&self, function: &[u8]) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(function))
    }

    /// Whether it says anything of timeouts.
    #[must_use]
    pub fn limits_time(&self) -> bool {
        self.timeout_ms > 0 || self.timeout_max_ms > 0 || self.touch
    }

    /// How long a job may run at a worker that has registered with this timeout, in milliseconds;
    /// 0 = no limit.
    #[inline]
    #[must_use]
    pub fn timeout_ms(&self, registered_ms: u32) -> u32 {
        match (registered_ms, self.timeout_max_ms) {
            (0, _) => self.timeout_ms,
            (own, 0) => own,
            (own, max) => own.min(max),
        }
    }
}

/// The policies of all functions, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policies(pub Vec<Policy>);

impl Policies {
    /// Where the policy of a function is; `None` if it has none.
    #[must_use]
    pub fn position(&self, function: &[u8]) -> Option<usize> {
        self.0.iter().position(|policy| policy.matches(function))
    }

    /// The policy of a function.
    #[must_use]
    pub fn find(&self, function: &[u8]) -> Option<&Policy> {
        self.0.get(self.position(function)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_up_to_the_longest_and_vary_by_the_jitter() {
        let backoff = Backoff::default();
        let longest: Vec<u64> = (1..=8).map(|failures| backoff.longest_ms(failures)).collect();
        let expected = [1000, 4000, 16_000, 64_000, 256_000, 1_024_000, 3_600_000, 3_600_000];
        assert_eq!(longest, expected);
        assert_eq!(backoff.longest_ms(u16::MAX), 3_600_000);
        assert_eq!(backoff.shortest_ms(2), 2000);
        assert_eq!((backoff.delay_ms(2, 0), backoff.delay_ms(2, u64::MAX)), (2000, 4000));
        let exact = Backoff { jitter: 0.0, factor: 1.0, ..backoff };
        assert_eq!((exact.delay_ms(9, 0), exact.delay_ms(9, u64::MAX)), (1000, 1000));
    }

    #[test]
    fn the_first_policy_that_matches_counts() {
        let policy = |pattern: &str, timeout_ms| Policy {
            patterns: vec![Glob::new(pattern).unwrap()],
            timeout_ms,
            ..Policy::default()
        };
        let policies = Policies(vec![policy("mail-a", 1), policy("mail-*", 2), policy("*", 3)]);
        let timeout = |name: &[u8]| policies.find(name).map(|policy| policy.timeout_ms);
        assert_eq!([&b"mail-a"[..], b"mail-b", b"x"].map(timeout), [Some(1), Some(2), Some(3)]);
        assert_eq!(Policies::default().find(b"x"), None);
    }
}
