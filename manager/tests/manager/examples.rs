//! The scripts of `examples`, as their readers run them, with the programs of this build.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::child::forget_environment;
use crate::server::ringgeard;

/// A folder that scripts take for the one of cargo's builds.
pub(crate) fn target_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let built = folder.path().join("release");
    fs::create_dir(&built).unwrap();
    symlink(ringgeard(), built.join("ringgeard")).unwrap();
    let manager = env!("CARGO_BIN_EXE_ringgear-manager");
    symlink(manager, built.join("ringgear-manager")).unwrap();
    folder
}

/// A script of the examples, which finds the programs in that folder.
pub(crate) fn script(name: &str, target_folder: &Path) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("examples").join(name);
    // A shell can't catch signals that were ignored when it started, as under nohup.
    let mut command = Command::new("env");
    command.arg("--default-signal=HUP,INT,QUIT").arg(path);
    forget_environment(&mut command);
    command.env("CARGO_TARGET_DIR", target_folder);
    command
}
