//! A server of a cluster as a child process: its options in, its address out.
//!
//! It keeps its address over restarts, as clients have it in their lists. It ends with its `Node`.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use crate::child::{Log, forget_environment, reserve_port, spawn, stands_still, wait_until};
use crate::postgresql::children;

/// How long an admin command may take.
const ANSWERED: Duration = Duration::from_secs(2);

/// A partition, as the text command `cluster` lists it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Listed {
    pub(crate) id: u32,
    pub(crate) state: String,
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) generation: u64,
    /// Seconds since its last beat.
    pub(crate) age: Option<f64>,
    pub(crate) jobs: u64,
}

impl Listed {
    /// From a line of the answer.
    fn parse(line: &str) -> Self {
        let fields: Vec<&str> = line.split('\t').collect();
        let [id, state, name, address, generation, age, jobs] = fields[..] else {
            panic!("seven fields: {line:?}")
        };
        let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text:?} in {line:?}"));
        Self {
            id: id.parse().unwrap(),
            state: state.to_owned(),
            name: name.to_owned(),
            address: address.to_owned(),
            generation: number(generation),
            age: (age != "-").then(|| age.parse().unwrap_or_else(|_| panic!("{age:?}"))),
            jobs: number(jobs),
        }
    }

    pub(crate) fn is_owned(&self) -> bool {
        self.state == "owned"
    }
}

/// A server that can be started, broken and started again.
pub(crate) struct Node {
    /// Where its clients connect to.
    pub(crate) address: SocketAddr,
    /// The program that starts it as its child, if there is one.
    before: Vec<String>,
    variables: Vec<(String, String)>,
    options: Vec<String>,
    process: Option<(Child, Arc<Log>)>,
    /// Keeps the port for it while it doesn't run.
    port: Option<socket2::Socket>,
}

impl Node {
    /// A server on loopback, not yet started.
    pub(crate) fn on_loopback(options: &[&str]) -> Self {
        let (port, socket) = reserve_port();
        let mut node = Self::at((Ipv4Addr::LOCALHOST, port).into(), options);
        node.port = Some(socket);
        node
    }

    /// A server at an address, not yet started.
    pub(crate) fn at(address: SocketAddr, options: &[&str]) -> Self {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let before = Vec::new();
        let variables = Vec::new();
        Self { address, before, variables, options, process: None, port: None }
    }

    /// Its process is a child of one that these words start.
    pub(crate) fn child_of(mut self, words: &[String]) -> Self {
        self.before = words.to_vec();
        self
    }

    pub(crate) fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn add_options(&mut self, options: &[&str]) {
        self.options.extend(options.iter().map(|&option| option.to_owned()));
    }

    /// Starts the process, which need not come to listen.
    pub(crate) fn launch(&mut self) {
        let program = env!("CARGO_BIN_EXE_ringgeard").to_owned();
        let words: Vec<&String> = self.before.iter().chain([&program]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(["--ring-entries=64", "--listen"]);
        command.arg(self.address.to_string()).args(&self.options);
        forget_environment(&mut command);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        self.process = Some(spawn(&mut command));
    }

    /// Starts the process and waits until it listens.
    pub(crate) fn start(&mut self) {
        self.launch();
        self.wait_until_it_serves();
    }

    pub(crate) fn wait_until_it_serves(&mut self) {
        wait_until("a server to listen", || {
            let ended = self.process.as_mut().expect("it was started").0.try_wait().unwrap();
            assert!(ended.is_none(), "it ended:\n{}", self.log());
            self.ask("version").ok()
        });
    }

    /// Whether its process was started and not yet waited for.
    pub(crate) fn is_started(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn log(&self) -> String {
        self.process.as_ref().map_or_else(String::new, |(_, log)| log.text())
    }

    fn pid(&self) -> u32 {
        let child = self.process.as_ref().expect("it was started").0.id();
        if self.before.is_empty() {
            return child;
        }
        let inner = children(child).first().expect("it runs").as_raw();
        inner.try_into().expect("a process's number")
    }

    /// Sends a signal by name, such as `TERM`. With `STOP`, waits until all threads stand still.
    pub(crate) fn signal(&self, name: &str) {
        let send = |pid: u32| {
            let pid = pid.to_string();
            assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
        };
        let pid = self.pid();
        send(pid);
        match name {
            "STOP" => wait_until("the server to stand still", || stands_still(pid).then_some(())),
            // nsenter stops with its child.
            "CONT" if !self.before.is_empty() => {
                send(self.process.as_ref().expect("it was started").0.id());
            }
            _ => {}
        }
    }

    /// SIGKILL, and the process's end.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        self.wait();
    }

    /// Waits for the process's end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let (child, _) = self.process.as_mut().expect("it was started");
        let status = wait_until("the server to end", || child.try_wait().expect("a child"));
        let (_, log) = self.process.take().expect("it was started");
        log.wait_for_end();
        if std::env::var("CLUSTER_LOGS").is_ok() {
            eprintln!("log of the server that ended at {}:\n{}", self.address, log.text());
        }
        status
    }

    /// An admin command's answer: a line, or up to the `.` of a list.
    pub(crate) fn ask(&self, command: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.address, ANSWERED)?;
        stream.set_read_timeout(Some(ANSWERED))?;
        stream.write_all(format!("{command}\n").as_bytes())?;
        let is_list = ["cluster", "status", "workers"].contains(&command);
        let mut text = String::new();
        for line in BufReader::new(stream).lines() {
            let line = line?;
            if is_list && line == "." {
                return Ok(text);
            }
            text.push_str(&line);
            text.push('\n');
            if !is_list {
                return Ok(text);
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// The partitions that it lists.
    pub(crate) fn partitions(&self) -> io::Result<Vec<Listed>> {
        Ok(self.ask("cluster")?.lines().map(Listed::parse).collect())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of the server at {}:\n{}", self.address, self.log());
        }
        if let Some((child, _)) = &mut self.process {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
