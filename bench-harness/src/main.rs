//! `bench-harness`: runs job servers beside one another under the same load and reports what they
//! cost.
//!
//! ```text
//! options ─▶ run ─▶ bench_target (contender, server) ─▶ load_generator, queue, queue_depth, large,
//!                        durable, connections, cores, tls ─▶ sample ─▶ stats ─▶ report, plot
//! ```
//!
//! `soak` is the other way round: one server, all kinds of load at once, for long. `relay` is the
//! floor: it moves the same bytes between the same sockets and decides nothing.

mod bench_target;
mod certificates;
mod connections;
mod contender;
mod cores;
mod data_dir;
mod durable;
mod format;
mod http;
mod large;
mod load_generator;
mod locate;
mod machine;
mod manager;
mod nagle;
mod options;
mod perf;
mod plot;
mod process;
mod progress;
mod queue;
mod queue_depth;
mod relay;
mod report;
mod retries;
mod run;
mod run_dir;
mod sample;
mod scenario;
mod soak;
mod stats;
mod tls;
mod wire;
mod wire_protocol;

use std::process::ExitCode;

use clap::Parser;
use ringgear::io::memory::Allocator;

use crate::options::{Action, Options};

/// The server's, so that the floor's memory is no worse than the server's, and the load's large
/// payloads lie where the kernel copies equally fast for all contenders.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

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
