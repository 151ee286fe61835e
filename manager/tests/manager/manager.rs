//! The manager as a process: workers in, jobs done. All that it started ends with its `Manager`.
//!
//! Commands have its folder as `$DIR`, by which their processes are found, too.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::child::{Log, forget_environment, spawn, wait_until};
use crate::processes;
use crate::server::Server;

/// A running manager.
pub(crate) struct Manager {
    child: Child,
    log: Arc<Log>,
    folder: TempDir,
    head: String,
}

/// The table of a worker `w` for the function `f`, whose command is a shell script.
pub(crate) fn worker(mode: &str, script: &str, more: &str) -> String {
    named_worker("w", "f", mode, script, more)
}

/// The same with a name and a function of its own.
pub(crate) fn named_worker(
    name: &str,
    function: &str,
    mode: &str,
    script: &str,
    more: &str,
) -> String {
    format!(
        "[[worker]]\nname = \"{name}\"\nfunctions = [\"{function}\"]\nmode = \"{mode}\"\n\
         command = [\"sh\", \"-c\", '''{script}''']\n{more}\n"
    )
}

impl Manager {
    /// A manager with these workers, at one server. `DIR` in them stands for its folder.
    pub(crate) fn start(server: &Server, workers: &str) -> Self {
        Self::start_at(&[server.address.to_string()], "", workers)
    }

    /// A manager with these workers and further keys, at these servers.
    pub(crate) fn start_at(servers: &[String], keys: &str, workers: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), servers, keys, workers)
    }

    /// The same, in a folder that has files already.
    pub(crate) fn start_in(folder: TempDir, servers: &[String], keys: &str, workers: &str) -> Self {
        Self::start_with(folder, servers, keys, workers, |_| {})
    }

    /// The same, where the command can be changed.
    pub(crate) fn start_with(
        folder: TempDir,
        servers: &[String],
        keys: &str,
        workers: &str,
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let head = format!("servers = {servers:?}\n{keys}\n");
        let file = folder.path().join("manager.toml");
        fs::write(&file, text(&folder, &head, workers)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringgear-manager"));
        forget_environment(&mut command);
        command.arg("--config-file").arg(file).env("DIR", folder.path());
        change(&mut command);
        let (child, log) = spawn(&mut command);
        Self { child, log, folder, head }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// A file of its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What is in a file of its folder; nothing if it isn't there.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Waits until a file of its folder has so many lines; gives them.
    pub(crate) fn wait_for_lines(&self, name: &str, lines: usize) -> Vec<String> {
        wait_until(&format!("{lines} lines in {name}"), || {
            let text = self.read(name);
            (text.matches('\n').count() >= lines).then(|| text.lines().map(str::to_owned).collect())
        })
    }

    /// Creates an empty file, which a command waits for.
    pub(crate) fn touch(&self, name: &str) {
        fs::write(self.path(name), "").unwrap();
    }

    /// Writes the file anew, with other workers.
    pub(crate) fn configure(&self, workers: &str) {
        let file = self.path("manager.toml");
        fs::write(file, text(&self.folder, &self.head, workers)).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// Waits for a line of its log that has this text; gives what follows.
    pub(crate) fn wait_for_log(&self, text: &str) -> String {
        self.log.wait_for(text, |rest| Some(rest.trim_end().to_owned()))
    }

    /// Everything that it has started and that runs, the processes of those, too.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let mut found = processes::with(&self.variable());
        found.retain(|&pid| pid != self.pid());
        found
    }

    /// Waits until it and all that it started have ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = wait_until("the manager to end", || self.child.try_wait().unwrap());
        self.wait_until_alone();
        self.log.wait_for_end();
        status
    }

    /// Waits until no process is left that it started.
    pub(crate) fn wait_until_alone(&self) {
        wait_until("its processes to end", || self.processes().is_empty().then_some(()));
    }

    /// SIGTERM, and its end in good order.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.wait().code(), Some(0), "{}", self.log());
    }

    fn variable(&self) -> String {
        format!("DIR={}", self.folder.path().display())
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // It may have left something; a failed test says so, and nothing stays.
        for pid in self.processes() {
            let _ = kill(pid, Signal::SIGKILL);
        }
        if std::thread::panicking() {
            eprintln!("log of the manager:\n{}", self.log());
        }
    }
}

fn text(folder: &TempDir, head: &str, workers: &str) -> String {
    let folder = folder.path().to_str().unwrap();
    // Scripts have it in a variable.
    format!("{head}{}", workers.replace("\"DIR/", &format!("\"{folder}/")))
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
