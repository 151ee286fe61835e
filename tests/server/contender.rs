//! The servers under test: starts one as a child on a loopback port of the kernel's choice, and ends it.
//!
//! A server is ready when it says so (`ringgeard` logs where it listens) or when it answers with its own
//! process id (`gearmand`, whose port could have been taken by another process meanwhile).
//!
//! Invariant: only a child that hasn't been reaped is ever signalled.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::tools;
use crate::wire::{Conn, Item};

const START_PATIENCE: Duration = Duration::from_secs(20);
const STOP_PATIENCE: Duration = Duration::from_secs(3);
const GEARMAND: &str = "gearmand";
const GEARMAND_ATTEMPTS: u32 = 5;

/// A server that a test can run against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// `ringgeard --io epoll`
    Epoll,
    /// `ringgeard --io uring`
    Uring,
    /// Debian's C server.
    Gearmand,
}

impl Contender {
    pub(crate) fn is_ours(self) -> bool {
        self != Self::Gearmand
    }

    /// Whether it can run here; says why not, which under CI is a failure.
    pub(crate) fn is_here(self) -> bool {
        let missing = match self {
            Self::Epoll => None,
            Self::Uring => io_uring_refused(),
            Self::Gearmand => tools::missing(&[GEARMAND]),
        };
        missing.is_none_or(|reason| tools::skip(&format!("{self:?}: {reason}")))
    }

    pub(crate) fn start(self, options: &[&str]) -> Server {
        if self == Self::Gearmand {
            return start_gearmand(options);
        }
        self.start_ringgeard(0, options)
    }

    /// Starts on a port that the caller knows to be free.
    pub(crate) fn start_on(self, port: u16, options: &[&str]) -> Server {
        match self {
            Self::Gearmand => gearmand_on(port, options).expect("the port is free"),
            _ => self.start_ringgeard(port, options),
        }
    }

    fn start_ringgeard(self, port: u16, options: &[&str]) -> Server {
        let driver = if self == Self::Epoll { "epoll" } else { "uring" };
        let mut command = Command::new(ringgeard());
        command.args(["--io", driver, "--listen", "127.0.0.1"]);
        command.args(["--port", &port.to_string()]).args(options).env("NO_COLOR", "1");
        let mut server = Server::spawn(&mut command);
        let deadline = Instant::now() + START_PATIENCE;
        let mut log = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = server.log.recv_timeout(left) else {
                panic!("{self:?} didn't say where it listens:\n{log}");
            };
            log.push_str(&line);
            log.push('\n');
            if let Some(port) = port_of(&line) {
                server.address.set_port(port);
                return server;
            }
        }
    }
}

fn ringgeard() -> PathBuf {
    std::env::var_os("RINGGEARD")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_ringgeard")), PathBuf::from)
}

fn port_of(line: &str) -> Option<u16> {
    let (_, port) = line.split_once("listening on 127.0.0.1:")?;
    let end = port.find(|c: char| !c.is_ascii_digit()).unwrap_or(port.len());
    port[..end].parse().ok()
}

fn io_uring_refused() -> Option<String> {
    io_uring::IoUring::new(2).err().map(|error| format!("the kernel has no io_uring: {error}"))
}

fn start_gearmand(options: &[&str]) -> Server {
    for _ in 0..GEARMAND_ATTEMPTS {
        let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = probe.local_addr().expect("an address").port();
        drop(probe);
        if let Some(server) = gearmand_on(port, options) {
            return server;
        }
    }
    panic!("gearmand found its port taken {GEARMAND_ATTEMPTS} times");
}

/// `None` if another process answers on that port, or nobody.
fn gearmand_on(port: u16, options: &[&str]) -> Option<Server> {
    let mut command = Command::new(tools::path_of(GEARMAND).expect("asked for before"));
    command.args(["-L", "127.0.0.1", "-p", &port.to_string(), "-l", "stderr", "-P", ""]);
    let mut server = Server::spawn(command.args(options));
    server.address.set_port(port);
    let deadline = Instant::now() + START_PATIENCE;
    while std::net::TcpStream::connect(server.address).is_err() {
        let late = Instant::now() > deadline;
        if late || server.exits_within(Duration::from_millis(2)) {
            return None;
        }
    }
    let expected = format!("OK {}\n", server.pid).into_bytes();
    let mut conn = Conn::open(server.address);
    conn.send(b"getpid\n");
    matches!(conn.next(), Ok(Item::Line(line)) if line == expected).then_some(server)
}

