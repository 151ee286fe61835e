//! The real binary from outside: what it prints, how it exits, what it leaves behind.
//!
//! Each test starts its own process on a port that the kernel chose, waits for what it said or
//! did rather than for time to pass, and ends it by signal. Nothing here looks into the library.

// clippy excuses `#[test]` functions only, not what they share.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

mod access;
mod files;
mod functions;
mod manual;
mod mistakes;
mod notifications;
mod passed;
mod postgresql_starts;
mod restarts;
mod sandbox;
mod systemd;

/// Certificates.
#[path = "../support/authority.rs"]
#[allow(dead_code)]
mod authority;
/// PostgreSQL as the store's own tests start it, which need more of it than these do.
#[path = "../support/postgres.rs"]
#[allow(dead_code)]
mod postgresql;
/// What this machine or user lacks.
#[path = "../server/skips.rs"]
mod skips;

const DEADLINE: Duration = Duration::from_secs(20);

/// The binary with `line`'s words, without the variables of whoever runs the tests.
fn ringgeard(line: &str) -> Command {
    with_words(Command::new(env!("CARGO_BIN_EXE_ringgeard")), line)
}

fn with_words(mut command: Command, line: &str) -> Command {
    for variable in ["GEARMAND_PORT", "NOTIFY_SOCKET", "RINGGEARD_CONFIG_FILE"] {
        command.env_remove(variable);
    }
    command.args(line.split_whitespace()).stdin(Stdio::null());
    command
}

fn output(mut command: Command) -> Output {
    command.output().unwrap()
}

