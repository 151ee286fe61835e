//! `--dry-run`: a configuration in, a text for people about what would run out.
//!
//! Touches no kernel.
//!
//! Invariant: the text depends on the configuration and this machine's name only.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use ringgear::protocol::{duration, size};

use crate::config::{Config, Mode, Stderr, Worker};

/// What would run on a machine of this name.
#[must_use]
pub fn text(config: &Config, host: &str) -> String {
    let mut text = Text(String::new());
    text.line("servers", joined(&config.servers, ", "));
    if let Some(tls) = &config.tls {
        let path = |name: &str, path: &Option<std::path::PathBuf>| {
            path.as_ref().map(|path| format!("{name} {}", path.display()))
        };
        let ca = path("ca", &tls.ca).unwrap_or_else(|| "ca of the system".to_owned());
        let own = [path("certificate", &tls.certificate), path("key", &tls.key)];
        text.line("tls", joined(std::iter::once(ca).chain(own.into_iter().flatten()), ", "));
    }
    if let Some(http) = &config.http {
        text.line("http", http);
    }
    for worker in &config.workers {
        text.worker(worker, host);
    }
    text.0
}

struct Text(String);

impl Text {
    fn line(&mut self, name: &str, value: impl Display) {
        // A string takes all that is written to it.
        let _ = writeln!(self.0, "{name}: {value}");
    }

    fn of_worker(&mut self, name: &str, value: impl Display) {
        self.line(&format!("  {name}"), value);
    }

    fn given(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.of_worker(name, value);
        }
    }

    fn worker(&mut self, worker: &Worker, host: &str) {
        self.0.push('\n');
        self.line("worker", &worker.name);
        let first = format!("{}@{host}/1", worker.name);
        self.of_worker(
            "ids",
            match worker.count {
                1 => first,
                count => format!("{first} to {count}"),
            },
        );
        self.of_worker(
            "mode",
            match worker.mode {
                Mode::Exec => "exec",
                Mode::Lines => "lines",
                Mode::Gearman => "gearman",
            },
        );
        match worker.mode {
            Mode::Gearman => self.of_worker("functions", "those that the command names"),
            _ => self.of_worker("functions", joined(&worker.functions, ", ")),
        }
        self.of_worker("command", joined(worker.command.iter().map(|it| shell_word(it)), " "));
        self.limits(worker);
        self.process(worker);
    }

    fn limits(&mut self, worker: &Worker) {
        let has_jobs = worker.mode != Mode::Gearman;
        let has_lifetime = worker.mode != Mode::Exec;
        if has_jobs {
            self.of_worker("timeout", worker.timeout.map_or_else(|| "none".to_owned(), time));
        }
        if has_lifetime {
            let jobs = (worker.max_jobs > 0).then_some(worker.max_jobs);
            self.given("max-jobs", jobs);
            self.given("max-age", worker.max_age.map(time));
            let is_limited = jobs.is_some() || worker.max_age.is_some();
            self.given("splay", is_limited.then_some(worker.splay));
        }
        self.of_worker(
            "memory-max",
            worker.memory_max.map_or_else(|| "none".to_owned(), size::text),
        );
        if has_jobs {
            self.of_worker("result-max", size::text(worker.result_max));
        }
        self.of_worker("stop-wait", time(worker.stop_wait));
        let (first, last) = worker.backoff;
        self.of_worker("backoff", format!("{} to {}", time(first), time(last)));
    }

    fn process(&mut self, worker: &Worker) {
        self.given("user", worker.user.as_ref());
        self.given("group", worker.group.as_ref());
        self.given("directory", worker.directory.as_ref().map(|path| path.display()));
        self.given("umask", worker.umask.map(|mask| format!("{mask:03o}")));
        self.given("nice", (worker.nice != 0).then_some(worker.nice));
        self.of_worker(
            "environment",
            match worker.clear_environment {
                true => "PATH, LANG and TZ of the manager",
                false => "that of the manager",
            },
        );
        for (name, value) in &worker.environment {
            self.of_worker("environment", format!("{name}={}", shell_word(value)));
        }
        for pattern in &worker.watch {
            self.of_worker("watch", pattern);
        }
        self.of_worker(
            "stderr",
            match worker.stderr {
                Stderr::Log => "log",
                Stderr::Warning => "warning",
            },
        );
    }
}

fn joined<T: Display>(values: impl IntoIterator<Item = T>, between: &str) -> String {
    let texts: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    texts.join(between)
}

/// A time as files write it: minutes from ten of them on.
fn time(duration: Duration) -> String {
    match u64::try_from(duration.as_millis()).unwrap_or(u64::MAX) {
        ms if ms < 600_000 && ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        ms => duration::text(ms),
    }
}

/// A word as a shell reads it.
fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::File;

    #[test]
    fn a_dry_run_tells_all_that_would_run() {
        let file = r#"
servers = ["127.0.0.1", "unix:/run/g.sock"]
http = "127.0.0.1:4781"
[tls]
certificate = "client.pem"
key = "client.key"
[[worker]]
name = "thumbnail"
functions = ["thumbnail", "crop"]
command = ["sh", "-c", "convert - -resize '200x200>' png:-", ""]
count = 4
timeout = "60s"
memory-max = "256M"
user = "www-data"
directory = "/srv/app"
umask = "022"
nice = 5
environment = { APP_ENV = "production", NOTE = "a b" }
clear-environment = true
watch = ["/srv/app/**/*.php"]
stderr = "warning"
[[worker]]
name = "mail"
mode = "gearman"
command = ["php", "worker.php"]
max-age = "1h"
"#;
        let file = File::parse(file, Vec::new()).expect("a file");
        let expected = r"servers: 127.0.0.1:4730, unix:/run/g.sock
tls: ca of the system, certificate client.pem, key client.key
http: 127.0.0.1:4781

worker: thumbnail
  ids: thumbnail@box/1 to 4
  mode: exec
  functions: thumbnail, crop
  command: sh -c 'convert - -resize '\''200x200>'\'' png:-' ''
  timeout: 60s
  memory-max: 256M
  result-max: 64M
  stop-wait: 60s
  backoff: 1s to 60s
  user: www-data
  directory: /srv/app
  umask: 022
  nice: 5
  environment: PATH, LANG and TZ of the manager
  environment: APP_ENV=production
  environment: NOTE='a b'
  watch: /srv/app/**/*.php
  stderr: warning

worker: mail
  ids: mail@box/1
  mode: gearman
  functions: those that the command names
  command: php worker.php
  max-age: 1h
  splay: 0.1
  memory-max: none
  stop-wait: 60s
  backoff: 1s to 60s
  environment: that of the manager
  stderr: log
";
        assert_eq!(text(&file.config, "box"), expected);
    }
}