/// A running server; dropping it ends it.
pub(crate) struct Server {
    child: Child,
    pid: u32,
    exited: Receiver<()>,
    log: Receiver<String>,
    has_exited: bool,
    pub(crate) address: SocketAddr,
}

impl Server {
    fn spawn(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server starts");
        let stderr = BufReader::new(child.stderr.take().expect("asked for"));
        let (log_sender, log) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // The test may have lost interest; the child must still find a reader.
                log_sender.send(line).ok();
            }
        });
        let pid = child.id();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { child, pid, exited: watch(pid), log, has_exited: false, address }
    }

    pub(crate) fn port(&self) -> String {
        self.address.port().to_string()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn connect(&self) -> Conn {
        Conn::open(self.address)
    }

    /// An admin command's lines, up to the `.` if the command answers with a list.
    pub(crate) fn admin(&self, command: &str) -> String {
        let mut conn = self.connect();
        conn.send(format!("{command}\n").as_bytes());
        let word = command.split(' ').next().expect("a command");
        let is_list = ["status", "workers", "show", "prioritystatus"].contains(&word);
        let mut text = String::new();
        while let Item::Line(line) = conn.next().expect("an admin command is answered") {
            text.push_str(&String::from_utf8_lossy(&line));
            if !is_list || line == b".\n" {
                break;
            }
        }
        text
    }

    /// Polls an admin command until its answer satisfies.
    pub(crate) fn wait_until(&self, command: &str, satisfies: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + crate::wire::PATIENCE;
        loop {
            let answer = self.admin(command);
            if satisfies(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "`{command}` still answers {answer:?}");
            let news = self.exited.recv_timeout(Duration::from_millis(5));
            assert_eq!(news, Err(RecvTimeoutError::Timeout), "the server has exited");
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        assert!(!self.has_exited, "a reaped process has no signals");
        signal_child(self.pid, signal);
    }

    /// Waits for its end.
    pub(crate) fn exits_within(&mut self, patience: Duration) -> bool {
        let news = self.exited.recv_timeout(patience);
        self.has_exited = self.has_exited || news != Err(RecvTimeoutError::Timeout);
        self.has_exited
    }

    /// SIGTERM, and its exit status if it comes in time.
    pub(crate) fn stop(&mut self, patience: Duration) -> Option<ExitStatus> {
        self.signal(Signal::SIGTERM);
        if !self.exits_within(patience) {
            return None;
        }
        Some(self.child.wait().expect("it has exited"))
    }

    /// Peak resident memory so far.
    pub(crate) fn memory_peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid));
        let status = status.expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a Linux kernel");
        let kib = line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
        kib.expect("a number of KiB") * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.has_exited && !self.exits_within(Duration::ZERO) {
            self.signal(Signal::SIGTERM);
            if !self.exits_within(STOP_PATIENCE) {
                self.signal(Signal::SIGKILL);
            }
        }
        self.child.wait().ok();
    }
}

/// Tells when a child has exited, and leaves the reaping to its owner.
pub(crate) fn watch(pid: u32) -> Receiver<()> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(process(pid)), flags) == Err(nix::errno::Errno::EINTR) {}
        // A server that its test has dropped needs no news.
        sender.send(()).ok();
    });
    receiver
}

/// Signals a child that its owner hasn't reaped yet.
pub(crate) fn signal_child(pid: u32, signal: Signal) {
    kill(process(pid), signal).expect("a child that hasn't been reaped");
}

fn process(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("process ids are small"))
}

/// One test per contender from one function that takes a `Contender`.
macro_rules! each_contender {
    ($($(#[$attribute:meta])* $name:ident)*) => { $(
        mod $name {
            use crate::contender::Contender;

            #[test]
            fn epoll() {
                if Contender::Epoll.is_here() {
                    super::$name(Contender::Epoll);
                }
            }
            #[test]
            fn uring() {
                if Contender::Uring.is_here() {
                    super::$name(Contender::Uring);
                }
            }
            #[test]
            fn gearmand() {
                if Contender::Gearmand.is_here() {
                    super::$name(Contender::Gearmand);
                }
            }
        }
    )* };
}
pub(crate) use each_contender;
