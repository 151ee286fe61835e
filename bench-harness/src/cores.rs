//! The same load on more and more cores: what each further one brings.
//!
//! The server has the first so many processors and as many threads; the load always has the upper
//! half of the machine's, so that it is the same load whatever the server has. A point that would
//! reach into that half is absent.

use ringgear::io::machine;

use crate::bench_target::BenchTarget;
use crate::process::{Cores, Persistence};
use crate::sample::{Sample, Status};

/// A fresh server and a sample for each number of cores, whatever those of `target` are.
pub(crate) fn samples(target: &BenchTarget<'_>, plan: &str, counts: &[usize]) -> Vec<Sample> {
    let processors = machine::processors();
    let one = |&count: &usize| {
        let sample = match share(&processors, count) {
            Err(why) => Sample::without(Status::Absent, why),
            Ok(cores) => {
                let target = BenchTarget { cores: &cores, ..*target };
                Sample::or_failed(target.with_server(Persistence::Memory, count, |server| {
                    target.load(server, &target.plan(plan)?)
                }))
            }
        };
        sample.at(count.to_string(), count as f64)
    };
    counts.iter().map(one).collect()
}

/// The first `count` processors for the server, the upper half for the load; or why that can't be.
fn share(processors: &[usize], count: usize) -> Result<Cores, String> {
    let (lower, upper) = processors.split_at(processors.len() / 2);
    match lower.get(..count) {
        Some(server) if !upper.is_empty() => {
            Ok(Cores { server: server.to_vec(), load: upper.to_vec() })
        }
        _ => Err(format!(
            "{count} cores for the server and as many for the load are more than the {} here",
            processors.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_has_the_upper_half_whatever_the_server_has() {
        let processors: Vec<usize> = (0..8).collect();
        for (count, server) in [(1, vec![0]), (4, vec![0, 1, 2, 3])] {
            let Cores { server: given, load } = share(&processors, count).unwrap();
            assert_eq!((given, load), (server, vec![4, 5, 6, 7]));
        }
        let why = share(&processors, 5).unwrap_err();
        assert_eq!(why, "5 cores for the server and as many for the load are more than the 8 here");
        assert!(share(&[0], 1).is_err(), "one processor is no two");
    }
}
