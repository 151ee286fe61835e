//! Starts a command: everything about the new process in, its group out.
//!
//! The one module with unsafe code. The child shares the manager's memory until it runs the command
//! (as with vfork(2)), so that the cost doesn't grow with the manager's memory. Until then it only
//! makes system calls itself, on what was prepared before: the C library's functions may take locks
//! that another thread holds, or signal threads that the child doesn't have.
//!
//! Invariant: the child leads a group of its own that the guard knows before the command runs.
#![allow(unsafe_code, reason = "the child of a clone that shares memory")]

use std::cell::RefCell;
use std::ffi::{CString, NulError, c_char, c_int, c_long, c_void};
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::environment::Environment;
use super::group::{Group, reap};
use super::guard::Guard;
use super::identity::{Account, Identity};
use super::launch_error::{LaunchError, Step};
use crate::config::Worker;

/// The first descriptor that no command gets.
const FIRST_OTHER: RawFd = 4;
/// Bytes of the stack that a child uses until it runs its command.
const STACK_BYTES: usize = 64 * 1024;
/// Bytes below the stack that nothing may touch; a multiple of all page sizes.
const GUARD_BYTES: usize = 64 * 1024;
/// Bytes of a set of signals for the kernel.
const SIGNAL_SET_BYTES: usize = 8;
/// The exit code of a child that couldn't run its command; nothing reads it.
const NOT_STARTED: c_int = 127;

/// A command, ready to be started again and again.
#[derive(Clone, Debug)]
pub struct Launch {
    program: String,
    arguments: Vec<CString>,
    /// Paths of the program, in the order of PATH.
    candidates: Vec<CString>,
    environment: Vec<CString>,
    identity: Option<Identity>,
    directory: Option<CString>,
    umask: Option<u32>,
    nice: i32,
    /// Signals that the manager handles or ignores.
    changed_signals: u64,
    /// /dev/null
    null: Rc<OwnedFd>,
}

/// The descriptors of a new process: what becomes standard input, output and error and 3. `None` is
/// /dev/null for the first three, and closed for the last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Descriptors<'a> {
    /// Standard input.
    pub input: Option<BorrowedFd<'a>>,
    /// Standard output.
    pub output: Option<BorrowedFd<'a>>,
    /// Standard error.
    pub error: Option<BorrowedFd<'a>>,
    /// Descriptor 3, for WORK_STATUS.
    pub status: Option<BorrowedFd<'a>>,
}

impl Launch {
    /// Prepares a worker's command; looks up its user and groups, and the folders of the PATH that
    /// the process will have. `variables` are set unless the worker sets them itself.
    ///
    /// # Errors
    /// If the user or group doesn't exist, or a string contains a NUL: a sentence.
    pub fn prepare(worker: &Worker, variables: &[(&str, &str)]) -> Result<Self, String> {
        take_statuses();
        let has_nul = |_: NulError| {
            format!("worker {}: its settings contain a NUL character; remove it", worker.name)
        };
        let account = Account::look_up(worker.user.as_deref(), worker.group.as_deref())
            .map_err(|sentence| format!("worker {}: {sentence}", worker.name))?;
        let environment =
            Environment::of(worker, account.entry.as_ref(), variables, std::env::vars_os());
        let arguments: Result<Vec<CString>, NulError> =
            worker.command.iter().map(|text| CString::new(text.as_bytes())).collect();
        let program = worker.command.first().cloned().unwrap_or_default();
        let directory = worker.directory.as_ref().map(|path| path.as_os_str().as_bytes());
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map_err(|error| format!("cannot open /dev/null: {error}; mount /dev"))?;
        Ok(Self {
            arguments: arguments.map_err(has_nul)?,
            candidates: candidates(&program, &environment).map_err(has_nul)?,
            program,
            environment: environment.entries().map_err(has_nul)?,
            identity: account.identity,
            directory: directory.map(CString::new).transpose().map_err(has_nul)?,
            umask: worker.umask,
            nice: worker.nice,
            changed_signals: changed_signals(),
            null: Rc::new(null.into()),
        })
    }

