//! Which process owns a partition: this process in, a token out; a token of any process in, whether
//! that process is known to have ended out.
//!
//! A token begins with random bytes, which alone identify the owner. What follows says where the
//! process can be looked for. Knows neither partitions nor connections.
//!
//! Invariant: a process is never taken for dead unless it would be found if it lived.

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use procfs::process::Process;

use crate::store::StoreError;

/// Random bytes at the begin of a token.
const RANDOM_BYTES: usize = 16;

/// This process as the owner of partitions.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    token: Vec<u8>,
}

/// A process of this host that has the same process ids as this one.
#[derive(Clone, Copy)]
struct Peer {
    pid: i32,
    /// In clock ticks since the boot.
    start: u64,
}

impl Identity {
    /// A new token for this process.
    pub(super) fn new() -> Result<Self, StoreError> {
        let mut token = vec![0; RANDOM_BYTES];
        getrandom::fill(&mut token).map_err(|error| {
            StoreError::Unusable(format!("the kernel gives no random bytes: {error}"))
        })?;
        // Without /proc others wait for the end of the lease, which is safe.
        if let (Some(host), Ok(own)) = (host(), Process::myself().and_then(|own| own.stat())) {
            token.extend(own.pid.to_be_bytes());
            token.extend(own.starttime.to_be_bytes());
            token.extend(host);
        }
        Ok(Self { token })
    }

    /// The random bytes, and what they stand for.
    pub(super) fn token(&self) -> &[u8] {
        &self.token
    }

    /// Whether the process of this token is known to have ended.
    pub(super) fn is_dead(&self, token: &[u8]) -> bool {
        match (peer(&self.token), peer(token)) {
            (Some((own_host, _)), Some((host, peer))) => own_host == host && has_ended(peer),
            _ => false,
        }
    }
}

/// This boot of this host, and its process ids as this process sees them.
fn host() -> Option<Vec<u8>> {
    let boot = procfs::sys::kernel::random::boot_id().ok()?;
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{boot} {}", namespace.display()).into_bytes())
}

/// Host and process of a token.
fn peer(token: &[u8]) -> Option<(&[u8], Peer)> {
    let (_, rest) = token.split_at_checked(RANDOM_BYTES)?;
    let (pid, rest) = rest.split_first_chunk()?;
    let (start, host) = rest.split_first_chunk()?;
    let peer = Peer { pid: i32::from_be_bytes(*pid), start: u64::from_be_bytes(*start) };
    (peer.pid > 0 && !host.is_empty()).then_some((host, peer))
}

fn has_ended(peer: Peer) -> bool {
    if kill(Pid::from_raw(peer.pid), None) == Err(Errno::ESRCH) {
        return true;
    }
    // Another process may have got its number. One that can't be read counts as the same.
    let found = Process::new(peer.pid).and_then(|process| process.stat());
    found.is_ok_and(|found| found.starttime != peer.start || found.state == 'Z')
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// A token of another process.
    fn token(own: &Identity, pid: u32, start: u64, host: &str) -> Vec<u8> {
        let mut token = own.token[..RANDOM_BYTES].to_vec();
        token.extend(i32::try_from(pid).unwrap().to_be_bytes());
        token.extend(start.to_be_bytes());
        token.extend(host.bytes());
        token
    }

    #[test]
    fn a_process_is_dead_once_it_is_known_to_have_ended() {
        let own = Identity::new().unwrap();
        assert!(!own.is_dead(own.token()));
        let host = String::from_utf8(host().unwrap()).unwrap();
        let mut child =
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let start =
            |pid: u32| Process::new(i32::try_from(pid).unwrap()).unwrap().stat().unwrap().starttime;
        let living = token(&own, child.id(), start(child.id()), &host);
        assert!(!own.is_dead(&living));
        let reused = token(&own, child.id(), start(child.id()) + 1, &host);
        assert!(own.is_dead(&reused));
        let elsewhere = token(&own, child.id(), start(child.id()) + 1, "another host");
        assert!(!own.is_dead(&elsewhere));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(own.is_dead(&living));
        for unknown in [&b""[..], &living[..RANDOM_BYTES], &living[..RANDOM_BYTES + 12]] {
            assert!(!own.is_dead(unknown));
        }
    }
}
