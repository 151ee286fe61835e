//! `bench-harness`: runs job servers beside one another under the same load and reports what they
//! cost.
//!
//! ```text
//! options ─▶ run ─▶ contender (start, pin, ready) ─▶ load (loadgen, queue, deep, large,
//!                                                      durable, crowds, cores) ─▶ sample ─┐
//!                                                                                         │
//! README.md, samples.csv, *.svg ◀─ plot ◀─ report ◀─ stats ◀────────────────────────────────┘
//! ```
//!
//! `soak` is the other way round: one server, all kinds of load at once, for long.
//! `relay` is the floor: a program that moves the same bytes between the same sockets and decides
//! nothing.

mod beside;
mod contender;
mod cores;
mod crowds;
mod deep;
mod dialect;
mod durable;
mod folder;
mod large;
mod loadgen;
mod machine;
mod options;
mod perf;
mod plot;
mod process;
mod queue;
mod relay;
mod report;
mod run;
mod sample;
mod scenario;
mod scratch;
mod soak;
mod stats;
mod subject;

use std::process::ExitCode;

use clap::Parser;

use crate::options::{Action, Options};

fn main() -> ExitCode {
    let result = match Options::parse().action {
        Action::Run(options) => run::run(&options),
        Action::Soak(options) => soak::run(&options),
        Action::Report(options) => report::again(&options.folder),
        Action::Relay(options) => relay::run(&options).map(|()| true),
        Action::List => {
            run::list();
            Ok(true)
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench-harness: {error:#}");
            ExitCode::FAILURE
        }
    }
}
