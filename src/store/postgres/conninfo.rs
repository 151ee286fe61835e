//! Connection strings: libpq's words and environment variables in, hosts to connect to out.
//!
//! Reads what gearmand's `--libpq-conninfo` reads: `key=value` words or a `postgres://` address.
//! Missing values come from `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD`, `PGDATABASE` and the
//! variables about TLS, then from libpq's defaults. Knows no connection; the environment is an
//! argument.
//!
//! Invariant: what a string says about encryption holds for each of its hosts but Unix sockets.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::tls::Tls;
use super::words::Words;
use crate::store::StoreError;
use crate::store::needs::Needs;

/// Time limit for connecting to one address, unless the string has a `connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle time before the first keepalive probe, time between probes, and their number.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// Time after which unacknowledged bytes end the connection.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);
/// Folder of the Unix sockets on Debian.
const SOCKET_FOLDER: &str = "/var/run/postgresql";
const PORT: u16 = 5432;

/// Name of the sessions in PostgreSQL's lists.
const APPLICATION: &str = "ringgeard";

/// The hosts of a connection string in order, at least one; `variable` returns environment
/// variables. Each gets a configuration of its own, as the library reports neither which host it
/// chose nor why it skipped the others.
///
/// # Errors
/// `StoreError::Unusable` for text that isn't a connection string, and for values that contradict
/// each other.
pub(super) fn targets(
    conninfo: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Target>, StoreError> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    let words = Words::read(conninfo);
    let config = config(&words.rest, variable)?;
    let tls = Tls::read(&words, variable, &config)?;
    let count = config.get_hosts().len().max(config.get_hostaddrs().len());
    Ok((0..count).map(|at| target(&config, &tls, at)).collect())
}

/// The configuration of all hosts, without the words about TLS.
fn config(conninfo: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Config, StoreError> {
    let mut config: Config = conninfo.parse().map_err(|error| {
        StoreError::Unusable(format!(
            "the PostgreSQL connection string can't be read ({}): write it like \
             \"host=db.example dbname=jobs user=ringgear\"",
            super::error::with_causes(&error)
        ))
    })?;
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
    check_counts(&config)?;
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

/// One of the hosts of a connection string.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Configuration with this host only.
    pub(super) config: Config,
    /// How the connection is encrypted.
    pub(super) tls: Tls,
    /// Database, host and port for messages; no secrets.
    pub(super) place: String,
}

impl Target {
    /// Time limit for connecting.
    pub(super) fn connect_limit(&self) -> Duration {
        self.config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT)
    }

    /// Adds what connecting to this host takes. Unix sockets take nothing.
    pub(super) fn add_needs(&self, needs: &mut Needs) {
        let name = match (self.config.get_hosts().first(), self.config.get_hostaddrs().first()) {
            (Some(Host::Unix(_)), None) => return,
            (_, Some(_)) => None,
            (Some(Host::Tcp(name)), None) => Some(name),
            (None, None) => None,
        };
        needs.ports.push(self.config.get_ports().first().copied().unwrap_or(PORT));
        needs.looks_up_hosts |= name.is_some_and(|name| name.parse::<IpAddr>().is_err());
        self.tls.add_needs(needs);
    }

    /// Checks the files of certificates and keys.
    pub(super) fn check_files(&self) -> Result<(), StoreError> {
        if self.tls == Tls::NONE {
            return Ok(());
        }
        self.tls.connector().map(drop).map_err(|fault| {
            StoreError::Unusable(format!("can't use {}: {}", self.place, fault.sentence()))
        })
    }
}

fn target(config: &Config, tls: &Tls, at: usize) -> Target {
    let ports = config.get_ports();
    let port = ports.get(at).or_else(|| ports.first()).copied();
    let mut alone = without_hosts(config);
    let mut name = String::new();
    let mut tls = tls.clone();
    let address = config.get_hostaddrs().get(at);
    if let Some(&address) = address {
        alone.hostaddr(address);
        name = address.to_string();
    }
    match (config.get_hosts().get(at), address) {
        (Some(Host::Tcp(host)), _) => {
            alone.host(host);
            name.clone_from(host);
        }
        (Some(Host::Unix(path)), None) => {
            alone.host_path(path);
            name = path.display().to_string();
            // As in libpq: PostgreSQL has no TLS there, and no network needs it.
            tls = Tls::NONE;
        }
        // The library looks for the certificate's name in the host.
        (_, Some(_)) => {
            alone.host(&name);
        }
        (None, None) => {}
    }
    if let Some(port) = port {
        alone.port(port);
    }
    let database = config.get_dbname().or_else(|| config.get_user());
    let database = database.map_or_else(String::new, |name| format!("database \"{name}\" "));
    let port = port.unwrap_or(PORT);
    Target { config: alone, tls, place: format!("PostgreSQL {database}at {name} port {port}") }
}

