//! Makes the rings of all cores, or says in one sentence why this host has none.
//!
//! A restricted ring (`restrictions`) does what the driver asks for and nothing else: seccomp
//! filters see nothing of what a ring does, which could be opening files.
//!
//! Tests for each feature by using it, not by the kernel's version, as vendors backport and disable
//! features. Locked memory is tested the same way: by making all rings that the server runs on.
//!
//! Invariant: a core runs on a ring that was made here, so nothing that was found available can be
//! missing when the core starts.

use std::io::{Error, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use io_uring::types::Fixed;
use io_uring::{IoUring, Probe, cqueue, opcode};
use tracing::warn;

use super::buffers::{Buffers, LARGE, SMALL};
use super::restrictions::restrict;
use crate::io::driver::CoreCount;
use crate::io::driver::uring_error::{UringError, explain};
use crate::io::host::retry::retry;

/// Places in the completion queue for each one in the submission queue.
const COMPLETIONS_PER_SUBMISSION: u32 = 8;

/// Most direct descriptors of a ring, whatever the process's limit
/// (`IORING_MAX_FIXED_FILES`).
pub(crate) const FILES_MAX: u32 = 1 << 20;

/// A ring with its buffers; the thread that calls `start` is the one that submits.
pub(crate) struct Ring {
    ring: IoUring,
    small_buffers: Buffers,
    large_buffers: Buffers,
    installs_descriptors: bool,
}

impl Ring {
    /// A turn queues up to `submissions` submissions before some must be given to the kernel.
    fn make(submissions: u32, is_restricted: bool) -> Result<Self, UringError> {
        let mut builder = builder();
        // The thread that enables the ring is the one that may submit.
        builder.setup_r_disabled().setup_cqsize(submissions * COMPLETIONS_PER_SUBMISSION);
        let ring = build(&builder, submissions)?;
        let buffers = |shape| {
            Buffers::register(&ring, shape).map_err(|error| explain(error, "ring of buffers"))
        };
        let (small_buffers, large_buffers) = (buffers(SMALL)?, buffers(LARGE)?);
        let mut operations = Probe::new();
        let known = ring.submitter().register_probe(&mut operations).is_ok();
        let is_known = |operation| known && operations.is_supported(operation);
        let installs_descriptors = is_known(opcode::FixedFdInstall::CODE);
        if is_restricted {
            restrict(&ring, is_known).map_err(|error| explain(error, "restricted rings"))?;
        }
        Ok(Self { ring, small_buffers, large_buffers, installs_descriptors })
    }

    /// Whether the ring can install a descriptor of the process for a direct one, so that the
    /// kernel can be asked about it: since Linux 6.8.
    pub(crate) fn installs_descriptors(&self) -> bool {
        self.installs_descriptors
    }

    /// Enables the ring for this thread, with room for `files` direct descriptors; returns it, its
    /// small buffers and its large ones.
    pub(super) fn start(self, files: u32) -> Result<(IoUring, Buffers, Buffers), Error> {
        let Self { ring, small_buffers, large_buffers, .. } = self;
        // A restricted ring registers nothing of this kind once it is enabled.
        ring.submitter()
            .register_files_sparse(files)
            .map_err(|error| Error::other(explain(error, "direct descriptors")))?;
        ring.submitter().register_enable_rings()?;
        Ok((ring, small_buffers, large_buffers))
    }
}

/// Makes a ring for each of `cores` cores, as far as locked memory has room for them, each with
/// room for `submissions` submissions, if a server can run on io_uring here. `is_restricted`:
/// whether they do only what the driver asks for.
pub(crate) fn rings(
    cores: CoreCount,
    submissions: u32,
    is_restricted: bool,
) -> Result<Vec<Ring>, UringError> {
    let lacks_memory = |error: &UringError| matches!(error, UringError::LockedMemory { .. });
    let make = || retry(lacks_memory, || Ring::make(submissions, is_restricted));
    let rings = probe().and_then(|()| as_many_as_fit(cores, make));
    rings.map_err(|error| match error {
        UringError::LockedMemory { have_kib, .. } => {
            UringError::LockedMemory { cores: cores.fewest, have_kib }
        }
        other => other,
    })
}

/// What `make` makes for each core. Fewer than the most do if locked memory ends.
fn as_many_as_fit<R>(
    cores: CoreCount,
    mut make: impl FnMut() -> Result<R, UringError>,
) -> Result<Vec<R>, UringError> {
    let mut rings = Vec::new();
    while rings.len() < cores.most {
        match make() {
            Ok(ring) => rings.push(ring),
            Err(error @ UringError::LockedMemory { .. }) if rings.len() >= cores.fewest => {
                warn!(
                    threads = rings.len(), reason = %error,
                    "fewer threads than processors would do for"
                );
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(rings)
}

/// Tests whether the kernel has what a server needs, by receiving a byte with a small ring.
fn probe() -> Result<(), UringError> {
    let lacks_memory = |error: &UringError| matches!(error, UringError::LockedMemory { .. });
    let mut ring = retry(lacks_memory, || build(&builder(), 2))?;
    ring.submitter()
        .register_files_sparse(1)
        .map_err(|error| explain(error, "direct descriptors"))?;
    Buffers::register(&ring, SMALL).map_err(|error| explain(error, "ring of buffers"))?;
    let (socket, mut peer) = UnixStream::pair().map_err(UringError::Other)?;
    let files = [socket.as_raw_fd()];
    ring.submitter()
        .register_files_update(0, &files)
        .map_err(|error| explain(error, "direct descriptors"))?;
    peer.write_all(b"?").map_err(UringError::Other)?;
    let receive = opcode::RecvMulti::new(Fixed(0), SMALL.group).build();
    // SAFETY: the entry points to no memory, and the buffers that it takes are never freed.
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

/// The kind of ring that this server runs on.
fn builder() -> io_uring::Builder {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        // Sets a flag in shared memory when there is work, for `poll_for_work`.
        .setup_taskrun_flag()
        .setup_submit_all();
    builder
}

fn build(builder: &io_uring::Builder, submissions: u32) -> Result<IoUring, UringError> {
    let ring = builder.build(submissions).map_err(|error| explain(error, "deferred task work"))?;
    if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
        return Err(UringError::Feature("waiting with a timeout"));
    }
    Ok(ring)
}

#[cfg(test)]
mod tests {
    use io_uring::types::Fd;

    use super::*;

    /// What opening a file by a ring results in.
    fn opened(is_restricted: bool) -> Option<i32> {
        let ring = match Ring::make(16, is_restricted) {
            Ok(ring) => ring,
            Err(error) => {
                eprintln!("no ring here: {error}");
                return None;
            }
        };
        let (mut ring, ..) = ring.start(4).unwrap();
        let path = c"/dev/null".as_ptr();
        let open = opcode::OpenAt::new(Fd(libc::AT_FDCWD), path).build();
        // SAFETY: the path lives as long as the program.
        #[allow(unsafe_code)]
        unsafe { ring.submission().push(&open) }.unwrap();
        ring.submit_and_wait(1).unwrap();
        let result = ring.completion().next().map(|completion| completion.result());
        if let Some(descriptor @ 0..) = result {
            nix::unistd::close(descriptor).unwrap();
        }
        result
    }

    #[test]
    fn a_restricted_ring_opens_no_file() {
        assert!(opened(false).is_none_or(|result| result >= 0), "it would show nothing");
        assert!(opened(true).is_none_or(|result| result == -libc::EACCES));
    }

    #[test]
    fn cores_for_which_locked_memory_has_no_room_are_left_out_unless_they_were_asked_for() {
        let made = |cores, room: usize| {
            let mut left = room;
            let rings = as_many_as_fit(cores, || {
                let refused = UringError::LockedMemory { cores: 1, have_kib: 64 };
                left = left.checked_sub(1).ok_or(refused)?;
                Ok(())
            });
            rings.map(|rings| rings.len()).ok()
        };
        let by_default = CoreCount { most: 4, fewest: 1 };
        let counts = [9, 4, 3, 1, 0].map(|room| made(by_default, room));
        assert_eq!(counts, [Some(4), Some(4), Some(3), Some(1), None]);
        assert_eq!([4, 3].map(|room| made(CoreCount::exactly(4), room)), [Some(4), None]);
        let too_old = || Err::<(), _>(UringError::Feature("of Linux 9"));
        assert!(as_many_as_fit(by_default, too_old).is_err());
    }
}
