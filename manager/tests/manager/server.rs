//! A job server as a process: options in, addresses out. It ends with its `Server`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;

use crate::child::{Log, forget_environment, spawn};
use crate::conn::{Conn, Item};

/// A running job server.
pub(crate) struct Server {
    child: Child,
    log: Arc<Log>,
    /// Where it speaks without TLS.
    pub(crate) address: SocketAddr,
}

/// Jobs and workers of a function.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Function {
    /// Jobs that wait or run.
    pub(crate) jobs: usize,
    pub(crate) running: usize,
    pub(crate) workers: usize,
}

/// The job server of this build.
pub(crate) fn ringgeard() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_ringgear-manager")).with_file_name("ringgeard");
    assert!(path.is_file(), "no {}: run `cargo build -p ringgear`", path.display());
    path
}

impl Server {
    /// A server on any port.
    pub(crate) fn start() -> Self {
        Self::start_with(0, &[])
    }

    /// A server on this port, 0 = any, with more options.
    pub(crate) fn start_with(port: u16, options: &[&str]) -> Self {
        let mut command = Command::new(ringgeard());
        let listen = format!("--listen=127.0.0.1:{port}");
        command.args(["--io", "epoll", "--threads", "1", &listen]).args(options);
        forget_environment(&mut command);
        let (child, log) = spawn(&mut command);
        let port = port_after(&log, "listening on 127.0.0.1:");
        Self { child, log, address: (Ipv4Addr::LOCALHOST, port).into() }
    }

    /// The port of its listener with TLS.
    pub(crate) fn tls_port(&self) -> u16 {
        port_after(&self.log, "listening on tls:127.0.0.1:")
    }

    /// The line that answers a text command.
    pub(crate) fn admin(&self, command: &str) -> String {
        ask(self.address, command)
    }

    /// What `status` says of a function.
    pub(crate) fn function(&self, name: &str) -> Function {
        let mut conn = Conn::open(self.address);
        conn.send(b"status\n");
        let mut found = Function::default();
        loop {
            let line = line(&mut conn);
            if line == "." {
                return found;
            }
            if let [function, jobs, running, workers] = *line.split('\t').collect::<Vec<_>>()
                && function == name
            {
                let [jobs, running, workers] = [jobs, running, workers].map(|it| it.parse());
                found = Function {
                    jobs: jobs.unwrap(),
                    running: running.unwrap(),
                    workers: workers.unwrap(),
                };
            }
        }
    }

    /// SIGKILL, and its end. Its port is free afterwards.
    pub(crate) fn kill(mut self) -> u16 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.address.port()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of the server:\n{}", self.log.text());
        }
    }
}

/// The line that answers a text command.
pub(crate) fn ask(server: SocketAddr, command: &str) -> String {
    let mut conn = Conn::open(server);
    conn.send(format!("{command}\n").as_bytes());
    line(&mut conn)
}

fn line(conn: &mut Conn) -> String {
    match conn.next() {
        Ok(Item::Line(line)) => String::from_utf8(line).unwrap().trim_end().to_owned(),
        other => panic!("no line of text: {other:?}"),
    }
}

fn port_after(log: &Log, text: &str) -> u16 {
    log.wait_for(text, |rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
}
