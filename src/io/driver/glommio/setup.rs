//! Makes glommio's executor, or says in one sentence why this host can't have it.
//!
//! Glommio ends the process where the kernel lacks an operation that it needs, and says little of
//! too low a limit, so both are asked for before.

use std::time::Duration;

use glommio::{GlommioError as Refusal, LocalExecutor, LocalExecutorBuilder, Placement};
use io_uring::{IoUring, Probe, opcode};
use nix::sys::resource::{Resource, getrlimit};
use thiserror::Error;

use crate::io::driver::uring_error::{UringError, explain};
use crate::io::host::patience::patiently;

/// For each of the submissions that a ring of the other driver has room for. A ring has room for
/// twice as many completions. After as many completions as it has submissions, too, glommio stops
/// running tasks.
pub(super) const SUBMISSIONS_FACTOR: usize = 4;
/// Registered memory is for files, which this server doesn't read with glommio: its least.
const FILE_BUFFER_BYTES: usize = 64 << 10;
/// How long tasks may run before glommio looks for news. If that time is over before the first of
/// them runs, glommio 0.9 goes to sleep instead, with tasks to run: so it never is, and the driver
/// itself sees to it that tasks end.
const PREEMPT_AFTER: Duration = Duration::from_secs(24 * 3600);

/// RLIMIT_MEMLOCK that glommio won't start without.
const LOCKED_BYTES_MIN: u64 = 512 << 10;
/// Operations that it won't start without.
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

/// Why there is no glommio here.
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
    /// Glommio asks for this much RLIMIT_MEMLOCK, whether the kernel counts rings against it or
    /// not.
    #[error(
        "glommio needs {need_kib} KiB of locked memory and may have {have_kib}: raise it with \
         `ulimit -l {need_kib}` or LimitMEMLOCK={need_kib}K"
    )]
    LockedMemory {
        /// The limit as it is.
        have_kib: u64,
        /// The least that will do.
        need_kib: u64,
    },
    /// Anything else.
    #[error("glommio fails here: {0}")]
    Other(String),
}

/// Whether so many cores can run on glommio here: makes an executor for each, all at once, and
/// drops them. They can't be kept, as an executor belongs to the thread that made it.
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

/// An executor for this thread, which stays on whatever cores it may run on, and looks for so long
/// for something to do before it waits. Locked memory of executors that were dropped comes free
/// some time later, so it is waited for.
pub(super) fn executor(
    busy_poll: Duration,
    ring_entries: u32,
) -> Result<LocalExecutor, GlommioError> {
    check_locked_memory()?;
    let lacks_memory = |error: &GlommioError| {
        matches!(error, GlommioError::Uring(UringError::LockedMemory { .. }))
    };
    patiently(lacks_memory, || make(busy_poll, ring_entries))
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
