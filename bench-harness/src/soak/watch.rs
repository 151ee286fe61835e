//! A server watched from outside: what it says over the text protocol, and what the kernel says of
//! its process and of its port.
//!
//! The kernel's own count of sockets is the one to trust: io_uring's connections are no descriptors
//! of the process, and one that the server forgot is not in its list either.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Longest silence of the server.
const PATIENCE: Duration = Duration::from_secs(20);
/// States of /proc/net/tcp that are no connection of a server: LISTEN, and TIME_WAIT, which the
/// kernel keeps without it.
const NO_CONNECTION: [&str; 2] = ["0A", "06"];

/// A connection that speaks the text protocol.
pub(super) struct Admin {
    stream: BufReader<TcpStream>,
}

/// Sums over the lists that a server gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lists {
    /// Jobs of all functions, the running ones included.
    pub(super) jobs: u64,
    /// Jobs that run.
    pub(super) running: u64,
    /// Connections, the asking one included.
    pub(super) connections: u64,
}

impl Admin {
    pub(super) fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).context("a connection to the server")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks for both lists; answers with the time that took, too.
    pub(super) fn ask(&mut self) -> Result<(Lists, Duration)> {
        let start = Instant::now();
        self.stream.get_mut().write_all(b"status\nworkers\n")?;
        let mut lists = Lists::default();
        self.list(|line| {
            let (jobs, running) = status(line).with_context(|| format!("status: {line:?}"))?;
            lists.jobs += jobs;
            lists.running += running;
            Ok(())
        })?;
        self.list(|_| {
            lists.connections += 1;
            Ok(())
        })?;
        Ok((lists, start.elapsed()))
    }

    /// Names of all functions that have jobs.
    pub(super) fn busy_functions(&mut self) -> Result<Vec<String>> {
        self.stream.get_mut().write_all(b"status\n")?;
        let mut names = Vec::new();
        self.list(|line| {
            if status(line).is_some_and(|(jobs, _)| jobs > 0) {
                names.extend(line.rsplitn(4, '\t').nth(3).map(str::to_owned));
            }
            Ok(())
        })?;
        Ok(names)
    }

    fn list(&mut self, mut row: impl FnMut(&str) -> Result<()>) -> Result<()> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.stream.read_line(&mut line).context("the server doesn't answer")? == 0 {
                bail!("the server closed the connection that watched it");
            }
            match line.trim_end() {
                "." => return Ok(()),
                line => row(line)?,
            }
        }
    }
}

/// Jobs and running jobs of a line `function TAB total TAB running TAB workers`.
fn status(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.rsplit('\t').skip(1);
    let running = fields.next()?.parse().ok()?;
    Some((fields.next()?.parse().ok()?, running))
}

/// Open descriptors of a process.
pub(super) fn descriptors(pid: u32) -> Option<u64> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64)
}

/// The server's ends of connections to a port of 127.0.0.1, by the kernel.
pub(super) fn sockets(port: u16) -> Option<u64> {
    Some(count_sockets(&fs::read_to_string("/proc/net/tcp").ok()?, port))
}

fn count_sockets(table: &str, port: u16) -> u64 {
    let local = format!("0100007F:{port:04X}");
    let is_end = |line: &&str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        fields.next() == Some(&*local)
            && fields.nth(1).is_some_and(|state| !NO_CONNECTION.contains(&state))
    };
    table.lines().filter(is_end).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_tabs_spoil_no_figures() {
        assert_eq!(status("a\tb\t12\t3\t7"), Some((12, 3)));
        assert_eq!(status("OK"), None);
    }

    #[test]
    fn only_the_servers_living_ends_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
            0: 0100007F:1F90 00000000:0000 0A 0 0\n\
            1: 0100007F:1F90 0100007F:C001 01 0 0\n\
            2: 0100007F:1F90 0200007F:C002 08 0 0\n\
            3: 0100007F:1F90 0100007F:C003 06 0 0\n\
            4: 0100007F:C001 0100007F:1F90 01 0 0\n";
        assert_eq!(count_sockets(table, 8080), 2, "an open one and one that only the peer closed");
    }
}