fn stdout_of_success(line: &str) -> String {
    let output = output(ringgeard(line));
    assert_eq!(output.status.code(), Some(0), "{line}: {output:?}");
    assert!(output.stderr.is_empty(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The sentence with which a start is refused.
fn refusal(command: Command) -> String {
    let output = output(command);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    let sentence = stderr.lines().last().unwrap_or_default();
    sentence.strip_prefix("ringgeard: ").unwrap_or_else(|| panic!("{stderr}")).to_owned()
}

/// Whether a server with these options can run on this machine.
fn has_rings_for(line: &str) -> bool {
    match io_uring::IoUring::new(2) {
        Err(error) if line.contains("--io glommio") => {
            skips::skip(&format!("the kernel refuses io_uring: {error}"));
            false
        }
        _ => true,
    }
}

/// A server in the foreground, killed if a test forgets it.
struct Server {
    child: Child,
    stderr: BufReader<ChildStderr>,
    said: String,
}

impl Server {
    fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr, said: String::new() }
    }

    /// Reads the log on stderr up to a line with `part`; the end of the process is a failure.
    fn wait_for(&mut self, part: &str) -> String {
        loop {
            let mut line = String::new();
            let count = self.stderr.read_line(&mut line).unwrap();
            assert_ne!(count, 0, "ended without saying `{part}`:\n{}", self.said);
            self.said.push_str(&line);
            if line.contains(part) {
                return line;
            }
        }
    }

    fn port(&mut self) -> u16 {
        port_in(&self.wait_for("listening on 127.0.0.1:"))
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    fn end(mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that is nobody's child, killed if a test fails before it ended.
struct Daemon(Pid);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

fn port_in(text: &str) -> u16 {
    let (_, after) = text.split_once("listening on 127.0.0.1:").unwrap();
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// Waits until something came true that no pipe or exit announces.
fn until(what: &str, mut came_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !came_true() {
        assert!(start.elapsed() < DEADLINE, "waited too long until {what}");
        std::thread::yield_now();
    }
}

fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    (directory, path)
}

fn at(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn help_version_and_defaults_go_to_stdout() {
    assert_eq!(
        stdout_of_success("--version"),
        concat!("\nringgeard ", env!("CARGO_PKG_VERSION"), "\n")
    );
    let (short, long) = (stdout_of_success("-h"), stdout_of_success("--help"));
    assert!(short.lines().count() <= 40 && short.lines().all(|line| line.len() <= 100), "{short}");
    for (part, is_short) in [
        ("Listening and peers:", true),
        ("Limits:", true),
        ("--memory-max <BYTES>", true),
        ("--listen <SPEC>", true),
        ("For gearmand's sake:", false),
        ("--wakeup-lease <MS>", false),
        ("--keepalive-idle <SECONDS>", false),
    ] {
        assert!(long.contains(part), "{part} is missing in:\n{long}");
        assert_eq!(short.contains(part), is_short, "{part} in:\n{short}");
    }
    assert!(!long.contains("\nOptions:"), "an option without a heading:\n{long}");
    assert!(stdout_of_success("--print-config").contains("\nport = 4730\n"));
    assert_eq!(stdout_of_success("--check-args --version -p 1 -d"), "");
}

#[test]
fn the_printed_defaults_are_a_configuration_file() {
    let (_directory, path) = directory();
    let file = path.join("ringgear.toml");
    fs::write(&file, stdout_of_success("--print-config")).unwrap();
    stdout_of_success(&format!("--check-args --config-file {}", at(&file)));
}

#[test]
fn a_server_says_where_it_listens_and_ends_on_signals() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1] {
        let mut server = Server::start(ringgeard("-L 127.0.0.1 -p 0"));
        let port = server.port();
        assert!(server.said.contains(env!("CARGO_PKG_VERSION")), "{}", server.said);
        assert!(server.said.contains("descriptors"), "{}", server.said);
        drop(TcpStream::connect(("127.0.0.1", port)).unwrap());
        assert_eq!(server.end(signal).code(), Some(0), "{signal}");
    }
}

#[test]
fn the_default_is_loopback() {
    let mut server = Server::start(ringgeard("-p 0"));
    let port = server.port();
    drop(TcpStream::connect(("127.0.0.1", port)).unwrap());
    assert!(!server.said.contains("WARN"), "{}", server.said);
    assert_eq!(server.end(Signal::SIGTERM).code(), Some(0));
}

#[test]
fn listening_to_everyone_is_warned_of() {
    let mut server = Server::start(ringgeard("-L 0.0.0.0 -p 0"));
    server.wait_for("listening on 0.0.0.0:");
    server.wait_for("firewall");
}

#[test]
fn a_taken_port_names_the_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let expected = format!("cannot listen on 127.0.0.1:{port}: the port is taken; stop the");
    let mut commands = vec![ringgeard(&format!("-L 127.0.0.1 -p {port}"))];
    let mut by_variable = ringgeard("-L 127.0.0.1");
    by_variable.env("GEARMAND_PORT", port.to_string());
    commands.push(by_variable);
    // The fork must neither hide the sentence nor the exit code.
    commands.push(ringgeard(&format!("-L 127.0.0.1 -p {port} --daemon -l none")));
    let (_directory, path) = directory();
    for (name, text) in [
        ("toml", format!("listen = \"127.0.0.1\"\nport = {port}\n")),
        ("words", format!("--listen=127.0.0.1\n--port {port}\n")),
    ] {
        fs::write(path.join(name), text).unwrap();
        commands.push(ringgeard(&format!("--config-file {}", at(&path.join(name)))));
        let mut named_by_variable = ringgeard("");
        named_by_variable.env("RINGGEARD_CONFIG_FILE", path.join(name));
        commands.push(named_by_variable);
    }
    for command in commands {
        let sentence = refusal(command);
        assert!(sentence.starts_with(&expected), "{sentence}");
    }
}

#[test]
fn a_port_that_comes_free_soon_is_waited_for() {
    // A server under io_uring was killed and started again at once. The kernel still tore the old
    // one's ring down, so that the listener in it lived on for some milliseconds: the new server
    // ended with "the port is taken".
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut server = Server::start(ringgeard(&format!("-L 127.0.0.1 -p {port}")));
    let stat = format!("/proc/{}/stat", server.child.id());
    // It sleeps between two tries; without a second try it has ended.
    until("the port was tried", || {
        let stat = fs::read_to_string(&stat).unwrap();
        stat.contains(") S ") || stat.contains(") Z ")
    });
    drop(taken);
    assert_eq!(server.port(), port);
    assert_eq!(server.end(Signal::SIGTERM).code(), Some(0));
}

#[test]
fn a_pid_file_lives_as_long_as_its_server() {
    let (_directory, path) = directory();
    let file = path.join("pid");
    fs::write(&file, "left over").unwrap();
    let line = format!("-L 127.0.0.1 -p 0 -P {}", at(&file));
    let mut server = Server::start(ringgeard(&line));
    server.port();
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("{}\n", server.child.id()));
    assert_eq!(server.end(Signal::SIGTERM).code(), Some(0));
    assert!(!file.exists());
}

#[test]
fn a_second_server_that_cannot_bind_leaves_the_first_ones_pid_file() {
    let (_directory, path) = directory();
    let file = path.join("pid");
    let mut server = Server::start(ringgeard(&format!("-L 127.0.0.1 -p 0 -P {}", at(&file))));
    let port = server.port();
    refusal(ringgeard(&format!("-L 127.0.0.1 -p {port} -P {}", at(&file))));
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("{}\n", server.child.id()));
    assert_eq!(server.end(Signal::SIGTERM).code(), Some(0));
}

