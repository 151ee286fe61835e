//! Programs that tests start: a command in, a child out whose log is read all the time; where
//! other people's tools are; conditions that are waited for.
//!
//! Tests of tools that a machine lacks are skipped, which `skips` tells.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::skips::skip;

/// How long anything may take that should take no time at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Everything a program has written to its standard error.
#[derive(Default)]
pub(crate) struct Log {
    text: Mutex<String>,
    grown: Condvar,
    /// Whether all of it has been read.
    is_read: AtomicBool,
}

impl Log {
    /// What has been written so far.
    pub(crate) fn text(&self) -> String {
        self.text.lock().expect("no panic").clone()
    }

    /// Waits until more has been written, or for so long.
    pub(crate) fn wait(&self, longest: Duration) {
        let text = self.text.lock().expect("no panic");
        drop(self.grown.wait_timeout(text, longest));
    }

    /// Waits until `found` makes something of what follows `text` on a whole line.
    pub(crate) fn wait_for<T>(&self, text: &str, found: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = self.text();
            let mut rests = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            let rest = rests.find_map(|line| found(line.split_once(text)?.1));
            if let Some(value) = rest {
                return value;
            }
            assert!(Instant::now() < deadline, "no {text:?} in the log:\n{log}");
            self.wait(Duration::from_millis(20));
        }
    }

    /// Waits until nothing can be written any more, and all has been read.
    pub(crate) fn wait_for_end(&self) {
        let is_read = || self.is_read.load(Ordering::Acquire).then_some(());
        wait_until("the end of a log", is_read);
    }
}

/// Takes from a program what the user's environment says of ports, files and PostgreSQL.
pub(crate) fn forget_environment(command: &mut Command) {
    let is_ours =
        |name: &str| ["GEARMAN", "RINGGEAR", "PG"].iter().any(|start| name.starts_with(start));
    for (name, _) in std::env::vars().filter(|(name, _)| is_ours(name)) {
        command.env_remove(name);
    }
}

/// Starts a program that reads nothing, whose output isn't looked at, but for its log.
pub(crate) fn spawn(command: &mut Command) -> (Child, Arc<Log>) {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let stderr = child.stderr.take().expect("a pipe");
    let log = Arc::new(Log::default());
    let writer = Arc::clone(&log);
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stderr);
        let mut line = Vec::new();
        while matches!(lines.read_until(b'\n', &mut line), Ok(1..)) {
            writer.text.lock().expect("no panic").push_str(&String::from_utf8_lossy(&line));
            writer.grown.notify_all();
            line.clear();
        }
        writer.is_read.store(true, Ordering::Release);
    });
    (child, log)
}

/// Where a tool is; `None` if this machine lacks it, for which the test is skipped. Searches the
/// folders of PATH and the `sbin` beside each, which users don't have in theirs: nothing else, so
/// that another PATH is another set of tools.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path);
    let places = folders.flat_map(|folder| [folder.clone(), folder.with_file_name("sbin")]);
    let found = places.map(|place| place.join(name)).find(|path| path.is_file());
    if found.is_none() {
        skip(&format!("{name} is not installed"));
    }
    found
}

/// Whether a program is here and runs a short script, which proves its extension to be there.
pub(crate) fn has(program: &str, arguments: &[&str]) -> bool {
    let Some(path) = tool(program) else { return false };
    let mut command = Command::new(path);
    let status = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let runs = status.is_ok_and(|status| status.success());
    if !runs {
        skip(&format!("{program} lacks an extension: {arguments:?}"));
    }
    runs
}

/// Asks until there is an answer, for as long as `PATIENCE` allows.
pub(crate) fn wait_until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    let pause = Condvar::new();
    let never = Mutex::new(());
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        let guard = never.lock().expect("no panic");
        drop(pause.wait_timeout(guard, Duration::from_millis(5)));
    }
}

/// A port that no other program gets as long as the socket, which doesn't listen, is there.
pub(crate) fn reserve_port() -> (u16, socket2::Socket) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    // Servers set both, so they may have the port all the same.
    socket.set_reuse_address(true).expect("an option");
    socket.set_reuse_port(true).expect("an option");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
    let address = socket.local_addr().expect("its address");
    (address.as_socket().expect("an IP address").port(), socket)
}

/// Whether no thread of a process runs: after SIGSTOP the others go on for a while when the first
/// one has stopped, if the machine is busy.
pub(crate) fn stands_still(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    // `id (name) state ...`, and a name may hold anything. A thread may end meanwhile.
    tasks.flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
    })
}
