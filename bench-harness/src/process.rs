//! Servers as processes: started on their cores, known to be ready, ended; and what they use.
//!
//! In: a command, cores, a deadline. Out: an address that accepts connections, CPU time and memory
//! from /proc. Knows nothing of what the processes are.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use procfs::process::Process;

use crate::certificates::Certificates;

/// How long a server may take to start.
pub(crate) const START_TIME: Duration = Duration::from_secs(20);
/// How often a condition is looked at that nothing announces.
const POLL_TIME: Duration = Duration::from_millis(5);
/// How many free ports are tried with a server that can't choose one.
const PORT_TRIES: usize = 3;
/// Bytes of a server's log that are kept for error messages.
const LOG_BYTES_MAX: usize = 64 << 10;

/// What servers would take from the environment instead of their options.
const SERVER_VARIABLES: [&str; 5] = [
    "GEARMAND_PORT",
    "GEARMAND_SERVER_PEM",
    "GEARMAND_SERVER_KEY",
    "GEARMAND_CA_CERTIFICATE",
    "RINGGEARD_CONFIG_FILE",
];

/// The cores of the server, and those of the load.
#[derive(Clone, Debug)]
pub(crate) struct Cores {
    pub(crate) server: Vec<usize>,
    pub(crate) load: Vec<usize>,
}

/// Where a server keeps background jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence<'a> {
    Memory,
    /// In files of this folder, on disk before the answer.
    Disk(&'a Path),
    /// In such files, on disk at some time where the server knows that: to fill them fast.
    Async(&'a Path),
}

impl<'a> Persistence<'a> {
    pub(crate) fn folder(self) -> Option<&'a Path> {
        match self {
            Self::Memory => None,
            Self::Disk(folder) | Self::Async(folder) => Some(folder),
        }
    }
}

/// What a server is started with besides its options.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start<'a> {
    pub(crate) cores: &'a Cores,
    pub(crate) persistence: Persistence<'a>,
    /// Threads that serve connections, where it can be told.
    pub(crate) threads: usize,
    /// How long it may take until it listens.
    pub(crate) patience: Duration,
    /// With which it speaks TLS.
    pub(crate) certificates: Option<&'a Certificates>,
    /// Whether it has HTTP.
    pub(crate) has_http: bool,
    /// Its policies.
    pub(crate) functions_file: Option<&'a Path>,
}

/// This thread on other cores, until dropped.
pub(crate) struct Pinned(Option<CpuSet>);

impl Pinned {
    /// Moves this thread, and all that it starts, to the cores. Where that is refused, it stays.
    pub(crate) fn to(cores: &[usize]) -> Self {
        let this = Pid::from_raw(0);
        let before = sched_getaffinity(this).ok();
        let mut set = CpuSet::new();
        let all_set = cores.iter().all(|&core| set.set(core).is_ok());
        if !all_set || sched_setaffinity(this, &set).is_err() {
            eprintln!("bench-harness: can't move to cores {cores:?}; figures will be noisier");
            return Self(None);
        }
        Self(before)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = sched_setaffinity(Pid::from_raw(0), before);
        }
    }
}

/// A running server; it ends when this is dropped.
pub(crate) struct Server {
    child: Child,
    log: Arc<Log>,
    /// When it was started.
    pub(crate) start: Instant,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

#[derive(Default)]
struct Log {
    text: Mutex<String>,
    grown: Condvar,
}

impl Server {
    /// Starts a server that takes a free port by itself and logs `listening on 127.0.0.1:PORT`.
    pub(crate) fn start_announced(command: &mut Command, start: &Start<'_>) -> Result<Self> {
        let mut server = Self::spawn(command, start.cores, (Ipv4Addr::LOCALHOST, 0).into())?;
        let deadline = Instant::now() + start.patience;
        loop {
            if let Some(port) = announced_port(&server.log()) {
                server.address.set_port(port);
                return Ok(server);
            }
            server.must_live(deadline)?;
            server.wait(POLL_TIME);
        }
    }

    /// Starts a server that has to be told its port.
    pub(crate) fn start_told(command: impl Fn(u16) -> Command, start: &Start<'_>) -> Result<Self> {
        let deadline = Instant::now() + start.patience;
        let mut tries_left = PORT_TRIES;
        loop {
            // Another process may take the port meanwhile; then the server ends, and another port
            // is tried.
            let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
            let mut server = Self::spawn(&mut command(address.port()), start.cores, address)?;
            while server.must_live(deadline).is_ok() {
                if TcpStream::connect(address).is_ok() {
                    return Ok(server);
                }
                server.wait(POLL_TIME);
            }
            tries_left -= 1;
            if Instant::now() > deadline || tries_left == 0 {
                bail!("the server doesn't start: {}", server.log().trim());
            }
        }
    }

    fn spawn(command: &mut Command, cores: &Cores, address: SocketAddr) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        for variable in SERVER_VARIABLES {
            command.env_remove(variable);
        }
        let pinned = Pinned::to(&cores.server);
        let start = Instant::now();
        let spawned = command.spawn();
        drop(pinned);
        let mut child = spawned.with_context(|| command.get_program().display().to_string())?;
        let log = Arc::new(Log::default());
        if let Some(stderr) = child.stderr.take() {
            let log = Arc::clone(&log);
            std::thread::spawn(move || log.fill(stderr));
        }
        Ok(Self { child, log, start, address })
    }

