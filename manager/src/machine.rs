//! What a file asks of this machine: users, folders, programs and files of TLS.
//!
//! A file in, the first thing that isn't there out. Starts nothing; what it sees may be another
//! when a command is started.
//!
//! Invariant: a sentence names the file, the line and the key.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::geteuid;

use crate::config::{File, Worker};
use crate::gearman::tls;
use crate::process::environment::Environment;
use crate::process::identity::Account;

/// What is wrong with a key.
type Problem = (&'static str, String);

/// Checks the file at `path`, and reads its files of TLS.
///
/// # Errors
/// What this machine doesn't have, in a sentence.
pub fn check(path: &Path, file: &File) -> Result<Option<Arc<rustls::ClientConfig>>, String> {
    for (at, worker) in file.config.workers.iter().enumerate() {
        check_worker(worker).map_err(|(key, problem)| {
            format!("{}:{}: {key} {problem}", path.display(), file.lines.worker(at, key))
        })?;
    }
    let client = file.config.tls.as_ref().map(tls).transpose();
    client.map_err(|problem| {
        let keys = ["tls.ca", "tls.certificate", "tls.key"];
        let key = keys.into_iter().find(|key| problem.contains(key)).unwrap_or("tls");
        format!("{}:{}: {problem}", path.display(), file.lines.top(key))
    })
}

fn check_worker(worker: &Worker) -> Result<(), Problem> {
    let account = account(worker)?;
    if let Some(folder) = &worker.directory {
        let can_not_be = |problem: &str| {
            let problem = format!("can't be \"{}\": {problem}", folder.display());
            Err(("directory", problem))
        };
        match fs::metadata(folder) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return can_not_be("it is no folder; name one"),
            Err(cause) => {
                return can_not_be(&format!("{cause}; make the folder, or name another"));
            }
        }
    }
    check_program(worker, &account)
}

fn account(worker: &Worker) -> Result<Account, Problem> {
    let (user, group) = (worker.user.as_deref(), worker.group.as_deref());
    let key =
        if user.is_none() || Account::look_up(None, group).is_err() { "group" } else { "user" };
    let value = if key == "user" { user } else { group }.unwrap_or_default();
    let can_not_be = |problem: String| (key, format!("can't be \"{value}\": {problem}"));
    let account = Account::look_up(user, group).map_err(can_not_be)?;
    if account.identity.is_some() && !geteuid().is_root() {
        let problem = "only root may run commands as others; run the manager as root, or as that \
                       user, and leave it out";
        return Err(can_not_be(problem.to_owned()));
    }
    Ok(account)
}

fn check_program(worker: &Worker, account: &Account) -> Result<(), Problem> {
    let Some(program) = worker.command.first() else { return Ok(()) };
    let can_not_be =
        |problem: String| Err(("command", format!("can't run \"{program}\": {problem}")));
    if program.contains('/') {
        // Relative ones are looked for from the working folder.
        let path = worker.directory.clone().unwrap_or_default().join(program);
        return match fs::metadata(&path) {
            Ok(_) if is_program(&path) => Ok(()),
            Ok(found) if found.is_dir() => can_not_be("it is a folder; name a program".to_owned()),
            Ok(_) => can_not_be(format!("it isn't executable; chmod +x {}", path.display())),
            Err(cause) => can_not_be(format!("{cause}; install it, or mend the path")),
        };
    }
    let environment = Environment::of(worker, account.entry.as_ref(), &[], std::env::vars_os());
    let folder = |folder: &[u8]| {
        let folder = PathBuf::from(OsStr::from_bytes(folder));
        worker.directory.clone().unwrap_or_default().join(folder)
    };
    if environment.path().any(|it| is_program(&folder(it).join(program))) {
        return Ok(());
    }
    let path: Vec<String> =
        environment.path().map(|it| String::from_utf8_lossy(it).into_owned()).collect();
    can_not_be(format!(
        "no folder of its PATH ({}) has this program; install it, or write its whole path",
        path.join(":")
    ))
}

