//! Errors of a session with PostgreSQL, and the sentences that report them.
//!
//! The library's errors and missing answers in, `StoreError` with cause and remedy out. Knows no
//! statements.
//!
//! Invariant: an error that waiting can mend becomes `StoreError::Unavailable`, any other
//! `StoreError::Unusable`.

use std::error::Error as _;
use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::time::Duration;

use tokio_postgres::error::{DbError, Severity, SqlState};

use super::tls::Fault;
use crate::store::StoreError;

/// Why a statement, or a connection attempt, failed.
#[derive(Debug)]
pub(super) enum SessionError {
    /// No answer within this time.
    Timeout(Duration),
    /// PostgreSQL refused a statement, or the connection ended.
    Error(tokio_postgres::Error),
    /// The commit was answered with a warning: it may not survive a failover.
    Warned(String),
    /// TLS is the reason.
    Tls(Fault),
    /// An error with its sentence.
    Explained(StoreError),
    /// No way to connect worked: the place and the error of each.
    Hosts(Vec<(String, Self)>),
}

impl From<StoreError> for SessionError {
    fn from(error: StoreError) -> Self {
        Self::Explained(error)
    }
}

impl SessionError {
    /// Whether PostgreSQL refused a statement and the session is still usable.
    pub(super) fn is_refusal(&self) -> bool {
        let Self::Error(error) = self else { return false };
        error.as_db_error().is_some_and(|error| error.parsed_severity() == Some(Severity::Error))
    }

    /// PostgreSQL's code, if it is from PostgreSQL.
    pub(super) fn code(&self) -> Option<&SqlState> {
        let Self::Error(error) = self else { return None };
        error.code()
    }

    /// Whether the transaction met another one and may succeed if it is tried again.
    pub(super) fn is_conflict(&self) -> bool {
        let codes = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED];
        self.code().is_some_and(|code| codes.contains(code))
    }

    /// Whether the same host may accept a connection with TLS if this was without, and vice versa.
    pub(super) fn is_about_tls(&self) -> bool {
        match self {
            Self::Tls(_) => true,
            // What pg_hba.conf refuses; it has lines for connections with and without TLS.
            Self::Error(error) => {
                error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
            }
            _ => false,
        }
    }

    /// The error while jobs are served: anything but damage may be temporary.
    pub(super) fn in_service(self, place: &str) -> StoreError {
        let error = match self {
            Self::Explained(error) => return error,
            Self::Hosts(hosts) => return of_each(hosts, Self::in_service),
            Self::Warned(warning) => {
                return StoreError::Unavailable(format!(
                    "{place} warned as it committed, which therefore counts as not done: {warning}"
                ));
            }
            Self::Tls(fault) => {
                let sentence = fault.sentence();
                return StoreError::Unavailable(format!("no connection to {place}: {sentence}"));
            }
            Self::Timeout(limit) => {
                let limit_s = limit.as_secs();
                return StoreError::Unavailable(format!(
                    "{place} didn't answer for {limit_s} s: look after its load, its disk and the \
                     network"
                ));
            }
            Self::Error(error) => error,
        };
        StoreError::Unavailable(match error.code() {
            Some(&SqlState::DATA_CORRUPTED | &SqlState::INDEX_CORRUPTED) => {
                let causes = with_causes(&error);
                return StoreError::Unusable(format!(
                    "{place} is damaged: {causes}; restore it from a backup"
                ));
            }
            Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => read_only(place),
            Some(&SqlState::DISK_FULL) => {
                format!("{place} has no space left on its disk: free some there")
            }
            Some(&SqlState::QUERY_CANCELED | &SqlState::LOCK_NOT_AVAILABLE) => {
                format!(
                    "{place} gave up on a statement that took too long: see who holds locks \
                         there, and whether its disk keeps up"
                )
            }
            Some(&SqlState::CANNOT_CONNECT_NOW) => {
                format!("{place} isn't ready: {}; wait until it is", with_causes(&error))
            }
            Some(&SqlState::TOO_MANY_CONNECTIONS) => format!(
                "{place} has no connection left: {}; raise max_connections there, or end sessions",
                with_causes(&error)
            ),
            Some(_) => format!(
                "{place} refused a statement: {}; its log has more about it",
                with_causes(&error)
            ),
            None => format!(
                "no connection to {place}: {}; see whether PostgreSQL runs there and the network \
                 is up",
                with_causes(&error)
            ),
        })
    }

    /// The error at the start: errors of the configuration are `Unusable`, with a remedy.
    pub(super) fn at_start(self, place: &str) -> StoreError {
        let error = match self {
            Self::Error(error) => error,
            Self::Hosts(hosts) => return of_each(hosts, Self::at_start),
            Self::Tls(fault) => {
                let sentence = fault.sentence();
                return StoreError::Unusable(format!("can't use {place}: {sentence}"));
            }
            Self::Timeout(limit) => {
                let limit_s = limit.as_secs();
                return StoreError::Unavailable(format!(
                    "{place} didn't answer for {limit_s} s; check the network and firewalls on the \
                     way, or correct host and port"
                ));
            }
            other => return other.in_service(place),
        };
        let causes = with_causes(&error);
        let remedy = match error.code() {
            Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
                "check the user, the password and the server's pg_hba.conf"
            }
            Some(&SqlState::INVALID_CATALOG_NAME) => {
                "create the database (createdb) or name another one"
            }
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                "grant the user CREATE and USAGE on the schema and all rights on the tables in it \
                 that it didn't create"
            }
            Some(&SqlState::INVALID_SCHEMA_NAME) => {
                "create a schema that is in the user's search_path"
            }
            Some(
                &SqlState::UNDEFINED_TABLE
                | &SqlState::UNDEFINED_COLUMN
                | &SqlState::UNDEFINED_FUNCTION,
            ) => {
                "the tables whose names begin with ringgear_ aren't what ringgear made: restore \
                 them from a backup, or drop all of them to start without jobs"
            }
            None if is_broken_connection(&error) => {
                let remedy = remedy_of_connection(&error);
                return StoreError::Unavailable(format!(
                    "no connection to {place}: {causes}; {remedy}"
                ));
            }
            // Reported by neither PostgreSQL nor the kernel, so the configuration is wrong.
            None => "check the connection string and what the server asks for",
            _ => return Self::Error(error).in_service(place),
        };
        StoreError::Unusable(format!("can't use {place}: {causes}; {remedy}"))
    }
}

