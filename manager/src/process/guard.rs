//! A process that outlives the manager for as long as it takes to end the manager's process groups.
//!
//! The manager holds one end of a pipe. Each new process writes its number to it before it runs its
//! command; the manager writes when a group is over. When the pipe closes, the manager has ended,
//! however it did, and the guard kills the groups that are left.
//!
//! Invariant: a group that runs is known to the guard.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::{Pid, pipe2, setsid};
use tracing::warn;

/// Bytes of a record: a group's number, negative when it is over.
const RECORD_BYTES: usize = size_of::<i32>();

/// How long the guard lets records gather; a pipe has room for 16384. The groups of a killed
/// manager live longer by that.
const NAP: Duration = Duration::from_millis(10);

/// The manager's end of the pipe. Clones share it.
#[derive(Clone, Debug)]
pub struct Guard(Rc<State>);

#[derive(Debug)]
struct State {
    /// How the guard is started.
    command: fn() -> Command,
    link: RefCell<Link>,
    /// Groups that run.
    running: RefCell<HashSet<Pid>>,
    /// Groups of strays, which run as well.
    strays: RefCell<HashSet<Pid>>,
}

/// A guard that runs.
#[derive(Debug)]
struct Link {
    process: Child,
    pipe: File,
}

impl Guard {
    /// Starts the guard, from the program that runs.
    ///
    /// # Errors
    /// If the kernel has no descriptors or processes left.
    pub fn start() -> io::Result<Self> {
        Self::start_as(own_program)
    }

    /// Starts the guard by another command.
    fn start_as(command: fn() -> Command) -> io::Result<Self> {
        Ok(Self(Rc::new(State {
            command,
            link: RefCell::new(Link::start(command, &[])?),
            running: RefCell::default(),
            strays: RefCell::default(),
        })))
    }

    /// Where new processes write their number.
    pub(super) fn pipe(&self) -> RawFd {
        self.0.link.borrow().pipe.as_raw_fd()
    }

    /// A group has begun; `is_told` if its leader could write its number.
    pub(super) fn began(&self, leader: Pid, is_told: bool) {
        self.0.running.borrow_mut().insert(leader);
        if !is_told {
            self.replace();
        }
    }

    /// A group is over: it was killed, and its leader is about to be reaped.
    pub(super) fn over(&self, leader: Pid) {
        self.0.running.borrow_mut().remove(&leader);
        self.tell(-leader.as_raw());
    }

    /// Whether a child is the guard, or leads a group that was started here.
    pub(super) fn knows(&self, child: Pid) -> bool {
        self.process() == child || self.0.running.borrow().contains(&child)
    }

    /// The guard's own process.
    #[must_use]
    pub fn process(&self) -> Pid {
        Pid::from_raw(self.0.link.borrow().process.id().cast_signed())
    }

    /// The groups of strays that there are now.
    pub(super) fn watch_strays(&self, groups: HashSet<Pid>) {
        let before = self.0.strays.replace(groups);
        let now = self.0.strays.borrow().clone();
        for begun in now.difference(&before) {
            self.tell(begun.as_raw());
        }
        for over in before.difference(&now) {
            self.tell(-over.as_raw());
        }
    }

    /// Starts the guard again if it has ended.
    pub(super) fn look_after(&self) {
        let ended = self.0.link.borrow_mut().process.try_wait();
        if !matches!(ended, Ok(None)) {
            self.replace();
        }
    }

    fn tell(&self, record: i32) {
        // A guard that doesn't read is as good as none.
        let written = self.0.link.borrow_mut().pipe.write_all(&record.to_ne_bytes());
        if written.is_err() {
            self.replace();
        }
    }

    fn replace(&self) {
        let groups: Vec<i32> = {
            let (running, strays) = (self.0.running.borrow(), self.0.strays.borrow());
            running.iter().chain(strays.iter()).map(|group| group.as_raw()).collect()
        };
        match Link::start(self.0.command, &groups) {
            Ok(link) => {
                let mut old = self.0.link.replace(link);
                // Killed, not closed: it would end the groups.
                let _ = old.process.kill();
                let _ = old.process.wait();
                warn!(
                    "the process that ends commands if the manager is killed had ended; it runs \
                     again, and nothing else has to be done"
                );
            }
            Err(error) => warn!(
                "the process that ends commands if the manager is killed has ended, and can't be \
                 started: {error}; free memory or descriptors"
            ),
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        for group in self.running.borrow().iter() {
            let _ = killpg(*group, Signal::SIGKILL);
        }
        let link = self.link.get_mut();
        let _ = link.process.kill();
        let _ = link.process.wait();
    }
}

impl Link {
    /// Starts a guard that knows these groups.
    fn start(command: fn() -> Command, groups: &[i32]) -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        let process = command()
            .current_dir("/")
            .stdin(read)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut link = Self { process, pipe: File::from(write) };
        let records: Vec<u8> = groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
        link.pipe.write_all(&records)?;
        // The manager never waits for the guard from here on.
        fcntl(&link.pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(link)
    }
}

/// The program that runs, as a guard; also if its file was replaced.
fn own_program() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("ringgear-manager: guard").arg("--guard");
    command
}

