//! `ringgear-manager`: options, file, run, exit code.
//!
//! An error before the workers run is printed as one sentence, with exit code 1.

use std::process::ExitCode;

use clap::Parser as _;
use ringgear_manager::options::Options;

fn main() -> ExitCode {
    let _options = Options::parse();
    ExitCode::SUCCESS
}
