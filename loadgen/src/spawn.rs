//! A ringgeard of our own: started on a free port, stopped when dropped.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::Error;
use crate::options::BESIDE;

const START_TIMEOUT: Duration = Duration::from_secs(10);
/// A process that has closed its standard error is about to end.
const EXIT_TIMEOUT: Duration = Duration::from_millis(500);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) addr: SocketAddr,
}

impl Server {
    /// Starts `path`, or the ringgeard beside this program if `path` is `BESIDE`.
    pub(crate) fn start(path: &Path, options: &[String]) -> Result<Self, Error> {
        let path = find(path)?;
        let mut child = Command::new(&path)
            .args(["--listen", "127.0.0.1", "--port", "0", "--log-file", "stderr"])
            .args(options)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|cause| {
                let path = path.display();
                Error::Spawn(format!("cannot start {path}: {cause}; give --spawn a ringgeard"))
            })?;
        let (sender, lines) = mpsc::channel();
        if let Some(stderr) = child.stderr.take() {
            // Reads on to the end: a full pipe would stop the server.
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        let mut server = Self { child, addr: SocketAddr::from(([127, 0, 0, 1], 0)) };
        server.addr = server.wait_for_address(&lines, &path)?;
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_for_address(
        &mut self,
        lines: &mpsc::Receiver<String>,
        path: &Path,
    ) -> Result<SocketAddr, Error> {
        let deadline = Instant::now() + START_TIMEOUT;
        let mut last = String::new();
        while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if let Some(addr) = address(&line) {
                return Ok(addr);
            }
            last = line;
        }
        let what = match self.wait_for_end(EXIT_TIMEOUT) {
            Some(status) => format!("ended with {status}"),
            None => "did not say in time where it listens".to_owned(),
        };
        let said =
            if last.is_empty() { String::new() } else { format!(", saying {:?}", last.trim()) };
        let path = path.display();
        Err(Error::Spawn(format!(
            "{path} {what}{said}: give --spawn a ringgeard, and --spawn-arg options that it takes"
        )))
    }
}

impl Server {
    fn wait_for_end(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                _ if Instant::now() >= deadline => return None,
                _ => std::thread::park_timeout(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).map(Pid::from_raw);
        if let Ok(pid) = pid
            && kill(pid, Signal::SIGTERM).is_ok()
            && self.wait_for_end(STOP_TIMEOUT).is_some()
        {
            return;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn find(path: &Path) -> Result<PathBuf, Error> {
    let path = if path == Path::new(BESIDE) {
        let own = std::env::current_exe().map_err(|cause| {
            Error::Spawn(format!("can't look beside this program ({cause}): give --spawn a path"))
        })?;
        own.with_file_name(BESIDE)
    } else {
        path.to_owned()
    };
    if path.is_file() {
        return Ok(path);
    }
    let path = path.display();
    Err(Error::Spawn(format!(
        "{path} is not there: run `cargo build --release` first, or give --spawn the path of a \
         ringgeard"
    )))
}

/// The address in a log line such as `… listening on 127.0.0.1:4730`.
fn address(line: &str) -> Option<SocketAddr> {
    if line.contains("not listening on ") {
        return None;
    }
    let (_, rest) = line.split_once("listening on ")?;
    let word = rest.split_ascii_whitespace().next()?;
    let word = word.strip_prefix("tls:").unwrap_or(word);
    word.trim_matches(|c: char| c == '"' || c == ',' || c == '}' || c == '.').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_from_the_log() {
        let port = |line| address(line).map(|addr| addr.port());
        assert_eq!(port("2026-01-01T00:00:00Z INFO io: listening on 127.0.0.1:40123"), Some(40123));
        assert_eq!(port("{\"message\":\"listening on 127.0.0.1:7\"}"), Some(7));
        assert_eq!(port("INFO listening on tls:127.0.0.1:40123"), Some(40123));
        assert_eq!(port("not listening on 127.0.0.1:7: in use"), None);
        assert_eq!(port("using io_uring"), None);
    }

    #[test]
    fn a_server_that_does_not_start_says_why() {
        let error = Server::start(Path::new("/bin/cat"), &[]).unwrap_err().to_string();
        assert!(error.contains("ended with exit status: 1"), "{error}");
    }

    #[test]
    fn a_missing_server_says_how_to_get_one() {
        let error = Server::start(Path::new("/nonexistent/ringgeard"), &[]).unwrap_err();
        assert!(error.to_string().contains("cargo build --release"), "{error}");
    }
}