#[test]
fn a_pid_file_that_cannot_be_written_ends_the_start() {
    let line = "-L 127.0.0.1 -p 0 -l none -P /nonexistent/pid";
    assert!(refusal(ringgeard(line)).starts_with("cannot write the pid file /nonexistent/pid: "));
}

#[test]
fn a_log_file_is_appended_to_and_reopened_on_hangup() {
    let (_directory, path) = directory();
    let (file, moved) = (path.join("log"), path.join("log.1"));
    fs::write(&file, "kept\n").unwrap();
    let server = Server::start(ringgeard(&format!("-L 127.0.0.1 -p 0 -l {}", at(&file))));
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    until("it listens", || read(&file).contains("listening on 127.0.0.1:"));
    assert!(read(&file).starts_with("kept\n"));
    fs::rename(&file, &moved).unwrap();
    server.signal(Signal::SIGHUP);
    until("the file is there again", || read(&file).contains("SIGHUP, log reopened"));
    assert!(read(&moved).starts_with("kept\n"));
    assert_eq!(server.end(Signal::SIGTERM).code(), Some(0));
}

#[test]
fn an_error_after_the_log_was_opened_is_in_both_places() {
    let (_directory, path) = directory();
    let file = path.join("log");
    let line = format!("-L 127.0.0.1 -p 0 -P /nonexistent/pid -l {}", at(&file));
    let sentence = refusal(ringgeard(&line));
    assert!(fs::read_to_string(&file).unwrap().contains(&sentence));
}