    fn must_live(&mut self, deadline: Instant) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the server ended ({status}): {}", self.log().trim());
        }
        if Instant::now() > deadline {
            bail!("the server isn't ready in time: {}", self.log().trim());
        }
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to its standard error.
    pub(crate) fn log(&self) -> String {
        self.log.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has written more, or for so long.
    pub(crate) fn wait(&self, longest: Duration) {
        let text = self.log.text.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.log.grown.wait_timeout(text, longest));
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// An error with the server's last words, if its end may be the cause.
    pub(crate) fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        let Some(status) = self.ended() else { return error };
        let log = self.log();
        let last = log.lines().last().unwrap_or_default();
        error.context(format!("the server ended ({status}) {last}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGKILL: nothing that a server does at its end is measured, and some take seconds.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Log {
    fn fill(&self, stderr: impl std::io::Read) {
        let mut lines = BufReader::new(stderr);
        let mut line = Vec::new();
        while matches!(lines.read_until(b'\n', &mut line), Ok(1..)) {
            let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
            if text.len() < LOG_BYTES_MAX {
                text.push_str(&String::from_utf8_lossy(&line));
            }
            self.grown.notify_all();
            line.clear();
        }
    }
}

/// The port in the first whole line `… listening on 127.0.0.1:PORT …`, or `tls:127.0.0.1:PORT`.
fn announced_port(log: &str) -> Option<u16> {
    let mut lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.find_map(|line| {
        let (_, address) = line.split_once("listening on ")?;
        let address = address.strip_prefix("tls:").unwrap_or(address);
        let rest = address.strip_prefix("127.0.0.1:")?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    })
}

/// Descriptors that this process and its children may have from now on: as many as the system
/// allows.
pub(crate) fn raise_descriptors() -> usize {
    let limits = ringgear::io::process::raise_descriptors(None);
    limits.map_or(0, |(_, now)| usize::try_from(now).unwrap_or(usize::MAX))
}

/// A process in /proc.
pub(crate) fn process(pid: u32) -> Option<Process> {
    Process::new(i32::try_from(pid).ok()?).ok()
}

/// CPU time of all threads of a process, µs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cpu {
    /// To the nanosecond.
    pub(crate) total_us: f64,
    /// In its own code, by the tick.
    pub(crate) user_us: f64,
    /// In the kernel, by the tick.
    pub(crate) system_us: f64,
}

impl Cpu {
    /// Of a process, until now.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let process = process(pid)?;
        let stat = process.stat().ok()?;
        let tick_us = 1e6 / procfs::ticks_per_second() as f64;
        let (user_us, system_us) = (stat.utime as f64 * tick_us, stat.stime as f64 * tick_us);
        Some(Self {
            total_us: run_time_us(&process).unwrap_or(user_us + system_us),
            user_us,
            system_us,
        })
    }

    /// What a process has used since `before`.
    pub(crate) fn since(before: Option<Self>, pid: u32) -> Option<Self> {
        let (before, now) = (before?, Self::of(pid)?);
        Some(Self {
            total_us: now.total_us - before.total_us,
            user_us: now.user_us - before.user_us,
            system_us: now.system_us - before.system_us,
        })
    }
}

/// What all threads of a process have run, if the kernel counts it.
fn run_time_us(process: &Process) -> Option<f64> {
    let times =
        process.tasks().ok()?.map(|task| Some(task.ok()?.schedstat().ok()?.sum_exec_runtime));
    Some(times.sum::<Option<u64>>()? as f64 / 1000.0)
}

/// Resident memory of a process, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    /// The most that it ever had.
    pub(crate) peak_bytes: f64,
    pub(crate) now_bytes: f64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let status = process(pid)?.status().ok()?;
        let bytes = |kibibytes: u64| kibibytes as f64 * 1024.0;
        Some(Self { peak_bytes: bytes(status.vmhwm?), now_bytes: bytes(status.vmrss?) })
    }
}

/// CPU time of this thread, µs.
pub(crate) fn thread_cpu_us() -> f64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.map_or(0.0, |time| Duration::from(time).as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_from_a_whole_line_only() {
        assert_eq!(announced_port("INFO listening on 127.0.0.1:12"), None);
        let log = "hello\nINFO listening on [::1]:9\nINFO listening on 127.0.0.1:1234 x\n";
        assert_eq!(announced_port(log), Some(1234));
        assert_eq!(announced_port("INFO listening on tls:127.0.0.1:12\n"), Some(12));
    }

    /// On core 0, soon.
    fn start_announced(script: &str) -> Result<Server> {
        let cores = Cores { server: vec![0], load: vec![0] };
        let (persistence, patience) = (Persistence::Memory, Duration::from_secs(20));
        let certificates = None;
        let start = Start {
            cores: &cores,
            persistence,
            threads: 1,
            patience,
            certificates,
            has_http: false,
            functions_file: None,
        };
        Server::start_announced(Command::new("sh").args(["-c", script]), &start)
    }

    #[test]
    fn a_child_ends_with_its_owner() {
        let server = start_announced("echo listening on 127.0.0.1:1 >&2; exec sleep 1000").unwrap();
        let pid = server.pid();
        let Memory { peak_bytes, now_bytes } = Memory::of(pid).unwrap();
        assert!(now_bytes > 0.0 && peak_bytes >= now_bytes);
        assert!(Cpu::since(Some(Cpu::default()), pid).is_some_and(|cpu| cpu.total_us > 0.0));
        drop(server);
        assert!(Cpu::of(pid).is_none());
    }

    #[test]
    fn a_server_that_ends_at_once_is_an_error_with_its_words() {
        let error = start_announced("echo no such option >&2; exit 3").err().unwrap().to_string();
        assert!(error.contains("no such option") || error.contains("exit status: 3"), "{error}");
    }
}
