//! What a process on this host has used: CPU time and memory, from /proc.
//!
//! In: a process, or the port it listens on. Out: numbers, or nothing where the kernel does not
//! tell. Knows nothing of the run.

use std::net::SocketAddr;
use std::time::Duration;

use procfs::net::TcpState;
use procfs::process::{FDTarget, Process, all_processes};
use procfs::{Current, Meminfo};

/// CPU time since a process began, all threads together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

impl Cpu {
    pub(crate) fn total(&self) -> Duration {
        self.user + self.system
    }

    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

fn process(pid: u32) -> Option<Process> {
    Process::new(i32::try_from(pid).ok()?).ok()
}

/// CPU time of a process.
pub(crate) fn cpu(pid: u32) -> Option<Cpu> {
    let stat = process(pid)?.stat().ok()?;
    let time = |ticks: u64| Duration::from_micros(ticks * 1_000_000 / procfs::ticks_per_second());
    Some(Cpu { user: time(stat.utime), system: time(stat.stime) })
}

/// CPU time of some threads of this process, or of all of it where the kernel doesn't tell.
pub(crate) fn threads_cpu(threads: &[i32]) -> Duration {
    let of = |this: &Process, &thread: &i32| {
        let schedule = this.task_from_tid(thread).and_then(|task| task.schedstat());
        schedule.ok().map(|schedule| Duration::from_nanos(schedule.sum_exec_runtime))
    };
    let this = Process::myself().ok();
    let sum = this.and_then(|this| threads.iter().map(|thread| of(&this, thread)).sum());
    sum.unwrap_or_else(|| cpu(std::process::id()).unwrap_or_default().total())
}

/// Resident bytes of a process: its peak, and now.
pub(crate) fn resident_bytes(pid: u32) -> Option<(u64, u64)> {
    let status = process(pid)?.status().ok()?;
    Some((status.vmhwm? * 1024, status.vmrss? * 1024))
}

/// What this host's kernel keeps in its slabs and in the buffers of TCP sockets.
pub(crate) fn kernel_bytes() -> Option<u64> {
    let pages = tcp_pages(&std::fs::read_to_string("/proc/net/sockstat").ok()?)?;
    Some(Meminfo::current().ok()?.slab + pages * procfs::page_size())
}

fn tcp_pages(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    line.split_once(" mem ")?.1.split(' ').next()?.parse().ok()
}

/// The process of this host that listens on `addr`.
pub(crate) fn listener(addr: SocketAddr) -> Option<u32> {
    if !addr.ip().is_loopback() {
        return None;
    }
    let tables = [procfs::net::tcp(), procfs::net::tcp6()].into_iter().flatten().flatten();
    let inodes: Vec<u64> = tables
        .filter(|it| it.state == TcpState::Listen && it.local_address.port() == addr.port())
        .map(|it| it.inode)
        .collect();
    let holds_any = |process: &Process| {
        process.fd().is_ok_and(|descriptors| {
            descriptors
                .flatten()
                .any(|it| matches!(it.target, FDTarget::Socket(inode) if inodes.contains(&inode)))
        })
    };
    all_processes().ok()?.flatten().find(holds_any).and_then(|it| u32::try_from(it.pid()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_counts_buffers_in_pages() {
        let sockstat = "sockets: used 9\nTCP: inuse 3 orphan 0 tw 1 alloc 4 mem 17\nUDP: mem 2\n";
        assert_eq!(tcp_pages(sockstat), Some(17));
        assert!(kernel_bytes().is_some());
    }

    #[test]
    fn this_process_is_found_by_its_listening_port() {
        let listener_socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener_socket.local_addr().unwrap();
        assert_eq!(listener(addr), Some(std::process::id()));
        assert!(resident_bytes(std::process::id()).unwrap().0 > 0);
        assert!(cpu(std::process::id()).is_some());
    }

    #[test]
    fn a_busy_thread_has_used_time() {
        let me = nix::unistd::gettid().as_raw();
        let before = threads_cpu(&[me]);
        let start = std::time::Instant::now();
        while threads_cpu(&[me]) == before {
            assert!(start.elapsed() < Duration::from_secs(20));
        }
    }
}
