//! Makes glommio's executor, or says in one sentence why this host has none.
//!
//! Glommio ends the process if the kernel lacks an operation that it needs, and explains a limit
//! that is too low badly, so both are checked before.
//!
//! Invariant: glommio is asked for an executor only after these checks have passed.

use std::time::Duration;

use glommio::{GlommioError as Refusal, LocalExecutor, LocalExecutorBuilder, Placement};
use io_uring::{IoUring, Probe, opcode};
use nix::sys::resource::{Resource, getrlimit};
use thiserror::Error;

use crate::io::driver::uring_error::{UringError, explain};
use crate::io::host::retry::retry;

/// Submissions of a glommio ring for each one that a ring of the io_uring driver has room for. A
/// ring has room for twice as many completions. After as many completions as it has submissions,
/// too, glommio stops running tasks.
pub(super) const SUBMISSIONS_FACTOR: usize = 4;
/// Registered memory, in bytes: the least, as it is for files, which the server doesn't read here.
const FILE_BUFFER_BYTES: usize = 64 << 10;
/// How long tasks may run before glommio looks at its ring. If that time is over before the first
/// task runs, glommio 0.9 sleeps with tasks to run: so it is never over, and the driver limits what
/// its tasks do.
const PREEMPT_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The least RLIMIT_MEMLOCK that glommio starts with.
const LOCKED_BYTES_MIN: u64 = 512 << 10;
/// Operations that it doesn't start without.
const OPERATIONS: [(u8, &str); 23] = [
    (opcode::Nop::CODE, "nop"),
    (opcode::Readv::CODE, "readv"),
    (opcode::Writev::CODE, "writev"),
    (opcode::Fsync::CODE, "fsync"),
    (opcode::ReadFixed::CODE, "read into registered memory"),
    (opcode::WriteFixed::CODE, "write from registered memory"),
    (opcode::PollAdd::CODE, "poll"),
    (opcode::PollRemove::CODE, "end of a poll"),
    (opcode::SendMsg::CODE, "sendmsg"),
    (opcode::RecvMsg::CODE, "recvmsg"),
    (opcode::Timeout::CODE, "timeout"),
    (opcode::TimeoutRemove::CODE, "end of a timeout"),
    (opcode::Accept::CODE, "accept"),
    (opcode::LinkTimeout::CODE, "linked timeout"),
    (opcode::Connect::CODE, "connect"),
    (opcode::Fallocate::CODE, "fallocate"),
    (opcode::OpenAt::CODE, "openat"),
    (opcode::Close::CODE, "close"),
    (opcode::Statx::CODE, "statx"),
    (opcode::Read::CODE, "read"),
    (opcode::Write::CODE, "write"),
    (opcode::Send::CODE, "send"),
    (opcode::Recv::CODE, "receive"),
];

/// Why glommio can't run on this host.
#[derive(Debug, Error)]
pub enum GlommioError {
    /// The kernel refuses any ring.
    #[error(transparent)]
    Uring(#[from] UringError),
    /// An operation is missing.
    #[error(
        "the kernel's io_uring is too old for glommio (Linux 5.8 has all that it takes): no {0}"
    )]
    Operation(&'static str),
    /// Glommio demands this much RLIMIT_MEMLOCK, whether or not the kernel counts rings against it.
    #[error(
        "glommio needs {need_kib} KiB of locked memory and may have {have_kib}: raise it with \
         `ulimit -l {need_kib}` or LimitMEMLOCK={need_kib}K"
    )]
    LockedMemory {
        /// The limit.
        have_kib: u64,
        /// The least that it takes.
        need_kib: u64,
    },
    /// Anything else.
    #[error("glommio fails here: {0}")]
    Other(String),
}

/// Tests whether `cores` cores can run on glommio here: makes an executor for each, all at once,
/// and drops them. They can't be kept, as an executor belongs to the thread that made it.
pub(crate) fn probe(cores: usize, ring_entries: u32) -> Result<(), GlommioError> {
    let executors: Result<Vec<LocalExecutor>, _> =
        (0..cores).map(|_| executor(Duration::ZERO, ring_entries)).collect();
    executors.map(drop).map_err(|error| match error {
        GlommioError::Uring(UringError::LockedMemory { have_kib, .. }) => {
            UringError::LockedMemory { cores, have_kib }.into()
        }
        other => other,
    })
}

/// Makes an executor for this thread, which it doesn't pin; it polls for `busy_poll` before it
/// waits. The locked memory of executors that were dropped is freed some time later, so this
/// retries.
pub(super) fn executor(
    busy_poll: Duration,
    ring_entries: u32,
) -> Result<LocalExecutor, GlommioError> {
    check_locked_memory()?;
    let lacks_memory = |error: &GlommioError| {
        matches!(error, GlommioError::Uring(UringError::LockedMemory { .. }))
    };
    retry(lacks_memory, || make(busy_poll, ring_entries))
}

fn make(busy_poll: Duration, ring_entries: u32) -> Result<LocalExecutor, GlommioError> {
    check_operations()?;
    let builder = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(FILE_BUFFER_BYTES)
        .ring_depth(ring_entries as usize * SUBMISSIONS_FACTOR)
        .spin_before_park(busy_poll)
        .preempt_timer(PREEMPT_AFTER);
    builder.make().map_err(|refusal| match refusal {
        Refusal::IoError(error) => explain(error, "ring that polls").into(),
        other => GlommioError::Other(other.to_string()),
    })
}

fn check_locked_memory() -> Result<(), GlommioError> {
    let (limit, _) = getrlimit(Resource::RLIMIT_MEMLOCK)
        .map_err(|error| GlommioError::Other(error.to_string()))?;
    if limit < LOCKED_BYTES_MIN {
        let (have_kib, need_kib) = (limit >> 10, LOCKED_BYTES_MIN >> 10);
        return Err(GlommioError::LockedMemory { have_kib, need_kib });
    }
    Ok(())
}

fn check_operations() -> Result<(), GlommioError> {
    let ring = IoUring::new(2).map_err(|error| explain(error, "ring"))?;
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|_| GlommioError::Operation("list of operations"))?;
    let missing = OPERATIONS.iter().find(|(code, _)| !probe.is_supported(*code));
    missing.map_or(Ok(()), |(_, name)| Err(GlommioError::Operation(name)))
}
