//! The manual page of `ringgear-manager`: its options in, and the texts beside them out.
//!
//! Knows neither roff nor where the files go.
//!
//! Invariant: every key, variable, file, signal and exit code is named.

use clap::CommandFactory as _;
use ringgear::config::manual::{Manual, Part, Section};

use crate::options::Options;

const DESCRIPTION: &[&str] = &[
    "ringgear-manager runs commands, in any language, as Gearman workers. It takes jobs from the \
     servers that its file names, gives each to a command and returns the result; or it keeps \
     commands running that are Gearman workers themselves. It counts, limits, restarts and drains \
     them, and ends all processes that they started, even if it is killed itself.",
    "It stays in the foreground and logs to standard error.",
];

const FILE: &[Part<'_>] = &[
    Part::Text(
        "The file is TOML. Times are numbers with ms, s, m, h or d; sizes take k, m and g, in \
         powers of 1024. A key that isn't known is a mistake. Above all tables:",
    ),
    Part::Item(
        "servers = [\"127.0.0.1:4730\"]",
        "Job servers: HOST, HOST:PORT, [V6]:PORT or unix:/PATH. Without it those of the variable \
         GEARMAN_SERVERS.",
    ),
    Part::Item(
        "http = \"127.0.0.1:4781\"",
        "Where /metrics and /healthz are: an address of this machine alone, or unix:/PATH. Nowhere \
         unless given.",
    ),
    Part::Text("In [tls], which turns TLS on for all servers but Unix sockets:"),
    Part::Item("ca", "File of the authorities' certificates; without it those of the system."),
    Part::Item("certificate, key", "Files of the manager's own certificate and its key."),
    Part::Text("In a [[worker]] for each command:"),
    Part::Item("name", "Names the worker in ids (NAME@HOST/1), the log and metrics."),
    Part::Item("functions", "Functions that it can do; not needed in mode gearman."),
    Part::Item("command", "Program and arguments, as a list."),
    Part::Item(
        "mode = \"exec\"",
        "exec: a process for each job, payload on standard input, result on standard output. \
         lines: a long-lived process with an object of JSON a line for each job. gearman: the \
         command is a Gearman worker itself.",
    ),
    Part::Item("count = 1", "Instances, and so jobs at a time."),
    Part::Item("timeout", "Longest run of a job, which is killed and fails then."),
    Part::Item("max-jobs = 0", "Jobs after which a process of mode lines is replaced; 0 = any."),
    Part::Item("max-age", "Age at which a process of modes lines and gearman is replaced."),
    Part::Item(
        "splay = 0.1",
        "Share by which max-jobs and max-age differ from process to process, at random.",
    ),
    Part::Item("memory-max", "Most resident memory of a command with all its children."),
    Part::Item("result-max = \"64M\"", "Largest result; a larger one fails its job."),
    Part::Item("stop-wait = \"60s\"", "How long a running job may take at a restart or the end."),
    Part::Item(
        "backoff = [\"1s\", \"60s\"]",
        "Time before a program that ended too early is started again: first, then doubled up to \
         the second.",
    ),
    Part::Item("user, group", "Run the command as these, by name or number. Needs root."),
    Part::Item("directory", "Working folder."),
    Part::Item("umask", "Three octal digits in quotes."),
    Part::Item("nice = 0", "Added to the niceness."),
    Part::Item("environment", "Variables, as in { APP_ENV = \"production\" }."),
    Part::Item("clear-environment = false", "Pass on no variables but PATH, LANG and TZ."),
    Part::Item("watch", "Patterns of files whose change restarts the instances, one by one."),
    Part::Item(
        "stderr = \"log\"",
        "log: lines of the log. warning: WORK_WARNING to the clients of the job.",
    ),
];

const COMMANDS: &[Part<'_>] = &[
    Part::Text("Of a process in mode exec:"),
    Part::Item("exit code 0", "The job is complete; standard output is its result."),
    Part::Item("exit code 100", "An exception with the last 4 KiB of standard error."),
    Part::Item("any other exit code, a signal, a limit", "The job fails; the log has the reason."),
    Part::Item("status N D on descriptor 3", "A line that tells the clients how far the job is."),
];

