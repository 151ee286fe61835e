//! Programs: where they are, which package has them, and what they say in one line.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A binary of the workspace, or one sentence on how to get it.
pub(crate) fn find(name: &str, given: Option<&Path>) -> Result<PathBuf, String> {
    let beside = std::env::current_exe().unwrap_or_default().with_file_name(name);
    match given {
        Some(path) if path.is_file() => Ok(path.to_owned()),
        Some(path) => Err(format!("{} is no file", path.display())),
        None if beside.is_file() => Ok(beside),
        None => Err(format!(
            "no {name} beside bench-harness: run `cargo build --release --workspace`, or give \
             --{name} PATH"
        )),
    }
}

/// A program that doesn't belong to this project, or which package has it.
pub(crate) fn installed(path: &Path, package: &str) -> Result<PathBuf, String> {
    if path.is_file() {
        Ok(path.to_owned())
    } else {
        Err(format!("{} is missing; Debian's package {package} has it", path.display()))
    }
}

/// All that a program prints.
pub(crate) fn output(program: impl AsRef<OsStr>, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&text).into_owned()
}

/// The first line of that which isn't empty.
pub(crate) fn first_line(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let text = output(program, arguments);
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}
