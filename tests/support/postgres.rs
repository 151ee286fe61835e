//! A PostgreSQL server in a temporary folder, reached through a Unix socket in it, and also by TCP
//! if it has TLS.
//!
//! PostgreSQL refuses to run as root: a test that does runs it as Debian's user `postgres` or as
//! nobody. The server ends with its `Server`, whatever state a test has left it in.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};
use postgres::{Client, NoTls};
use ringgear::cluster::lease::Lease;
use ringgear::engine::record::{Operation, Row};
use ringgear::store::open::Membership;
use ringgear::store::postgres::{Opening, Postgres};
use ringgear::store::{OpenError, Store as _, StoreError};
use ringgear::wire::Priority;
use tempfile::TempDir;

use crate::skips::skip;

/// How long anything may take that should take no time at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long an owner may go without a beat in tests, some of which wait for that.
pub(crate) const LEASE: Duration = Duration::from_secs(1);

/// A server with the database `jobs`.
pub(crate) struct Server {
    binaries: PathBuf,
    user: Option<User>,
    child: Option<Child>,
    folder: TempDir,
    /// Its number is in the socket's name; `None` = 5432, and no TCP.
    tcp_port: Option<u16>,
    /// Where it listens, if it does.
    address: IpAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Whatever is stopped has to run to end.
            for pid in children(child.id()).into_iter().chain([pid(&child)]) {
                let _ = kill(pid, Signal::SIGCONT);
            }
            let _ = kill(pid(&child), Signal::SIGQUIT);
            let _ = child.wait();
        }
    }
}

