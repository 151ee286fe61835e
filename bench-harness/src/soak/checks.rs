//! Rows of a soak in, one sentence with yes or no for each thing that must hold out.
//!
//! Memory is flat if a straight line through the second half of the time under load, fitted by
//! least squares, rises by no more than is allowed from end to end: single samples swing with what
//! is in flight.

use loadgen::units::bytes;
use serde::Serialize;

use super::workload::Outcome;
use crate::format::number;

const MIB: f64 = 1024.0 * 1024.0;

/// One sample: a row of `soak.csv`. Counts are since the start.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Row {
    /// Since the load began.
    pub(super) seconds: f64,
    /// Whether the load was on.
    pub(super) loaded: bool,
    pub(super) rss_bytes: f64,
    /// Of the process.
    pub(super) descriptors: u64,
    /// Connections by the kernel: the server's ends.
    pub(super) sockets: u64,
    /// Connections by the server's own list.
    pub(super) connections: u64,
    /// Jobs by the server's own list, the running ones included.
    pub(super) jobs: u64,
    pub(super) running: u64,
    pub(super) answered: u64,
    pub(super) ran: u64,
    pub(super) in_flight: u64,
    pub(super) faults: u64,
    /// Answered since the last row.
    pub(super) jobs_per_second: f64,
    /// The server's CPU.
    pub(super) cpu_us: f64,
    /// Slowest answer to `status` and `workers` since the last row.
    pub(super) admin_us: f64,
}

/// A straight line through the memory of the second half.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Trend {
    pub(super) bytes_per_second: f64,
    /// From its first sample to its last, along the line.
    pub(super) growth_bytes: f64,
}

/// Something that must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) holds: bool,
    pub(super) what: String,
}

/// The least-squares line through points of time and value; `None` of fewer than three.
fn trend(points: &[(f64, f64)]) -> Option<Trend> {
    let [(first, _), _, .., (last, _)] = points else { return None };
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(|point| point.0), mean(|point| point.1));
    let covariance = points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum::<f64>();
    let variance = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum::<f64>();
    let bytes_per_second = covariance / variance;
    Some(Trend { bytes_per_second, growth_bytes: bytes_per_second * (last - first) })
}

/// The trend of memory over the second half of the time under load.
pub(super) fn memory_trend(rows: &[Row]) -> Option<Trend> {
    let loaded = || rows.iter().filter(|row| row.loaded);
    let end = loaded().next_back()?.seconds;
    let half = loaded().filter(|row| row.seconds >= end / 2.0);
    trend(&half.map(|row| (row.seconds, row.rss_bytes)).collect::<Vec<_>>())
}

/// All that must hold of a soak whose server had `before` when only the watching connection was
/// there, and `after` when that was so again.
pub(super) fn checks(
    rows: &[Row],
    outcomes: &[Outcome],
    (before, after): (&Row, &Row),
    growth_max_bytes: f64,
) -> Vec<Check> {
    let faults: u64 = outcomes.iter().map(Outcome::faults).sum();
    let words = outcomes.iter().filter(|outcome| !outcome.first_error.is_empty());
    let words: String = words.map(|it| format!("; {}: {}", it.name, it.first_error)).collect();
    let memory = match memory_trend(rows) {
        None => Check { holds: false, what: "memory: too few samples for a trend".to_owned() },
        Some(trend) => Check {
            holds: trend.growth_bytes <= growth_max_bytes,
            what: format!(
                "memory: {} MiB of growth over the second half, {} KiB a minute; {} MiB are \
                 allowed",
                number(trend.growth_bytes / MIB),
                number(trend.bytes_per_second * 60.0 / 1024.0),
                number(growth_max_bytes / MIB)
            ),
        },
    };
    let same = |what: &str, before: u64, after: u64| Check {
        holds: before == after,
        what: format!("{what}: {before} before, {after} after"),
    };
    vec![
        Check { holds: faults == 0, what: format!("faults: {faults}{words}") },
        memory,
        same("descriptors of the process", before.descriptors, after.descriptors),
        same("the server's sockets, by the kernel", before.sockets, after.sockets),
        same("connections, by the server", before.connections, after.connections),
        Check {
            holds: after.jobs == 0,
            what: format!("jobs that the server still has: {}", after.jobs),
        },
    ]
}

/// What memory was, in words.
pub(super) fn memory_words(rows: &[Row], before: &Row, after: &Row) -> String {
    let most = rows.iter().map(|row| row.rss_bytes).fold(0.0, f64::max);
    format!(
        "Memory: {} before, {} at most among the samples, {} when all had left.",
        bytes(before.rss_bytes),
        bytes(most),
        bytes(after.rss_bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sample every five seconds.
    fn rows(count: u32, rss_bytes: impl Fn(f64) -> f64) -> Vec<Row> {
        let seconds = (0..count).map(|at| f64::from(at) * 5.0);
        let row = |seconds| Row {
            seconds,
            loaded: true,
            rss_bytes: rss_bytes(seconds),
            descriptors: 9,
            sockets: 1,
            connections: 1,
            ..Row::default()
        };
        seconds.map(row).collect()
    }

    fn outcome(lost: u64) -> Outcome {
        Outcome { name: "large", jobs: 9, lost, ..Outcome::default() }
    }

    fn broken(rows: &[Row], lost: u64, after: &Row) -> Vec<String> {
        let checks = checks(rows, &[outcome(0), outcome(lost)], (&rows[0], after), 2.0 * MIB);
        checks.into_iter().filter(|check| !check.holds).map(|check| check.what).collect()
    }

    #[test]
    fn the_line_fits_the_second_half_alone() {
        // 10 MiB in the first half, none after it.
        let warm = rows(121, |seconds| 50.0 * MIB + seconds.min(300.0) * MIB / 30.0);
        assert!(memory_trend(&warm).unwrap().growth_bytes.abs() < 1.0);
        let leak = rows(121, |seconds| 50.0 * MIB + seconds * 10_000.0);
        let trend = memory_trend(&leak).unwrap();
        assert!((trend.bytes_per_second - 10_000.0).abs() < 1e-6, "{trend:?}");
        assert!((trend.growth_bytes - 3e6).abs() < 1.0, "{trend:?}");
        assert_eq!(memory_trend(&rows(2, |_| 0.0)), None);
    }

    #[test]
    fn swings_are_no_growth_and_a_slow_leak_is() {
        let swing = |seconds: f64| 50.0 * MIB + (seconds * 7.0).sin() * 4.0 * MIB;
        let steady = rows(361, swing);
        assert_eq!(broken(&steady, 0, &steady[0]), [""; 0]);
        let leak = rows(361, |seconds| swing(seconds) + seconds * 4000.0);
        let [what] = &broken(&leak, 0, &leak[0])[..] else { panic!() };
        assert!(what.starts_with("memory: 3."), "{what}");
    }

    #[test]
    fn everything_that_stays_behind_is_told() {
        let steady = rows(99, |_| MIB);
        let left = Row { descriptors: 10, sockets: 2, connections: 3, jobs: 4, ..steady[0] };
        let broken = broken(&steady, 5, &left);
        assert_eq!(
            broken,
            [
                "faults: 5",
                "descriptors of the process: 9 before, 10 after",
                "the server's sockets, by the kernel: 1 before, 2 after",
                "connections, by the server: 1 before, 3 after",
                "jobs that the server still has: 4",
            ]
        );
    }
}