/// The error of several hosts: `Unavailable` if that of one host is.
fn of_each(
    hosts: Vec<(String, SessionError)>,
    explain: impl Fn(SessionError, &str) -> StoreError,
) -> StoreError {
    let errors: Vec<StoreError> =
        hosts.into_iter().map(|(place, error)| explain(error, &place)).collect();
    let mut sentences: Vec<String> = errors.iter().map(ToString::to_string).collect();
    // One host may refuse each way to connect for the same reason.
    sentences.dedup();
    let sentence = sentences.join("; ");
    if errors.iter().any(|error| matches!(error, StoreError::Unavailable(_))) {
        StoreError::Unavailable(sentence)
    } else {
        StoreError::Unusable(sentence)
    }
}

pub(super) fn read_only(place: &str) -> String {
    format!("{place} is read-only: connect to the primary server")
}

/// What to do at the start about a server that wasn't reached.
fn remedy_of_connection(error: &tokio_postgres::Error) -> &'static str {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause.map(io::Error::kind) {
        Some(ErrorKind::ConnectionRefused | ErrorKind::NotFound) => {
            "start PostgreSQL there, have it listen on that address (listen_addresses), or correct \
             host and port"
        }
        Some(ErrorKind::PermissionDenied) => {
            "let the server's user into the folder of PostgreSQL's socket, or give a host"
        }
        Some(ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable) => {
            "check the network and firewalls on the way, or correct host and port"
        }
        _ => "check the host's name and the port, and that PostgreSQL is what answers there",
    }
}

fn is_broken_connection(error: &tokio_postgres::Error) -> bool {
    error.is_closed() || error.source().is_some_and(|cause| cause.is::<io::Error>())
}

/// An error with its causes; an error of PostgreSQL with its details.
pub(super) fn with_causes(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return message(error);
    }
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let _ = write!(text, ": {cause}");
        next = cause.source();
    }
    text
}

/// Message, detail and hint of PostgreSQL.
pub(super) fn message(said: &DbError) -> String {
    let mut text = said.message().to_owned();
    for more in [said.detail(), said.hint()].into_iter().flatten() {
        let _ = write!(text, " ({more})");
    }
    text
}
