//! The whole file: a text in, the configuration or the line of the first mistake out.
//!
//! Reads the top level and `[tls]`; `table` reads the workers.
//!
//! Invariant: a text with anything that it doesn't understand gives no configuration; what it says
//! without effect has a remark.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ringgear::protocol::toml_tables::{
    self, Key, Misplaced, Mistake, Value, known, line, list, sorted, text,
};
use ringgear::protocol::toml_values::unfit;
use toml::de::{DeTable, DeValue};

use super::keys::{KEYS, TLS_KEYS, WORKER_KEYS};
use super::{Config, HttpAddress, Server, TlsFiles, table};

/// A file that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// What it asks for.
    pub config: Config,
    /// What has no effect.
    pub remarks: Vec<Mistake>,
    /// Where it says what.
    pub lines: Lines,
}

/// Lines of keys, from 1 on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// By key of the top level and, as in `tls.ca`, of `[tls]`.
    top: BTreeMap<String, usize>,
    /// By worker, in the order of the file: the line of its table, and by key.
    workers: Vec<(usize, BTreeMap<String, usize>)>,
}

impl Lines {
    /// The line of a key of the top level, or of `[tls]` as in `tls.ca`; 1 if it isn't there.
    #[must_use]
    pub fn top(&self, key: &str) -> usize {
        self.top.get(key).copied().unwrap_or(1)
    }

    /// The line of a worker's key; that of its table if it isn't there.
    #[must_use]
    pub fn worker(&self, worker: usize, key: &str) -> usize {
        let Some((table, keys)) = self.workers.get(worker) else { return 1 };
        keys.get(key).copied().unwrap_or(*table)
    }
}

impl File {
    /// Reads a text. `servers` are those of a file that names none.
    ///
    /// # Errors
    /// The first mistake.
    pub fn parse(text: &str, servers: Vec<Server>) -> Result<Self, Mistake> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        toml_tables::read(text, "file", |top| {
            let mut reader = Reader { text, lines: Lines::default(), remarks: Vec::new() };
            let config = reader.config(top, servers)?;
            let Reader { remarks, lines, .. } = reader;
            Ok(Self { config, remarks, lines })
        })
    }
}

struct Reader<'t> {
    text: &'t str,
    lines: Lines,
    remarks: Vec<Mistake>,
}

impl Reader<'_> {
    fn config(&mut self, top: &DeTable<'_>, servers: Vec<Server>) -> Result<Config, Misplaced> {
        let mut config = Config { servers, http: None, tls: None, workers: Vec::new() };
        for (key, value) in sorted(top) {
            check_key(key)?;
            let name = key.get_ref().as_ref();
            self.lines.top.insert(name.to_owned(), line(self.text, key.span().start));
            match name {
                "servers" => config.servers = self::servers(value)?,
                "http" => config.http = Some(http(value)?),
                "tls" => config.tls = Some(self.tls(key, value)?),
                _ => config.workers = self.workers(key, value)?,
            }
        }
        if config.workers.is_empty() {
            let sentence = "the file has no worker: add [[worker]], with name, functions and \
                            command";
            return Err((self.text.trim_end().len(), sentence.to_owned()));
        }
        let is_unix = |server: &Server| matches!(server, Server::Unix(_));
        if config.tls.is_some() && config.servers.iter().all(is_unix) {
            let sentence = "tls has no effect on Unix sockets, and all servers are such: leave it \
                            out";
            let sentence = sentence.to_owned();
            self.remarks.push(Mistake { line: self.lines.top("tls"), sentence });
        }
        Ok(config)
    }

    fn tls(&mut self, key: &Key<'_>, value: &Value<'_>) -> Result<TlsFiles, Misplaced> {
        let DeValue::Table(fields) = value.get_ref() else {
            let sentence = "tls is a table: write [tls] behind all other keys, with ca = \"FILE\" \
                            below it";
            return Err((key.span().start, sentence.to_owned()));
        };
        let mut files = TlsFiles::default();
        for (key, value) in sorted(fields) {
            known(key, "tls", &TLS_KEYS)?;
            let name = key.get_ref().as_ref();
            let at = line(self.text, key.span().start);
            self.lines.top.insert(format!("tls.{name}"), at);
            let path = Some(path(name, value)?);
            match name {
                "ca" => files.ca = path,
                "certificate" => files.certificate = path,
                _ => files.key = path,
            }
        }
        let at = key.span().start;
        match (&files.certificate, &files.key) {
            (Some(_), None) => {
                Err((at, "certificate needs its key: add key = \"FILE\"".to_owned()))
            }
            (None, Some(_)) => {
                Err((at, "key needs its certificate: add certificate = \"FILE\"".to_owned()))
            }
            _ => Ok(files),
        }
    }

    fn workers(
        &mut self,
        key: &Key<'_>,
        value: &Value<'_>,
    ) -> Result<Vec<super::Worker>, Misplaced> {
        let no_tables = |at| {
            (at, "write workers as tables: [[worker]], with name, functions and command".to_owned())
        };
        let DeValue::Array(tables) = value.get_ref() else {
            return Err(no_tables(key.span().start));
        };
        let mut workers: Vec<super::Worker> = Vec::new();
        for value in tables {
            let at = value.span().start;
            let DeValue::Table(fields) = value.get_ref() else { return Err(no_tables(at)) };
            let read = table::read(at, fields)?;
            let keys = sorted(fields).into_iter().map(|(key, _)| {
                (key.get_ref().as_ref().to_owned(), line(self.text, key.span().start))
            });
            self.lines.workers.push((line(self.text, at), keys.collect()));
            let number = workers.len();
            let earlier = workers.iter().position(|worker| worker.name == read.worker.name);
            if let Some(earlier) = earlier {
                let sentence = format!(
                    "the worker on line {} is called \"{}\", too: give each a name of its own",
                    self.lines.worker(earlier, "name"),
                    read.worker.name
                );
                return Err((read.name_at, sentence));
            }
            self.remarks.extend(
                read.idle.into_iter().map(|(key, sentence)| Mistake {
                    line: self.lines.worker(number, key),
                    sentence,
                }),
            );
            workers.push(read.worker);
        }
        Ok(workers)
    }
}

fn check_key(key: &Key<'_>) -> Result<(), Misplaced> {
    let name = key.get_ref().as_ref();
    if WORKER_KEYS.contains(&name) {
        let sentence = format!("{name} is in no table: write [[worker]] above it");
        return Err((key.span().start, sentence));
    }
    known(key, "a file", &KEYS)
}

fn servers(value: &Value<'_>) -> Result<Vec<Server>, Misplaced> {
    let mut servers = Vec::new();
    for value in list("servers", value, "[\"127.0.0.1:4730\"]")? {
        let word = text("servers", value)?;
        let server = Server::parse(word).map_err(|reason| unfit("servers", value, &reason))?;
        if servers.contains(&server) {
            return Err(unfit("servers", value, "it is there before, so leave one of them out"));
        }
        servers.push(server);
    }
    Ok(servers)
}

fn http(value: &Value<'_>) -> Result<HttpAddress, Misplaced> {
    let example = "write an address in quotes, as in \"127.0.0.1:4781\"";
    let word = value.get_ref().as_str().ok_or_else(|| unfit("http", value, example))?;
    HttpAddress::parse(word).map_err(|reason| unfit("http", value, &reason))
}

fn path(name: &str, value: &Value<'_>) -> Result<PathBuf, Misplaced> {
    let path = value.get_ref().as_str().filter(|path| !path.is_empty() && !path.contains('\0'));
    path.map(PathBuf::from).ok_or_else(|| unfit(name, value, "write the path of a file in quotes"))
}
