//! Job servers as child processes: a contender and its options in, an address out.
//!
//! A server listens on a port of its own choice, its log is read all the time, and it ends with its
//! `Server`. Tests of tools that a machine lacks are skipped, which `skips` tells.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope,
};

use crate::child::{Log, spawn, stands_still};
pub(crate) use crate::child::{PATIENCE, forget_environment, reserve_port, tool, wait_until};
use crate::skips::{note, skip};

/// Keeps rings small. Dozens of servers run at once and start one after another, the kernel counts
/// their rings as locked memory until some time after their ends, and users may lock 8 MiB.
const SMALL_RINGS: &str = "--ring-entries=64";

/// A job server that can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    RinggearEpoll,
    RinggearUring,
    /// On two cores.
    RinggearEpoll2,
    /// On three cores, more than a small machine has.
    RinggearUring3,
    RinggearGlommio,
    /// On two cores.
    RinggearGlommio2,
    Gearmand,
}

impl Contender {
    /// Those of this project.
    pub(crate) const RINGGEAR: [Self; 5] = [
        Self::RinggearEpoll,
        Self::RinggearUring,
        Self::RinggearEpoll2,
        Self::RinggearUring3,
        Self::RinggearGlommio,
    ];

    /// The driver and the number of cores, of those of this project.
    pub(crate) fn driver(self) -> (&'static str, &'static str) {
        match self {
            Self::RinggearEpoll | Self::Gearmand => ("epoll", "1"),
            Self::RinggearUring => ("uring", "1"),
            Self::RinggearEpoll2 => ("epoll", "2"),
            Self::RinggearUring3 => ("uring", "3"),
            Self::RinggearGlommio => ("glommio", "1"),
            Self::RinggearGlommio2 => ("glommio", "2"),
        }
    }

    /// Cores that it runs on.
    pub(crate) fn cores(self) -> usize {
        self.driver().1.parse().expect("a number")
    }

    pub(crate) fn is_ringgear(self) -> bool {
        self != Self::Gearmand
    }

    /// Whether it can run on this machine; says why not, which under `CI=true` fails.
    pub(crate) fn is_here(self) -> bool {
        match self {
            Self::RinggearEpoll | Self::RinggearEpoll2 => true,
            Self::RinggearGlommio | Self::RinggearGlommio2 if cfg!(not(feature = "glommio")) => {
                note("this build has no glommio");
                false
            }
            Self::RinggearUring
            | Self::RinggearUring3
            | Self::RinggearGlommio
            | Self::RinggearGlommio2 => match io_uring::IoUring::new(2) {
                Ok(_) => true,
                Err(error) => {
                    skip(&format!("the kernel refuses io_uring: {error}"));
                    false
                }
            },
            Self::Gearmand => tool("gearmand").is_some(),
        }
    }
}

/// A running job server; it ends when this is dropped.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    log: Arc<Log>,
    _share: Option<Share>,
}

/// Cores that run on glommio at a time. Each has several rings and memory for files, whatever the
/// rings' size: 8 MiB of locked memory hold 24 of them, some of which have just ended.
const GLOMMIO_CORES_MAX: usize = 12;
static GLOMMIO_CORES: Mutex<usize> = Mutex::new(0);
static GLOMMIO_CORES_FREED: Condvar = Condvar::new();

/// A server's part of `GLOMMIO_CORES_MAX`, given back when it is dropped.
struct Share(usize);

impl Share {
    /// Waits until there is room for so many cores, but not for ever: tests that have a server
    /// wait here for their second one.
    fn take(cores: usize) -> Self {
        let used = GLOMMIO_CORES.lock().expect("no panic");
        let is_full = |used: &mut usize| *used + cores > GLOMMIO_CORES_MAX;
        let waited = GLOMMIO_CORES_FREED.wait_timeout_while(used, PATIENCE, is_full);
        *waited.expect("no panic").0 += cores;
        Self(cores)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        *GLOMMIO_CORES.lock().expect("no panic") -= self.0;
        GLOMMIO_CORES_FREED.notify_all();
    }
}

