//! What is told of the server as a whole and of its cores.
//!
//! The cores' numbers in, families out. Knows no function.
//!
//! Invariant: a counter is a sum over the cores, so that it doesn't fall when a connection moves.

use std::fmt::Error;

use super::Scrape;
use crate::engine::counters::{ATTEMPT_BOUNDS, DROPPED};
use crate::engine::numbers::Failure;
use crate::io::{TURN_BOUNDS_US, TurnTimes};
use crate::ops::exposition::{Families, Histogram, PLAIN};
use crate::protocol::access::Right;
use crate::shard::stats::Stats;
use crate::store::health::{COMMIT_BOUNDS_US, StoreNumbers};
use crate::wire::tls::HandshakeResult;
use crate::wire::{Command, Sender};

/// How long a core's turns took, and how long its thread ran or waited for a processor, in seconds.
pub(super) type CoreTimes = (TurnTimes, Option<f64>);

pub(super) fn encode(families: &mut Families<'_>, scrape: &Scrape) -> Result<(), Error> {
    let stats = scrape.snapshot.cores.iter().fold(Stats::default(), |mut sum, core| {
        sum += core.stats;
        sum
    });
    families.info(
        "ringgear",
        "The server's version, event loop and kind of store",
        [
            ("version", scrape.version),
            ("driver", scrape.driver),
            ("store", scrape.store.unwrap_or("none")),
        ],
    )?;
    encode_connections(families, scrape, &stats)?;
    encode_packets(families, &stats)?;
    encode_outcomes(families, scrape, &stats)?;
    encode_access(families, scrape, &stats)?;
    encode_memory(families, scrape, &stats)?;
    encode_cores(families, scrape)?;
    if let Some(numbers) = &scrape.store_numbers {
        encode_store(families, numbers)?;
    }
    families.counter(
        "ringgear_log_lines",
        "Lines of the log",
        scrape.log_lines.iter().map(|&(level, lines)| ([("level", level)], lines)),
    )?;
    families.gauge(
        "ringgear_scrape_seconds",
        "How long the scrape before this one took; 0 for the first",
        [(PLAIN, scrape.last_seconds)],
    )
}

fn encode_connections(
    families: &mut Families<'_>,
    scrape: &Scrape,
    stats: &Stats,
) -> Result<(), Error> {
    let kinds = scrape.snapshot.cores.iter().map(|core| core.connections);
    let [plain, tls, unix] = kinds
        .fold([0; 3], |[plain, tls, unix], it| [plain + it.plain, tls + it.tls, unix + it.unix]);
    let kinds = [("plain", plain), ("tls", tls), ("unix", unix), ("http", scrape.http_connections)];
    families.gauge(
        "ringgear_connections",
        "Open connections; http are those of any kind to an HTTP port",
        kinds.map(|(kind, count)| ([("kind", kind)], count)),
    )?;
    let counters = stats.counters();
    families.counter(
        "ringgear_connections_accepted",
        "Connections that came to a Gearman port, those that were refused not counted",
        [(PLAIN, counters.connected)],
    )?;
    families.counter(
        "ringgear_connections_refused",
        "Connections that were turned away because there were too many",
        [(PLAIN, counters.refused)],
    )?;
    families.counter(
        "ringgear_connections_closed",
        "Connections that ended",
        counters.closed().map(|(reason, count)| ([("reason", reason)], count)),
    )?;
    families.counter(
        "ringgear_connections_moved",
        "Connections that went from one core to another",
        [(PLAIN, counters.departed)],
    )
}

fn encode_packets(families: &mut Families<'_>, stats: &Stats) -> Result<(), Error> {
    let counters = stats.counters();
    let comes = |command: &&Command| matches!(command.sender(), Sender::Peer | Sender::Both);
    let packets = Command::ALL.iter().map(|&command| (command, counters.packets[command]));
    families.counter(
        "ringgear_packets",
        "Packets that came in",
        packets
            .filter(|(command, count)| comes(&command) || *count > 0)
            .map(|(command, count)| ([("type", command.name())], count)),
    )?;
    let plain = [
        (
            "ringgear_packets_refused",
            "Packets whose body was refused, for its size or for want of memory",
            counters.packets_refused,
        ),
        ("ringgear_text_lines", "Lines of the text protocol that came in", counters.lines),
        (
            "ringgear_received_bytes",
            "Bytes that came to Gearman ports, as they were on the wire",
            counters.received_bytes,
        ),
        (
            "ringgear_sent_bytes",
            "Bytes that left by Gearman ports, as they were on the wire",
            counters.sent_bytes,
        ),
        ("ringgear_wakeups", "NOOPs that woke workers", counters.wakeups),
        (
            "ringgear_wakeup_leases_expired",
            "Wake-ups after which the worker didn't ask for a job in time, and another was woken",
            stats.leases_expired(),
        ),
    ];
    for (name, help, value) in plain {
        families.counter(name, help, [(PLAIN, value)])?;
    }
    Ok(())
}