    /// Starts the command with further environment variables (`NAME=value`), which win over others.
    ///
    /// # Errors
    /// `LaunchError` with what the kernel said: no such program, no permission, no room.
    pub fn start(
        &self,
        guard: &Guard,
        further: &[CString],
        descriptors: Descriptors<'_>,
    ) -> Result<Group, LaunchError> {
        let failed = |step, cause| LaunchError::new(&self.program, step, cause);
        let mut moved = Vec::new();
        let targets = self
            .sources(descriptors, &mut moved)
            .map_err(|cause| failed(Step::Descriptors, cause))?;
        let plan = Plan {
            launch: self,
            arguments: pointers(self.arguments.iter()),
            candidates: pointers(self.candidates.iter()),
            environment: self.environment(further),
            targets,
            guard: guard.pipe(),
            manager: Pid::this().as_raw(),
            guard_was_told: AtomicBool::new(false),
            step: AtomicI32::new(0),
            errno: AtomicI32::new(0),
        };
        let (leader, pidfd) = plan.run().map_err(|cause| failed(Step::Process, cause))?;
        guard.began(leader, plan.guard_was_told.load(Ordering::Relaxed));
        if let Some(step) = Step::of_number(plan.step.load(Ordering::Relaxed)) {
            guard.over(leader);
            reap(leader);
            return Err(failed(step, Errno::from_raw(plan.errno.load(Ordering::Relaxed))));
        }
        match watch(pidfd) {
            Ok(pidfd) => Ok(Group::new(leader, pidfd, guard.clone())),
            Err(cause) => {
                let _ = killpg(leader, Signal::SIGKILL);
                guard.over(leader);
                reap(leader);
                Err(failed(Step::Watch, cause))
            }
        }
    }

    /// The error of a command for which no pipes could be made.
    #[must_use]
    pub fn no_descriptors(&self, error: &std::io::Error) -> LaunchError {
        let cause = Errno::from_raw(error.raw_os_error().unwrap_or_default());
        LaunchError::new(&self.program, Step::Descriptors, cause)
    }

    /// What becomes descriptors 0 to 3; -1 = closed. None of them is below 4, so that no descriptor
    /// is overwritten before it is copied; what has to be moved for that is kept in `moved`.
    fn sources(
        &self,
        descriptors: Descriptors<'_>,
        moved: &mut Vec<OwnedFd>,
    ) -> nix::Result<[RawFd; 4]> {
        let Descriptors { input, output, error, status } = descriptors;
        let null = Some(self.null.as_fd());
        let wanted = [input.or(null), output.or(null), error.or(null), status];
        let mut sources = [-1; 4];
        for (source, wanted) in sources.iter_mut().zip(wanted) {
            let Some(wanted) = wanted else { continue };
            *source = wanted.as_raw_fd();
            if *source < FIRST_OTHER {
                *source = fcntl(wanted, FcntlArg::F_DUPFD_CLOEXEC(FIRST_OTHER))?;
                // SAFETY: the kernel has just made it, and nothing else has it.
                moved.push(unsafe { OwnedFd::from_raw_fd(*source) });
            }
        }
        Ok(sources)
    }

    /// All variables; `further` ones replace others of the same name.
    fn environment(&self, further: &[CString]) -> Vec<*const c_char> {
        let name =
            |entry: &CString| entry.as_bytes().split(|&byte| byte == b'=').next().map(<[u8]>::len);
        let is_replaced = |entry: &&CString| {
            further.iter().any(|other| {
                name(other).is_some_and(|length| {
                    entry.as_bytes().get(..=length) == other.as_bytes().get(..=length)
                })
            })
        };
        pointers(self.environment.iter().filter(|entry| !is_replaced(entry)).chain(further))
    }
}

