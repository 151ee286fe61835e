//! One line on the terminal that says how the run goes.

use std::io::{IsTerminal, Write};

use crate::shared::{Phase, Shared};

/// How often the line is written anew.
const EVERY_NS: u64 = 500_000_000;

/// The line.
#[derive(Debug)]
pub(crate) struct Progress {
    shown_ns: u64,
    answered: u64,
    is_shown: bool,
}

/// Whether anybody would see it.
pub(crate) fn has_reader() -> bool {
    std::io::stderr().is_terminal()
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { shown_ns: 0, answered: 0, is_shown: false }
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
