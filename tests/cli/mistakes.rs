//! Mistakes of an operator: a table of starts in, the sentence that each ends with compared.
//!
//! `mistakes.txt` says what is written how. Every start is the real binary in a folder of its own,
//! without an environment but for what the table gives it.
//!
//! Invariant: a start that is refused exits with 1, prints nothing to standard output, and has the
//! sentence as the last line of standard error, the only one but for lines of the log.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::Uid;

use super::{at, directory, skips};

const TABLE: &str = include_str!("mistakes.txt");
/// Stands for any text in an expected sentence.
const ANYTHING: &str = "[..]";

/// A start of the table.
#[derive(Debug)]
struct Start<'a> {
    /// Its first line in the table.
    line: usize,
    /// Variables and arguments.
    words: Vec<&'a str>,
    /// Contents of %FILE%.
    file: String,
    /// Whether `--check-args` finds the mistake, too.
    is_checked: bool,
    expected: &'a str,
}

fn starts(table: &str) -> Vec<Start<'_>> {
    let mut starts: Vec<Start<'_>> = Vec::new();
    for (at, text) in table.lines().enumerate() {
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let (mark, rest) = text.split_at(1);
        let start = match mark {
            "$" | "!" => {
                starts.push(Start {
                    line: at + 1,
                    words: rest.split_whitespace().collect(),
                    file: String::new(),
                    is_checked: mark == "$",
                    expected: "",
                });
                continue;
            }
            _ => starts.last_mut().unwrap(),
        };
        match mark {
            "|" => start.file.push_str(&format!("{}\n", rest.strip_prefix(' ').unwrap_or(rest))),
            _ => {
                assert_eq!(start.expected, "", "line {}: a second sentence", at + 1);
                start.expected = text;
            }
        }
    }
    starts
}

/// Whether the text is the pattern, parts of which may be `ANYTHING`.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split(ANYTHING);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// The sentence that a start ends with.
fn refusal(mut command: Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    if output.status.code() != Some(1) || !output.stdout.is_empty() {
        return Err(format!("{output:?}"));
    }
    let text = stderr.trim_end();
    let (log, last) = text.rsplit_once('\n').unwrap_or(("", text));
    // Lines of the log begin with the year.
    if log.lines().any(|line| !line.starts_with("20")) {
        return Err(format!("more than a sentence: {stderr}"));
    }
    last.strip_prefix("ringgeard: ").map(str::to_owned).ok_or(stderr)
}

#[test]
fn every_mistake_ends_with_its_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let starts = starts(TABLE);
    assert!(starts.len() >= 60, "only {}", starts.len());
    let mut wrong = String::new();
    for start in &starts {
        for more in if start.is_checked { &["", "--check-args"][..] } else { &[""] } {
            let (_directory, folder) = directory();
            let file = folder.join("ringgear.conf");
            fs::write(&file, &start.file).unwrap();
            fs::write(folder.join("text"), "This is no database. ".repeat(99)).unwrap();
            let filled = |text: &str| {
                let text = text.replace("%FOLDER%", at(&folder)).replace("%FILE%", at(&file));
                text.replace("%TAKEN%", &port)
            };
            let mut command = Command::new(env!("CARGO_BIN_EXE_ringgeard"));
            command.env_clear().current_dir(&folder);
            let words = start.words.iter().filter(|word| !word.is_empty());
            for word in words.map(|word| filled(word)) {
                match word.split_once('=') {
                    Some((
                        name @ ("GEARMAND_PORT" | "LISTEN_PID" | "RINGGEARD_CONFIG_FILE"),
                        value,
                    )) => command.env(name, value),
                    _ => command.arg(word),
                };
            }
            command.args(more.split_whitespace());
            let expected = filled(start.expected);
            match refusal(command) {
                Ok(said) if is_like(&said, &expected) => {}
                Ok(said) | Err(said) => wrong.push_str(&format!(
                    "{}: {} {more}\n  expected {expected}\n  got      {said}\n",
                    start.line,
                    start.words.join(" ")
                )),
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// The binary for an ordinary user: a copy, as the original may lie where root alone can reach it.
fn as_ordinary_user(folder: &Path) -> Command {
    if !Uid::effective().is_root() {
        return Command::new(env!("CARGO_BIN_EXE_ringgeard"));
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.join("ringgeard");
    if !copy.exists() {
        // By another process: a file open for writing here would be inherited by the children of
        // tests beside this one, and a file that is being written can't be run.
        let binary = env!("CARGO_BIN_EXE_ringgeard");
        assert!(Command::new("cp").arg(binary).arg(&copy).status().unwrap().success());
    }
    let mut command = Command::new(copy);
    command.uid(65_534).gid(65_534);
    command
}

#[test]
fn an_ordinary_user_without_permission_gets_the_remedy() {
    let (_directory, folder) = directory();
    let closed = folder.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::write(closed.join("ringgear.conf"), "").unwrap();
    fs::write(folder.join("jobs.db"), "").unwrap();
    fs::write(folder.join("secret.conf"), "").unwrap();
    for (name, mode) in [("jobs.db", 0o444), ("secret.conf", 0o000), ("closed", 0o555)] {
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut starts = vec![
        (
            "-p 0 --store sqlite:FOLDER/closed/jobs.db",
            "jobs can't be kept in FOLDER/closed/jobs.db.lock: no permission; let the server's \
             user write to it and to the folder FOLDER/closed",
        ),
        (
            "-p 0 -P FOLDER/closed/pid",
            "cannot write the pid file FOLDER/closed/pid: Permission denied (os error 13); choose \
             another with --pid-file, in a folder that the server's user may write to",
        ),
        (
            "-p 0 -l FOLDER/closed/log",
            "cannot open the log file FOLDER/closed/log: Permission denied (os error 13); choose \
             another with --log-file, in a folder that the server's user may write to",
        ),
        (
            "--config-file FOLDER/secret.conf",
            "Could not open configuration file. FOLDER/secret.conf: Permission denied (os error \
             13); let the user that starts the server read it",
        ),
        ("-p 0 --user nobody", "Must be root to switch users: start as root, or leave --user out"),
    ];
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first: u16 = first.unwrap_or_default().trim().parse().unwrap_or(0);
    if first > 1 {
        starts.push((
            "-L 127.0.0.1 -p 1",
            "cannot listen on 127.0.0.1:1: no permission; choose a port above 1023 with --port, \
             start as root with --user, or let systemd give \
             AmbientCapabilities=CAP_NET_BIND_SERVICE",
        ));
    } else {
        skips::note("everybody may listen on ports below 1024 here");
    }
    for (line, expected) in starts {
        let filled = |text: &str| text.replace("FOLDER", at(&folder));
        let mut command = as_ordinary_user(&folder);
        command.env_clear().current_dir("/").args(filled(line).split_whitespace());
        assert_eq!(refusal(command), Ok(filled(expected)), "{line}");
    }
    // The test's own user may remove it again.
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_pattern_is_the_whole_sentence() {
    for (text, pattern, expected) in [
        ("a b c", "a b c", true),
        ("a b c", "a b", false),
        ("a b c", "a [..] c", true),
        ("a b c", "a [..]", true),
        ("a b c d", "a [..] c", false),
        ("a b c d e", "a [..] c [..] e", true),
    ] {
        assert_eq!(is_like(text, pattern), expected, "{text} {pattern}");
    }
}
