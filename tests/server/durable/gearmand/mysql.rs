//! The recipe of docs/coming-from-gearmand.md for a queue in MySQL, run word for word.
//!
//! Debian's gearmand fills a table of a MariaDB server that the test starts in a temporary folder,
//! reached through a Unix socket in it.

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use nix::unistd::Uid;
use tempfile::TempDir;

use super::{delay_a_job, fill, find_all, gearmand_with, job};
use crate::conn::Conn;
use crate::durable::{drain, end, start, submit};
use crate::harness::{Contender, tool, wait_until};

/// The page, and the heading under which the recipe is its first block of commands.
const PAGE: &str = include_str!("../../../../docs/coming-from-gearmand.md");
const HEADING: &str = "\n## A queue in MySQL or MariaDB\n";

/// A MariaDB server without a network, with the database `gearman`.
struct MariaDb {
    child: Child,
    /// Home of its clients, too: `.my.cnf` names socket and user.
    folder: TempDir,
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl MariaDb {
    /// Starts an empty server; `None` if this machine has none, or no client.
    fn start() -> Option<Self> {
        let install = tool("mariadb-install-db")?;
        let program = tool("mariadbd")?;
        tool("mysql")?;
        let folder = tempfile::Builder::new().prefix("my").tempdir().expect("a folder");
        let (data, socket) = (folder.path().join("data"), folder.path().join("socket"));
        let mut common = vec!["--no-defaults".to_owned(), format!("--datadir={}", data.display())];
        // For root both programs would change to a user that may not see the folder.
        common.extend(Uid::effective().is_root().then(|| "--user=root".to_owned()));
        let mut command = Command::new(install);
        command.args(&common).arg("--auth-root-authentication-method=normal");
        let output = command.output().expect("the program");
        assert!(output.status.success(), "{output:?}");
        let cnf = format!("[client]\nuser=root\nsocket={}\n", socket.display());
        fs::write(folder.path().join(".my.cnf"), cnf).expect("a file");

        let mut command = Command::new(program);
        command.args(&common).args(["--skip-networking", "--innodb-flush-log-at-trx-commit=0"]);
        command.arg(format!("--socket={}", socket.display()));
        // A character set of its own, to which names are converted and back.
        command.args(["--character-set-server=latin1", "--pid-file=pid"]);
        let log = fs::File::create(folder.path().join("log")).expect("a file");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("the server starts");
        let mut this = Self { child, folder };
        wait_until("MariaDB to listen", || {
            let ended = this.child.try_wait().expect("a child");
            let log = || fs::read_to_string(this.folder.path().join("log"));
            assert!(ended.is_none(), "MariaDB ended: {:?}", log());
            UnixStream::connect(&socket).ok()
        });
        this.shell("mysql -e 'CREATE DATABASE gearman'");
        Some(this)
    }

    /// Runs commands in the folder, up to the first that fails, and returns their output.
    fn shell(&self, commands: &str) -> String {
        let mut command = Command::new("sh");
        command.args(["-e", "-c", commands]).env("HOME", self.folder.path());
        let output = command.current_dir(self.folder.path()).output().expect("a shell");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }
}

/// The commands between the fences.
fn recipe() -> &'static str {
    let (_, section) = PAGE.split_once(HEADING).expect("the heading");
    let (_, rest) = section.split_once("\n```sh\n").expect("commands");
    rest.split_once("\n```\n").expect("an end of them").0
}

#[test]
fn its_mysql_table_is_carried_over_by_the_documented_commands() {
    if tool("sqlite3").is_none() {
        return;
    }
    let Some(database) = MariaDb::start() else { return };
    let home = database.folder.path().to_str().expect("text");
    let options = ["-q", "MySQL", "--mysql-db", "gearman", "--mysql-user", "root"];
    let Some(server) = gearmand_with(&options, &[("HOME", home)]) else { return };
    let expected = fill(&server);
    delay_a_job(&server);
    // More than one client's packet holds unless told otherwise, once its bytes are digits.
    let large: Vec<u8> = (0..9_000_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    let names = ["Größe", "Schlüssel"].map(str::as_bytes);
    submit(&mut Conn::open(server.address()), "SUBMIT_JOB_BG", &[names[0], names[1], &large]);
    end(server, "TERM");

    let printed = database.shell(recipe());
    let count = expected.len() + 2;
    assert_eq!(printed, format!("{count} queue.tsv\n{count}\n"));

    let store = format!("sqlite:{home}/jobs.db");
    let server = start(Contender::RinggearEpoll, &["--store", &store]);
    find_all(&server, count, &expected);
    let got = drain(&server, &["Größe"]);
    assert_eq!(got.len(), 1);
    let expected = job("Größe", "Schlüssel", &large);
    let same = (&got[0].unique, &got[0].payload) == (&expected.unique, &expected.payload);
    assert!(same, "{} with {} bytes", got[0].unique, got[0].payload.len());
}
