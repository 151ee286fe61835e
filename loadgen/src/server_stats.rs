//! What a process on this host has used: CPU time and memory, from /proc.
//!
//! In: a process, or the port it listens on. Out: numbers, or nothing where the kernel does not
//! tell. Knows nothing of the run.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{SysconfVar, sysconf};

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

/// CPU time of a process.
pub(crate) fn cpu(pid: u32) -> Option<Cpu> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?, ticks_per_second())
}

/// CPU time of this process.
pub(crate) fn own_cpu() -> Cpu {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Cpu::default() };
    let duration = |time: nix::sys::time::TimeVal| {
        let micros = u64::try_from(time.tv_usec()).unwrap_or_default();
        let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
        Duration::from_secs(seconds) + Duration::from_micros(micros)
    };
    Cpu { user: duration(usage.user_time()), system: duration(usage.system_time()) }
}

/// Resident bytes of a process: its peak, and now.
pub(crate) fn resident_bytes(pid: u32) -> Option<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    };
    Some((field("VmHWM:")?, field("VmRSS:")?))
}

/// What this host's kernel keeps in its slabs and in the buffers of TCP sockets.
pub(crate) fn kernel_bytes() -> Option<u64> {
    let slabs = slab_bytes(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let pages = tcp_pages(&fs::read_to_string("/proc/net/sockstat").ok()?)?;
    let page_bytes = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    Some(slabs + pages * page_bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(4096))
}

fn slab_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("Slab:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
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
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listening_inodes(&table, addr.port()))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|pid: &u32| holds_any(*pid, &sockets))
}

fn holds_any(pid: u32, sockets: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
}

fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    let inode = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (_, local_port) = fields.nth(1)?.rsplit_once(':')?;
        let is_listening = fields.nth(1)? == "0A";
        let is_port = u16::from_str_radix(local_port, 16).ok()? == port;
        (is_listening && is_port).then(|| fields.nth(5).map(str::to_owned))?
    };
    table.lines().skip(1).filter_map(inode).collect()
}

fn parse_stat(stat: &str, ticks_per_second: u64) -> Option<Cpu> {
    // The second field is the program's name and may hold spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut time = || {
        let ticks: u64 = fields.next()?.parse().ok()?;
        Some(Duration::from_micros(ticks * 1_000_000 / ticks_per_second))
    };
    Some(Cpu { user: time()?, system: time()? })
}

fn ticks_per_second() -> u64 {
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    ticks.and_then(|ticks| u64::try_from(ticks).ok()).filter(|ticks| *ticks > 0).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_program_name() {
        let stat = "12 (a) b (c) S 1 1 1 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 1 2 3";
        let cpu = parse_stat(stat, 100).unwrap();
        assert_eq!((cpu.user.as_millis(), cpu.system.as_millis()), (2500, 500));
    }

    #[test]
    fn the_kernel_counts_slabs_in_kibibytes_and_buffers_in_pages() {
        assert_eq!(slab_bytes("MemTotal: 9 kB\nSlab:      12 kB\n"), Some(12_288));
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
}
