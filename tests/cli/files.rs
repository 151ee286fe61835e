//! Modes of the files that a server makes: whatever its umask, and whatever was there before.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::{Server, at, directory, until, with_words};

/// Its name, and its mode as the manual says.
const FILES: [(&str, u32); 6] = [
    ("jobs.db", 0o600),
    ("jobs.db-wal", 0o600),
    ("jobs.db-shm", 0o600),
    ("jobs.db.lock", 0o600),
    ("log", 0o640),
    ("pid", 0o644),
];

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).mode() & 0o777
}

/// A server with all of its files in a folder, which listens.
fn server_in(folder: &Path, umask: &str) -> Server {
    let line = format!(
        "-L 127.0.0.1 -p 0 --io epoll --store sqlite:{} -l {} -P {}",
        at(&folder.join("jobs.db")),
        at(&folder.join("log")),
        at(&folder.join("pid"))
    );
    let mut shell = Command::new("sh");
    let script = format!("umask {umask}; exec \"$0\" \"$@\"");
    shell.args(["-c", &script, env!("CARGO_BIN_EXE_ringgeard")]);
    let server = Server::start(with_words(shell, &line));
    let log = folder.join("log");
    let text = || String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
    until("it listens", || text().contains("listening on 127.0.0.1:"));
    server
}

#[test]
fn files_have_their_modes_whatever_the_umask() {
    for umask in ["0", "022", "077", "0777"] {
        let (_directory, path) = directory();
        let server = server_in(&path, umask);
        for (name, mode) in FILES {
            assert_eq!(mode_of(&path.join(name)), mode, "{name} with umask {umask}");
        }
        assert_eq!(server.end(Signal::SIGTERM).code(), Some(0));
    }
}

#[test]
fn files_that_were_open_to_other_users_are_narrowed_with_a_line_each() {
    let (_directory, path) = directory();
    // What a server of an earlier version left.
    assert_eq!(server_in(&path, "022").end(Signal::SIGKILL).code(), None);
    for (name, _) in FILES {
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(0o666)).unwrap();
    }
    // Its lines would pass for those of the next one.
    fs::write(path.join("log"), "").unwrap();
    let server = server_in(&path, "0");
    let log = fs::read_to_string(path.join("log")).unwrap();
    for (name, mode) in FILES {
        assert_eq!(mode_of(&path.join(name)), mode, "{name}");
        let line = format!("/{name} had mode 0666, open to other users, and has {mode:04o} now");
        // A pid file is made anew.
        assert_eq!(log.contains(&line), name != "pid", "{name} in {log}");
    }
    // A log that something else made for the server to reopen.
    fs::set_permissions(path.join("log"), fs::Permissions::from_mode(0o604)).unwrap();
    server.signal(Signal::SIGHUP);
    let log = || fs::read_to_string(path.join("log")).unwrap();
    until("it is narrowed", || log().contains("had mode 0604, open to other users, and has 0600"));
    assert_eq!(mode_of(&path.join("log")), 0o600);
    assert_eq!(server.end(Signal::SIGTERM).code(), Some(0));
}
