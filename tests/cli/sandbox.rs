//! The sandbox of a real server: what still works in it, and what the log says.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::{Server, at, directory, output, port_in, ringgeard, skips, until};

const COMPLETE: &str =
    "sandbox: files, TCP ports and processes that the server doesn't use are out of reach";
const LIST: &str = "[[rule]]\nwho = {}\nmay = [\"submit\", \"work\", \"observe\", \"admin\"]\n";

/// Whether this kernel has all of it, as a server says that requires it and then listens nowhere.
fn is_complete() -> bool {
    let words = "--sandbox require --io epoll -p 0 --store sqlite:/nonexistent/jobs.db";
    let output = output(ringgeard(words));
    let said = String::from_utf8(output.stderr).unwrap();
    if said.contains(COMPLETE) {
        return true;
    }
    skips::skip("the kernel has no Landlock, or not all of it");
    false
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn ask(port: u16, line: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(line.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn in_a_complete_sandbox_files_are_opened_anew_after_renaming() {
    if !is_complete() {
        return;
    }
    let (_directory, path) = directory();
    let [log, pid, list, database] =
        ["log/log", "run/pid", "etc/access.toml", "data/jobs.db"].map(|name| path.join(name));
    for file in [&log, &pid, &list, &database] {
        fs::create_dir(file.parent().unwrap()).unwrap();
    }
    fs::write(&list, LIST).unwrap();
    let line = format!(
        "--sandbox require -L 127.0.0.1 -p 0 -t 2 --ring-entries 64 -l {} -P {} --access-file {} \
         --store sqlite:{} --syslog --coredump",
        at(&log),
        at(&pid),
        at(&list),
        at(&database)
    );
    let server = Server::start(ringgeard(&line));
    until("it listens", || read(&log).contains("listening on 127.0.0.1:"));
    let said = read(&log);
    assert!(said.contains(COMPLETE), "{said}");
    let port = port_in(&said);
    assert!(ask(port, "show access\n").contains("submit"));

    // As logrotate and an editor do.
    fs::rename(&log, path.join("log/log.1")).unwrap();
    let new_list = path.join("etc/new.toml");
    fs::write(&new_list, LIST.replace("\"submit\", ", "")).unwrap();
    fs::rename(&new_list, &list).unwrap();
    server.signal(Signal::SIGHUP);
    until("the list is read", || read(&log).contains("access list read"));
    assert!(read(&log).contains("SIGHUP, log reopened"));
    assert!(!ask(port, "show access\n").contains("submit"));
    assert_eq!(server.end(Signal::SIGTERM).code(), Some(0));
    assert!(!pid.exists(), "it is removed at the end");
}

#[test]
fn without_a_sandbox_the_log_has_no_word_of_it() {
    for (options, says_so) in [("--sandbox off", false), ("", true)] {
        let words = format!("{options} --io epoll -p 0 --store sqlite:/nonexistent/jobs.db");
        let output = output(ringgeard(&words));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.contains("sandbox"), says_so, "{said}");
    }
}
