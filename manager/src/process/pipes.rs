//! Pipes between the manager and a command.
//!
//! Invariant: only the manager's end doesn't block, and neither end is inherited by itself.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
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

/// A pipe with bytes for a command to read: the command's end, and the manager's with the number of
/// bytes that there was room for, if that isn't all.
///
/// # Errors
/// If there are no descriptors left.
pub fn filled(bytes: &[u8]) -> io::Result<(OwnedFd, Option<(Sender, usize)>)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    // A pipe that is empty has room for as much, however few pages the user has left.
    if bytes.len() > libc::PIPE_BUF {
        unblock(&write)?;
    }
    let written = match nix::unistd::write(&write, bytes) {
        Ok(count) => count,
        Err(Errno::EAGAIN) => 0,
        Err(error) => return Err(error.into()),
    };
    let rest = (written < bytes.len()).then(|| sender(write)).transpose()?;
    Ok((read, rest.map(|sender| (sender, written))))
}

/// What a pipe still has when nothing writes to it any longer, at most so many bytes. Doesn't wait.
pub fn rest(pipe: &Receiver, most: usize, mut each: impl FnMut(&[u8])) {
    let mut buffer = [0; 16 << 10];
    let mut left = most;
    // The kernel is asked, as the runtime may not have seen yet that there is something.
    while left > 0 {
        let count = match nix::unistd::read(pipe, &mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(Errno::EINTR) => continue,
            Err(_) => return,
        };
        each(buffer.get(..count).unwrap_or_default());
        left = left.saturating_sub(count);
    }
}

fn unblock(end: impl AsFd) -> io::Result<()> {
    fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}
