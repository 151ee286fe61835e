//! What the servers of a cluster have told clients and workers: acknowledgements and runs in, a
//! verdict out.
//!
//! Each job has a number of its own as its payload. Times count from the ledger's start, on this
//! process's clock only.
//!
//! Invariant: only what a server has said is noted; a submission without an answer is no job.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long before a fault a job may have been completed and still run again: its removal was to
/// be in the next commit, which on a busy machine takes its time.
const COMMIT_MAX: Duration = Duration::from_secs(2);

/// A job that a server has acknowledged.
#[derive(Clone, Debug)]
struct Acknowledged {
    handle: String,
    at: Duration,
}

/// A time that a worker had a job.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) handle: String,
    /// Index of the server that handed the job out.
    pub(crate) server: usize,
    pub(crate) from: Duration,
    /// When the worker completed it.
    until: Option<Duration>,
}

/// A time in which something was broken on purpose.
#[derive(Clone, Copy, Debug)]
struct Fault {
    from: Duration,
    until: Option<Duration>,
}

/// All that was noted.
#[derive(Default)]
pub(crate) struct Entries {
    acknowledged: BTreeMap<u64, Acknowledged>,
    runs: BTreeMap<u64, Vec<Run>>,
    /// Error answers to submissions: the server, and what it said.
    pub(crate) refusals: Vec<(usize, String)>,
    faults: Vec<Fault>,
    jobs: u64,
}

impl Entries {
    /// Runs of a job so far.
    pub(crate) fn runs_of(&self, number: u64) -> &[Run] {
        self.runs.get(&number).map_or(&[], Vec::as_slice)
    }

    /// Jobs acknowledged so far.
    pub(crate) fn acknowledgements(&self) -> usize {
        self.acknowledged.len()
    }

    /// Acknowledged jobs that no worker has had yet.
    fn waiting(&self) -> impl Iterator<Item = u64> {
        self.acknowledged.keys().copied().filter(|number| !self.runs.contains_key(number))
    }

    /// What can be said of it all, if the database still has the jobs of these numbers.
    pub(crate) fn verdict(&self, in_database: &BTreeSet<u64>) -> Verdict {
        let (stored, lost) = self.waiting().partition(|number| in_database.contains(number));
        let mut verdict = Verdict {
            acknowledged: self.acknowledged.len(),
            runs: self.runs.values().map(Vec::len).sum(),
            refusals: self.refusals.len(),
            longest_silence: self.longest_silence(),
            lost,
            stored,
            ..Verdict::default()
        };
        let mut owners: BTreeMap<&str, u64> = BTreeMap::new();
        let handles = self.acknowledged.iter().map(|(number, it)| (*number, it.handle.as_str()));
        let runs = self.runs.iter();
        let of_runs =
            runs.flat_map(|(number, all)| all.iter().map(|run| (*number, run.handle.as_str())));
        for (number, handle) in handles.chain(of_runs) {
            if *owners.entry(handle).or_insert(number) != number {
                verdict.given_twice.insert(handle.to_owned());
            }
        }
        for (number, all) in &self.runs {
            let known = self.acknowledged.get(number).map_or(&all[0].handle, |it| &it.handle);
            if all.iter().any(|run| run.handle != *known) {
                verdict.changed.push(*number);
            }
            if let [first, _, ..] = &all[..] {
                verdict.repeated += 1;
                if !self.faults.iter().any(|fault| fault.explains(first)) {
                    verdict.unexplained.push(*number);
                }
            }
        }
        verdict
    }

    /// The longest time between two acknowledgements of any servers.
    fn longest_silence(&self) -> Duration {
        let mut times: Vec<Duration> = self.acknowledged.values().map(|it| it.at).collect();
        times.sort_unstable();
        let pauses = times.windows(2).map(|pair| pair[1] - pair[0]);
        pauses.max().unwrap_or_default()
    }
}