/// A copy without hosts, which the library can add to a `Config`, but not remove.
fn without_hosts(config: &Config) -> Config {
    let mut copy = Config::new();
    if let Some(user) = config.get_user() {
        copy.user(user);
    }
    if let Some(password) = config.get_password() {
        copy.password(password);
    }
    if let Some(name) = config.get_dbname() {
        copy.dbname(name);
    }
    if let Some(options) = config.get_options() {
        copy.options(options);
    }
    if let Some(name) = config.get_application_name() {
        copy.application_name(name);
    }
    if let Some(&timeout) = config.get_connect_timeout() {
        copy.connect_timeout(timeout);
    }
    if let Some(&timeout) = config.get_tcp_user_timeout() {
        copy.tcp_user_timeout(timeout);
    }
    if let Some(interval) = config.get_keepalives_interval() {
        copy.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        copy.keepalives_retries(retries);
    }
    copy.keepalives(config.get_keepalives());
    copy.keepalives_idle(config.get_keepalives_idle());
    copy.ssl_negotiation(config.get_ssl_negotiation());
    copy.channel_binding(config.get_channel_binding());
    copy.target_session_attrs(config.get_target_session_attrs());
    copy.load_balance_hosts(config.get_load_balance_hosts());
    copy
}

/// Refuses numbers of hosts, addresses and ports that don't match.
fn check_counts(config: &Config) -> Result<(), StoreError> {
    let (hosts, addresses) = (config.get_hosts().len(), config.get_hostaddrs().len());
    let (count, ports) = (hosts.max(addresses), config.get_ports().len());
    let more = if hosts > 0 && addresses > 0 && hosts != addresses {
        format!("{addresses} in hostaddr")
    } else if ports > 1 && ports != count {
        format!("{ports} ports")
    } else {
        return Ok(());
    };
    Err(StoreError::Unusable(format!(
        "the PostgreSQL connection string lists {count} hosts and {more}: list as many of each, or \
         one port for all hosts"
    )))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::tls::Mode;
    use super::*;

    fn all(conninfo: &str) -> Config {
        config(conninfo, environment).unwrap()
    }

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn ports_names_and_files_are_needed_but_for_unix_sockets() {
        let needs = |conninfo: &str| {
            let mut needs = Needs::default();
            let targets = targets(conninfo, nothing).unwrap();
            targets.iter().for_each(|target| target.add_needs(&mut needs));
            needs
        };
        assert_eq!(needs("host=/run/postgresql sslrootcert=/ca.pem"), Needs::default());
        let ports = |ports: &[u16]| Needs { ports: ports.to_vec(), ..Needs::default() };
        assert_eq!(needs("host=10.0.0.1"), ports(&[5432]));
        assert_eq!(needs("host=::1,10.0.0.1 port=1,2"), ports(&[1, 2]));
        assert_eq!(needs("host=db.example hostaddr=10.0.0.1 port=3"), ports(&[3]));
        let named = needs("host=db.example sslrootcert=/ca.pem sslcert=/c.pem sslkey=/c.key");
        assert_eq!(named.read, ["/ca.pem", "/c.pem", "/c.key"].map(PathBuf::from));
        assert!(named.looks_up_hosts && !named.reads_system_roots);
        assert!(needs("host=db.example sslrootcert=system").reads_system_roots);
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
            let config = all(text);
            assert_eq!(config.get_hosts(), [Host::Unix("/run/pg".into())]);
            assert_eq!(config.get_ports(), [5433]);
            assert_eq!(config.get_user(), Some("alice"));
            assert_eq!(config.get_password(), Some(&b"secret"[..]));
            assert_eq!(config.get_dbname(), Some("jobs"));
        }
        let config = all("");
        assert_eq!(config.get_hosts(), [Host::Tcp("db.example".into())]);
        assert_eq!(config.get_ports(), [6543]);
        assert_eq!(config.get_user(), Some("bob"));
        assert_eq!(config.get_password(), Some(&b"pass word"[..]));
        assert_eq!(config.get_dbname(), Some("other"));
        let targets = targets("", environment).unwrap();
        let [target] = &targets[..] else { panic!("one host") };
        assert_eq!(target.place, "PostgreSQL database \"other\" at db.example port 6543");
        assert!(target.config == config);
    }

    #[test]
    fn each_host_is_a_target_with_everything_else_that_was_said() {
        let more = "user=u password=p dbname=jobs options=o application_name=n connect_timeout=3 \
                    tcp_user_timeout=4 keepalives=0 sslnegotiation=postgres \
                    channel_binding=disable target_session_attrs=read-write \
                    load_balance_hosts=random";
        let targets = targets(&format!("host=a,/run/pg port=1,2 {more}"), nothing).unwrap();
        let places: Vec<&str> = targets.iter().map(|target| &*target.place).collect();
        assert_eq!(
            places,
            [
                "PostgreSQL database \"jobs\" at a port 1",
                "PostgreSQL database \"jobs\" at /run/pg port 2"
            ]
        );
        for (target, host) in targets.iter().zip(["host=a port=1", "host=/run/pg port=2"]) {
            assert!(target.config == config(&format!("{host} {more}"), nothing).unwrap());
        }
    }

    #[test]
    fn hosts_and_ports_fit_together() {
        let places = |text| -> Vec<String> {
            targets(text, nothing).unwrap().into_iter().map(|target| target.place).collect()
        };
        let at = |host: &str| format!("PostgreSQL database \"x\" at {host}");
        let [one, other] = [at("a port 7"), at("b port 7")];
        assert_eq!(places("host=a,b port=7 dbname=x"), [one, other]);
        assert_eq!(places("hostaddr=127.0.0.1 dbname=x"), [at("127.0.0.1 port 5432")]);
        assert_eq!(places("host=a hostaddr=127.0.0.1 dbname=x"), [at("a port 5432")]);
        for text in ["host=a,b port=1,2,3", "host=a,b hostaddr=127.0.0.1"] {
            let error = config(text, nothing).unwrap_err();
            assert!(error.to_string().contains("lists 2 hosts and"), "{error}");
        }
    }

    #[test]
    fn limits_are_set_unless_the_string_sets_them() {
        let unset = &targets("host=a,b dbname=x", nothing).unwrap()[1];
        assert_eq!(unset.config.get_tcp_user_timeout(), Some(&TCP_USER_TIMEOUT));
        assert_eq!(unset.connect_limit(), CONNECT_TIMEOUT);
        let text = "host=a connect_timeout=2 tcp_user_timeout=7";
        let set = &targets(text, nothing).unwrap()[0];
        assert_eq!(set.config.get_tcp_user_timeout(), Some(&Duration::from_secs(7)));
        assert_eq!(set.connect_limit(), Duration::from_secs(2));
    }

    #[test]
    fn each_host_is_encrypted_but_unix_sockets() {
        let by_variable = |name: &str| match name {
            "PGSSLMODE" => Some("require".to_owned()),
            "PGHOST" => Some("a,/run/pg".to_owned()),
            _ => None,
        };
        let modes = |text| -> Vec<Mode> {
            targets(text, by_variable).unwrap().iter().map(|target| target.tls.mode).collect()
        };
        assert_eq!(modes(""), [Mode::Require, Mode::Disable]);
        assert_eq!(modes("host=/run/pg,b sslmode=allow"), [Mode::Disable, Mode::Allow]);
        assert_eq!(modes("postgres://a,%2Frun%2Fpg/x"), [Mode::Require, Mode::Disable]);
        assert_eq!(modes("host=a,b sslmode=disable"), [Mode::Disable, Mode::Disable]);
        assert_eq!(modes("host=/run/pg hostaddr=127.0.0.1"), [Mode::Require]);
        // Without a name the certificate has to have the address.
        let [target] = &targets("hostaddr=::1", by_variable).unwrap()[..] else { panic!() };
        assert_eq!(target.config.get_hosts(), [Host::Tcp("::1".to_owned())]);
    }

    #[test]
    fn text_that_is_no_connection_string_is_refused_with_its_reason() {
        let error = targets("host=a sslsni=b", nothing).unwrap_err();
        assert!(matches!(error, StoreError::Unusable(_)));
        assert!(error.to_string().contains("sslsni"), "{error}");
        let bad_port = |name: &str| (name == "PGPORT").then(|| "5432x".to_owned());
        assert!(config("", bad_port).unwrap_err().to_string().contains("5432x"));
    }
}
