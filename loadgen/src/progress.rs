//! How the run goes: one line on the terminal for people, lines of JSON for programs.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use crate::distributions::Span;
use crate::error::Error;
use crate::shared::{LiveCounts, Phase, Shared};
use crate::units::{rate, time};

/// How often the line is written anew.
const EVERY_NS: u64 = 500_000_000;

/// The line.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    shown_ns: u64,
    answered: u64,
    is_shown: bool,
}

/// The lines for programs, if any are wanted.
#[derive(Debug)]
pub(crate) struct Live {
    every: Option<Duration>,
    next_seconds: f64,
}

impl Live {
    pub(crate) fn new(every: Option<Span>) -> Self {
        Self { every: every.map(|every| every.0), next_seconds: 0.0 }
    }

    /// Writes the counts if it is time, or the end.
    pub(crate) fn tell(&mut self, counts: &LiveCounts, is_end: bool) -> Result<(), Error> {
        let Some(every) = self.every else { return Ok(()) };
        if counts.seconds < self.next_seconds && !is_end {
            return Ok(());
        }
        self.next_seconds = counts.seconds + every.as_secs_f64();
        let line = serde_json::to_string(counts).unwrap_or_default();
        writeln!(std::io::stderr(), "{line}")
            .map_err(|cause| Error::Unread { stream: "standard error", cause })
    }
}

/// Whether a terminal would show it.
pub(crate) fn has_reader() -> bool {
    std::io::stderr().is_terminal()
}

impl Progress {
    /// Writes the line if it is time.
    pub(crate) fn show(&mut self, shared: &Shared, phase: Phase) {
        let now_ns = shared.clock.now_ns();
        if !shared.watched || now_ns < self.shown_ns + EVERY_NS {
            return;
        }
        let answered = shared.sum(|live| &live.answered);
        let seconds = (now_ns - self.shown_ns) as f64 / 1e9;
        let per_second = (answered - self.answered) as f64 / seconds;
        let what = match phase {
            Phase::SetUp => {
                let ready = shared.sum(|live| &live.ready);
                format!("connecting {ready} of {}", shared.options.connections())
            }
            Phase::WarmUp => "warming up".to_owned(),
            Phase::Measured => "measuring".to_owned(),
            Phase::Drain | Phase::Done => "waiting for the last answers".to_owned(),
        };
        let in_flight = shared.sum(|live| &live.in_flight);
        let p99_us = shared.max(|live| &live.p99_ns) as f64 / 1e3;
        let faults = shared.sum(|live| &live.faults);
        eprint!(
            "\r\x1b[K{what}: {}, {in_flight} in flight, p99 {}, {faults} faults",
            rate(per_second, "jobs"),
            time(p99_us)
        );
        let _ = std::io::stderr().flush();
        self.shown_ns = now_ns;
        self.answered = answered;
        self.is_shown = true;
    }

    /// Takes the line away.
    pub(crate) fn clear(&self) {
        if self.is_shown {
            eprint!("\r\x1b[K");
        }
    }
}