impl Server {
    /// Starts an empty server; `None` if this machine has no PostgreSQL.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(|_| {})
    }

    /// Starts an empty server that also listens at 127.0.0.1.
    pub(crate) fn start_tcp() -> Option<Self> {
        Self::start_with(|server| server.tcp_port = Some(free_port()))
    }

    /// Starts an empty server that listens at this address and lets everything there in.
    pub(crate) fn start_at(address: IpAddr) -> Option<Self> {
        Self::start_with(|server| {
            server.tcp_port = Some(free_port());
            server.address = address;
            let everything = "local all all trust\nhost all all all trust\n";
            let standbys = "local replication all trust\n";
            server.write_data("pg_hba.conf", &[everything, standbys].concat());
        })
    }

    fn start_with(prepare: impl FnOnce(&mut Self)) -> Option<Self> {
        let Some(binaries) = binaries() else {
            skip("no PostgreSQL here: apt-get install postgresql");
            return None;
        };
        let mut server = Self::in_new_folder(binaries);
        server.make_data("initdb", |command| {
            command.args(["-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8"]).args([
                "--locale=C",
                "--no-sync",
                "--no-instructions",
            ]);
        });
        prepare(&mut server);
        server.run();
        server.admin("postgres").batch_execute("CREATE DATABASE jobs").unwrap();
        Some(server)
    }

    /// A server that follows this one and can be read. This one doesn't wait for it unless
    /// `wait_for_standbys` says so.
    pub(crate) fn start_standby(&self) -> Self {
        self.start_standby_at(self.tcp_port.map(|_| free_port()))
    }

    /// The same with a given TCP port.
    pub(crate) fn start_standby_at(&self, tcp_port: Option<u16>) -> Self {
        let mut standby = Self::in_new_folder(self.binaries.clone());
        standby.tcp_port = tcp_port;
        standby.address = self.address;
        standby.make_data("pg_basebackup", |command| {
            command
                .args(["-D", "data", "-U", "postgres", "--no-sync", "--checkpoint=fast"])
                .args(["--write-recovery-conf", "--port"])
                .arg(self.port().to_string())
                .arg("--host")
                .arg(self.folder());
        });
        standby.run();
        standby
    }

    /// Commits wait until the first `standbys` of the standbys have them; 0 = for none.
    pub(crate) fn wait_for_standbys(&self, standbys: u32) {
        let mut admin = self.admin("postgres");
        let names = if standbys == 0 { String::new() } else { format!("{standbys} (*)") };
        let sql = format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'");
        admin.batch_execute(&sql).unwrap();
        admin.batch_execute("SELECT pg_reload_conf()").unwrap();
        // A standby that streams is told apart once the setting has been read.
        let streams = "SELECT count(*) >= $1 FROM pg_stat_replication WHERE sync_state = 'sync'";
        let deadline = Instant::now() + PATIENCE;
        while !admin.query_one(streams, &[&i64::from(standbys)]).unwrap().get::<_, bool>(0) {
            assert!(Instant::now() < deadline, "no standby follows");
            admin.batch_execute("SELECT pg_sleep(0.02)").unwrap();
        }
        // Commits wait once the checkpointer, a process of its own, has read the setting, which it
        // does before a checkpoint. The first may have begun before.
        for _ in 0..2 {
            admin.batch_execute("CHECKPOINT").unwrap();
        }
    }

    /// Lets a standby become a server of its own.
    pub(crate) fn promote(&self) {
        let mut admin = self.admin("postgres");
        let promoted: bool = admin.query_one("SELECT pg_promote(true)", &[]).unwrap().get(0);
        assert!(promoted, "still a standby");
    }

    fn in_new_folder(binaries: PathBuf) -> Self {
        let folder = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        let user = Uid::effective().is_root().then(|| {
            let named = |name| User::from_name(name).unwrap();
            named("postgres").or_else(|| named("nobody")).expect("a user other than root")
        });
        if let Some(user) = &user {
            chown(folder.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
        let address = Ipv4Addr::LOCALHOST.into();
        Self { binaries, user, child: None, folder, tcp_port: None, address }
    }

    fn make_data(&self, program: &str, arguments: impl FnOnce(&mut Command)) {
        let mut command = self.command(program);
        arguments(&mut command);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.binaries.join(name));
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        // The user's settings are for another server.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG")) {
            command.env_remove(name);
        }
        if let Some(user) = &self.user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }

    /// Starts the server on the data that are there.
    pub(crate) fn run(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        // The first tries fail while processes of a killed server still hold on to its memory.
        while let Err(log) = self.try_run() {
            assert!(Instant::now() < deadline, "PostgreSQL doesn't start:\n{log}");
            if log.contains("could not create any TCP/IP sockets") {
                // Another program was faster. Clients learn of the port later.
                self.tcp_port = Some(free_port());
            }
        }
    }

    fn try_run(&mut self) -> Result<(), String> {
        let address = self.tcp_port.map_or(String::new(), |_| self.address.to_string());
        let mut child = self
            .command("postgres")
            .args(["-D", "data", "-k"])
            .arg(self.folder.path())
            .arg("-p")
            .arg(self.port().to_string())
            .args(["-c", &format!("listen_addresses={address}")])
            .args(["-c", "shared_buffers=16MB", "-c", "max_connections=20"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut log = String::new();
        // A standby says it, too, once it can be read.
        while !log.contains("ready to accept") {
            if lines.read_line(&mut log).unwrap() == 0 {
                child.wait().unwrap();
                return Err(log);
            }
        }
        // A full pipe would stop it. The thread ends with the server.
        thread::spawn(move || lines.read_to_end(&mut Vec::new()));
        self.child = Some(child);
        Ok(())
    }

    /// Kills every process of the server.
    pub(crate) fn kill(&mut self) {
        let processes = self.processes();
        let mut child = self.child.take().unwrap();
        for pid in processes {
            let _ = kill(pid, Signal::SIGKILL);
        }
        child.wait().unwrap();
    }

    /// Ends the server in good order.
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        kill(pid(&child), Signal::SIGINT).unwrap();
        child.wait().unwrap();
    }

    /// Every process of the server, the one that accepts connections first.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let child = self.child.as_ref().unwrap();
        [pid(child)].into_iter().chain(children(child.id())).collect()
    }

    /// The process that accepts connections.
    pub(crate) fn postmaster(&self) -> Pid {
        pid(self.child.as_ref().unwrap())
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What clients take for its host.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Number of the TCP port, and in the socket's name.
    pub(crate) fn port(&self) -> u16 {
        self.tcp_port.unwrap_or(5432)
    }

    /// Writes a file of the server's data that only the server may read.
    pub(crate) fn write_data(&self, name: &str, text: &str) {
        let path = self.data().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        if let Some(user) = &self.user {
            chown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
    }

    /// Where clients connect to.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join(format!(".s.PGSQL.{}", self.port()))
    }

    pub(crate) fn conninfo(&self, database: &str) -> String {
        let folder = self.folder.path().display();
        let port = self.port();
        format!("host={folder} port={port} user=postgres dbname={database} sslmode=disable")
    }

    /// A session of its own, to look at things and to do harm.
    pub(crate) fn admin(&self, database: &str) -> Client {
        let conninfo = self.conninfo(database) + " application_name=test";
        Client::connect(&conninfo, NoTls).unwrap()
    }

    /// Opens the store, which must be free.
    pub(crate) fn open(&self) -> Postgres {
        self.try_open().unwrap()
    }

    pub(crate) fn try_open(&self) -> Result<Postgres, OpenError> {
        open_at(&self.conninfo("jobs"))
    }

    /// Opens a store beside others.
    pub(crate) fn join(&self, name: &str) -> Postgres {
        let membership = Membership { is_cluster: true, name: name.to_owned(), ..member() };
        let conninfo = self.conninfo("jobs");
        let opening = Opening { membership: &membership, ..opening(&conninfo, &membership) };
        Postgres::open(&opening, &|| 1, &mut || false).unwrap()
    }
}

