//! Values of options: a word in, a number, size, port, policy or store out, or what to write.
//!
//! An error completes the sentence "OPTION can't be VALUE: …", so it says what may be given. Knows
//! neither the options nor where a word was written.
//!
//! Invariant: an error contains no password.

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::engine::function::Durability;
use crate::protocol::{duration, size};
use crate::store::open::StoreChoice;
use crate::wire::tls::{ClientCertificates, Versions};

/// Smallest `--memory-max` but for 0.
const MEMORY_BYTES_MIN: u64 = 1 << 20;
/// Most similar words are suggested from here on; clap's own threshold.
const SIMILARITY_MIN: f64 = 0.7;
/// What is told of stores that this build doesn't have.
const INSTEAD: &str = "take sqlite:PATH or postgres://USER@HOST/DATABASE";
/// The page of the manual about gearmand's queues.
pub(super) const MIGRATION_PAGE: &str = "docs/coming-from-gearmand.md";

/// A parser of whole numbers from `low` to `high`.
pub(super) fn number<T: TryFrom<i64>>(
    low: i64,
    high: i64,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| (low..=high).contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| format!("give a whole number from {low} to {high}"))
    }
}

/// A parser of `--ssl-client-certificates`.
pub(super) fn client_certificates() -> impl TypedValueParser<Value = ClientCertificates> {
    PossibleValuesParser::new(["off", "optional", "required"]).map(|word| match &*word {
        "required" => ClientCertificates::Required,
        "optional" => ClientCertificates::Optional,
        _ => ClientCertificates::Off,
    })
}

/// A parser of `--ssl-min-version`.
pub(super) fn tls_versions() -> impl TypedValueParser<Value = Versions> {
    PossibleValuesParser::new(["1.2", "1.3"]).map(|word| match &*word {
        "1.3" => Versions::From13,
        _ => Versions::From12,
    })
}

/// Parses a whole number of at least 1.
pub(super) fn count(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|&number| number > 0);
    number.ok_or_else(|| "give a whole number of at least 1".to_owned())
}

/// A parser of a number of bytes of at least `least`, whose text is `name`.
pub(super) fn bytes_from(
    least: u64,
    name: &'static str,
) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync + 'static {
    move |text| match size::parse(text)? {
        bytes if bytes < least => Err(format!("give at least {name}")),
        bytes => Ok(bytes),
    }
}

/// Parses a duration, in milliseconds.
pub(super) fn duration(text: &str) -> Result<u64, String> {
    match duration::parse(text)? {
        0 => Err("give at least 1ms".to_owned()),
        ms if ms > duration::MS_MAX => {
            Err(format!("give at most {}", duration::text(duration::MS_MAX)))
        }
        ms => Ok(ms),
    }
}

/// Parses `--memory-max`.
pub(super) fn memory(text: &str) -> Result<u64, String> {
    match size::parse(text)? {
        1..MEMORY_BYTES_MIN => Err("that leaves no room for jobs, so give at least 1m, 0 for no \
                                    limit, or leave it out for three quarters of the host's memory"
            .to_owned()),
        bytes => Ok(bytes),
    }
}

/// Checks a port for getaddrinfo(3), which would accept any number and use its low 16 bits.
pub(super) fn port(text: &str) -> Result<String, String> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_+.*".contains(&byte);
    let has_letter = text.bytes().any(|byte| byte.is_ascii_alphabetic());
    if text.parse::<u16>().is_ok() || has_letter && text.bytes().all(is_name) {
        return Ok(text.to_owned());
    }
    Err("give a number from 0 to 65535, or a name of /etc/services".to_owned())
}

/// Parses permissions of a file, in octal digits.
pub(super) fn file_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|&mode| mode <= 0o777);
    mode.ok_or_else(|| "give three octal digits, as in 660".to_owned())
}

