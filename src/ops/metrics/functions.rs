//! What is told of each function.
//!
//! Functions that are named have series of their own; all others are summed under `OTHER`.
//!
//! Invariant: no two series have the same labels; of a function, submitted + recovered = queued +
//! delayed + running + completed + failed + handed over, as far as its numbers hold to it.

use std::borrow::Cow;
use std::fmt::Error;

use super::label::label;
use crate::engine::numbers::{BOUNDS_MS, Durations, FAILURES, Gauges, Numbers, REFUSALS, RERUNS};
use crate::engine::reason::Reason;
use crate::ops::exposition::{Families, Histogram};
use crate::ops::snapshot::Snapshot;
use crate::wire::Priority;

/// The label of all functions that aren't named.
pub(super) const OTHER: &str = "_other";
/// How `Numbers::submitted` is told apart.
const KINDS: [&str; 2] = ["foreground", "background"];
/// The first of `FAILURES` are always told; the others once there are some.
const FAILURES_ALWAYS: usize = 5;
/// The same of `RERUNS`: the others need a policy.
const RERUNS_ALWAYS: usize = 3;

/// A function with its label.
struct Function<'s> {
    label: Cow<'s, str>,
    gauges: Gauges,
    numbers: &'s Numbers,
    /// Whether it stands for many, whose durations aren't told apart.
    is_other: bool,
}

pub(super) fn encode(families: &mut Families<'_>, snapshot: &Snapshot) -> Result<(), Error> {
    let functions = functions(snapshot);
    encode_gauges(families, &functions, snapshot.unix_s)?;
    encode_counters(families, &functions)?;
    encode_pauses(families, &functions, snapshot.unix_s)?;
    encode_durations(families, &functions)?;
    let named = functions.len() as u64 - 1;
    let others = snapshot.functions.iter().filter(|row| row.numbers.is_none()).count() as u64;
    families.gauge(
        "ringgear_functions",
        "Functions that have series of their own, and those that are summed under _other",
        [([("named", "yes")], named), ([("named", "no")], others)],
    )
}

fn functions(snapshot: &Snapshot) -> Vec<Function<'_>> {
    let named = snapshot.functions.iter().filter_map(|row| {
        let label = label(row.name.as_deref()?);
        let numbers = row.numbers.as_deref()?;
        debug_assert_ne!(label, OTHER, "the engine counts it among the others");
        Some(Function { label, gauges: row.gauges, numbers, is_other: false })
    });
    let other = &snapshot.other;
    let others = snapshot.functions.iter().filter(|row| row.numbers.is_none());
    let oldest_ms = others.filter_map(|row| row.gauges.oldest_ms).min();
    let other = other.numbers.as_deref().map(|numbers| Function {
        label: Cow::Borrowed(OTHER),
        gauges: Gauges { oldest_ms, ..other.gauges },
        numbers,
        is_other: true,
    });
    named.chain(other).collect()
}

/// The samples of a family with one sample a function.
fn one<'f, V>(
    functions: &'f [Function<'_>],
    value: impl Fn(&Function<'_>) -> V,
) -> impl Iterator<Item = ([(&'static str, &'f str); 1], V)> {
    functions.iter().map(move |it| ([("function", &*it.label)], value(it)))
}

/// The samples of a family with one sample for each of a function's `values`, which a label with
/// `names` tells apart. The first `always` are told even if they are 0.
fn many<'f, V: Copy + PartialEq + Default, const N: usize>(
    functions: &'f [Function<'_>],
    (key, names, always): (&'static str, [&'f str; N], usize),
    values: impl Fn(&Function<'_>) -> [V; N],
) -> impl Iterator<Item = ([(&'static str, &'f str); 2], V)> {
    functions.iter().flat_map(move |it| {
        let samples = names.into_iter().zip(values(it)).enumerate();
        let told = samples.filter(move |&(at, (_, value))| at < always || value != V::default());
        told.map(move |(_, (name, value))| ([("function", &*it.label), (key, name)], value))
    })
}