#[test]
fn json_and_levels_reach_the_log() {
    let mut server = Server::start(ringgeard("-L 127.0.0.1 -p 0 --log-format json"));
    let line = server.wait_for("listening on 127.0.0.1:");
    assert!(line.starts_with('{') && line.contains(r#""level":"INFO""#), "{line}");
    let (_directory, path) = directory();
    let (log, pid) = (path.join("log"), path.join("pid"));
    let line = format!("-p 0 --verbose ERROR -l {} -P {}", at(&log), at(&pid));
    let server = Server::start(ringgeard(&line));
    until("it listens", || pid.exists());
    assert_eq!(server.end(Signal::SIGTERM).code(), Some(0));
    assert_eq!(fs::read_to_string(&log).unwrap(), "");
}

#[test]
fn options_without_effect_are_told() {
    let line = "-L 127.0.0.1 -p 0 -t 4 --hashtable-buckets 7 -R --redis-server cache -j 0";
    let mut server = Server::start(ringgeard(line));
    server.port();
    for part in [
        " WARN --redis-server has no effect: this build has no Redis queue, and keeps background \
         jobs with --store\n",
        " WARN --hashtable-buckets has no effect: hash tables grow by themselves\n",
        " WARN --round-robin has no effect: a worker's functions always take turns\n",
        " WARN --job-retries 0 fails a job when its first worker is lost, as in gearmand 2.0; \
         gearmand 1.1 took 0 for no limit, which is -1 here and the default\n",
    ] {
        assert!(server.said.contains(part), "{part} is missing in:\n{}", server.said);
    }
}

#[test]
fn the_descriptor_limit_is_what_was_asked_for() {
    let mut server = Server::start(ringgeard("-L 127.0.0.1 -p 0 -f 200"));
    server.port();
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.child.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().nth(3), Some("200"), "{line}");
    assert!(server.said.contains("now=200"), "{}", server.said);
}

#[test]
fn the_hard_limit_of_descriptors_is_raised_where_that_is_allowed() {
    let binary = env!("CARGO_BIN_EXE_ringgeard");
    let script = format!("ulimit -n 500 && exec {binary} -L 127.0.0.1 -p 0 -f 600");
    let mut command = with_words(Command::new("sh"), "-c");
    command.arg(script);
    // Containers often keep this capability from root.
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let capabilities = u64::from_str_radix(capabilities.trim(), 16).unwrap();
    if capabilities >> CAP_SYS_RESOURCE & 1 == 1 {
        let mut server = Server::start(command);
        server.wait_for("now=600");
        server.port();
    } else {
        let expected = "cannot have 600 descriptors: ";
        let sentence = refusal(command);
        assert!(sentence.starts_with(expected), "{sentence}");
    }
}

#[test]
fn too_little_locked_memory_for_glommio_names_the_remedy() {
    let mut command = Command::new("prlimit");
    command.args(["--memlock=65536:65536", env!("CARGO_BIN_EXE_ringgeard")]);
    let sentence = refusal(with_words(command, "--io glommio --port 0"));
    if cfg!(not(feature = "glommio")) {
        assert!(sentence.starts_with("this build has no glommio: "), "{sentence}");
        assert_eq!(refusal(ringgeard("--io glommio --check-args")), sentence);
        assert!(!stdout_of_success("--help").contains("glommio"));
        return;
    }
    if io_uring::IoUring::new(2).is_ok() {
        let start = "glommio needs 512 KiB of locked memory and may have 64: ";
        assert!(sentence.starts_with(start), "{sentence}");
        assert!(sentence.contains("`ulimit -l 512` or LimitMEMLOCK=512K; "), "{sentence}");
    }
    assert!(sentence.contains("choose --io epoll"), "{sentence}");
}

/// The binary with so much locked memory, which the kernel counts for root, too.
fn with_locked_memory(kib: u32, line: &str) -> Command {
    let limit = format!("--memlock={0}:{0}", kib << 10);
    let mut words = vec!["prlimit", &limit, env!("CARGO_BIN_EXE_ringgeard")];
    if Uid::effective().is_root() {
        words.splice(0..0, ["setpriv", "--bounding-set=-ipc_lock"]);
    }
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    with_words(command, line)
}

/// A server on 40 cores whose user may lock the usual 8 MiB took io_uring, as there was room for
/// one ring, and ended with an error when its cores made theirs.
#[test]
fn more_rings_than_fit_locked_memory_end_in_epoll_or_a_sentence() {
    let remedy = "`ulimit -l` or LimitMEMLOCK=, or lower --threads";
    let line = "-L 127.0.0.1 -p 0 -t 16";
    let mut server = Server::start(with_locked_memory(1024, line));
    let port = server.port();
    drop(TcpStream::connect(("127.0.0.1", port)).unwrap());
    let chosen = server.said.lines().find(|line| line.contains("event loop chosen")).unwrap();
    // Some kernels count no rings against the limit, others have none.
    if chosen.contains("driver=\"epoll\"") && io_uring::IoUring::new(2).is_ok() {
        assert!(chosen.contains("too little locked memory for io_uring on 16 cores"), "{chosen}");
        assert!(chosen.contains(remedy), "{chosen}");
        let sentence = refusal(with_locked_memory(1024, &format!("{line} --io uring")));
        assert!(sentence.contains(remedy) && sentence.contains("--io epoll"), "{sentence}");
    }
    assert!(server.end(Signal::SIGTERM).success());
}

/// `cargo test` failed for users who may lock the usual 8 MiB: the rings of all servers that its
/// tests ran at once, and of those that had just ended, took more.
#[test]
fn small_rings_take_little_locked_memory() {
    if let Err(error) = io_uring::IoUring::new(2) {
        return skips::skip(&format!("the kernel refuses io_uring: {error}"));
    }
    let line = "-L 127.0.0.1 -p 0 -t 64 --io uring --ring-entries 64";
    let mut server = Server::start(with_locked_memory(8192, line));
    drop(TcpStream::connect(("127.0.0.1", server.port())).unwrap());
    assert!(server.end(Signal::SIGTERM).success());
}

#[test]
fn a_daemon_is_ready_when_its_parent_has_left() {
    let (_directory, path) = directory();
    let (log, pid) = (path.join("log"), path.join("pid"));
    let line = format!("-L 127.0.0.1 -p 0 --daemon -l {} -P {}", at(&log), at(&pid));
    // Files, not pipes: a daemon that kept one of ours would keep us waiting for its end.
    let mut command = ringgeard(&line);
    let stream = || fs::File::create(path.join("stream")).unwrap();
    let status = command.stdout(stream()).stderr(stream()).status().unwrap();
    assert_eq!(status.code(), Some(0), "{:?}", fs::read_to_string(path.join("stream")));
    // No waiting: all of this must hold at once.
    let number: i32 = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    let daemon = Daemon(Pid::from_raw(number));
    let port = port_in(&fs::read_to_string(&log).unwrap());
    drop(TcpStream::connect(("127.0.0.1", port)).unwrap());
    for stream in 0..3 {
        let target = fs::read_link(format!("/proc/{number}/fd/{stream}")).unwrap();
        assert_eq!(target, Path::new("/dev/null"), "stream {stream}");
    }
    let session = nix::unistd::getsid(Some(daemon.0)).unwrap();
    assert_eq!(session.as_raw(), number, "it is still in our session");
    kill(daemon.0, Signal::SIGTERM).unwrap();
    until("the pid file is gone", || !pid.exists());
}

#[test]
fn root_becomes_the_named_user_before_anything_is_written() {
    if !Uid::effective().is_root() {
        skips::note("not root, who alone becomes another user");
        return;
    }
    let sentence = refusal(ringgeard("-p 0 --user no-such-user"));
    assert!(sentence.starts_with("there is no user \"no-such-user\""), "{sentence}");

    let (_directory, path) = directory();
    let (log, pid) = (path.join("log"), path.join("pid"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let line = format!("-L 127.0.0.1 -p 0 -u nobody -l {} -P {}", at(&log), at(&pid));
    let server = Server::start(ringgeard(&line));
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    until("it listens", || read(&log).contains("listening on 127.0.0.1:"));
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    for (name, expected) in [("Uid:", nobody.uid.as_raw()), ("Gid:", nobody.gid.as_raw())] {
        let numbers: Vec<u32> =
            field(name).split_whitespace().map(|number| number.parse().unwrap()).collect();
        assert_eq!(numbers, [expected; 4], "{name}");
    }
    assert_eq!(field("Groups:").trim(), nobody.gid.to_string());
    for name in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(field(name).trim(), 16), Ok(0), "{name}");
    }
    assert_eq!(field("NoNewPrivs:").trim(), "1");
    assert_eq!(fs::metadata(&log).unwrap().uid(), nobody.uid.as_raw());
    assert_eq!(fs::metadata(&pid).unwrap().uid(), nobody.uid.as_raw());
    assert_eq!(server.end(Signal::SIGTERM).code(), Some(0));
    assert!(!pid.exists());
}

#[test]
fn printing_to_a_full_disk_is_an_error() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = ringgeard("--help");
    command.stdout(full);
    assert!(refusal(command).starts_with("cannot print: "));
}