/// A server without others, with a short lease.
pub(crate) fn member() -> Membership {
    Membership { lease: Lease::new(LEASE), name: "here".to_owned(), ..Membership::default() }
}

/// What a store is opened with.
pub(crate) fn opening<'a>(conninfo: &'a str, membership: &'a Membership) -> Opening<'a> {
    Opening { conninfo, table: None, membership, prefix: "H:ü".as_bytes(), is_standby: false }
}

/// Opens a store that has all jobs.
pub(crate) fn open_at(conninfo: &str) -> Result<Postgres, OpenError> {
    Postgres::open(&opening(conninfo, &member()), &|| 1, &mut || false)
}

/// Ends a server in good order, so that the next one needn't wait for the end of its lease.
pub(crate) fn leave(mut store: Postgres) {
    store.leave().unwrap();
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

/// The child processes of a process.
pub(crate) fn children(parent: u32) -> Vec<Pid> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name();
        let (Some(pid), Ok(stat)) = (
            name.to_str().and_then(|name| name.parse().ok()),
            fs::read_to_string(entry.path().join("stat")),
        ) else {
            continue;
        };
        // `pid (name) state parent ...`, and a name may hold anything.
        let parent_field = stat.rsplit(')').next().and_then(|rest| rest.split(' ').nth(2));
        if parent_field == Some(&parent.to_string()) {
            found.push(Pid::from_raw(pid));
        }
    }
    found
}

/// Where PostgreSQL's programs are. Debian keeps them out of the path: for programs in /usr/bin
/// they are in /usr/lib/postgresql. Nothing but PATH says where to look.
fn binaries() -> Option<PathBuf> {
    let complete = |folder: &Path| {
        ["initdb", "postgres", "pg_basebackup"].iter().all(|name| folder.join(name).is_file())
    };
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        if complete(&folder) {
            return Some(folder);
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path)
        .filter_map(|folder| fs::read_dir(folder.with_file_name("lib").join("postgresql")).ok())
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|folder| complete(folder))
        .collect();
    folders.sort();
    folders.pop()
}

/// The server process behind the store's session.
pub(crate) fn backend(admin: &mut Client) -> i32 {
    let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'ringgeard'";
    let deadline = Instant::now() + PATIENCE;
    loop {
        // One that has been told to end may take a moment.
        if let [row] = &*admin.query(sql, &[]).unwrap() {
            return row.get(0);
        }
        assert!(Instant::now() < deadline, "no session, or several");
        admin.batch_execute("SELECT pg_sleep(0.02)").unwrap();
    }
}

/// Asks until the answer, a boolean, is yes. PostgreSQL keeps the time.
pub(crate) fn wait_for(admin: &mut Client, sql: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !admin.query_one(sql, &[]).unwrap().get::<_, bool>(0) {
        assert!(Instant::now() < deadline, "never came true: {sql}");
        admin.batch_execute("SELECT pg_sleep(0.02)").unwrap();
    }
}

/// Waits until a statement is in progress that another session holds up.
pub(crate) fn wait_for_blocked(admin: &mut Client, pid: i32) {
    let sql = format!("SELECT cardinality(pg_blocking_pids({pid})) > 0");
    wait_for(admin, &sql);
}

/// Commits until it works; anything but "try again" is a failure.
pub(crate) fn insist(store: &mut Postgres, operations: &[Operation]) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = store.commit(operations) {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert!(Instant::now() < deadline, "never committed: {error}");
    }
}

pub(crate) fn load(store: &mut Postgres) -> Vec<Row> {
    let mut rows = Vec::new();
    store.load(&mut |row| rows.push(row)).unwrap();
    rows
}

pub(crate) fn numbers(store: &mut Postgres) -> Vec<u64> {
    load(store).into_iter().map(|row| row.number).collect()
}

pub(crate) fn row(number: u64) -> Row {
    Row {
        number,
        function: Bytes::from_static(b"reverse"),
        unique: Bytes::new(),
        reducer: Bytes::new(),
        payload: Bytes::from(vec![b'x'; 64]),
        priority: Priority::Normal,
        run_at_ms: 0,
        last_reason: None,
        was_lost: false,
        attempts: 0,
        submitted_ms: 1_700_000_000_123,
    }
}

pub(crate) fn insert(number: u64) -> Operation {
    Operation::Insert { row: row(number), answered: false }
}
