//! The units in `packaging`, as systemd reads and rates them, and the server as their service.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output};

use nix::sys::signal::Signal;

use crate::{Server, at, directory, output, ringgeard, skips};

/// The worst rating that passes, times ten.
const THRESHOLD: &str = "--threshold=15";
/// Every unit.
const UNITS: [&str; 3] = ["ringgeard.service", "ringgeard.socket", "ringgear-manager.service"];

/// The text of a unit.
fn unit(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name);
    fs::read_to_string(path).unwrap()
}

/// What systemd says of files; `None` without systemd.
fn analyze(arguments: &[&str]) -> Option<Output> {
    match Command::new("systemd-analyze").arg("--no-pager").args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            skips::skip("systemd-analyze is not installed");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Whether systemd rates a service well enough, and what it says; `None` without systemd.
fn rate(unit: &str) -> Option<(bool, String)> {
    let (_directory, path) = directory();
    let file = path.join("ringgeard.service");
    fs::write(&file, unit).unwrap();
    let output = analyze(&["security", "--offline=yes", THRESHOLD, at(&file)])?;
    Some((output.status.success(), said(&output)))
}

fn said(output: &Output) -> String {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn the_service_may_do_little_and_its_own_sandbox_works_in_it() {
    let unit = unit("ringgeard.service");
    for call in ["create_ruleset", "add_rule", "restrict_self"] {
        assert!(unit.contains(&format!("landlock_{call}")), "{call}");
    }
    let Some((is_good, said)) = rate(&unit) else { return };
    assert!(is_good, "{said}");
    let open: String = unit
        .lines()
        .filter(|line| !line.starts_with("Protect"))
        .map(|line| format!("{line}\n"))
        .collect();
    let (is_good, said) = rate(&open).unwrap();
    assert!(!is_good, "it would pass anything: {said}");
}

/// systemd warns of keys and values that it doesn't know, and of programs that aren't there.
#[test]
fn systemd_has_nothing_against_the_units() {
    let (_directory, path) = directory();
    let verify = |change: &dyn Fn(String) -> String| {
        let files = UNITS.map(|name| {
            let program = env!("CARGO_BIN_EXE_ringgeard");
            let text = unit(name).replace("/usr/bin/ringgear-manager", program);
            let file = path.join(name);
            fs::write(&file, change(text.replace("/usr/bin/ringgeard", program))).unwrap();
            file
        });
        analyze(&[&["verify", "--man=no"], &files.each_ref().map(|file| at(file))[..]].concat())
    };
    let Some(output) = verify(&|text| text) else { return };
    assert_eq!((output.status.code(), said(&output)), (Some(0), String::new()));
    let output = verify(&|text| text.replace("WatchdogSec=", "WatchDogSec=")).unwrap();
    assert!(said(&output).contains("WatchDogSec"), "it would pass anything: {output:?}");
}

/// The sockets are those that the server has by itself, with the name that it takes.
#[test]
fn the_socket_unit_has_the_addresses_of_the_default() {
    let unit = unit("ringgeard.socket");
    let values = |key: &str| -> Vec<String> {
        let lines = unit.lines().filter_map(|line| line.strip_prefix(key));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(values("ListenStream="), ["127.0.0.1:4730", "[::1]:4730"]);
    assert_eq!(values("FileDescriptorName="), ["gearman"]);
}

#[test]
fn the_services_read_the_files_that_the_package_has() {
    let server = unit("ringgeard.service");
    assert!(server.contains("Environment=RINGGEARD_CONFIG_FILE=/etc/ringgear/ringgeard.toml\n"));
    assert!(server.contains("EnvironmentFile=-/etc/default/ringgeard\n"));
    assert!(server.contains("ExecStart=/usr/bin/ringgeard $PARAMS\n"));
    let manager = unit("ringgear-manager.service");
    let file = "Environment=RINGGEAR_MANAGER_CONFIG_FILE=/etc/ringgear/manager.toml\n";
    assert!(manager.contains(file));
    // The head of the file that the package gets, before all options as comments.
    let head = unit("etc/ringgeard.toml");
    let (_directory, path) = directory();
    let file = path.join("ringgeard.toml");
    fs::write(&file, head).unwrap();
    let output = output(ringgeard(&format!("--check-args --config-file {}", at(&file))));
    assert_eq!((output.status.code(), said(&output)), (Some(0), String::new()));
}

/// Debian's file for gearmand has a daemon with a log in a folder of its own. As a service that
/// notifies, the server can't leave, and a log that it can't open goes to the journal.
#[test]
fn what_debian_gives_gearmand_works_in_the_service() {
    let (_directory, path) = directory();
    let socket = path.join("notify");
    let _notified = UnixDatagram::bind(&socket).unwrap();
    let log = path.join("gearman-job-server/gearmand.log");
    let line = format!("--listen=localhost --daemon --log-file={} --port=0", at(&log));
    let mut command = ringgeard(&line);
    command.env("NOTIFY_SOCKET", &socket);
    let mut server = Server::start(command);
    server.wait_for("the log goes to standard error: cannot open the log file");
    server.wait_for("--daemon has no effect");
    server.port();
    assert_eq!(server.end(Signal::SIGTERM).code(), Some(0));
}