fn encode_outcomes(
    families: &mut Families<'_>,
    scrape: &Scrape,
    stats: &Stats,
) -> Result<(), Error> {
    let engine = stats.engine();
    families.histogram(
        "ringgear_job_attempts",
        "Runs of jobs that ended in a worker, by how many it were",
        [(PLAIN, attempts(stats))],
    )?;
    families.gauge(
        "ringgear_dead_bytes",
        "Memory of dead letters with their payloads",
        [(PLAIN, scrape.snapshot.cores.iter().map(|core| core.dead_bytes).sum::<u64>())],
    )?;
    families.counter(
        "ringgear_dead_dropped",
        "Dead letters that were dropped: there were too many, they were too large or too old",
        DROPPED.map(|(why, name)| ([("reason", name)], engine.dead_dropped[why as usize])),
    )
}

/// The engines count jobs that took more than one run; the others that ended in a worker took one.
fn attempts(stats: &Stats) -> Histogram {
    let (engine, numbers) = (stats.engine(), stats.numbers());
    let by_worker = [Failure::Fail, Failure::Exception, Failure::Lost, Failure::TimedOut];
    let failed: u64 = by_worker.iter().map(|&failure| numbers.failed[failure as usize]).sum();
    let several: u64 = engine.attempts.iter().sum();
    let single = (numbers.completed + failed).saturating_sub(several);
    let mut buckets = engine.attempts;
    buckets[0] += single;
    Histogram::new(&ATTEMPT_BOUNDS, 1.0, &buckets, (engine.attempts_sum + single) as f64)
}

fn encode_access(families: &mut Families<'_>, scrape: &Scrape, stats: &Stats) -> Result<(), Error> {
    let (http, gearman) = (scrape.http_denied, stats.denied());
    let denied = Right::ALL
        .map(|right| ([("right", right.name())], http[right as usize] + gearman[right as usize]));
    families.counter("ringgear_access_refused", "Requests that the access list refused", denied)?;
    let results = HandshakeResult::ALL
        .map(|result| ([("result", result.name())], stats.handshakes()[result as usize]));
    families.counter("ringgear_tls_handshakes", "TLS handshakes that ended", results)?;
    families.gauge(
        "ringgear_tls_handshakes_open",
        "TLS handshakes that have not ended",
        [(PLAIN, stats.handshakes_open())],
    )?;
    families.gauge(
        "ringgear_tls_certificate_not_after_timestamp_seconds",
        "Until when the server's certificate is valid, in seconds since 1970",
        scrape.certificate_until_s.map(|until_s| (PLAIN, until_s)),
    )
}

fn encode_memory(families: &mut Families<'_>, scrape: &Scrape, stats: &Stats) -> Result<(), Error> {
    let memory = stats.memory();
    let gauges = [
        ("ringgear_memory_job_bytes", "Memory of jobs with their payloads", memory.jobs),
        (
            "ringgear_memory_used_bytes",
            "Memory that counts towards the limit",
            u64::try_from(memory.used).unwrap_or(0),
        ),
        ("ringgear_memory_limit_bytes", "Most memory, --memory-max", scrape.memory_bytes_max),
        ("ringgear_outbox_bytes", "Bytes that wait for peers to read them", memory.outboxes),
    ];
    for (name, help, value) in gauges {
        families.gauge(name, help, [(PLAIN, value)])?;
    }
    Ok(())
}

fn encode_cores(families: &mut Families<'_>, scrape: &Scrape) -> Result<(), Error> {
    let names: Vec<String> = (0..scrape.core_times.len()).map(|core| core.to_string()).collect();
    let labels = || names.iter().map(|name| [("core", name.as_str())]);
    let busy = scrape.core_times.iter().map(|&(_, busy)| busy);
    families.counter(
        "ringgear_core_busy_seconds",
        "Time for which a core's thread ran, or waited for a processor",
        labels().zip(busy).filter_map(|(labels, busy)| Some((labels, busy?))),
    )?;
    let turns = scrape.core_times.iter().map(|(turns, _)| {
        Histogram::new(
            &TURN_BOUNDS_US.map(|us| us as f64),
            1e6,
            &turns.buckets,
            turns.sum_us as f64 / 1e6,
        )
    });
    families.histogram(
        "ringgear_core_turn_seconds",
        "How long the turns of a core's loop took",
        labels().zip(turns),
    )?;
    let messages = scrape.snapshot.cores.iter().map(|core| core.stats.counters().messages);
    families.counter(
        "ringgear_core_messages",
        "Messages that a core got from other cores and from the HTTP thread",
        labels().zip(messages),
    )
}

fn encode_store(families: &mut Families<'_>, numbers: &StoreNumbers) -> Result<(), Error> {
    families.gauge(
        "ringgear_store_up",
        "Whether the store can be written to",
        [(PLAIN, u32::from(numbers.up))],
    )?;
    let bounds = COMMIT_BOUNDS_US.map(|us| us as f64);
    let sum = numbers.commit_sum_us as f64 / 1e6;
    families.histogram(
        "ringgear_store_commit_seconds",
        "How long commits of the store took",
        [(PLAIN, Histogram::new(&bounds, 1e6, &numbers.commits, sum))],
    )?;
    families.gauge(
        "ringgear_store_pending_operations",
        "Operations that the store has not done yet",
        [(PLAIN, numbers.pending)],
    )?;
    let oldest_ms = numbers.oldest_pending_ms.unwrap_or(0);
    families.gauge(
        "ringgear_store_oldest_pending_seconds",
        "How long the oldest of them has waited; 0 without one",
        [(PLAIN, oldest_ms as f64 / 1e3)],
    )
}