/// Checks `USER[:GROUP]`.
pub(super) fn owner(text: &str) -> Result<String, String> {
    match text.split(':').collect::<Vec<_>>()[..] {
        ["", ..] | [_, ""] | [_, _, _, ..] => Err("give USER, or USER:GROUP".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// Parses `[FUNCTION=]POLICY`.
pub(super) fn durability(text: &str) -> Result<(Option<String>, Durability), String> {
    let (function, policy) = match text.rsplit_once('=') {
        Some((function, policy)) => (Some(function.to_owned()), policy),
        None => (None, text),
    };
    let durability = match policy {
        "none" => Durability::None,
        "async" => Durability::Async,
        "fsync" => Durability::Fsync,
        _ => {
            let usage = "give none, async or fsync, for a single function as in FUNCTION=async";
            return Err(usage.to_owned());
        }
    };
    Ok((function, durability))
}

/// Checks `@FILE`, another way to write `--config-file FILE`.
pub(super) fn at_file(text: &str) -> Result<String, String> {
    let path = text.strip_prefix('@').filter(|path| !path.is_empty());
    path.map(str::to_owned).ok_or_else(String::new)
}

/// Parses the address of a store.
pub(super) fn store(text: &str) -> Result<StoreChoice, String> {
    let is_scheme = |scheme: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        !scheme.is_empty() && scheme.bytes().all(is_plain)
    };
    let Some((scheme, rest)) = text.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) else {
        return Err(without_scheme(text));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "sqlite" | "sqlite3" => sqlite(rest),
        "postgres" | "postgresql" => postgres(text, rest),
        "mysql" | "mariadb" | "libdrizzle" | "drizzle" => Err(format!(
            "this build has no MySQL store, so {INSTEAD}, and carry a MySQL queue over as \
             {MIGRATION_PAGE} says"
        )),
        "redis" | "rediss" | "memcached" | "memcache" | "mongodb" => {
            Err(format!("this build has no {scheme} store, so {INSTEAD}"))
        }
        "file" => Err(format!("write sqlite:{}", rest.strip_prefix("//").unwrap_or(rest))),
        other => match similar(other, ["sqlite", "postgres", "postgresql"]) {
            Some(meant) => Err(format!("there is no \"{scheme}\", did you mean {meant}:?")),
            None => Err(format!("there is no \"{scheme}\" store, so {INSTEAD}")),
        },
    }
}

fn without_scheme(text: &str) -> String {
    if text.is_empty() {
        format!("{INSTEAD}, or leave --store out for jobs in memory only")
    } else if ["host=", "hostaddr=", "dbname=", "user="].iter().any(|word| text.contains(word)) {
        "write postgres://USER@HOST/DATABASE, or give libpq's words to --libpq-conninfo, with -q \
         Postgres"
            .to_owned()
    } else {
        format!("write sqlite:{text} for a file, or postgres://USER@HOST/DATABASE")
    }
}

fn sqlite(path: &str) -> Result<StoreChoice, String> {
    let path = match path.strip_prefix("//") {
        // As in sqlite:///var/lib/jobs.db, which other programs take.
        Some(path) if path.starts_with('/') => path,
        Some(path) => return Err(format!("write sqlite:{path}, as no host has a place there")),
        None => path,
    };
    match path {
        "" => Err("name the file, as in sqlite:/var/lib/ringgear/jobs.db".to_owned()),
        ":memory:" => Err("that keeps nothing, so leave --store out for jobs in memory only, or \
                           name a file, as in sqlite:/var/lib/ringgear/jobs.db"
            .to_owned()),
        path => Ok(StoreChoice::Sqlite { path: path.into(), table: None }),
    }
}

fn postgres(address: &str, rest: &str) -> Result<StoreChoice, String> {
    let Some(rest) = rest.strip_prefix("//") else {
        return Err("write postgres://USER@HOST/DATABASE, with two slashes".to_owned());
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.matches('@').count() > 1 {
        return Err("write an @ in the user's name or password as %40".to_owned());
    }
    Ok(StoreChoice::Postgres { conninfo: address.to_owned(), table: None })
}

/// The word that is most similar to `word`, if it is similar enough to be meant.
pub(super) fn similar<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let likeness = |other: &str| strsim::jaro_winkler(&word, &other.to_ascii_lowercase());
    let rated = words.into_iter().map(|other| (other, likeness(other)));
    let best = rated.max_by(|left, right| left.1.total_cmp(&right.1));
    best.filter(|&(_, likeness)| likeness > SIMILARITY_MIN).map(|(other, _)| other)
}

/// The value of an option without what may be a password.
pub(super) fn shown(option: &str, value: &str) -> String {
    if option.ends_with("password") { "…".to_owned() } else { without_password(value) }
}

/// The text with what may be a password left out: of an address, and of libpq's words.
pub(super) fn without_password(text: &str) -> String {
    if let Some((scheme, rest)) = text.split_once("://")
        && let Some((_, host)) = rest.rsplit_once('@')
    {
        return format!("{scheme}://…@{host}");
    }
    match text.split_once("password=") {
        Some((before, _)) => format!("{before}password=…"),
        None => text.to_owned(),
    }
}