impl Server {
    /// Starts a server with its defaults; `None` if this machine doesn't have it.
    pub(crate) fn start(contender: Contender) -> Option<Self> {
        Self::start_with(contender, &[])
    }

    /// Starts a server with more options.
    pub(crate) fn start_with(contender: Contender, options: &[&str]) -> Option<Self> {
        match contender {
            Contender::Gearmand => Self::start_gearmand(options, &[]),
            ringgear => {
                let (driver, cores) = ringgear.driver();
                let options = [&["--threads", cores], options].concat();
                Some(Self::start_ringgear(driver, 0, &options))
            }
        }
    }

    /// Starts this project's server on a given port; 0 = any.
    pub(crate) fn start_ringgear(driver: &str, port: u16, options: &[&str]) -> Self {
        let mut server = Self::launch(driver, port, options);
        server.wait_until_it_listens();
        server
    }

    /// Starts this project's server on a given port; 0 = any. It need not come to listen.
    pub(crate) fn launch(driver: &str, port: u16, options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringgeard"));
        let share = (driver == "glommio").then(|| Share::take(cores_asked_for(options)));
        command.args([SMALL_RINGS, "--io", driver, "--port", &port.to_string()]).args(options);
        if !options.iter().any(|option| option.starts_with("--threads")) {
            // Whatever this machine's number of processors makes the default.
            command.args(["--threads", "1"]);
        }
        command.args(["--sandbox", sandbox()]);
        forget_environment(&mut command);
        let (child, log) = spawn(&mut command);
        Self { child, address: (Ipv4Addr::LOCALHOST, port).into(), log, _share: share }
    }

    /// Waits for a launched server.
    pub(crate) fn wait_until_it_listens(&mut self) {
        let port = self.wait_for_log("listening on ", |place| {
            let place = place.strip_prefix("tls:").unwrap_or(place);
            let port = place.strip_prefix("127.0.0.1:")?;
            port.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        });
        self.address.set_port(port);
    }

    /// Starts gearmand with these variables in its environment; `None` if it isn't installed.
    pub(crate) fn start_gearmand(options: &[&str], variables: &[(&str, &str)]) -> Option<Self> {
        let path = tool("gearmand")?;
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            let port = port_nobody_is_given();
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let mut command = Command::new(&path);
            let port = port.to_string();
            command.args(["-L", "127.0.0.1", "-p", &port, "-l", "stderr", "-P", ""]).args(options);
            forget_environment(&mut command);
            command.envs(variables.iter().copied());
            let (child, log) = spawn(&mut command);
            let mut server = Self { child, address, log, _share: None };
            loop {
                if TcpStream::connect(address).is_ok() {
                    // Another process may have got the port; then ours tries on for twenty seconds.
                    let answer = server.try_admin("getpid");
                    if answer.is_ok_and(|it| it == format!("OK {}\n", server.pid())) {
                        return Some(server);
                    }
                    break;
                }
                if server.child.try_wait().expect("a child").is_some() {
                    break;
                }
                assert!(Instant::now() < deadline, "gearmand doesn't start: {}", server.log());
                server.log.wait(Duration::from_millis(20));
            }
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A connection that gives up waiting after `PATIENCE`.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("an option");
        stream
    }

    /// An admin command's answer: a line, or up to the `.` where the command answers with a list.
    pub(crate) fn admin(&self, command: &str) -> String {
        self.try_admin(command).expect("an admin command is answered")
    }

    fn try_admin(&self, command: &str) -> io::Result<String> {
        let mut stream = self.connect();
        stream.write_all(format!("{command}\n").as_bytes())?;
        let word = command.split(' ').next().expect("a command");
        let is_list = ["status", "workers", "show", "prioritystatus", "stats"].contains(&word);
        let mut text = String::new();
        for line in BufReader::new(stream).lines() {
            let line = line?;
            text.push_str(&line);
            text.push('\n');
            if !is_list || line == "." {
                break;
            }
        }
        Ok(text)
    }

    /// What the server has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// Waits until `found` makes something of what follows `text` on a line of the log.
    pub(crate) fn wait_for_log<T>(&self, text: &str, found: impl Fn(&str) -> Option<T>) -> T {
        self.log.wait_for(text, found)
    }

