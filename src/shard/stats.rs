//! The numbers that the text command `stats` gives: each core's in, the sums' text out.
//!
//! Knows the counters of shard and engine. Names follow those of metrics.
//!
//! Invariant: the submitted and recovered jobs of an answer are those that there are, by their
//! states, and those that ended, by their reasons.

use std::ops::AddAssign;

use super::Shard;
use super::counters::Counters;
use super::handshakes::RESULTS;
use super::refusals::{KINDS, Kind};
use crate::engine::numbers::{Failure, Numbers};
use crate::engine::{self, FunctionId, Now};
use crate::protocol::access::{RIGHTS, Right};
use crate::protocol::admin::columns;
use crate::wire::tls::HandshakeResult;

/// One core's numbers, or the sums of several.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    counters: Counters,
    engine: engine::Counters,
    numbers: Numbers,
    refused: [u64; KINDS],
    denied: [u64; RIGHTS],
    handshakes: [u64; RESULTS],
    handshakes_open: u64,
    cores: u64,
    connections: u64,
    functions: u64,
    registrations: u64,
    queued: [u64; 3],
    delayed: u64,
    retrying: u64,
    dead: u64,
    dead_bytes: u64,
    storing: u64,
    running: u64,
    kept: u64,
    job_bytes: u64,
    used_bytes: i64,
    outbox_bytes: u64,
    /// Since when the oldest job has waited, in milliseconds since 1970.
    oldest_ms: Option<u64>,
}

impl AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        self.counters += other.counters;
        self.engine += other.engine;
        self.numbers += &other.numbers;
        self.refused.iter_mut().zip(other.refused).for_each(|(sum, more)| *sum += more);
        self.denied.iter_mut().zip(other.denied).for_each(|(sum, more)| *sum += more);
        self.handshakes.iter_mut().zip(other.handshakes).for_each(|(sum, more)| *sum += more);
        self.handshakes_open += other.handshakes_open;
        self.cores += other.cores;
        self.connections += other.connections;
        self.functions += other.functions;
        self.registrations += other.registrations;
        self.queued.iter_mut().zip(other.queued).for_each(|(sum, more)| *sum += more);
        self.delayed += other.delayed;
        self.retrying += other.retrying;
        self.dead += other.dead;
        self.dead_bytes += other.dead_bytes;
        self.storing += other.storing;
        self.running += other.running;
        self.kept += other.kept;
        self.job_bytes += other.job_bytes;
        self.used_bytes += other.used_bytes;
        self.outbox_bytes += other.outbox_bytes;
        self.oldest_ms = [self.oldest_ms, other.oldest_ms].into_iter().flatten().min();
    }
}

impl Stats {
    /// What there is, in a few words.
    #[must_use]
    pub fn summary(&self) -> String {
        let Self { functions, running, connections, .. } = self;
        let waiting = self.queued.iter().sum::<u64>() + self.delayed + self.storing + self.kept;
        format!(
            "functions {functions}, jobs waiting {waiting}, running {running}, connections \
             {connections}"
        )
    }
}

impl Shard {
    /// This core's numbers.
    pub(super) fn stats(&self) -> Stats {
        let Self { engine, connections, counters, refusals, denials, handshakes, .. } = self;
        let all = engine.all_gauges();
        let kept = engine.kept_by_priority();
        let queued = all.queued.iter().zip(kept).map(|(&waiting, kept)| u64::from(waiting - kept));
        let mut stats = Stats {
            counters: *counters,
            engine: engine.counters,
            numbers: engine.totals(),
            refused: refusals.totals(),
            denied: denials.totals(),
            handshakes: handshakes.totals(),
            handshakes_open: handshakes.open() as u64,
            cores: 1,
            connections: connections.len() as u64,
            functions: engine.functions().len() as u64,
            registrations: engine.registrations() as u64,
            delayed: all.delayed.into(),
            retrying: all.retrying.into(),
            dead: all.dead.into(),
            dead_bytes: engine.dead().bytes() as u64,
            storing: engine.jobs().len() as u64 - all.jobs(),
            running: all.running.into(),
            kept: kept.into_iter().map(u64::from).sum(),
            job_bytes: engine.job_bytes() as u64,
            used_bytes: self.load_bytes() as i64,
            outbox_bytes: connections.outbox_bytes() as u64,
            ..Stats::default()
        };
        stats.queued.iter_mut().zip(queued).for_each(|(sum, queued)| *sum = queued);
        stats
    }

    /// The same, with the age of the oldest job, for which every function is looked at.
    pub(super) fn stats_with_oldest(&self) -> Stats {
        let functions = self.engine.functions().iter_from(FunctionId::FIRST);
        let oldest = functions.filter_map(|(_, function)| self.engine.oldest_ms(function));
        Stats { oldest_ms: oldest.min(), ..self.stats() }
    }

