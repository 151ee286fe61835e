//! A connection string and libpq's environment variables in, where and as whom to connect out.
//!
//! Takes what gearmand's `--libpq-conninfo` takes: `key=value` words or a `postgres://` address.
//! What it leaves open is filled from `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD` and `PGDATABASE`,
//! then from libpq's defaults. Knows no connection; the environment is given to it.
//!
//! Invariant: a string that asks for encryption is refused, not answered with an open connection.

use std::path::Path;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::store::StoreError;

/// How long one address may take to answer unless the string says otherwise (`connect_timeout`).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which the kernel asks whether the other side is still there, how often it asks
/// again, and how many times.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// Unacknowledged bytes older than this end the connection.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);
/// Where Debian's servers and libpq meet.
const SOCKET_FOLDER: &str = "/var/run/postgresql";
const PORT: u16 = 5432;

/// What the server's lists of sessions call this one.
const APPLICATION: &str = "ringgeard";

/// Reads `conninfo`; `variable` looks names up in the environment.
///
/// # Errors
/// `StoreError::Unusable` for text that isn't a connection string, and for `sslmode=require`.
pub(super) fn config(
    conninfo: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Config, StoreError> {
    let variable = |name| variable(name).filter(|value| !value.is_empty());
    let mut config: Config = conninfo.parse().map_err(|error| {
        StoreError::Unusable(format!(
            "the PostgreSQL connection string can't be read ({}): write it like \
             \"host=db.example dbname=jobs user=ringgear\"",
            super::session::with_causes(&error)
        ))
    })?;
    let wants_tls = config.get_ssl_mode() == SslMode::Require
        || variable("PGSSLMODE")
            .is_some_and(|mode| mode == "require" || mode.starts_with("verify"));
    if wants_tls {
        return Err(StoreError::Unusable(
            "this build can't encrypt its connection to PostgreSQL: use a Unix socket or a tunnel, \
             and leave sslmode=require out"
                .to_owned(),
        ));
    }
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        let hosts = variable("PGHOST").unwrap_or_else(|| {
            let local = if Path::new(SOCKET_FOLDER).is_dir() { SOCKET_FOLDER } else { "localhost" };
            local.to_owned()
        });
        for host in hosts.split(',') {
            config.host(host);
        }
    }
    if config.get_ports().is_empty()
        && let Some(ports) = variable("PGPORT")
    {
        for port in ports.split(',') {
            let port = port.trim().parse().map_err(|_| {
                StoreError::Unusable(format!(
                    "PGPORT says \"{port}\", which isn't a port: set it to a number such as {PORT}"
                ))
            })?;
            config.port(port);
        }
    }
    if config.get_user().is_none()
        && let Some(user) = variable("PGUSER")
    {
        config.user(user);
    }
    if config.get_password().is_none()
        && let Some(password) = variable("PGPASSWORD")
    {
        config.password(password);
    }
    if config.get_dbname().is_none()
        && let Some(name) = variable("PGDATABASE")
    {
        config.dbname(name);
    }
    if config.get_application_name().is_none() {
        config.application_name(APPLICATION);
    }
    if config.get_connect_timeout().is_none_or(Duration::is_zero) {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(TCP_USER_TIMEOUT);
    }
    config.keepalives_idle(KEEPALIVE_IDLE);
    config.keepalives_interval(KEEPALIVE_INTERVAL);
    config.keepalives_retries(KEEPALIVE_RETRIES);
    Ok(config)
}

/// The longest that connecting may take, every address tried.
pub(super) fn connect_limit(config: &Config) -> Duration {
    let addresses = config.get_hosts().len().max(config.get_hostaddrs().len()).max(1);
    let each = config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
    each.saturating_mul(u32::try_from(addresses).unwrap_or(u32::MAX))
}

/// Words for messages: the database and where it is, no secrets.
pub(super) fn place(config: &Config) -> String {
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    let hosts = if hosts.is_empty() {
        config.get_hostaddrs().iter().map(ToString::to_string).collect()
    } else {
        hosts
    };
    let port = config.get_ports().first().copied().unwrap_or(PORT);
    let name = config.get_dbname().or_else(|| config.get_user());
    let name = name.map_or_else(String::new, |name| format!("database \"{name}\" "));
    format!("PostgreSQL {name}at {} port {port}", hosts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    fn environment(name: &str) -> Option<String> {
        let value = match name {
            "PGHOST" => "db.example",
            "PGPORT" => "6543",
            "PGUSER" => "bob",
            "PGPASSWORD" => "pass word",
            "PGDATABASE" => "other",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn the_environment_fills_what_is_missing_and_nothing_else() {
        let full = "host=/run/pg port=5433 user=alice password=secret dbname=jobs";
        for text in [full, "postgres://alice:secret@%2Frun%2Fpg:5433/jobs"] {
            let config = config(text, environment).unwrap();
            assert_eq!(config.get_hosts(), [Host::Unix("/run/pg".into())]);
            assert_eq!(config.get_ports(), [5433]);
            assert_eq!(config.get_user(), Some("alice"));
            assert_eq!(config.get_password(), Some(&b"secret"[..]));
            assert_eq!(config.get_dbname(), Some("jobs"));
        }
        let config = config("", environment).unwrap();
        assert_eq!(config.get_hosts(), [Host::Tcp("db.example".into())]);
        assert_eq!(config.get_ports(), [6543]);
        assert_eq!(config.get_user(), Some("bob"));
        assert_eq!(config.get_password(), Some(&b"pass word"[..]));
        assert_eq!(config.get_dbname(), Some("other"));
        assert_eq!(place(&config), "PostgreSQL database \"other\" at db.example port 6543");
    }

    #[test]
    fn limits_are_set_unless_the_string_sets_them() {
        let unset = config("host=a,b dbname=x", nothing).unwrap();
        assert_eq!(unset.get_tcp_user_timeout(), Some(&TCP_USER_TIMEOUT));
        assert_eq!(connect_limit(&unset), CONNECT_TIMEOUT * 2);
        let text = "host=a connect_timeout=2 tcp_user_timeout=7";
        let set = config(text, nothing).unwrap();
        assert_eq!(set.get_tcp_user_timeout(), Some(&Duration::from_secs(7)));
        assert_eq!(connect_limit(&set), Duration::from_secs(2));
    }

    #[test]
    fn a_demand_for_encryption_is_refused() {
        let by_variable = |name: &str| (name == "PGSSLMODE").then(|| "verify-full".to_owned());
        for result in [config("host=a sslmode=require", nothing), config("host=a", by_variable)] {
            let error = result.unwrap_err();
            assert!(error.to_string().contains("can't encrypt"), "{error}");
        }
    }

    #[test]
    fn text_that_is_no_connection_string_is_refused_with_its_reason() {
        let error = config("host=a sslcert=b", nothing).unwrap_err();
        assert!(matches!(error, StoreError::Unusable(_)));
        assert!(error.to_string().contains("sslcert"), "{error}");
        let bad_port = |name: &str| (name == "PGPORT").then(|| "5432x".to_owned());
        assert!(config("", bad_port).unwrap_err().to_string().contains("5432x"));
    }
}
