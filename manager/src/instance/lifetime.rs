//! How long a long-lived process is kept: `max-jobs`, `max-age` and `splay` in, its end out.
//!
//! Knows no process; time is an argument.
//!
//! Invariant: drawn anew for each process, so that processes started together end apart.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Worker;
use crate::counters::Ended;

/// What is left of the life of one process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetime {
    /// `None` = any number.
    jobs_left: Option<u64>,
    /// `None` = never.
    ends_at: Option<Instant>,
}

impl Lifetime {
    /// The life of a process that starts now.
    pub(super) fn begin(worker: &Worker, now: Instant) -> Self {
        let jobs_left = (worker.max_jobs > 0).then(|| {
            // Exact up to 2^53 jobs. A process does a job at least.
            #[expect(clippy::cast_precision_loss, reason = "a number of jobs that is splayed")]
            #[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
            #[expect(clippy::cast_sign_loss, reason = "a splay is at most 1")]
            let jobs = (worker.max_jobs as f64 * factor(worker.splay)).round() as u64;
            jobs.max(1)
        });
        let ends_at = worker.max_age.and_then(|age| {
            let age = Duration::try_from_secs_f64(age.as_secs_f64() * factor(worker.splay)).ok()?;
            now.checked_add(age)
        });
        Self { jobs_left, ends_at }
    }

    /// A job has ended.
    pub(super) fn job_ended(&mut self) {
        if let Some(jobs) = &mut self.jobs_left {
            *jobs = jobs.saturating_sub(1);
        }
    }

    /// Why the process is to be replaced now, if it is.
    pub(super) fn over(&self, now: Instant) -> Option<Ended> {
        if self.jobs_left == Some(0) {
            Some(Ended::MaxJobs)
        } else if self.ends_at.is_some_and(|at| at <= now) {
            Some(Ended::MaxAge)
        } else {
            None
        }
    }

    /// Waits until the process is too old; for ever if it never is.
    pub(super) async fn aged(&self) {
        match self.ends_at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// A number between 1 - `splay` and 1 + `splay`, each as likely.
fn factor(splay: f64) -> f64 {
    1.0 + splay * (2.0 * fastrand::f64() - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::samples::worker;

    fn jobs_of(lifetime: &mut Lifetime, now: Instant) -> u64 {
        let mut jobs = 0;
        while lifetime.over(now).is_none() && jobs < 10_000 {
            lifetime.job_ended();
            jobs += 1;
        }
        jobs
    }

    #[tokio::test]
    async fn a_process_without_limits_has_no_end() {
        let now = Instant::now();
        let mut lifetime = Lifetime::begin(&worker(&["true"]), now);
        assert_eq!(jobs_of(&mut lifetime, now + Duration::from_secs(1_000_000)), 10_000);
    }

    #[tokio::test]
    async fn without_splay_limits_are_exact() {
        let now = Instant::now();
        let mut worker = worker(&["true"]);
        worker.max_jobs = 3;
        worker.max_age = Some(Duration::from_secs(60));
        let mut lifetime = Lifetime::begin(&worker, now);
        assert_eq!(lifetime.over(now + Duration::from_millis(59_999)), None);
        assert_eq!(lifetime.over(now + Duration::from_secs(60)), Some(Ended::MaxAge));
        assert_eq!(jobs_of(&mut lifetime, now), 3);
        assert_eq!(lifetime.over(now), Some(Ended::MaxJobs));
    }

    #[tokio::test]
    async fn splay_spreads_limits_on_both_sides() {
        let now = Instant::now();
        let mut worker = worker(&["true"]);
        worker.max_jobs = 1000;
        worker.splay = 0.1;
        let all: Vec<u64> =
            (0..200).map(|_| jobs_of(&mut Lifetime::begin(&worker, now), now)).collect();
        assert!(all.iter().all(|jobs| (900..=1100).contains(jobs)), "{all:?}");
        assert!(all.iter().any(|&jobs| jobs < 980), "{all:?}");
        assert!(all.iter().any(|&jobs| jobs > 1020), "{all:?}");
    }

    #[tokio::test]
    async fn a_full_splay_leaves_a_job() {
        let now = Instant::now();
        let mut worker = worker(&["true"]);
        worker.max_jobs = 1;
        worker.splay = 1.0;
        for _ in 0..50 {
            assert!(jobs_of(&mut Lifetime::begin(&worker, now), now) >= 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_ages() {
        let start = Instant::now();
        let mut worker = worker(&["true"]);
        worker.max_age = Some(Duration::from_secs(3600));
        worker.splay = 0.5;
        let lifetime = Lifetime::begin(&worker, start);
        lifetime.aged().await;
        let age = start.elapsed().as_secs();
        assert!((1799..=5401).contains(&age), "{age}");
        assert_eq!(lifetime.over(Instant::now()), Some(Ended::MaxAge));
    }
}