/// Watches the descriptor of a process, which is readable once the process has ended.
fn watch(pidfd: OwnedFd) -> nix::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` owns the one descriptor that it returns, all its life.
    unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }.map_err(|error| {
        let error = std::io::Error::from(error);
        Errno::from_raw(error.raw_os_error().unwrap_or_default())
    })
}

/// Signals that this process handles or ignores, as a set of the kernel's; all, if it doesn't tell.
fn changed_signals() -> u64 {
    let status = procfs::process::Process::myself().and_then(|process| process.status());
    // `reset_signals` itself ignores SIGPIPE for a moment.
    status.map_or(u64::MAX, |status| status.sigign | status.sigcgt | 1 << (libc::SIGPIPE - 1))
}

/// Paths of a program: its own if it has a `/`, else one for each folder of PATH.
fn candidates(program: &str, environment: &Environment) -> Result<Vec<CString>, NulError> {
    if program.contains('/') || program.is_empty() {
        return Ok(vec![CString::new(program)?]);
    }
    let path = |folder: &[u8]| {
        // An empty folder is the working folder.
        let folder = if folder.is_empty() { b"." } else { folder };
        CString::new([folder, b"/", program.as_bytes()].concat())
    };
    environment.path().map(path).collect()
}

/// Pointers for execve(2), with a null at the end.
fn pointers<'a>(texts: impl Iterator<Item = &'a CString>) -> Vec<*const c_char> {
    texts.map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

/// All that a child needs, and what it tells the manager.
struct Plan<'a> {
    launch: &'a Launch,
    arguments: Vec<*const c_char>,
    candidates: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    targets: [RawFd; 4],
    guard: RawFd,
    manager: i32,
    guard_was_told: AtomicBool,
    /// The `Step` that failed; 0 = none.
    step: AtomicI32,
    errno: AtomicI32,
}

impl Plan<'_> {
    /// Makes the child; returns when it runs its command, or has ended.
    fn run(&self) -> nix::Result<(Pid, OwnedFd)> {
        STACK.with_borrow_mut(|stack| {
            let stack = match stack {
                Some(stack) => stack,
                none => none.insert(Stack::new()?),
            };
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
            let mut pidfd: c_int = -1;
            // A handler of the manager that ran in the child would run on the manager's memory.
            let mask = set_signal_mask(u64::MAX);
            // SAFETY: the child runs `child` on a stack that is its own until it runs its command
            // or ends; this thread is stopped until then (CLONE_VFORK), so `self`, `pidfd` and the
            // stack outlive the child's use of them. `child` neither returns nor unwinds.
            let pid = Errno::result(unsafe {
                libc::clone(
                    child,
                    stack.top(),
                    flags,
                    ptr::from_ref(self).cast_mut().cast(),
                    &raw mut pidfd,
                    ptr::null_mut::<c_void>(),
                    ptr::null_mut::<c_void>(),
                )
            });
            set_signal_mask(mask);
            // SAFETY: the kernel has made it for this call, if the call succeeded.
            pid.map(|pid| (Pid::from_raw(pid), unsafe { OwnedFd::from_raw_fd(pidfd) }))
        })
    }
}

/// Runs in the child, with the manager's memory: no allocation, no lock, no panic.
extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: `Plan::run` passes a plan that outlives this function's use of it.
    let plan = unsafe { &*plan.cast::<Plan<'_>>() };
    let (step, errno) = become_command(plan);
    plan.errno.store(errno as i32, Ordering::Relaxed);
    plan.step.store(step as i32, Ordering::Relaxed);
    // Ends the process, without what exit(3) would do to the manager's memory.
    let _ = call(libc::SYS_exit_group, [c_long::from(NOT_STARTED), 0, 0, 0, 0]);
    NOT_STARTED
}

/// Makes the child what the plan says, and runs the command; returns what failed.
fn become_command(plan: &Plan<'_>) -> (Step, Errno) {
    let launch = plan.launch;
    let steps = || -> Result<(), (Step, Errno)> {
        let at = |step| move |errno| (step, errno);
        call(libc::SYS_setpgid, [0; 5]).map_err(at(Step::Group))?;
        plan.guard_was_told.store(tell_guard(plan.guard), Ordering::Relaxed);
        reset_signals(launch.changed_signals);
        set_niceness(launch.nice).map_err(at(Step::Nice))?;
        if let Some(Identity { user, group, groups }) = &launch.identity {
            let (user, group) = (c_long::from(user.as_raw()), c_long::from(group.as_raw()));
            let list = [groups.len() as c_long, address(groups.as_ptr()), 0, 0, 0];
            call(libc::SYS_setgroups, list).map_err(at(Step::Groups))?;
            call(libc::SYS_setresgid, [group, group, group, 0, 0]).map_err(at(Step::GroupId))?;
            call(libc::SYS_setresuid, [user, user, user, 0, 0]).map_err(at(Step::UserId))?;
        }
        if let Some(umask) = launch.umask {
            call(libc::SYS_umask, [c_long::from(umask), 0, 0, 0, 0]).map_err(at(Step::Group))?;
        }
        if let Some(directory) = &launch.directory {
            let path = address(directory.as_ptr());
            call(libc::SYS_chdir, [path, 0, 0, 0, 0]).map_err(at(Step::Directory))?;
        }
        redirect(plan.targets).map_err(at(Step::Redirect))?;
        // After the change of the user, which clears it.
        let kill = [libc::PR_SET_PDEATHSIG.into(), libc::SIGKILL.into(), 0, 0, 0];
        call(libc::SYS_prctl, kill).map_err(at(Step::Parent))?;
        // The manager may have ended before that.
        if call(libc::SYS_getppid, [0; 5]) != Ok(plan.manager.into()) {
            return Err((Step::Parent, Errno::ESRCH));
        }
        set_signal_mask(0);
        Ok(())
    };
    match steps() {
        Ok(()) => (Step::Execute, execute(plan)),
        Err(failed) => failed,
    }
}

/// Tells the guard the number of this process, which is its group's; whether it could be told.
fn tell_guard(pipe: RawFd) -> bool {
    let Ok(own) = call(libc::SYS_getpid, [0; 5]) else {
        return false;
    };
    let record = i32::try_from(own).unwrap_or_default().to_ne_bytes();
    let length = record.len() as c_long;
    call(libc::SYS_write, [pipe.into(), address(record.as_ptr()), length, 0, 0]) == Ok(length)
}

/// Gives all signals their default effect. `changed`: those that may have another, as the kernel
/// writes sets of signals.
fn reset_signals(changed: u64) {
    // All forms of the kernel's structure are this long at most, and 0 is SIG_DFL in all of them.
    let default = [0_u64; 4];
    let ignore = [libc::SIG_IGN as u64, 0, 0, 0];
    let set = |signal: c_int, action: &[u64; 4]| {
        let action = address(action.as_ptr());
        let arguments = [signal.into(), action, 0, SIGNAL_SET_BYTES as c_long, 0];
        let _ = call(libc::SYS_rt_sigaction, arguments);
    };
    // A guard that has ended makes a SIGPIPE, which is pending: ignoring it removes it.
    set(libc::SIGPIPE, &ignore);
    // A system call for each of 64 would take a tenth of the time that a command takes to start.
    for signal in (1..=64).filter(|signal| changed & (1 << (signal - 1)) != 0) {
        set(signal, &default);
    }
}

/// Lets the manager learn how its children end, which it can't if it was started with SIGCHLD
/// ignored.
fn take_statuses() {
    let mut action = [0_u64; 4];
    let pointer = address(action.as_mut_ptr());
    let size = SIGNAL_SET_BYTES as c_long;
    let _ = call(libc::SYS_rt_sigaction, [libc::SIGCHLD.into(), 0, pointer, size, 0]);
    if action[0] == libc::SIG_IGN as u64 {
        let default = [0_u64; 4];
        let pointer = address(default.as_ptr());
        let _ = call(libc::SYS_rt_sigaction, [libc::SIGCHLD.into(), pointer, 0, size, 0]);
    }
}

fn set_niceness(nice: i32) -> nix::Result<()> {
    if nice == 0 {
        return Ok(());
    }
    // The system call, other than the function, returns 20 minus the niceness.
    let now = 20 - call(libc::SYS_getpriority, [libc::PRIO_PROCESS.into(), 0, 0, 0, 0])?;
    let wanted = now.saturating_add(nice.into()).clamp(-20, 19);
    call(libc::SYS_setpriority, [libc::PRIO_PROCESS.into(), 0, wanted, 0, 0]).map(drop)
}

/// Makes these the descriptors from 0 on, and closes all others.
fn redirect(sources: [RawFd; 4]) -> nix::Result<()> {
    let mut others: c_long = 0;
    for (target, source) in (0..).zip(sources) {
        if source >= 0 {
            call(libc::SYS_dup3, [source.into(), target, 0, 0, 0])?;
            others = target + 1;
        }
    }
    // The manager's own are closed by execve(2): these are what it has inherited itself.
    let all = [others, c_long::from(u32::MAX), 0, 0, 0];
    let _ = call(libc::SYS_close_range, all);
    Ok(())
}

/// Runs the first candidate that can be run; returns why there is none, as execvp(3) does.
fn execute(plan: &Plan<'_>) -> Errno {
    let (arguments, environment) = (plan.arguments.as_ptr(), plan.environment.as_ptr());
    let mut cause = Errno::ENOENT;
    // The last is null.
    for &path in plan.candidates.iter().filter(|path| !path.is_null()) {
        let program = [address(path), address(arguments), address(environment), 0, 0];
        match call(libc::SYS_execve, program) {
            // Of a program in a folder that can't be entered, the next may be another.
            Err(Errno::EACCES) => cause = Errno::EACCES,
            Err(Errno::ENOENT | Errno::ENOTDIR) | Ok(_) => {}
            Err(other) => return other,
        }
    }
    cause
}

/// Sets the signals that this thread doesn't take, a bit each; returns those before.
fn set_signal_mask(mask: u64) -> u64 {
    let mut before = 0_u64;
    let arguments = [
        libc::SIG_SETMASK.into(),
        address(&raw const mask),
        address(&raw mut before),
        SIGNAL_SET_BYTES as c_long,
        0,
    ];
    // Not pthread_sigmask(3), which leaves out the signals of the C library.
    let _ = call(libc::SYS_rt_sigprocmask, arguments);
    before
}

/// Makes a system call that neither writes memory of this process but what its arguments point to,
/// nor keeps them.
fn call(number: c_long, arguments: [c_long; 5]) -> nix::Result<c_long> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: all callers are in this module; each passes numbers, null, or pointers to values of
    // the type that the call takes, which live until it returns.
    Errno::result(unsafe { libc::syscall(number, a, b, c, d, e) })
}

/// A pointer as an argument of a system call.
fn address<T>(pointer: *const T) -> c_long {
    pointer.expose_provenance().cast_signed() as c_long
}

thread_local! {
    /// Used again for each child, as there is one at a time: the thread is stopped meanwhile.
    static STACK: RefCell<Option<Stack>> = const { RefCell::new(None) };
}

/// A child's stack, with a part below that ends a process that touches it.
struct Stack(*mut c_void);

impl Stack {
    fn new() -> nix::Result<Self> {
        // SAFETY: new memory at a place of the kernel's choice, of which nothing depends.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                GUARD_BYTES + STACK_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let stack = Self(start);
        // SAFETY: the lower part of the memory above, which nothing uses.
        Errno::result(unsafe { libc::mprotect(start, GUARD_BYTES, libc::PROT_NONE) })?;
        Ok(stack)
    }

    /// Where the stack begins: it grows down.
    fn top(&self) -> *mut c_void {
        self.0.wrapping_byte_add(GUARD_BYTES + STACK_BYTES)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the memory of `new`, which nothing uses any more.
        unsafe { libc::munmap(self.0, GUARD_BYTES + STACK_BYTES) };
    }
}

#[cfg(test)]
mod tests;
