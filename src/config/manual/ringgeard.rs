//! The manual page of `ringgeard`: its options in, and the texts beside them out.
//!
//! Knows neither roff nor where the files go.
//!
//! Invariant: every variable, file, signal and exit code of the server is named.

use super::{Manual, Part, Section};
use crate::config::options::command;

const DESCRIPTION: &[&str] = &[
    "ringgeard takes jobs from Gearman clients and hands them to Gearman workers. Clients, workers \
     and tools of gearmand work with it unchanged. Unless told otherwise it listens on loopback, \
     port 4730, stays in the foreground, logs to standard error, and keeps jobs in memory.",
    "The command line wins over the configuration file, the file over the environment, and that \
     over defaults. A configuration file is TOML with the long names of options as keys; \
     --print-config prints one. Sizes take the suffixes k, m and g, in powers of 1024.",
];

const ENVIRONMENT: &[Part<'_>] = &[
    Part::Item(
        "RINGGEARD_CONFIG_FILE",
        "The configuration file, unless --config-file or @FILE names one. Empty counts as unset.",
    ),
    Part::Item("GEARMAND_PORT", "The port, unless --port or the configuration file gives it."),
    Part::Item(
        "GEARMAND_SERVER_PEM, GEARMAND_SERVER_KEY, GEARMAND_CA_CERTIFICATE",
        "Files of TLS, unless --ssl-certificate, --ssl-key and --ssl-ca-file name them.",
    ),
    Part::Item(
        "PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE, PGSSLMODE, PGSSLROOTCERT, PGSSLCERT, \
         PGSSLKEY, PGSSLCRL",
        "What the address of a store on PostgreSQL leaves out, as with libpq.",
    ),
    Part::Item(
        "LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES",
        "Sockets to listen on, as systemd passes them.",
    ),
];

const FILES: &[Part<'_>] = &[
    Part::Text("None is read or written unless an option or a variable names it, but for these:"),
    Part::Item(
        "/etc/ringgear/tls/server.pem, /etc/ringgear/tls/server.key",
        "Certificate and key of TLS, with --ssl or a tls: listener.",
    ),
    Part::Item("/etc/services", "Names of ports."),
    Part::Text("What packages install beside:"),
    Part::Item("/etc/ringgear/ringgeard.toml", "The configuration file of the service."),
    Part::Item("/etc/default/ringgeard", "Further arguments of the service, in PARAMS."),
    Part::Item("/var/lib/ringgear", "The folder for the store, of the user ringgear."),
];

const SIGNALS: &[Part<'_>] = &[
    Part::Item(
        "SIGTERM, SIGINT",
        "Stop: nothing more is read, what can be sent is sent for half a second, and what the \
         store was given is written for up to five.",
    ),
    Part::Item(
        "SIGUSR1",
        "Drain: submissions are refused, workers are served as ever, and the server ends when no \
         job is left. With a store, stored jobs that don't run are left to the next server. With \
         --cluster no submission is refused: what isn't stored ends its connection instead.",
    ),
    Part::Item(
        "SIGHUP",
        "Reopen the log file, and read the access list, the files of TLS, the tokens and the \
         functions file anew. Where a file has a mistake, the old one stays.",
    ),
    Part::Item("SIGUSR2", "Log one level more; after TRACE as much as at the start."),
];

const EXIT_STATUS: &[Part<'_>] = &[
    Part::Item("0", "The server was stopped by a signal, or printed what it was asked for."),
    Part::Item(
        "1",
        "It couldn't start or go on: one sentence on standard error says why, and what to do. With \
         --access-check: refused.",
    ),
    Part::Item("2", "With --access-check: the access list couldn't be asked."),
];

const SEE_ALSO: &[Part<'_>] = &[Part::Text(
    "ringgear-manager(8), gearman(1), gearadmin(1), gearmand(8), systemd.socket(5), \
     landlock(7)",
)];

const SECTIONS: &[Section<'_>] = &[
    Section { title: "ENVIRONMENT", parts: ENVIRONMENT },
    Section { title: "FILES", parts: FILES },
    Section { title: "SIGNALS", parts: SIGNALS },
    Section { title: "EXIT STATUS", parts: EXIT_STATUS },
    Section { title: "SEE ALSO", parts: SEE_ALSO },
];

/// The manual of the server.
#[must_use]
pub fn ringgeard() -> Manual<'static> {
    Manual {
        name: "ringgeard",
        command: command(),
        version: env!("CARGO_PKG_VERSION"),
        usage: "[OPTIONS] [@FILE]",
        description: DESCRIPTION,
        sections: SECTIONS,
    }
}