impl Fault {
    /// Whether a job that was first run so may be run again: it ran during the fault, or its end
    /// may not have been committed before.
    fn explains(&self, run: &Run) -> bool {
        let begins_before_its_end = self.until.is_none_or(|until| run.from <= until + COMMIT_MAX);
        begins_before_its_end && run.until.is_none_or(|until| until + COMMIT_MAX >= self.from)
    }
}

/// What the servers did with the jobs.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) acknowledged: usize,
    pub(crate) runs: usize,
    /// Acknowledged jobs that were never run and aren't in the database.
    pub(crate) lost: Vec<u64>,
    /// Acknowledged jobs that were never run and are in the database.
    pub(crate) stored: Vec<u64>,
    /// Handles of two jobs.
    pub(crate) given_twice: BTreeSet<String>,
    /// Jobs whose handle changed.
    pub(crate) changed: Vec<u64>,
    /// Jobs that were run more than once.
    pub(crate) repeated: usize,
    /// Those of them that neither ran nor had just ended at a fault.
    pub(crate) unexplained: Vec<u64>,
    /// Submissions that were answered with an error.
    pub(crate) refusals: usize,
    pub(crate) longest_silence: Duration,
}

impl Verdict {
    /// Prints the verdict; what a cluster promises must hold.
    pub(crate) fn check(&self, what: &str) {
        eprintln!("{what}: {self}");
        assert!(self.lost.is_empty(), "{what}: {self}, lost: {:?}", Some(&self.lost));
        assert!(self.given_twice.is_empty(), "{what}: {:?}", self.given_twice);
        assert!(self.changed.is_empty(), "{what}: {self}, changed: {:?}", self.changed);
        assert!(self.stored.is_empty(), "{what}: {self}, never run: {:?}", self.stored);
        let unexplained = &self.unexplained;
        assert!(unexplained.is_empty(), "{what}: {self}, run twice: {unexplained:?}");
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} acknowledged, {} runs, {} lost, {} left in the database, {} handles twice, \
             {} changed, {} run twice ({} without a fault), {} error answers, longest time \
             without an acknowledgement {:.2} s",
            self.acknowledged,
            self.runs,
            self.lost.len(),
            self.stored.len(),
            self.given_twice.len(),
            self.changed.len(),
            self.repeated,
            self.unexplained.len(),
            self.refusals,
            self.longest_silence.as_secs_f64()
        )
    }
}

