//! Why this host has no io_uring, in one sentence: a refusal of the kernel in, cause and remedy
//! out. Both drivers that make rings explain refusals with it.
//!
//! Knows the kernel's error numbers and no ring.

use std::io::Error;

use nix::sys::resource::{Resource, getrlimit};
use thiserror::Error as ThisError;

/// Why this host has no io_uring.
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
    /// The rings' memory counts against RLIMIT_MEMLOCK on some kernels, summed over all processes
    /// of a user.
    #[error(
        "too little locked memory for io_uring on {cores} cores ({have_kib} KiB for all processes \
         of this user): raise it with `ulimit -l` or LimitMEMLOCK=, or lower --threads"
    )]
    LockedMemory {
        /// Cores that need a ring each.
        cores: usize,
        /// The limit.
        have_kib: u64,
    },
    /// RLIMIT_NOFILE bounds the direct descriptors, too.
    #[error("too few descriptors for io_uring: raise them with --file-descriptors")]
    Descriptors,
    /// A feature that the server needs is missing.
    #[error("the kernel's io_uring is too old (Linux 6.1 has all that it takes): no {0}")]
    Feature(&'static str),
    /// Anything else.
    #[error("io_uring fails here: {0}")]
    Other(Error),
}

/// The meaning of the kernel's error; `name` is the feature that is missing if it is EINVAL.
pub(crate) fn explain(error: Error, name: &'static str) -> UringError {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => UringError::Missing,
        Some(libc::EPERM | libc::EACCES) => UringError::Refused,
        Some(libc::ENOMEM) => {
            let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(limit, _)| limit);
            UringError::LockedMemory { cores: 1, have_kib: limit >> 10 }
        }
        Some(libc::EMFILE) => UringError::Descriptors,
        Some(libc::EINVAL) => UringError::Feature(name),
        _ => UringError::Other(error),
    }
}
