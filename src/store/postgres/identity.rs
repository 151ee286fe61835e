//! Which process owns a partition: this process in, a token out; a token of any process in, whether
//! that process is known to have ended out.
//!
//! A token begins with random bytes: some identify the process, some the moment at which it became
//! an owner. What follows says where the process can be looked for. Knows neither partitions nor
//! connections.
//!
//! Invariant: a process is never taken for dead unless it would be found if it lived.

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use procfs::process::Process;

use crate::cluster::partition::OWNER_PROCESS_BYTES;
use crate::store::StoreError;

/// Random bytes at the begin of a token.
const RANDOM_BYTES: usize = 16;
/// Those of them that identify the process. The others are new each time that it becomes an owner:
/// generations repeat after a failover that has undone some, and a token that repeated with one
/// would let an earlier owner take the row for the one that it knew.
const PROCESS_BYTES: usize = OWNER_PROCESS_BYTES;

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

    /// Whether a token is of the same process as this one.
    pub(super) fn are_of_one_process(one: &[u8], other: &[u8]) -> bool {
        let process = |token: &[u8]| token.first_chunk::<PROCESS_BYTES>().copied();
        process(one).is_some_and(|own| process(other) == Some(own))
    }

    /// A token of the same process for another moment.
    pub(super) fn renew(token: &[u8]) -> Vec<u8> {
        let mut renewed = token.to_vec();
        if let Some(moment) = renewed.get_mut(PROCESS_BYTES..RANDOM_BYTES) {
            // The kernel gave such bytes at the start.
            let _ = getrandom::fill(moment);
        }
        renewed
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
    fn a_process_has_another_token_each_time_that_it_becomes_an_owner() {
        let (own, other) = (Identity::new().unwrap(), Identity::new().unwrap());
        let renewed = Identity::renew(own.token());
        assert_ne!(renewed, own.token());
        assert_eq!(renewed[RANDOM_BYTES..], own.token()[RANDOM_BYTES..]);
        assert!(Identity::are_of_one_process(&renewed, own.token()));
        assert!(!Identity::are_of_one_process(&renewed, other.token()));
        assert!(!Identity::are_of_one_process(b"", b""), "a free partition is of no process");
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
