//! What is told of the partitions of a database that several servers may use.
//!
//! What the server knows of them in, families out. Knows no database.
//!
//! Invariant: jobs are told of the server's own partitions alone, so that the sum over all servers
//! has each job once.

use std::fmt::Error;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crate::cluster::partition::State;
use crate::cluster::view::View;
use crate::ops::exposition::{Families, PLAIN};

const STATES: [State; 3] = [State::Free, State::Owned, State::Offered];

/// The partitions at one moment.
#[derive(Debug)]
pub(super) struct Partitions {
    /// By `STATES`.
    by_state: [u64; STATES.len()],
    /// Of the server's own ones: their numbers and jobs.
    jobs: Vec<(String, u64)>,
    /// Of those with an owner: their numbers, and the time since the last beat in seconds.
    beat_ages: Vec<(String, f64)>,
    adopted: u64,
    lost: u64,
    orphaned: u64,
    is_suspended: bool,
}

impl Partitions {
    pub(super) fn of(view: &View, now: Instant) -> Self {
        let contents = view.read();
        let all = contents.partitions.iter();
        let is_in =
            |state| all.clone().filter(|known| known.partition.state == state).count() as u64;
        let own = all.clone().filter(|known| known.is_own);
        let ages = all.clone().filter_map(|known| {
            Some((known.partition.id.to_string(), known.age(now)?.as_secs_f64()))
        });
        Self {
            by_state: STATES.map(is_in),
            jobs: own.map(|it| (it.partition.id.to_string(), it.partition.jobs)).collect(),
            beat_ages: ages.collect(),
            adopted: view.adopted.load(Relaxed),
            lost: view.lost.load(Relaxed),
            orphaned: view.orphaned.load(Relaxed),
            is_suspended: view.is_suspended.load(Relaxed),
        }
    }

    pub(super) fn encode(&self, families: &mut Families<'_>) -> Result<(), Error> {
        let states = STATES.into_iter().zip(self.by_state);
        families.gauge(
            "ringgear_partitions",
            "Partitions of the database, as this server saw them last",
            states.map(|(state, count)| ([("state", state.name())], count)),
        )?;
        families.gauge(
            "ringgear_partition_jobs",
            "Jobs that the database has of this server's own partitions, dead letters not counted",
            self.jobs.iter().map(|(id, jobs)| ([("partition", &**id)], *jobs)),
        )?;
        families.gauge(
            "ringgear_partition_beat_age_seconds",
            "How long ago the owner of a partition gave its last sign of life",
            self.beat_ages.iter().map(|(id, age)| ([("partition", &**id)], *age)),
        )?;
        families.counter(
            "ringgear_partitions_adopted",
            "Partitions of other servers that this server took over",
            [(PLAIN, self.adopted)],
        )?;
        families.counter(
            "ringgear_partitions_lost",
            "Partitions that another server took over from this one",
            [(PLAIN, self.lost)],
        )?;
        families.gauge(
            "ringgear_partitions_orphaned",
            "Partitions without a server that this one leaves, as its memory is too short",
            [(PLAIN, self.orphaned)],
        )?;
        families.gauge(
            "ringgear_suspended",
            "Whether this server has not reached the database for so long that it hands out no \
             stored job",
            [(PLAIN, u32::from(self.is_suspended))],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::three_partitions;
    use crate::ops::exposition::{Format, Numbers, text};

    impl Numbers for Partitions {
        fn encode(&self, families: &mut Families<'_>) -> Result<(), Error> {
            Self::encode(self, families)
        }
    }

    /// The server's own tests compare the other parts of the manual.
    #[test]
    fn the_manual_has_each_metric_and_no_other() {
        let now = Instant::now();
        let text = text(Partitions::of(&three_partitions(now), now), Format::Text).unwrap();
        let told = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let manual = include_str!("../../../docs/metrics.md");
        let (_, rest) = manual.split_once("With a store on PostgreSQL").unwrap();
        let rows = rest.split("\n## ").next().unwrap().lines();
        let listed = rows.filter_map(|row| row.strip_prefix("| `")?.split('`').next());
        assert_eq!(listed.collect::<Vec<_>>(), told.collect::<Vec<_>>());
    }

    #[test]
    fn partitions_are_told_by_state_and_number() {
        let now = Instant::now();
        let view = three_partitions(now);
        let samples = |view: &View| {
            let text = text(Partitions::of(view, now), Format::Text).unwrap();
            let samples = text.lines().filter(|line| !line.starts_with('#'));
            samples.map(str::to_owned).collect::<Vec<_>>().join("\n")
        };
        let expected = "ringgear_partitions{state=\"free\"} 1
ringgear_partitions{state=\"owned\"} 1
ringgear_partitions{state=\"offered\"} 1
ringgear_partition_jobs{partition=\"0\"} 12
ringgear_partition_beat_age_seconds{partition=\"0\"} 0.4
ringgear_partition_beat_age_seconds{partition=\"1\"} 2.5
ringgear_partitions_adopted_total 2
ringgear_partitions_lost_total 1
ringgear_partitions_orphaned 4
ringgear_suspended 0";
        assert_eq!(samples(&view), expected);
        view.is_suspended.store(true, Relaxed);
        assert!(samples(&view).ends_with("ringgear_suspended 1"));
    }
}
