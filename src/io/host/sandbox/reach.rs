//! What the server reaches outside of its own memory: files and ports one by one in, folders out.
//!
//! A file that is written or read anew may be another one by then: logs are rotated and lists are
//! replaced by renaming. So the folder of such a file is what can be reached.
//!
//! Invariant: asks the file system about paths only in `read` and `written`.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::store::needs::Needs;

/// What every server reads: how much time its threads have had, and random bytes. All of /proc, as
/// the kernel forgets the folders of processes there and makes them anew; a process in a sandbox
/// can't read the memory or the environment of others by them.
const READ: [&str; 2] = ["/proc", "/dev/urandom"];
/// What every server writes: the place for a daemon's output.
const WRITTEN: [&str; 1] = ["/dev/null"];
/// What the C library reads to look a host or user up. All of /etc, as programs that change a file
/// there replace it.
const NAMES: [&str; 9] = [
    "/etc",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/var/lib/sss",
];
/// Where distributions keep CA certificates.
const ROOTS: [&str; 7] = [
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/usr/share/ssl",
    "/var/lib/ca-certificates",
];
/// The variables that name a file and folders of others.
const ROOTS_FILE: &str = "SSL_CERT_FILE";
const ROOTS_FOLDERS: &str = "SSL_CERT_DIR";
/// Answers of DNS that don't fit a datagram are asked for again by TCP.
const DNS_PORT: u16 = 53;
/// What the local time is, for the lines of syslog.
const TIME_ZONE: [&str; 2] = ["/etc/localtime", "/usr/share/zoneinfo"];
/// Where the kernel puts core dumps.
const CORE_PATTERN: &str = "/proc/sys/kernel/core_pattern";

/// Files and ports that stay within reach.
#[derive(Debug)]
pub struct Reach {
    read: Vec<PathBuf>,
    written: Vec<PathBuf>,
    read_beside: Vec<PathBuf>,
    written_beside: Vec<PathBuf>,
    ports: BTreeSet<u16>,
    dumps_core: bool,
}

impl Default for Reach {
    /// What every server needs.
    fn default() -> Self {
        Self {
            read: READ.map(PathBuf::from).to_vec(),
            written: WRITTEN.map(PathBuf::from).to_vec(),
            read_beside: Vec::new(),
            written_beside: Vec::new(),
            ports: BTreeSet::new(),
            dumps_core: false,
        }
    }
}

impl Reach {
    /// A file that is read anew, and all others in its folder.
    pub fn read_beside(&mut self, file: impl Into<PathBuf>) {
        self.read_beside.push(file.into());
    }

    /// A file that is written, opened anew or removed, and all others in its folder.
    pub fn write_beside(&mut self, file: impl Into<PathBuf>) {
        self.written_beside.push(file.into());
    }

    /// A TCP port of any host, to connect to.
    pub fn connect(&mut self, port: u16) {
        self.ports.insert(port);
    }

    /// What looking users up takes.
    pub fn look_users_up(&mut self) {
        self.read.extend(NAMES.map(PathBuf::from));
    }

    /// What looking hosts up by their names takes.
    pub fn look_hosts_up(&mut self) {
        self.look_users_up();
        self.connect(DNS_PORT);
    }

    /// What lines of syslog take; its socket needs no permission.
    pub fn log_to_syslog(&mut self) {
        self.read.extend(TIME_ZONE.map(PathBuf::from));
    }

    /// The place for core dumps.
    pub fn dump_core(&mut self) {
        self.dumps_core = true;
    }

    /// What a store takes.
    pub fn open_store(&mut self, needs: Needs) {
        let Needs { written, read, ports, looks_up_hosts, reads_system_roots } = needs;
        self.written_beside.extend(written);
        self.read_beside.extend(read);
        self.ports.extend(ports);
        if looks_up_hosts {
            self.look_hosts_up();
        }
        if reads_system_roots {
            self.read.extend(ROOTS.map(PathBuf::from));
            self.read_beside.extend(env::var_os(ROOTS_FILE).map(PathBuf::from));
            let folders = env::var_os(ROOTS_FOLDERS).unwrap_or_default();
            self.read.extend(env::split_paths(&folders));
        }
    }

    /// Ports to connect to.
    pub(super) fn ports(&self) -> &BTreeSet<u16> {
        &self.ports
    }

    /// Folders and files to read.
    pub(super) fn read(&self) -> BTreeSet<PathBuf> {
        let beside = self.read_beside.iter().flat_map(|file| places(file));
        self.read.iter().cloned().chain(beside).collect()
    }

    /// Folders and files to read and write.
    pub(super) fn written(&self) -> BTreeSet<PathBuf> {
        let core = self.dumps_core.then(core_folder).flatten();
        let beside = self.written_beside.iter().flat_map(|file| places(file));
        self.written.iter().cloned().chain(core).chain(beside).collect()
    }
}

/// What must be within reach for a file: the folder of its name, and that of the file which a link
/// leads to. A terminal is enough itself, as it is never replaced, and a pipe needs no permission.
fn places(file: &Path) -> Vec<PathBuf> {
    let Ok(real) = fs::canonicalize(file) else {
        let is_there = fs::metadata(file).is_ok();
        return if is_there { Vec::new() } else { vec![folder(file)] };
    };
    if fs::metadata(&real).is_ok_and(|metadata| metadata.file_type().is_char_device()) {
        return vec![real];
    }
    // As /dev/stdout is; no other file takes that name.
    let is_device = file.parent() == Some(Path::new("/dev"));
    let name = (!is_device).then(|| folder(file));
    name.into_iter().chain([folder(&real)]).collect()
}

fn folder(file: &Path) -> PathBuf {
    let parent = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    parent.unwrap_or_else(|| Path::new(".")).to_owned()
}

/// The folder of core dumps, unless a program gets them.
fn core_folder() -> Option<PathBuf> {
    let pattern = fs::read_to_string(CORE_PATTERN).ok()?;
    (!pattern.starts_with('|')).then(|| folder(Path::new(pattern.trim_end())))
}
