//! Options that have no effect, or another one than in gearmand 1.1: options in, sentences out.
//!
//! Each sentence names the option and the reason, for a line of the log at the start. Options that
//! can't be honoured are refused by `settings`.
//!
//! Invariant: an option that was given is honoured, refused, or has a sentence here.

use super::options::{LEASE_SECONDS, METRICS_FUNCTIONS, Options};
use crate::store::open::StoreChoice;
use crate::wire::tls::ClientCertificates;

impl Options {
    /// A sentence for each option that was given without effect, and for `--job-retries 0`.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let mut idle = |is_given: bool, name: &str, reason: &str| {
            if is_given {
                remarks.push(format!("--{name} has no effect: {reason}"));
            }
        };
        for ignored in &self.ignored {
            idle(true, ignored.name, ignored.reason);
        }
        idle(self.is_port_idle, "port", "each --listen has a port of its own, or needs none");
        let has_no_path = !self.listens_on_unix_sockets();
        let no_path = "no --listen or --http is a Unix socket, as in unix:/PATH";
        idle(has_no_path && self.unix_mode.is_some(), "unix-mode", no_path);
        idle(has_no_path && self.unix_owner.is_some(), "unix-owner", no_path);
        let has_buckets = self.hashtable_buckets.is_some();
        idle(has_buckets, "hashtable-buckets", "hash tables grow by themselves");
        idle(self.round_robin, "round-robin", "a worker's functions always take turns");
        idle(self.keepalive, "keepalive", "silent peers are always probed");
        let has_port = self.http_port.is_some() && self.protocol.is_none();
        idle(has_port, "http-port", "it takes -r http");
        self.store_remarks(&mut idle);
        let is_plain = !self.speaks_tls();
        for (is_given, name) in [
            (self.ssl_certificate.is_some(), "ssl-certificate"),
            (self.ssl_key.is_some(), "ssl-key"),
            (self.ssl_ca_file.is_some(), "ssl-ca-file"),
            (!self.ssl_crl_file.is_empty(), "ssl-crl-file"),
            (self.ssl_client_certificates != ClientCertificates::Off, "ssl-client-certificates"),
        ] {
            let reason = "no listener speaks TLS: give --ssl, or --listen or --http tls:HOST:PORT";
            idle(is_plain && is_given, name, reason);
        }
        idle(
            !is_plain && self.ssl_ca_file.is_some() && !self.asks_for_certificates(),
            "ssl-ca-file",
            "clients aren't asked for certificates unless --ssl-client-certificates says so",
        );
        let has_no_http = !self.serves_http();
        for (is_given, name) in [
            (self.http_insecure, "http-insecure"),
            (!self.http_host.is_empty(), "http-host"),
            (self.http_token_file.is_some(), "http-token-file"),
            (self.metrics_functions != METRICS_FUNCTIONS, "metrics-functions"),
            (self.ready_without_store, "ready-without-store"),
        ] {
            idle(has_no_http && is_given, name, "there is no HTTP without --http HOST:PORT");
        }
        let has_no_store = matches!(self.store_choice(), Ok(None));
        idle(
            !has_no_http && has_no_store && self.ready_without_store,
            "ready-without-store",
            "jobs are in memory only, unless --store is given",
        );
        let is_single = self.threads.is_some_and(|threads| threads <= 1);
        idle(is_single && self.no_offload, "no-offload", "it takes two --threads and more");
        if self.job_retries == 0 {
            remarks.push(
                "--job-retries 0 fails a job when its first worker is lost, as in gearmand 2.0; \
                 gearmand 1.1 took 0 for no limit, which is -1 here and the default"
                    .to_owned(),
            );
        }
        remarks
    }

    fn store_remarks(&self, idle: &mut impl FnMut(bool, &str, &str)) {
        let choice = self.store_choice().ok().flatten();
        let is_sqlite = matches!(choice, Some(StoreChoice::Sqlite { .. }));
        let is_postgres = matches!(choice, Some(StoreChoice::Postgres { .. }));
        let is_type = |name: &str| self.queue_type.eq_ignore_ascii_case(name);
        idle(
            self.libsqlite3_db.is_some() && !is_type("libsqlite3"),
            "libsqlite3-db",
            "it takes -q libsqlite3, or give --store sqlite:PATH instead",
        );
        idle(
            self.libpq_conninfo.is_some() && !is_type("postgres"),
            "libpq-conninfo",
            "it takes -q Postgres, or give --store postgres://USER@HOST/DATABASE instead",
        );
        idle(
            self.libsqlite3_table.is_some() && !is_sqlite,
            "libsqlite3-table",
            "it takes a SQLite store, as with --store sqlite:PATH",
        );
        idle(
            self.libpq_table.is_some() && !is_postgres,
            "libpq-table",
            "it takes a PostgreSQL store, as with --store postgres://USER@HOST/DATABASE",
        );
        for (is_given, name) in
            [(self.lease != LEASE_SECONDS, "lease"), (self.advertise.is_some(), "advertise")]
        {
            let reason =
                "it takes a PostgreSQL store, as with --store postgres://USER@HOST/DATABASE";
            idle(is_given && !is_postgres, name, reason);
        }
        idle(
            self.store_timeout > 0 && choice.is_none(),
            "store-timeout",
            "jobs are in memory only, unless --store is given",
        );
    }
}
