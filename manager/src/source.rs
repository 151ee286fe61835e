//! The file on disk: a path in, what it asks for or a sentence out.
//!
//! Invariant: a sentence names the file.

use std::fs;
use std::io::{self, ErrorKind, Read as _};
use std::path::PathBuf;
use std::sync::Arc;

use ringgear::protocol::toml_tables::FILE_BYTES_MAX;

use crate::config::{Config, File, Server};
use crate::machine;

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// The servers of a file that names none.
    pub servers: Vec<Server>,
}

/// A configuration that this machine can run.
#[derive(Debug)]
pub struct Checked {
    /// What the file says.
    pub file: File,
    /// TLS to its servers.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

impl Source {
    /// Reads the file, and looks at nothing else.
    ///
    /// # Errors
    /// The first mistake, with its line.
    pub fn read(&self) -> Result<File, String> {
        let path = self.path.display();
        let text = self.text().map_err(|cause| {
            let remedy = match cause.kind() {
                ErrorKind::PermissionDenied => "let the user that the manager runs as read it",
                ErrorKind::InvalidData => "save it as UTF-8",
                _ => "name another with --config-file",
            };
            format!("cannot read the file {path}: {cause}; {remedy}")
        })?;
        let file = File::parse(&text, self.servers.clone());
        file.map_err(|mistake| format!("{path}:{mistake}"))
    }

    /// Reads the file, and checks that this machine has what it asks for.
    ///
    /// # Errors
    /// The first mistake, with its line.
    pub fn check(&self) -> Result<Checked, String> {
        let file = self.read()?;
        let tls = machine::check(&self.path, &file)?;
        Ok(Checked { file, tls })
    }

    /// Sentences about what has no effect in a file.
    pub fn remarks(&self, file: &File) -> impl Iterator<Item = String> {
        file.remarks.iter().map(|remark| format!("{}:{remark}", self.path.display()))
    }

    /// Takes from `old` what a running manager can't change; returns a sentence for each such key.
    pub fn keep(&self, file: &mut File, old: &Config) -> Vec<String> {
        let new = &mut file.config;
        let is_changed = [
            ("servers", new.servers != old.servers),
            ("http", new.http != old.http),
            ("tls", new.tls != old.tls),
        ];
        new.servers.clone_from(&old.servers);
        new.http.clone_from(&old.http);
        new.tls.clone_from(&old.tls);
        let changed = is_changed.into_iter().filter(|&(_, is_changed)| is_changed);
        let sentence = |(key, _): (&str, bool)| {
            format!(
                "{}:{}: {key} has changed, and stays as it was until the manager is restarted",
                self.path.display(),
                file.lines.top(key)
            )
        };
        changed.map(sentence).collect()
    }

    /// What is in the file; a byte more than it may have if it is too large.
    fn text(&self) -> io::Result<String> {
        let mut bytes = Vec::new();
        fs::File::open(&self.path)?.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > FILE_BYTES_MAX {
            // It may end within a character; only its length matters any more.
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        String::from_utf8(bytes).map_err(|_| ErrorKind::InvalidData.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: &str = "[[worker]]\nname = \"w\"\nfunctions = [\"f\"]\ncommand = [\"sh\"]\n";

    /// A file with this text.
    fn source(text: &[u8]) -> (tempfile::TempDir, Source) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("m.toml");
        fs::write(&path, text).expect("writable");
        let servers = Server::parse_list("localhost").expect("a server");
        (folder, Source { path, servers })
    }

    #[test]
    fn a_file_that_cant_be_read_is_named() {
        let (folder, mut source) = source("é".as_bytes());
        let path = source.path.display().to_string();
        let problem = source.read().expect_err("no TOML");
        assert!(problem.starts_with(&format!("{path}:1: this isn't TOML: ")), "{problem}");
        fs::write(&source.path, b"\xff").expect("writable");
        let problem = source.read().expect_err("no UTF-8");
        assert!(problem.ends_with("; save it as UTF-8"), "{problem}");
        fs::write(&source.path, "é".repeat(FILE_BYTES_MAX / 2 + 1)).expect("writable");
        let problem = source.read().expect_err("too large");
        assert_eq!(problem, format!("{path}:1: the file is larger than 1048576 bytes: shorten it"));
        source.path = folder.path().join("other");
        let problem = source.read().expect_err("no file");
        let path = source.path.display();
        assert_eq!(
            problem,
            format!(
                "cannot read the file {path}: No such file or directory (os error 2); name another \
                 with --config-file"
            )
        );
    }

    #[test]
    fn what_needs_a_restart_stays() {
        let (_folder, source) = source(WORKER.as_bytes());
        let old = source.read().expect("a file").config;
        let mut file = File::parse(
            &format!("http = \"127.0.0.1:1\"\nservers = [\"a\"]\n{WORKER}count = 2\n[tls]"),
            Vec::new(),
        )
        .expect("a file");
        let path = source.path.display();
        let kept = "has changed, and stays as it was until the manager is restarted";
        let expected = [
            format!("{path}:2: servers {kept}"),
            format!("{path}:1: http {kept}"),
            format!("{path}:8: tls {kept}"),
        ];
        assert_eq!(source.keep(&mut file, &old), expected);
        assert_eq!(file.config.servers, old.servers);
        assert_eq!((file.config.http.as_ref(), file.config.workers[0].count), (None, 2));
        assert_eq!(source.keep(&mut file, &old), Vec::<String>::new());
    }
}