fn encode_gauges(
    families: &mut Families<'_>,
    functions: &[Function<'_>],
    unix_s: f64,
) -> Result<(), Error> {
    let priorities = Priority::ALL.map(|priority| match priority {
        Priority::High => "high",
        Priority::Normal => "normal",
        Priority::Low => "low",
    });
    families.gauge(
        "ringgear_jobs_queued",
        "Jobs that wait for a worker",
        many(functions, ("priority", priorities, 3), |it| it.gauges.queued),
    )?;
    families.gauge(
        "ringgear_jobs_delayed",
        "Jobs whose start time is in the future",
        one(functions, |it| it.gauges.delayed),
    )?;
    families.gauge(
        "ringgear_jobs_retrying",
        "Those of them that have failed and are to be run again",
        one(functions, |it| it.gauges.retrying),
    )?;
    families.gauge(
        "ringgear_jobs_running",
        "Jobs that workers have",
        one(functions, |it| it.gauges.running),
    )?;
    families.gauge(
        "ringgear_jobs_dead",
        "Dead letters: jobs that failed for good and are kept",
        one(functions, |it| it.gauges.dead),
    )?;
    families.gauge(
        "ringgear_workers",
        "Connections that can run the function",
        one(functions, |it| it.gauges.workers),
    )?;
    families.gauge(
        "ringgear_workers_busy",
        "Those of them that run a job of it",
        one(functions, |it| it.gauges.workers_busy),
    )?;
    let age = |it: &Function<'_>| {
        let since_s = it.gauges.oldest_ms.map(|since_ms| since_ms as f64 / 1e3);
        // To a thousandth, as it was noted.
        since_s.map_or(0.0, |since_s| ((unix_s - since_s).max(0.0) * 1e3).round() / 1e3)
    };
    families.gauge(
        "ringgear_queue_oldest_age_seconds",
        "How long the oldest of the queued jobs has waited; 0 without one",
        one(functions, age),
    )
}

fn encode_counters(families: &mut Families<'_>, functions: &[Function<'_>]) -> Result<(), Error> {
    families.counter(
        "ringgear_jobs_submitted",
        "Jobs that submissions made, those that joined another job and refused ones not counted",
        many(functions, ("kind", KINDS, KINDS.len()), |it| it.numbers.submitted),
    )?;
    families.counter(
        "ringgear_jobs_joined",
        "Submissions that joined a job with the same unique key",
        one(functions, |it| it.numbers.joined),
    )?;
    families.counter(
        "ringgear_jobs_recovered",
        "Jobs that the store had at the start or in adopted partitions, and requeued letters",
        one(functions, |it| it.numbers.recovered),
    )?;
    families.counter(
        "ringgear_jobs_completed",
        "Jobs that ended with WORK_COMPLETE",
        one(functions, |it| it.numbers.completed),
    )?;
    let reasons = FAILURES.map(|(_, name)| name);
    families.counter(
        "ringgear_jobs_failed",
        "Jobs that ended otherwise",
        many(functions, ("reason", reasons, FAILURES_ALWAYS), |it| it.numbers.failed),
    )?;
    let reasons = Reason::ALL.map(Reason::name);
    families.counter_beside_gauge(
        "ringgear_jobs_dead",
        "Those of them that became dead letters",
        many(functions, ("reason", reasons, 0), |it| it.numbers.dead),
    )?;
    families.counter(
        "ringgear_jobs_handed_over",
        "Jobs that ended here because another server has their partition",
        one(functions, |it| it.numbers.handed_over),
    )?;
    let reasons = RERUNS.map(|(_, name)| name);
    families.counter(
        "ringgear_jobs_rerun",
        "Runs after which a job went back to its queue, or waits for its next run",
        many(functions, ("reason", reasons, RERUNS_ALWAYS), |it| it.numbers.rerun),
    )?;
    let reasons = REFUSALS.map(|(_, name)| name);
    families.counter(
        "ringgear_jobs_refused",
        "Submissions that were refused",
        many(functions, ("reason", reasons, reasons.len()), |it| it.numbers.refused),
    )
}

fn encode_pauses(
    families: &mut Families<'_>,
    functions: &[Function<'_>],
    unix_s: f64,
) -> Result<(), Error> {
    let paused_s = |it: &Function<'_>| {
        let ended_s = it.numbers.paused_ms as f64 / 1e3;
        let since_s = it.gauges.paused_since_ms.map(|since_ms| since_ms as f64 / 1e3);
        ended_s + since_s.map_or(0.0, |since_s| (unix_s - since_s).max(0.0))
    };
    families.counter(
        "ringgear_function_limited_seconds",
        "Time for which a limit kept jobs of the function from workers",
        many(functions, ("limit", ["pause"], 0), |it| [paused_s(it)]),
    )
}

fn encode_durations(families: &mut Families<'_>, functions: &[Function<'_>]) -> Result<(), Error> {
    let histograms = |durations: fn(&Numbers) -> &Durations| {
        let functions = functions.iter().filter(|it| !it.is_other);
        functions.filter_map(move |it| {
            let Durations { buckets, sum_ms } = durations(it.numbers);
            let is_used = buckets.iter().any(|&count| count > 0);
            let sum = *sum_ms as f64 / 1e3;
            let labels = [("function", &*it.label)];
            is_used.then(|| (labels, Histogram::new(&BOUNDS_MS, 1e3, buckets, sum)))
        })
    };
    families.histogram(
        "ringgear_job_wait_seconds",
        "From when a job could be started to its first assignment",
        histograms(|it| &it.wait),
    )?;
    families.histogram(
        "ringgear_job_run_seconds",
        "From each assignment of a job to its end",
        histograms(|it| &it.run),
    )
}
