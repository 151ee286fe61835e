//! Pipes between the manager and a command.
//!
//! Invariant: only the manager's end doesn't block, and neither end is inherited by itself.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use tokio::net::unix::pipe::{Receiver, Sender};

/// A pipe that the manager reads: its end, and the command's.
///
/// # Errors
/// If there are no descriptors left.
pub fn from_command() -> io::Result<(Receiver, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    unblock(&read)?;
    Ok((Receiver::from_owned_fd_unchecked(read)?, write))
}

/// A pipe that the manager writes: its end, and the command's.
///
/// # Errors
/// If there are no descriptors left.
pub fn to_command() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    unblock(&write)?;
    Ok((write, read))
}

/// The manager's end of `to_command`, for what didn't fit into the pipe at once.
///
/// # Errors
/// If the kernel can't watch it.
pub fn sender(end: OwnedFd) -> io::Result<Sender> {
    Sender::from_owned_fd_unchecked(end)
}

fn unblock(end: impl AsFd) -> io::Result<()> {
    fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}
