//! The variables of a command: a worker's settings and the manager's variables in, entries out.
//!
//! Starts nothing.
//!
//! Invariant: each variable is there once.

use std::collections::BTreeMap;
use std::ffi::{CString, NulError, OsString};
use std::os::unix::ffi::OsStringExt as _;

use nix::unistd::User;

use crate::config::Worker;

/// Passed on with `clear-environment`, too.
const KEPT: [&[u8]; 3] = [b"PATH", b"LANG", b"TZ"];
/// What the service manager tells the manager is not for its commands.
const NEVER_PASSED: [&[u8]; 6] = [
    b"NOTIFY_SOCKET",
    b"WATCHDOG_PID",
    b"WATCHDOG_USEC",
    b"LISTEN_PID",
    b"LISTEN_FDS",
    b"LISTEN_FDNAMES",
];
/// Where programs are looked for if the command has no PATH.
const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/usr/bin:/bin";

/// Variables by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<Vec<u8>, Vec<u8>>);

impl Environment {
    /// The variables of a worker's command. What is later in this list wins: `inherited`, the
    /// user's, `variables`, the worker's.
    pub fn of(
        worker: &Worker,
        user: Option<&User>,
        variables: &[(&str, &str)],
        inherited: impl Iterator<Item = (OsString, OsString)>,
    ) -> Self {
        let mut all: BTreeMap<Vec<u8>, Vec<u8>> =
            inherited.map(|(name, value)| (name.into_vec(), value.into_vec())).collect();
        all.retain(|name, _| {
            let name = name.as_slice();
            !NEVER_PASSED.contains(&name) && (!worker.clear_environment || KEPT.contains(&name))
        });
        let mut set = |name: &str, value: &[u8]| all.insert(name.into(), value.into());
        if let Some(user) = user {
            set("HOME", user.dir.as_os_str().as_encoded_bytes());
            set("USER", user.name.as_bytes());
            set("LOGNAME", user.name.as_bytes());
        }
        for &(name, value) in variables {
            set(name, value.as_bytes());
        }
        for (name, value) in &worker.environment {
            set(name, value.as_bytes());
        }
        Self(all)
    }

    /// The folders of PATH in which programs are looked for.
    pub fn path(&self) -> impl Iterator<Item = &[u8]> {
        let path = self.0.get(b"PATH".as_slice()).map_or(DEFAULT_PATH, Vec::as_slice);
        path.split(|&byte| byte == b':')
    }

    /// As `NAME=value`.
    ///
    /// # Errors
    /// If a name or a value contains a NUL.
    pub fn entries(&self) -> Result<Vec<CString>, NulError> {
        let entry = |(name, value): (&Vec<u8>, &Vec<u8>)| {
            CString::new([name.as_slice(), b"=", value.as_slice()].concat())
        };
        self.0.iter().map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::samples::worker;

    fn inherited() -> impl Iterator<Item = (OsString, OsString)> {
        let all = [
            ("PATH", "/a:/b"),
            ("LANG", "C"),
            ("TZ", "UTC"),
            ("HOME", "/root"),
            ("SECRET", "s"),
            ("NOTIFY_SOCKET", "/run/n"),
            ("GEARMAN_SERVERS", "old"),
        ];
        all.into_iter().map(|(name, value)| (name.into(), value.into()))
    }

    fn entries(environment: &Environment) -> Vec<String> {
        let entries = environment.entries().expect("no NUL");
        entries.into_iter().map(|entry| entry.into_string().expect("text")).collect()
    }

    #[test]
    fn the_managers_variables_are_passed_on_unless_cleared() {
        let mut worker = worker(&["true"]);
        worker.environment = BTreeMap::from([("TZ".into(), "CET".into())]);
        let variables = [("GEARMAN_SERVERS", "a:1,b:2")];
        let environment = Environment::of(&worker, None, &variables, inherited());
        let servers = "GEARMAN_SERVERS=a:1,b:2";
        let all = [servers, "HOME=/root", "LANG=C", "PATH=/a:/b", "SECRET=s", "TZ=CET"];
        assert_eq!(entries(&environment), all);
        worker.clear_environment = true;
        let environment = Environment::of(&worker, None, &variables, inherited());
        assert_eq!(entries(&environment), [servers, "LANG=C", "PATH=/a:/b", "TZ=CET"]);
        assert_eq!(environment.path().collect::<Vec<_>>(), [b"/a", b"/b"]);
    }

    #[test]
    fn a_user_has_a_home() {
        let mut worker = worker(&["true"]);
        worker.clear_environment = true;
        let root = User::from_name("root").expect("readable").expect("every machine has it");
        let none = std::iter::empty();
        let environment = Environment::of(&worker, Some(&root), &[], none);
        assert_eq!(entries(&environment), ["HOME=/root", "LOGNAME=root", "USER=root"]);
        assert!(environment.path().any(|folder| folder == b"/usr/bin"));
    }

    #[test]
    fn a_nul_is_refused() {
        let mut worker = worker(&["true"]);
        worker.environment = BTreeMap::from([("A".into(), "b\0c".into())]);
        Environment::of(&worker, None, &[], inherited()).entries().expect_err("a NUL");
    }
}
