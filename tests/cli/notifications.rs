//! What a service manager hears at NOTIFY_SOCKET, with this test in the manager's place.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::{DEADLINE, Daemon, Server, at, directory, output, ringgeard, skips, until, with_words};

/// The variable is to name the process that the shell becomes.
const AS_SYSTEMD: &str = "WATCHDOG_PID=$$ exec \"$@\"";

/// The manager's end.
struct Manager {
    socket: UnixDatagram,
    /// For the variable.
    address: String,
    /// All lines that came.
    heard: Vec<String>,
}

impl Manager {
    fn at_path(folder: &Path) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { socket, address: at(&path).to_owned(), heard: Vec::new() }
    }

    fn at_name(name: &str) -> Self {
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        Self { socket, address: format!("@{name}"), heard: Vec::new() }
    }

    /// Starts a server as the manager would; a watchdog of zero isn't asked for.
    fn start(&self, watchdog: Duration, line: &str) -> Server {
        let mut command = Command::new("sh");
        command.args(["-c", AS_SYSTEMD, "sh", env!("CARGO_BIN_EXE_ringgeard")]);
        let line = format!("-L 127.0.0.1 -p 0 --ring-entries=64 {line}");
        let mut command = with_words(command, &line);
        command.env("NOTIFY_SOCKET", &self.address).env_remove("WATCHDOG_USEC");
        if !watchdog.is_zero() {
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        Server::start(command)
    }

    /// Takes the next message in, if one comes in time.
    fn hear(&mut self, within: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(within.max(Duration::from_millis(1)))).unwrap();
        let mut bytes = [0; 4096];
        match self.socket.recv(&mut bytes) {
            Ok(count) => {
                let text = String::from_utf8(bytes[..count].to_vec()).unwrap();
                self.heard.extend(text.lines().map(str::to_owned));
                Some(text)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits for a message with a line that begins so.
    fn wait_for(&mut self, line: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.hear(left);
            let message = message.unwrap_or_else(|| panic!("no {line} in {:?}", self.heard));
            if message.lines().any(|it| it.starts_with(line)) {
                return message;
            }
        }
    }

    /// Takes in all that has come.
    fn catch_up(&mut self) {
        self.socket.set_nonblocking(true).unwrap();
        while self.hear(Duration::ZERO).is_some() {}
        self.socket.set_nonblocking(false).unwrap();
    }

    fn count(&self, line: &str) -> usize {
        self.heard.iter().filter(|heard| *heard == line).count()
    }
}

fn packet(kind: u32, body: &[u8]) -> Vec<u8> {
    let bytes = u32::try_from(body.len()).unwrap();
    [b"\0REQ", &kind.to_be_bytes()[..], &bytes.to_be_bytes(), body].concat()
}

/// The kind and the body of the next packet.
fn receive(stream: &mut TcpStream) -> (u32, Vec<u8>) {
    let mut header = [0; 12];
    stream.read_exact(&mut header).unwrap();
    let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
    let mut body = vec![0; number(8) as usize];
    stream.read_exact(&mut body).unwrap();
    (number(4), body)
}

/// Starts a job, and returns its worker, its client, and its handle.
fn start_job(port: u16) -> (TcpStream, TcpStream, Vec<u8>) {
    let connect = || {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    };
    let (mut client, mut worker) = (connect(), connect());
    client.write_all(&packet(7, b"f\0\0payload")).unwrap();
    let (kind, handle) = receive(&mut client);
    assert_eq!(kind, 8);
    worker.write_all(&[packet(1, b"f"), packet(9, b"")].concat()).unwrap();
    assert_eq!(receive(&mut worker).0, 11);
    (worker, client, handle)
}

/// The number of a server's thread for a core that isn't the first.
fn thread_of(server: &Server, core: usize) -> Pid {
    let tasks = format!("/proc/{}/task", server.child.id());
    let name = format!("core-{core}\n");
    let mut tasks = fs::read_dir(tasks).unwrap().map(|task| task.unwrap());
    let thread = tasks
        .find(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm == name));
    let number = thread.unwrap().file_name().into_string().unwrap();
    Pid::from_raw(number.parse().unwrap())
}

/// Stops one thread, as if it were stuck. `false` where that isn't allowed.
fn stop_thread(thread: Pid) -> bool {
    match ptrace::attach(thread) {
        Err(error @ (Errno::EPERM | Errno::ENOSYS)) => {
            skips::skip(&format!("no thread can be stopped by ptrace: {error}"));
            return false;
        }
        attached => attached.unwrap(),
    }
    waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
    true
}

#[test]
fn a_manager_hears_that_the_server_is_ready_how_it_is_and_that_it_ends() {
    let (_guard, folder) = directory();
    let name = format!("ringgear-notifications-{}", std::process::id());
    let managers = [Manager::at_path(&folder), Manager::at_name(&name)];
    let lines = ["--io epoll -t 3", "--io auto --http 127.0.0.1:0"];
    for (mut manager, line) in managers.into_iter().zip(lines) {
        let mut server = manager.start(Duration::from_secs(2), line);
        let ready = manager.wait_for("READY=1");
        assert!(ready.contains("STATUS=serving\n"), "{ready}");
        server.port();
        manager.wait_for("STATUS=serving: functions 0, jobs waiting 0, running 0, connections 0");
        // One might be from before.
        (0..3).for_each(|_| drop(manager.wait_for("WATCHDOG=1")));
        assert_eq!(manager.count("STOPPING=1"), 0);
        assert!(server.end(Signal::SIGTERM).success());
        manager.wait_for("STOPPING=1");
        manager.catch_up();
        assert_eq!((manager.count("READY=1"), manager.count("STOPPING=1")), (1, 1));
    }
}

