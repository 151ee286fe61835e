//! Makes a ring, or says in one sentence why this host has none.
//!
//! Asks for each feature by using it, never for a kernel's version: vendors move features both
//! ways.

use std::io::{Error, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use io_uring::types::Fixed;
use io_uring::{IoUring, cqueue, opcode};
use thiserror::Error as ThisError;

use super::buffers::{Buffers, SMALL};

/// Submissions that a turn gathers before it must hand some of them over.
const SUBMISSIONS: u32 = 1024;
/// Completions that fit before the kernel has to set some aside.
const COMPLETIONS: u32 = 8192;

/// Direct descriptors that the kernel lets a ring have, however many the process may
/// (`IORING_MAX_FIXED_FILES`).
pub(crate) const FILES_MAX: u32 = 1 << 20;

/// Why there is no io_uring here.
#[derive(Debug, ThisError)]
pub enum UringError {
    /// The kernel was built without it, or is older than it.
    #[error("the kernel has no io_uring")]
    Missing,
    /// A container's seccomp profile or the sysctl `kernel.io_uring_disabled`.
    #[error(
        "io_uring is refused here: allow it in the container's seccomp profile, or set the sysctl \
         kernel.io_uring_disabled to 0"
    )]
    Refused,
    /// The ring's memory counts against RLIMIT_MEMLOCK on some kernels.
    #[error("too little locked memory for io_uring: raise it with `ulimit -l` or LimitMEMLOCK=")]
    LockedMemory,
    /// RLIMIT_NOFILE bounds the direct descriptors, too.
    #[error("too few descriptors for io_uring: raise them with --file-descriptors")]
    Descriptors,
    /// A feature that this server is built on is missing.
    #[error("the kernel's io_uring is too old (Linux 6.1 has all that it takes): no {0}")]
    Feature(&'static str),
    /// Anything else.
    #[error("io_uring fails here: {0}")]
    Other(Error),
}

/// Whether a server can run on io_uring here: makes a small ring and receives something with it.
pub(crate) fn probe() -> Result<(), UringError> {
    let mut ring = ring(1)?;
    Buffers::register(&ring, SMALL).map_err(|error| explain(error, "ring of buffers"))?;
    let (socket, mut peer) = UnixStream::pair().map_err(UringError::Other)?;
    let files = [socket.as_raw_fd()];
    ring.submitter()
        .register_files_update(0, &files)
        .map_err(|error| explain(error, "direct descriptors"))?;
    peer.write_all(b"?").map_err(UringError::Other)?;
    let receive = opcode::RecvMulti::new(Fixed(0), SMALL.group).build();
    // SAFETY: the entry points to no memory; the buffers it takes are never freed.
    #[allow(unsafe_code)]
    let pushed = unsafe { ring.submission().push(&receive) };
    pushed.map_err(|error| UringError::Other(Error::other(error)))?;
    ring.submit_and_wait(1).map_err(UringError::Other)?;
    let completion = ring.completion().next();
    let received = completion.filter(|completion| {
        completion.result() == 1 && cqueue::buffer_select(completion.flags()).is_some()
    });
    received.map(|_| ()).ok_or(UringError::Feature("multishot receive"))
}

/// A ring with room for `files` direct descriptors.
pub(super) fn ring(files: u32) -> Result<IoUring, UringError> {
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        // Says in shared memory that there is work, for those who look before they wait.
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(COMPLETIONS)
        .build(SUBMISSIONS)
        .map_err(|error| explain(error, "deferred task work"))?;
    if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
        return Err(UringError::Feature("waiting with a timeout"));
    }
    ring.submitter()
        .register_files_sparse(files)
        .map_err(|error| explain(error, "direct descriptors"))?;
    Ok(ring)
}

/// What a refusal of the kernel means; `name` is what it refused if it doesn't know it.
pub(crate) fn explain(error: Error, name: &'static str) -> UringError {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => UringError::Missing,
        Some(libc::EPERM | libc::EACCES) => UringError::Refused,
        Some(libc::ENOMEM) => UringError::LockedMemory,
        Some(libc::EMFILE) => UringError::Descriptors,
        Some(libc::EINVAL) => UringError::Feature(name),
        _ => UringError::Other(error),
    }
}
