//! `loadgen`: parse, run, print, exit code (0 clean, 1 faults, 2 no run).

use std::process::ExitCode;

use clap::Parser;
use loadgen::Error;
use loadgen::options::Options;

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) if error.use_stderr() => {
            // The first paragraph is the sentence; usage and hints follow it.
            let text = error.render().to_string();
            let sentence = text.split("\n\n").next().unwrap_or_default();
            let sentence = sentence.strip_prefix("error: ").unwrap_or(sentence);
            return complain(&sentence.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        Err(help) => help.exit(),
    };
    match measure(&options) {
        Ok(code) => ExitCode::from(code),
        Err(error) => complain(&error.to_string()),
    }
}

fn measure(options: &Options) -> Result<u8, Error> {
    let report = loadgen::run(options)?;
    if let Some(path) = &options.hdr {
        report.write_distribution(path)?;
    }
    if options.json {
        let json = serde_json::to_string(&report);
        println!("{}", json.map_err(|cause| Error::Usage(cause.to_string()))?);
    } else {
        print!("{report}");
    }
    Ok(report.exit_code())
}

fn complain(sentence: &str) -> ExitCode {
    eprintln!("loadgen: {sentence}");
    ExitCode::from(2)
}
