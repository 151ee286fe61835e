//! Child processes that end with their owner, what they cost, and the cores that they run on.
//!
//! Cores are given by moving this thread there before a child is started: children inherit them,
//! and so do their threads. Costs are read from `/proc`, whole process, at the ends of the measured
//! time.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::contender::Start;

/// How often a condition is looked at that nothing announces.
const POLL_TIME: Duration = Duration::from_millis(5);
/// How many free ports are tried with a server that can't choose one.
const PORT_TRIES: usize = 3;
/// Bytes of a server's log that are kept for error messages.
const LOG_BYTES_MAX: usize = 64 << 10;

/// Which cores whom.
#[derive(Clone, Debug)]
pub(crate) struct Cores {
    /// The server's.
    pub(crate) server: Vec<usize>,
    /// The load's.
    pub(crate) load: Vec<usize>,
}

/// This thread on other cores, until dropped.
pub(crate) struct Pinned {
    before: Option<CpuSet>,
}

impl Pinned {
    /// Moves this thread, and all that it starts, to the cores. Where that is refused, it stays.
    pub(crate) fn to(cores: &[usize]) -> Self {
        let this = Pid::from_raw(0);
        let before = sched_getaffinity(this).ok();
        let mut set = CpuSet::new();
        let all_set = cores.iter().all(|&core| set.set(core).is_ok());
        if !all_set || sched_setaffinity(this, &set).is_err() {
            eprintln!("bench-harness: can't move to cores {cores:?}; figures will be noisier");
            return Self { before: None };
        }
        Self { before }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
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
            server.log.wait(POLL_TIME);
        }
    }

    /// Starts a server that has to be told its port.
    pub(crate) fn start_told(command: impl Fn(u16) -> Command, start: &Start<'_>) -> Result<Self> {
        let deadline = Instant::now() + start.patience;
        let mut tries_left = PORT_TRIES;
        loop {
            // Another process may take the port meanwhile; then the server ends, and another port
            // is tried.
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let address = free.local_addr()?;
            drop(free);
            let mut server = Self::spawn(&mut command(address.port()), start.cores, address)?;
            while server.must_live(deadline).is_ok() {
                if TcpStream::connect(address).is_ok() {
                    return Ok(server);
                }
                server.log.wait(POLL_TIME);
            }
            tries_left -= 1;
            if Instant::now() > deadline || tries_left == 0 {
                bail!("the server doesn't start: {}", server.log().trim());
            }
        }
    }

    fn spawn(command: &mut Command, cores: &Cores, address: SocketAddr) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.env_remove("GEARMAND_PORT");
        let pinned = Pinned::to(&cores.server);
        let start = Instant::now();
        let spawned = command.spawn();
        drop(pinned);
        let program = command.get_program().display().to_string();
        let mut child = spawned.with_context(|| program)?;
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

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to its standard error.
    pub(crate) fn log(&self) -> String {
        self.log.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGKILL: nothing that a server does at its end is measured, and some take seconds.
        if let Ok(pid) = i32::try_from(self.child.id())
            && self.ended().is_none()
        {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
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

    fn wait(&self, longest: Duration) {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.grown.wait_timeout(text, longest));
    }
}

/// The port in the first whole line `… listening on 127.0.0.1:PORT …`.
fn announced_port(log: &str) -> Option<u16> {
    let mut lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.find_map(|line| {
        let rest = line.split_once("listening on 127.0.0.1:")?.1;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    })
}

/// Descriptors that this process and its children may have from now on: as many as the system
/// allows.
pub(crate) fn raise_descriptors() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    usize::try_from(if raised.is_ok() { hard } else { soft }).unwrap_or(usize::MAX)
}

/// CPU time that a process has used, all of its threads.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cpu {
    /// All of it, to the nanosecond, µs.
    pub(crate) total_us: f64,
    /// In its own code, by the tick, µs.
    pub(crate) user_us: f64,
    /// In the kernel, by the tick, µs.
    pub(crate) system_us: f64,
}