const ENVIRONMENT: &[Part<'_>] = &[
    Part::Item(
        "RINGGEAR_MANAGER_CONFIG_FILE",
        "The file, unless --config-file names one. Empty counts as unset.",
    ),
    Part::Item(
        "GEARMAN_SERVERS",
        "Servers with commas between, unless the file has servers. Commands get those that are \
         used.",
    ),
    Part::Item(
        "GEARMAN_FUNCTION, GEARMAN_HANDLE, GEARMAN_UNIQUE",
        "Set for a process of mode exec: function, handle and unique key of its job.",
    ),
    Part::Item("NOTIFY_SOCKET", "Where systemd is told of the start and the end."),
];

const FILES: &[Part<'_>] = &[
    Part::Text("None is read unless an option, a variable or the file names it. Packages have:"),
    Part::Item("/etc/ringgear/manager.toml", "The file of the service."),
];

const SIGNALS: &[Part<'_>] = &[
    Part::Item(
        "SIGTERM, SIGINT",
        "Drain: no more jobs are taken, those that run have their stop-wait, then SIGTERM and 5 \
         seconds later SIGKILL end their process groups. A second one kills at once.",
    ),
    Part::Item(
        "SIGHUP",
        "Read the file anew. Workers that changed restart, others go on. A file with a mistake \
         changes nothing. Changes of servers, http and [tls] need a restart of the manager.",
    ),
    Part::Item("SIGUSR1", "Restart all instances, one of each worker at a time."),
];

const EXIT_STATUS: &[Part<'_>] = &[
    Part::Item("0", "A signal ended it, or it printed or checked what it was asked to."),
    Part::Item(
        "1",
        "It couldn't start, or the file has a mistake: one sentence on standard error names line, \
         key and remedy.",
    ),
];

const SEE_ALSO: &[Part<'_>] = &[Part::Text("ringgeard(8), gearman(1), gearadmin(1)")];

const SECTIONS: &[Section<'_>] = &[
    Section { title: "THE FILE", parts: FILE },
    Section { title: "COMMANDS", parts: COMMANDS },
    Section { title: "ENVIRONMENT", parts: ENVIRONMENT },
    Section { title: "FILES", parts: FILES },
    Section { title: "SIGNALS", parts: SIGNALS },
    Section { title: "EXIT STATUS", parts: EXIT_STATUS },
    Section { title: "SEE ALSO", parts: SEE_ALSO },
];

/// The manual of the manager.
#[must_use]
pub fn manual() -> Manual<'static> {
    Manual {
        name: "ringgear-manager",
        command: Options::command(),
        version: env!("CARGO_PKG_VERSION"),
        usage: "[OPTIONS]",
        description: DESCRIPTION,
        sections: SECTIONS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KEYS, TLS_KEYS, WORKER_KEYS};

    #[test]
    fn the_page_has_every_key_and_option() {
        let folder = tempfile::tempdir().expect("a folder");
        ringgear::config::manual::generate(&manual(), folder.path()).expect("writable");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect(name);
        let page = read("ringgear-manager.8").replace("\\-", "-");
        for option in ["config-file", "check", "dry-run", "log-format"] {
            assert!(page.contains(&format!("--{option}")), "{option}");
        }
        let terms: Vec<&str> = FILE
            .iter()
            .filter_map(|part| match part {
                Part::Item(term, _) => Some(term.split(" = ").next().unwrap_or(term)),
                Part::Text(_) => None,
            })
            .flat_map(|term| term.split(", "))
            .collect();
        let keys = KEYS.iter().filter(|key| !["tls", "worker"].contains(key));
        for key in keys.chain(&TLS_KEYS).chain(&WORKER_KEYS) {
            assert!(terms.contains(key), "{key}");
        }
        for name in ["ringgear-manager.bash", "_ringgear-manager", "ringgear-manager.fish"] {
            assert!(read(name).contains("dry-run"), "{name}");
        }
    }
}
