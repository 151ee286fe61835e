//! `loadgen`: parse, run, print, exit code (0 clean, 1 faults, 2 no run).

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use loadgen::options::{Options, sentence};
use loadgen::{Error, report};

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) if error.use_stderr() => return complain(&sentence(&error)),
        Err(help) => help.exit(),
    };
    match measure(&options) {
        Ok(code) => ExitCode::from(code),
        Err(error) => complain(&error.to_string()),
    }
}

fn measure(options: &Options) -> Result<u8, Error> {
    if let Some(path) = &options.hdr {
        // Else a run would be lost that can't be written down.
        report::check_writable(path)?;
    }
    let report = loadgen::run(options)?;
    if let Some(path) = &options.hdr {
        report.write_distribution(path)?;
    }
    let text = match options.json {
        true => report.to_json() + "\n",
        false => report.to_string(),
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|cause| Error::Unread { stream: "standard output", cause })?;
    Ok(report.exit_code())
}

fn complain(sentence: &str) -> ExitCode {
    eprintln!("loadgen: {sentence}");
    ExitCode::from(2)
}
