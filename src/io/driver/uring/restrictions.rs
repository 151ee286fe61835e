//! What a ring may do: the driver's operations in, the kernel's restrictions out.
//!
//! An operation that the driver begins to use has to be listed here, or it fails with EACCES.
//!
//! Invariant: an enabled ring that was restricted opens nothing and connects nowhere, whatever is
//! put into its queue.

use std::io::Error;

use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, squeue};

/// The operations that the driver submits. The kernel knows those with buffers of a ring as the
/// plain ones.
const OPERATIONS: [u8; 11] = [
    opcode::Accept::CODE,
    opcode::AsyncCancel::CODE,
    opcode::Close::CODE,
    opcode::FilesUpdate::CODE,
    opcode::MsgRingSendFd::CODE,
    opcode::PollAdd::CODE,
    opcode::Recv::CODE,
    opcode::Send::CODE,
    opcode::Shutdown::CODE,
    opcode::Timeout::CODE,
    opcode::TimeoutUpdate::CODE,
];
/// Those that some kernels lack that have all others: they refuse to list unknown ones.
const OPERATIONS_IF_KNOWN: [u8; 2] = [opcode::FixedFdInstall::CODE, opcode::SetSockOpt::CODE];
/// `IORING_REGISTER_FILES_UPDATE`, for which the crate has no name: puts descriptors of the process
/// into the ring's table.
const REGISTER_FILES_UPDATE: u8 = 6;

/// Restricts a ring that isn't enabled yet; until it is enabled it may still register anything.
/// `is_known`: whether the kernel has an operation.
pub(super) fn restrict(ring: &IoUring, is_known: impl Fn(u8) -> bool) -> Result<(), Error> {
    let flags =
        squeue::Flags::FIXED_FILE | squeue::Flags::BUFFER_SELECT | squeue::Flags::SKIP_SUCCESS;
    let known = OPERATIONS_IF_KNOWN.into_iter().filter(|&operation| is_known(operation));
    let mut restrictions: Vec<Restriction> =
        OPERATIONS.into_iter().chain(known).map(Restriction::sqe_op).collect();
    restrictions.push(Restriction::sqe_flags_allowed(flags.bits()));
    restrictions.push(Restriction::register_op(REGISTER_FILES_UPDATE));
    ring.submitter().register_restrictions(&mut restrictions)
}