    /// The answer to `stats` by the sums of all cores.
    pub(super) fn stats_text(&self, stats: &Stats, now: Now) -> Vec<u8> {
        let Stats { counters, engine, numbers, queued, .. } = stats;
        let [high, normal, low] = *queued;
        let failed = |failure: Failure| numbers.failed[failure as usize];
        // Here a job counts as submitted before the store has it.
        let submitted = numbers.submitted.iter().sum::<u64>() + stats.storing + engine.not_stored;
        let used_bytes = u64::try_from(stats.used_bytes).unwrap_or(0);
        let uptime_ms = now.mono_ms.saturating_sub(self.started.mono_ms);
        let mut out = Vec::new();
        let mut line = |name: &str, value: &dyn Fn(&mut Vec<u8>)| {
            out.extend_from_slice(name.as_bytes());
            out.push(b'\t');
            value(&mut out);
            out.push(b'\n');
        };
        let version = self.settings.identity.version;
        line("version", &|out| columns::name(out, version.as_bytes()));
        line("start_time_seconds", &|out| columns::moment(out, Some(self.started.unix_ms)));
        line("uptime_seconds", &|out| columns::age(out, Some(uptime_ms)));
        let oldest_ms = stats.oldest_ms.map(|since_ms| now.unix_ms.saturating_sub(since_ms));
        line("queue_oldest_age_seconds", &|out| columns::age(out, oldest_ms));
        let values = [
            ("cores", stats.cores),
            ("connections", stats.connections),
            ("functions", stats.functions),
            ("registrations", stats.registrations),
            ("jobs_queued_high", high),
            ("jobs_queued_normal", normal),
            ("jobs_queued_low", low),
            ("jobs_delayed", stats.delayed),
            ("jobs_storing", stats.storing),
            ("jobs_running", stats.running),
            ("jobs_kept", stats.kept),
            ("memory_job_bytes", stats.job_bytes),
            ("memory_used_bytes", used_bytes),
            ("memory_limit_bytes", self.settings.memory_bytes_max as u64),
            ("outbox_bytes", stats.outbox_bytes),
            ("frames_total", counters.frames()),
            ("connections_accepted_total", counters.connected),
            ("connections_refused_total", counters.refused),
            ("connections_malformed_total", counters.malformed),
            ("connections_unread_total", counters.slow_readers),
            ("connections_moved_total", counters.departed),
            ("jobs_submitted_total", submitted),
            ("jobs_joined_total", numbers.joined),
            ("jobs_recovered_total", numbers.recovered),
            ("jobs_assigned_total", numbers.run.count() + stats.running),
            ("jobs_requeued_total", numbers.rerun.iter().sum()),
            ("jobs_timed_out_total", engine.timed_out),
            ("jobs_completed_total", numbers.completed),
            ("jobs_failed_total", failed(Failure::Fail)),
            ("jobs_exception_total", failed(Failure::Exception)),
            ("jobs_lost_total", failed(Failure::Lost) + failed(Failure::TimedOut)),
            ("jobs_abandoned_total", failed(Failure::Abandoned)),
            ("jobs_cancelled_total", failed(Failure::Cancelled)),
            ("jobs_dropped_total", failed(Failure::Dropped)),
            ("jobs_not_stored_total", engine.not_stored),
            ("results_late_total", engine.late),
            ("wakeup_leases_expired_total", engine.leases_ended),
        ];
        for (name, value) in values {
            line(name, &|out| columns::number(out, value));
        }
        for kind in Kind::ALL {
            let value = stats.refused[kind as usize];
            line(kind.counter(), &|out| columns::number(out, value));
        }
        for right in Right::ALL {
            let name = format!("refused_access_{right}_total");
            line(&name, &|out| columns::number(out, stats.denied[right as usize]));
        }
        for result in HandshakeResult::ALL {
            let name = format!("tls_handshakes_{}_total", result.name());
            line(&name, &|out| columns::number(out, stats.handshakes[result as usize]));
        }
        line("tls_handshakes_open", &|out| columns::number(out, stats.handshakes_open));
        let until_ms = self.tls.not_after_s().map(|until_s| until_s.saturating_mul(1000));
        line("tls_certificate_not_after_timestamp_seconds", &|out| columns::moment(out, until_ms));
        for (name, value) in [
            ("jobs_retrying", stats.retrying),
            ("jobs_expired_total", failed(Failure::Expired)),
            ("jobs_dead", stats.dead),
            ("jobs_dead_total", numbers.dead.iter().sum()),
            ("dead_bytes", stats.dead_bytes),
            ("dead_dropped_total", engine.dead_dropped.iter().sum()),
            ("jobs_handed_over_total", numbers.handed_over),
        ] {
            line(name, &|out| columns::number(out, value));
        }
        out.extend_from_slice(b".\n");
        out
    }
}

/// What metrics tell besides what functions have.
impl Stats {
    /// The shard's events.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The engines' events that aren't counted by function.
    #[must_use]
    pub fn engine(&self) -> &engine::Counters {
        &self.engine
    }

    /// The sums of all functions' numbers.
    #[must_use]
    pub fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// Refusals by the access list, by right.
    #[must_use]
    pub fn denied(&self) -> [u64; RIGHTS] {
        self.denied
    }

    /// TLS handshakes that ended, by `HandshakeResult`.
    #[must_use]
    pub fn handshakes(&self) -> [u64; RESULTS] {
        self.handshakes
    }

    /// TLS handshakes that haven't ended.
    #[must_use]
    pub fn handshakes_open(&self) -> u64 {
        self.handshakes_open
    }

    /// Wake-ups after which the worker didn't ask in time.
    #[must_use]
    pub fn leases_expired(&self) -> u64 {
        self.engine.leases_ended
    }
}

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryBytes {
    /// Of jobs.
    pub jobs: u64,
    /// Of all that counts towards the limit; one core's may be negative.
    pub used: i64,
    /// What waits to leave for peers.
    pub outboxes: u64,
}

impl Stats {
    /// Memory.
    #[must_use]
    pub fn memory(&self) -> MemoryBytes {
        MemoryBytes { jobs: self.job_bytes, used: self.used_bytes, outboxes: self.outbox_bytes }
    }
}