/// The ledger that all clients and workers of a test share.
pub(crate) struct Ledger {
    start: Instant,
    entries: Mutex<Entries>,
    grown: Condvar,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), entries: Mutex::default(), grown: Condvar::new() }
    }

    pub(crate) fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap()
    }

    fn note<T>(&self, change: impl FnOnce(&mut Entries, Duration) -> T) -> T {
        let mut entries = self.entries();
        let answer = change(&mut entries, self.start.elapsed());
        self.grown.notify_all();
        answer
    }

    /// The number of a new job.
    pub(crate) fn new_job(&self) -> u64 {
        self.note(|entries, _| {
            entries.jobs += 1;
            entries.jobs
        })
    }

    pub(crate) fn acknowledged(&self, number: u64, handle: &[u8]) {
        let handle = String::from_utf8_lossy(handle).into_owned();
        self.note(|entries, at| {
            entries.acknowledged.insert(number, Acknowledged { handle, at });
        });
    }

    pub(crate) fn refused(&self, server: usize, error: &[u8]) {
        let error = error.escape_ascii().to_string();
        self.note(|entries, _| entries.refusals.push((server, error)));
    }

    /// A worker has got a job.
    pub(crate) fn begins(&self, number: u64, server: usize, handle: &[u8]) {
        let handle = String::from_utf8_lossy(handle).into_owned();
        self.note(|entries, from| {
            let run = Run { handle, server, from, until: None };
            entries.runs.entry(number).or_default().push(run);
        });
    }

    /// The worker that got a job from this server last has completed it.
    pub(crate) fn ends(&self, number: u64, server: usize) {
        self.note(|entries, now| {
            let runs = entries.runs.get_mut(&number).into_iter().flatten();
            let run = runs.rev().find(|run| run.server == server).expect("it began");
            run.until = Some(now);
        });
    }

    /// Notes the time in which something is broken.
    pub(crate) fn during<T>(&self, fault: impl FnOnce() -> T) -> T {
        let at = self.note(|entries, from| {
            entries.faults.push(Fault { from, until: None });
            entries.faults.len() - 1
        });
        let answer = fault();
        self.note(|entries, now| entries.faults[at].until = Some(now));
        answer
    }

    /// Waits until something is so, for as long as `patience`; whether it came to be.
    pub(crate) fn wait(&self, patience: Duration, is_so: impl Fn(&Entries) -> bool) -> bool {
        let entries = self.entries();
        let isnt = |entries: &mut Entries| !is_so(entries);
        !self.grown.wait_timeout_while(entries, patience, isnt).unwrap().1.timed_out()
    }

    /// Waits until every acknowledged job has been run, for as long as there is none for
    /// `patience`; whether all have.
    pub(crate) fn wait_until_all_ran(&self, patience: Duration) -> bool {
        let mut left = usize::MAX;
        loop {
            let fewer = |entries: &Entries| entries.waiting().count() < left;
            if left == 0 || !self.wait(patience, fewer) {
                return left == 0;
            }
            left = self.entries().waiting().count();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn run(handle: &str, from: Duration, until: Option<Duration>) -> Run {
        Run { handle: handle.to_owned(), server: 0, from, until }
    }

    fn entries(acknowledged: &[(u64, &str)], runs: &[(u64, Run)], faults: &[Fault]) -> Entries {
        let mut entries = Entries { faults: faults.to_vec(), ..Entries::default() };
        for &(number, handle) in acknowledged {
            let it = Acknowledged { handle: handle.to_owned(), at: S };
            entries.acknowledged.insert(number, it);
        }
        for (number, run) in runs {
            entries.runs.entry(*number).or_default().push(run.clone());
        }
        entries
    }

    #[test]
    fn a_job_is_lost_that_neither_ran_nor_is_in_the_database() {
        let acknowledged = [(1, "H:1"), (2, "H:2"), (3, "H:3")];
        let all = entries(&acknowledged, &[(1, run("H:1", S, Some(S)))], &[]);
        let verdict = all.verdict(&BTreeSet::from([2]));
        assert_eq!((verdict.lost, verdict.stored), (vec![3], vec![2]));
    }

    #[test]
    fn a_handle_of_two_jobs_and_a_job_of_two_handles_are_told() {
        let runs = [(1, run("H:1", S, Some(S))), (2, run("H:3", S, Some(S)))];
        let verdict = entries(&[(1, "H:1"), (2, "H:1")], &runs, &[]).verdict(&BTreeSet::new());
        assert_eq!(verdict.given_twice, BTreeSet::from(["H:1".to_owned()]));
        assert_eq!(verdict.changed, [2]);
        // A job whose acknowledgement never came has a handle, too.
        let runs = [(1, run("H:1", S, Some(S)))];
        let verdict = entries(&[(2, "H:1")], &runs, &[]).verdict(&BTreeSet::new());
        assert_eq!(verdict.given_twice.len(), 1);
    }

    #[test]
    fn a_job_may_run_again_if_its_end_may_not_have_been_committed_at_a_fault() {
        let fault = Fault { from: 20 * S, until: Some(30 * S) };
        let cases = [
            (10 * S, Some(12 * S), false),
            (10 * S, Some(19 * S), true),
            (10 * S, None, true),
            (25 * S, Some(26 * S), true),
            (40 * S, Some(41 * S), false),
            (40 * S, None, false),
        ];
        for (from, until, explained) in cases {
            let runs = [(1, run("H:1", from, until)), (1, run("H:1", 60 * S, None))];
            let verdict = entries(&[(1, "H:1")], &runs, &[fault]).verdict(&BTreeSet::new());
            assert_eq!(verdict.repeated, 1);
            assert_eq!(verdict.unexplained.is_empty(), explained, "{from:?} to {until:?}");
        }
    }
}
