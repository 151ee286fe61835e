//! Connections with Nagle's algorithm on, whose programs write apart what belongs together.
//!
//! The second of two small writes waits for the acknowledgement of the first, and where nothing is
//! answered to that, the receiver's kernel delays the acknowledgement by 40 ms. Workers that write
//! a result and the request for the next job apart meet it, and clients that write a packet's
//! header and body apart. The same with TCP_NODELAY is what they are compared with.

use anyhow::Result;
use loadgen::distributions::Span;

use crate::bench_target::BenchTarget;
use crate::process::{Cpu, Persistence};
use crate::sample::Sample;
use crate::scenario::Load;

/// What a load's name ends with that has TCP_NODELAY.
pub(crate) const NO_DELAY: &str = ", TCP_NODELAY";
const PAIR: &str = "--clients=1 --workers=1";
/// Where their times are those of a new connection.
const FIRST_JOBS: u64 = 30;
const RESULT_APART: &str = "--worker-writes=packets";
const BODY_APART: &str = "--client-writes=parts";

/// A fresh server and a sample for each load; the last one has so many pairs of a client and a
/// worker.
pub(crate) fn samples(target: &BenchTarget<'_>, pairs: usize) -> Vec<Sample> {
    let run = |(at, (point, words)): (usize, (String, String))| {
        Sample::or_failed(sample(target, &words)).at(point, at as f64)
    };
    loads(pairs).into_iter().enumerate().map(run).collect()
}

/// Without a warm-up: so few jobs take less CPU than the tick shows, and only of all of them is
/// known what they took to the nanosecond.
fn sample(target: &BenchTarget<'_>, words: &str) -> Result<Sample> {
    let load = Load { warm_up: Span::default(), ..target.plan(words)? };
    target.with_server(Persistence::Memory, 1, |server| {
        let before = Cpu::of(server.pid());
        let sample = target.load(server, &load)?;
        Ok(sample.with_cpu(Cpu::since(before, server.pid())))
    })
}

/// The name of each load, and its options of the load generator.
fn loads(pairs: usize) -> Vec<(String, String)> {
    let mut loads = Vec::new();
    for (name, words) in [
        ("result and GRAB_JOB apart", format!("{PAIR} {RESULT_APART}")),
        ("header and body apart", format!("{PAIR} {BODY_APART}")),
    ] {
        let first = format!("{words} --nagle --jobs={FIRST_JOBS}");
        loads.push((format!("{name}, first {FIRST_JOBS} jobs"), first));
        loads.push((name.to_owned(), format!("{words} --nagle")));
        loads.push((format!("{name}{NO_DELAY}"), words));
    }
    let name = format!("{pairs} pairs, result and GRAB_JOB apart");
    let words = format!("--clients={pairs} --workers={pairs} {RESULT_APART}");
    loads.push((name.clone(), format!("{words} --nagle")));
    loads.push((name + NO_DELAY, words));
    loads
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::scenario::plan;

    #[test]
    fn each_load_has_its_own_name_and_only_some_have_nagles_algorithm() {
        let names: HashSet<String> = loads(50).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), loads(50).len());
        for (name, words) in loads(50) {
            let load = plan(&words).unwrap();
            load.check().unwrap();
            assert_eq!(load.nagle, !name.ends_with(NO_DELAY), "{name}");
        }
    }
}