/// Runs the guard: the whole of a process that was started with `--guard`. Reads records from
/// standard input until it closes, then kills the groups that aren't over.
pub fn run() {
    // What ends the manager, by a terminal or a service manager, must not end the guard before it.
    let _ = SigSet::all().thread_block();
    let _ = setsid();
    let _ = nix::sys::prctl::set_name(c"ringgear-guard");
    close_others();
    for group in groups_left(io::stdin().lock()) {
        let _ = killpg(group, Signal::SIGKILL);
    }
}

/// Closes what was inherited but for standard input, output and error.
fn close_others() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return;
    };
    let all: Vec<RawFd> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for descriptor in all.into_iter().filter(|&descriptor| descriptor > 2) {
        // The folder's own is closed already.
        let _ = nix::unistd::close(descriptor);
    }
}

/// Reads records to the end; returns the groups that began and aren't over.
fn groups_left(mut records: impl Read) -> HashSet<Pid> {
    let mut groups = HashSet::new();
    let mut unread = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match records.read(&mut buffer) {
            Ok(0) => return groups,
            Ok(count) => unread.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return groups,
        }
        let (whole, _) = unread.as_chunks::<RECORD_BYTES>();
        for &record in whole {
            match i32::from_ne_bytes(record) {
                // 1 and 0 would be everything.
                begun @ 2.. => groups.insert(Pid::from_raw(begun)),
                over => groups.remove(&Pid::from_raw(over.saturating_neg())),
            };
        }
        unread.drain(..whole.len() * RECORD_BYTES);
        // Without that, short commands would wake this process twice each.
        std::thread::park_timeout(NAP);
    }
}

#[cfg(test)]
impl Guard {
    /// A guard whose program is the test itself.
    pub(crate) fn of_test() -> Self {
        Self::start_as(|| {
            let mut command = Command::new("/proc/self/exe");
            let test = "process::guard::tests::be_a_guard";
            command.args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
            command
        })
        .expect("descriptors and a process")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::samples::{eventually, is_alive};

    #[test]
    #[ignore = "the guard of other tests"]
    fn be_a_guard() {
        run();
    }

    #[test]
    fn groups_that_are_over_arent_left() {
        let records: Vec<u8> =
            [5, 6, 7, -6, 0, 1, -1, i32::MIN].into_iter().flat_map(i32::to_ne_bytes).collect();
        let left: HashSet<Pid> = [5, 7].into_iter().map(Pid::from_raw).collect();
        assert_eq!(groups_left(records.as_slice()), left);
        // A record that isn't whole is none.
        assert_eq!(groups_left(&records[..records.len() - 2]), left);
    }

    fn sleeper() -> Child {
        Command::new("sleep").arg("1000").process_group(0).spawn().expect("sleep")
    }

    fn assert_killed(mut child: Child) {
        eventually("it is killed", || child.try_wait().expect("a child").is_some());
    }

    fn pid(child: &Child) -> Pid {
        Pid::from_raw(child.id().cast_signed())
    }

    #[test]
    fn a_guard_kills_what_is_left_when_the_pipe_closes() {
        let (left, mut over) = (sleeper(), sleeper());
        let guard = Guard::of_test();
        guard.began(pid(&left), false);
        guard.began(pid(&over), true);
        guard.tell(over.id().cast_signed());
        guard.over(pid(&over));
        // As if the manager had been killed: nothing of it runs but the closing of the pipe.
        let null = File::options().write(true).open("/dev/null").expect("/dev/null");
        guard.0.link.borrow_mut().pipe = null;
        assert_killed(left);
        eventually("the guard ends", || {
            guard.0.link.borrow_mut().process.try_wait().expect("a child").is_some()
        });
        assert_eq!(over.try_wait().expect("a child"), None, "a group that was over was killed");
        over.kill().expect("it runs");
        over.wait().expect("it was killed");
    }

    #[test]
    fn a_guard_that_was_killed_is_replaced_and_knows_all_groups() {
        let group = sleeper();
        let guard = Guard::of_test();
        guard.began(pid(&group), true);
        let first = guard.process();
        nix::sys::signal::kill(first, Signal::SIGKILL).expect("it runs");
        eventually("a new guard", || {
            guard.look_after();
            guard.process() != first
        });
        assert!(!is_alive(first), "the first guard wasn't reaped");
        assert!(is_alive(pid(&group)));
        let null = File::options().write(true).open("/dev/null").expect("/dev/null");
        guard.0.link.borrow_mut().pipe = null;
        assert_killed(group);
    }

    #[test]
    fn the_end_of_a_guard_is_noticed_at_the_next_group() {
        let group = sleeper();
        let guard = Guard::of_test();
        let first = guard.process();
        nix::sys::signal::kill(first, Signal::SIGKILL).expect("it runs");
        eventually("a broken pipe", || {
            guard.tell(-7);
            guard.process() != first
        });
        guard.began(pid(&group), true);
        drop(guard);
        assert_killed(group);
    }
}
