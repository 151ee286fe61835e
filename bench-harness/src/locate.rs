//! The project's other binaries: beside this one, or where an option says.

use std::path::{Path, PathBuf};

/// A binary of the workspace, or one sentence on how to get it.
pub(crate) fn find(name: &str, given: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(path) = given {
        return if path.is_file() {
            Ok(path.to_owned())
        } else {
            Err(format!("{} is no file", path.display()))
        };
    }
    let here = std::env::current_exe().unwrap_or_default();
    let beside = here.with_file_name(name);
    if beside.is_file() {
        Ok(beside)
    } else {
        Err(format!(
            "no {name} beside bench-harness: run `cargo build --release --workspace`, or give \
             --{name} PATH"
        ))
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