impl Cpu {
    /// Of a process, until now.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let hertz = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        #[expect(clippy::cast_precision_loss, reason = "100 or 1000")]
        let (user_us, system_us) = parse_stat(&stat, 1e6 / hertz as f64)?;
        Some(Self { total_us: run_time_us(pid).unwrap_or(user_us + system_us), user_us, system_us })
    }

    /// What was used between `before` and this.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            total_us: self.total_us - before.total_us,
            user_us: self.user_us - before.user_us,
            system_us: self.system_us - before.system_us,
        }
    }
}

/// What all threads of a process have run, if the kernel counts it.
fn run_time_us(pid: u32) -> Option<f64> {
    let mut total_us = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        total_us += text.split(' ').next()?.parse::<f64>().ok()? / 1000.0;
    }
    Some(total_us)
}

/// User and system time, µs.
fn parse_stat(stat: &str, tick_us: f64) -> Option<(f64, f64)> {
    // The name of the process stands in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut time = || fields.next()?.parse::<f64>().ok().map(|ticks| ticks * tick_us);
    Some((time()?, time()?))
}

/// Memory of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    /// The most that it ever had, bytes.
    pub(crate) peak_bytes: f64,
    /// What it has now, bytes.
    pub(crate) now_bytes: f64,
}

impl Memory {
    /// Of a process.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        parse_status(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }
}

fn parse_status(status: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kilobytes: f64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kilobytes * 1024.0)
    };
    Some(Memory { peak_bytes: bytes("VmHWM:")?, now_bytes: bytes("VmRSS:")? })
}

/// CPU time of this thread, µs.
pub(crate) fn thread_cpu_us() -> f64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.map_or(0.0, |time| Duration::from(time).as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::Persistence;

    #[test]
    fn a_process_name_with_parentheses_confuses_nobody() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 10 0 0 0 150 50 0 0 20 0 1 0 5 6 7";
        let cpu = parse_stat(stat, 10_000.0).unwrap();
        assert_eq!(cpu, (1_500_000.0, 500_000.0));
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tx\nVmPeak:\t  99 kB\nVmHWM:\t    12 kB\nVmRSS:\t     8 kB\n";
        let memory = parse_status(status).unwrap();
        assert_eq!(memory, Memory { peak_bytes: 12288.0, now_bytes: 8192.0 });
        assert_eq!(parse_status("Name:\tx\n"), None);
    }

    #[test]
    fn the_port_is_read_from_a_whole_line_only() {
        assert_eq!(announced_port("INFO listening on 127.0.0.1:12"), None);
        let log = "hello\nINFO listening on [::1]:9\nINFO listening on 127.0.0.1:1234 x\n";
        assert_eq!(announced_port(log), Some(1234));
    }

    /// On core 0, soon.
    fn start_announced(command: &mut Command) -> Result<Server> {
        let cores = Cores { server: vec![0], load: vec![0] };
        let (persistence, patience) = (Persistence::Memory, Duration::from_secs(20));
        let start = Start { cores: &cores, persistence, threads: 1, patience };
        Server::start_announced(command, &start)
    }

    #[test]
    fn a_child_ends_with_its_owner() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo listening on 127.0.0.1:1 >&2; exec sleep 1000"]);
        let server = start_announced(&mut command).unwrap();
        let pid = server.pid();
        assert!(Cpu::of(pid).is_some() && Memory::of(pid).is_some());
        drop(server);
        assert!(Cpu::of(pid).is_none());
    }

    #[test]
    fn a_server_that_ends_at_once_is_an_error_with_its_words() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such option >&2; exit 3"]);
        let error = start_announced(&mut command).err().unwrap().to_string();
        assert!(error.contains("no such option") || error.contains("exit status: 3"), "{error}");
    }
}
