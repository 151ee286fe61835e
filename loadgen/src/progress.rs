//! How the run goes: one line on the terminal for people, lines of JSON for programs.

use std::io::{IsTerminal, Write};

use serde::{Deserialize, Serialize};

use crate::clock::nanos;
use crate::distributions::Span;
use crate::error::Error;
use crate::shared::{Phase, Shared};

/// How often the line is written anew.
const EVERY_NS: u64 = 500_000_000;

/// The line.
#[derive(Debug)]
pub(crate) struct Progress {
    shown_ns: u64,
    answered: u64,
    is_shown: bool,
    /// How often programs are told, if there are any.
    tell_every_ns: Option<u64>,
    told_ns: u64,
}

/// The counts so far, all since the start: a line of `--live`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct LiveCounts {
    /// Since the run began.
    pub seconds: f64,
    /// Connections that are set up.
    pub connections: u64,
    /// Jobs answered: foreground ones by their result, the others by their handle.
    pub answered: u64,
    /// Jobs that the workers have run, each counted once.
    pub ran: u64,
    /// Jobs without an answer.
    pub in_flight: u64,
    /// Everything that went wrong.
    pub faults: u64,
}

/// Whether anybody would see it.
pub(crate) fn has_reader() -> bool {
    std::io::stderr().is_terminal()
}

impl Progress {
    pub(crate) fn new(live: Option<Span>) -> Self {
        let tell_every_ns = live.map(|every| nanos(every.0));
        Self { shown_ns: 0, answered: 0, is_shown: false, tell_every_ns, told_ns: 0 }
    }

    /// Writes a line for programs if it is time.
    pub(crate) fn tell(&mut self, shared: &Shared) -> Result<(), Error> {
        let now_ns = shared.clock.now_ns();
        if self.tell_every_ns.is_none_or(|every_ns| now_ns < self.told_ns + every_ns) {
            return Ok(());
        }
        self.told_ns = now_ns;
        tell(shared, now_ns)
    }

    /// Writes the last line for programs, whenever the one before was.
    pub(crate) fn tell_end(&self, shared: &Shared) -> Result<(), Error> {
        self.tell_every_ns.map_or(Ok(()), |_| tell(shared, shared.clock.now_ns()))
    }

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
            "\r\x1b[K{what}: {per_second:.0} jobs/s, {in_flight} in flight, p99 {p99_us:.0} µs, \
             {faults} faults"
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

/// Writes the counts as they are.
fn tell(shared: &Shared, now_ns: u64) -> Result<(), Error> {
    let counts = LiveCounts {
        seconds: now_ns as f64 / 1e9,
        connections: shared.sum(|live| &live.ready),
        answered: shared.sum(|live| &live.answered),
        ran: shared.sum(|live| &live.ran),
        in_flight: shared.sum(|live| &live.in_flight),
        faults: shared.sum(|live| &live.faults),
    };
    let line = serde_json::to_string(&counts).unwrap_or_default();
    writeln!(std::io::stderr(), "{line}")
        .map_err(|cause| Error::Write { path: "standard error".to_owned(), cause })
}