/// Whether some user may run this file.
fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Server;

    /// The result for a file whose fourth line and those after it are these.
    fn checked(program: &str, lines: &str) -> Result<(), String> {
        let text = format!(
            "[[worker]]\nname = \"w\"\nfunctions = [\"f\"]\ncommand = [\"{program}\"]\n{lines}"
        );
        let servers = Server::parse_list("localhost").expect("a server");
        let file = File::parse(&text, servers).unwrap_or_else(|mistake| panic!("{mistake}"));
        check(Path::new("m.toml"), &file).map(drop)
    }

    #[test]
    fn what_this_machine_has_is_accepted() {
        let folder = tempfile::tempdir().expect("a folder");
        let script = folder.path().join("script");
        fs::write(&script, "#!/bin/sh\n").expect("writable");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("its owner may");
        let directory = format!("directory = \"{}\"", folder.path().display());
        assert_eq!(checked("sh", ""), Ok(()));
        assert_eq!(checked("/bin/sh", &directory), Ok(()));
        assert_eq!(checked("./script", &directory), Ok(()));
        let path = format!("environment = {{ PATH = \"{}\" }}", folder.path().display());
        assert_eq!(checked("script", &path), Ok(()));
        assert_eq!(checked("script", &format!("{directory}\nenvironment.PATH = \".\"")), Ok(()));
    }

    #[test]
    fn what_it_has_not_is_named_with_key_and_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let plain = folder.path().join("plain");
        fs::write(&plain, "").expect("writable");
        let [folder, plain] = [folder.path(), &plain].map(|path| path.display().to_string());
        let missing = "No such file or directory (os error 2)";
        for (program, lines, expected) in [
            (
                "sh",
                "user = \"no-such-user\"",
                "m.toml:5: user can't be \"no-such-user\": there is no user no-such-user on this \
                 machine; create it (useradd)"
                    .to_owned(),
            ),
            (
                "sh",
                "user = \"root\"\ngroup = \"no-such-group\"",
                "m.toml:6: group can't be \"no-such-group\": there is no group no-such-group on \
                 this machine; create it (groupadd)"
                    .to_owned(),
            ),
            (
                "sh",
                "directory = \"/no/such\"",
                format!(
                    "m.toml:5: directory can't be \"/no/such\": {missing}; make the folder, or \
                     name another"
                ),
            ),
            (
                "sh",
                &format!("directory = \"{plain}\""),
                format!("m.toml:5: directory can't be \"{plain}\": it is no folder; name one"),
            ),
            (
                "/no/such",
                "",
                format!(
                    "m.toml:4: command can't run \"/no/such\": {missing}; install it, or mend the \
                     path"
                ),
            ),
            (
                &plain,
                "",
                format!(
                    "m.toml:4: command can't run \"{plain}\": it isn't executable; chmod +x {plain}"
                ),
            ),
            (
                &folder,
                "",
                format!("m.toml:4: command can't run \"{folder}\": it is a folder; name a program"),
            ),
            (
                "no-such",
                "environment = { PATH = \"/a:/b\" }",
                "m.toml:4: command can't run \"no-such\": no folder of its PATH (/a:/b) has this \
                 program; install it, or write its whole path"
                    .to_owned(),
            ),
        ] {
            assert_eq!(checked(program, lines), Err(expected));
        }
    }

    #[test]
    fn files_of_tls_are_read() {
        let text = "[tls]\nca = \"/no/such.pem\"\n[[worker]]\nname = \"w\"\nfunctions = [\"f\"]\n\
                    command = [\"sh\"]";
        let servers = Server::parse_list("localhost").expect("a server");
        let file = File::parse(text, servers).expect("a file");
        let problem = check(Path::new("m.toml"), &file).expect_err("no such file");
        assert!(problem.starts_with("m.toml:2: "), "{problem}");
        assert!(problem.contains("/no/such.pem"), "{problem}");
    }
}