    /// Sends a signal by name, such as `TERM`. With `STOP`, waits until all threads stand still: on
    /// a busy machine the others go on for a while when the first one has.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.expect("kill").success());
        if name == "STOP" {
            wait_until("the server to stand still", || stands_still(self.pid()).then_some(()));
        }
    }

    /// SIGKILL, and its end.
    pub(crate) fn kill(mut self) {
        self.signal("KILL");
        self.wait();
    }

    /// SIGTERM, and its end in good order.
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        assert_eq!(self.wait().code(), Some(0), "{}", self.log());
    }

    /// Waits for its end with exit code 1; gives the sentence that says why.
    pub(crate) fn wait_for_failure(mut self) -> String {
        assert_eq!(self.wait().code(), Some(1), "{}", self.log());
        let sentence = self.wait_for_log("ringgeard: ", |rest| Some(rest.trim_end().to_owned()));
        let told = self.log().lines().filter(|line| line.starts_with("ringgeard: ")).count();
        assert_eq!(told, 1, "{}", self.log());
        sentence
    }

    /// Waits for the end of the process and of its log.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = wait_until("the server to end", || self.child.try_wait().expect("a child"));
        self.log.wait_for_end();
        status
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of the server:\n{}", self.log());
        }
    }
}

/// What this project's servers run in: the whole sandbox, so that each test shows that it leaves
/// them what they need, or what this machine's kernel has of it.
fn sandbox() -> &'static str {
    static IS_COMPLETE: OnceLock<bool> = OnceLock::new();
    let is_complete = || {
        Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(ABI::V6))
            .and_then(|rules| rules.handle_access(AccessNet::from_all(ABI::V6)))
            .and_then(|rules| rules.scope(Scope::from_all(ABI::V6)))
            .and_then(Ruleset::create)
            .is_ok()
    };
    if *IS_COMPLETE.get_or_init(is_complete) {
        return "require";
    }
    skip("the kernel has no Landlock, or not all of it");
    "auto"
}

/// What `--threads` asks for.
fn cores_asked_for(options: &[&str]) -> usize {
    let after = |pair: &[&str]| (pair[0] == "--threads").then(|| pair[1].to_owned());
    let asked = options.windows(2).find_map(after);
    asked.map_or(1, |cores| cores.parse().expect("a number"))
}

/// A free port outside the range that the kernel takes ports of outgoing connections from: gearmand
/// can't choose one itself, and other tests have thousands of connections.
fn port_nobody_is_given() -> u16 {
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(10_000..30_000)).find(free).expect("a free port")
}

/// One test per contender of this project from a function that takes a `Contender`.
macro_rules! each_ringgear {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            use crate::harness::{Contender, ringgear_tests};

            ringgear_tests!($name);
        }
    )* };
}
pub(crate) use each_ringgear;

/// One test per contender from a function that takes a `Contender`.
macro_rules! each_contender {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            use crate::harness::{Contender, ringgear_tests};

            ringgear_tests!($name);

            #[test]
            fn glommio() {
                if Contender::RinggearGlommio.is_here() {
                    super::$name(Contender::RinggearGlommio);
                }
            }

            #[test]
            fn gearmand() {
                if Contender::Gearmand.is_here() {
                    super::$name(Contender::Gearmand);
                }
            }
        }
    )* };
}
pub(crate) use each_contender;

macro_rules! ringgear_tests {
    ($name:ident) => {
        #[test]
        fn epoll() {
            super::$name(Contender::RinggearEpoll);
        }

        #[test]
        fn uring() {
            if Contender::RinggearUring.is_here() {
                super::$name(Contender::RinggearUring);
            }
        }

        #[test]
        fn epoll_on_2_cores() {
            super::$name(Contender::RinggearEpoll2);
        }

        #[test]
        fn uring_on_3_cores() {
            if Contender::RinggearUring3.is_here() {
                super::$name(Contender::RinggearUring3);
            }
        }
    };
}
pub(crate) use ringgear_tests;