#[test]
fn the_watchdog_hears_nothing_while_a_core_is_stuck() {
    let (_guard, folder) = directory();
    for line in ["--io epoll -t 2", "--io epoll -t 2 --http 127.0.0.1:0", "--io auto -t 2"] {
        let mut manager = Manager::at_path(&folder);
        let watchdog = Duration::from_millis(400);
        let mut server = manager.start(watchdog, line);
        server.port();
        manager.wait_for("READY=1");
        manager.wait_for("WATCHDOG=1");
        let thread = thread_of(&server, 1);
        if !stop_thread(thread) {
            return;
        }
        manager.catch_up();
        // It may have been about to be sent.
        drop(manager.hear(watchdog / 2));
        let heard = manager.count("WATCHDOG=1");
        let end = Instant::now() + 2 * watchdog;
        while Instant::now() < end {
            manager.hear(end.saturating_duration_since(Instant::now()));
        }
        assert_eq!(manager.count("WATCHDOG=1"), heard, "{line}: {:?}", manager.heard);
        ptrace::detach(thread, None).unwrap();
        manager.wait_for("WATCHDOG=1");
        assert!(server.end(Signal::SIGTERM).success());
        manager.catch_up();
        assert_eq!(manager.count("READY=1"), 1, "{line}");
        fs::remove_file(&manager.address).unwrap();
    }
}

#[test]
fn there_is_no_sign_of_life_for_another_processs_watchdog() {
    let (_guard, folder) = directory();
    let mut manager = Manager::at_path(&folder);
    let mut command = ringgeard("-L 127.0.0.1 -p 0 --io epoll");
    command.env("NOTIFY_SOCKET", &manager.address);
    command.env("WATCHDOG_USEC", "40000").env("WATCHDOG_PID", "1");
    let mut server = Server::start(command);
    server.port();
    manager.wait_for("STATUS=serving: ");
    assert!(server.end(Signal::SIGTERM).success());
    manager.wait_for("STOPPING=1");
    assert_eq!(manager.count("WATCHDOG=1"), 0);
}

#[test]
fn a_standby_is_ready_once() {
    let (_guard, folder) = directory();
    let mut manager = Manager::at_path(&folder);
    let store = format!("--store=sqlite:{}", at(&folder.join("jobs.db")));
    let mut active = Server::start(ringgeard(&format!("-L 127.0.0.1 -p 0 --io epoll {store}")));
    active.port();
    let mut standby = manager.start(Duration::ZERO, &format!("--io epoll --standby {store}"));
    let message = manager.wait_for("READY=1");
    assert!(message.contains("STATUS=standing by\n"), "{message}");
    assert!(active.end(Signal::SIGTERM).success());
    manager.wait_for("STATUS=serving");
    standby.port();
    assert!(standby.end(Signal::SIGTERM).success());
    manager.wait_for("STOPPING=1");
    assert_eq!((manager.count("READY=1"), manager.count("WATCHDOG=1")), (1, 0));
}

#[test]
fn a_manager_waits_longer_for_a_server_that_drains() {
    let (_guard, folder) = directory();
    for (signal, stops) in [(Signal::SIGTERM, 1), (Signal::SIGUSR1, 0)] {
        let mut manager = Manager::at_path(&folder);
        let mut server = manager.start(Duration::ZERO, "--io epoll -t 2 --drain 60");
        let port = server.port();
        let (mut worker, mut client, handle) = start_job(port);
        manager.wait_for("STATUS=serving: ");
        server.signal(signal);
        let message = manager.wait_for("EXTEND_TIMEOUT_USEC=30000000");
        assert!(message.contains("STATUS=draining\n"), "{message}");
        assert_eq!(message.matches("STOPPING=1\n").count(), stops, "{message}");
        manager.wait_for("STATUS=draining: functions 1, jobs waiting 0, running 1");
        worker.write_all(&packet(13, &[&handle[..], b"\0done"].concat())).unwrap();
        assert_eq!(receive(&mut client), (13, [&handle[..], b"\0done"].concat()));
        assert!(server.child.wait().unwrap().success());
        manager.catch_up();
        assert_eq!(manager.count("STOPPING=1"), 1, "{:?}", manager.heard);
        fs::remove_file(&manager.address).unwrap();
    }
}

/// Its parent says when it is ready, and the manager heeds the process that it started.
#[test]
fn a_daemon_tells_no_manager() {
    let (_guard, folder) = directory();
    let mut manager = Manager::at_path(&folder);
    let pid = folder.join("pid");
    let mut command = ringgeard(&format!("-p 0 -L 127.0.0.1 -d -l none -P {}", at(&pid)));
    // A process of the manager's has inherited the variables; the server isn't it.
    command.env("NOTIFY_SOCKET", &manager.address).env("SYSTEMD_EXEC_PID", "1");
    command.stdout(Stdio::null()).stderr(Stdio::null());
    assert!(output(command).status.success());
    let number = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    let daemon = Daemon(Pid::from_raw(number));
    kill(daemon.0, Signal::SIGTERM).unwrap();
    until("it has ended", || kill(daemon.0, None).is_err() || !pid.exists());
    manager.catch_up();
    assert!(manager.heard.is_empty(), "{:?}", manager.heard);
}

#[test]
fn a_manager_that_cannot_be_reached_is_no_reason_not_to_serve() {
    let mut command = ringgeard("-L 127.0.0.1 -p 0 --io epoll");
    command.env("NOTIFY_SOCKET", "/nonexistent/notify");
    let mut server = Server::start(command);
    server.wait_for(
        "can't be told that the server is ready: NOTIFY_SOCKET is \"/nonexistent/notify\": ",
    );
    server.port();
    assert!(server.end(Signal::SIGTERM).success());
}
