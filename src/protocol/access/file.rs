//! The file of an access list: its text in, the list or the place of a mistake out.
//!
//! TOML with a table `[[rule]]` for each rule. A mistake names its line, and what was meant. Knows
//! no files and no options.
//!
//! Invariant: a file with anything that it doesn't understand gives no list.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use toml::de::{DeTable, DeValue};

use super::list::{AccessList, RULES_MAX};
use super::right::{Right, Rights};
use super::rule::{CertificatePattern, Rule, UserPattern, Who};
use crate::engine::glob::Glob;
use crate::protocol::toml_tables::{
    self, Misplaced, Mistake, Value, known, line, list, quoted, sorted, text,
};

/// Most patterns of a rule, of all its keys together.
const PATTERNS_MAX: usize = 64;

/// The list to begin with: this host may do everything, and no other peer anything.
pub const STARTING_LIST: &str = include_str!("starting_list.toml");

/// What the rest of the configuration allows a list to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// A TLS listener asks its peers for certificates.
    pub asks_for_certificates: bool,
    /// HTTP clients may show tokens.
    pub has_tokens: bool,
}

/// Reads a list.
///
/// # Errors
/// The first mistake.
pub fn parse(text: &str, conditions: Conditions) -> Result<AccessList, Mistake> {
    toml_tables::read(text, "list", |table| rules(text, table, conditions)).map(AccessList::new)
}

fn rules(text: &str, table: &DeTable<'_>, conditions: Conditions) -> Result<Vec<Rule>, Misplaced> {
    let mut rules = Vec::new();
    for (key, value) in sorted(table) {
        known(key, "rule", &["rule"])?;
        let DeValue::Array(tables) = value.get_ref() else {
            return Err((key.span().start, "write rules as tables: [[rule]]".to_owned()));
        };
        for table in tables {
            let DeValue::Table(fields) = table.get_ref() else {
                return Err((table.span().start, "write rules as tables: [[rule]]".to_owned()));
            };
            let at = table.span().start;
            if rules.len() == RULES_MAX {
                return Err((at, format!("a list has at most {RULES_MAX} rules: merge some")));
            }
            rules.push(rule(line(text, at), at, fields, conditions)?);
        }
    }
    Ok(rules)
}

fn rule(
    line: usize,
    at: usize,
    fields: &DeTable<'_>,
    conditions: Conditions,
) -> Result<Rule, Misplaced> {
    let (mut given, mut granted, mut functions) = (None, None, None);
    for (key, value) in sorted(fields) {
        known(key, "a rule", &["who", "may", "may-not", "functions"])?;
        let start = key.span().start;
        match key.get_ref().as_ref() {
            "who" => given = Some(who(value, conditions)?),
            "functions" => functions = Some(globs(value)?),
            name => {
                if granted.is_some() {
                    let sentence = "a rule has either may or may-not: make it two rules";
                    return Err((start, sentence.to_owned()));
                }
                granted = Some((name == "may", rights(name, value)?));
            }
        }
    }
    let Some(who) = given else {
        return Err((at, "the rule has no who: who = {} stands for all peers".to_owned()));
    };
    let Some((allows, rights)) = granted else {
        let sentence = "the rule has neither may nor may-not: may = [\"submit\"] allows, for \
                        instance";
        return Err((at, sentence.to_owned()));
    };
    let Who { network, certificate, user, listener, token } = &who;
    let of_who = network.len() + certificate.len() + user.len() + listener.len() + token.len();
    let patterns = of_who + functions.as_ref().map_or(0, Vec::len);
    if patterns > PATTERNS_MAX {
        return Err((
            at,
            format!("the rule has {patterns} patterns, at most {PATTERNS_MAX}: make it several"),
        ));
    }
    let functions = functions.filter(|globs| !globs.iter().any(Glob::matches_all));
    Ok(Rule { line, who, allows, rights, functions })
}

fn rights(name: &str, value: &Value<'_>) -> Result<Rights, Misplaced> {
    let right = |value: &Value<'_>| {
        let text = text(name, value)?;
        Right::named(text).ok_or_else(|| {
            let all = Right::ALL.map(Right::name).join(", ");
            (value.span().start, format!("unknown right {}: {all}", quoted(text)))
        })
    };
    list(name, value, "[\"submit\"]")?.iter().map(right).collect()
}

fn globs(value: &Value<'_>) -> Result<Vec<Glob>, Misplaced> {
    let values = list("functions", value, "[\"resize\", \"mail-*\"]")?;
    values.iter().map(|value| glob(value, text("functions", value)?)).collect()
}

fn glob(value: &Value<'_>, pattern: &str) -> Result<Glob, Misplaced> {
    Glob::new(pattern).map_err(|error| (value.span().start, format!("{} {error}", quoted(pattern))))
}

fn who(value: &Value<'_>, conditions: Conditions) -> Result<Who, Misplaced> {
    let DeValue::Table(keys) = value.get_ref() else {
        let sentence = "who is a table: write who = { network = [\"10.0.0.0/8\"] }, or {} for all \
                        peers";
        return Err((value.span().start, sentence.to_owned()));
    };
    let mut who = Who::default();
    for (key, value) in sorted(keys) {
        known(key, "who", &["network", "certificate", "user", "listener", "token"])?;
        match key.get_ref().as_ref() {
            "network" => {
                let values = list("network", value, "[\"10.0.0.0/8\"]")?;
                who.network = values.iter().map(network).collect::<Result<_, _>>()?;
            }
            "certificate" if !conditions.asks_for_certificates => {
                let sentence = "no listener asks peers for certificates, so the rule would match \
                                none: set --ssl-client-certificates, or leave the key \
                                certificate out";
                return Err((key.span().start, sentence.to_owned()));
            }
            "certificate" => {
                let values = list("certificate", value, "[\"cn:web-*\"]")?;
                who.certificate = values.iter().map(certificate).collect::<Result<_, _>>()?;
            }
            "user" => {
                let values = list("user", value, "[\"www-data\", 33]")?;
                who.user = values.iter().map(user).collect::<Result<_, _>>()?;
            }
            "token" if !conditions.has_tokens => {
                let sentence = "no client can show a token, so the rule would match none: name a \
                                file of tokens with --http-token-file, or leave the key token out";
                return Err((key.span().start, sentence.to_owned()));
            }
            "token" => {
                let values = list("token", value, "[\"ops\"]")?;
                let name = |value| text("token", value).map(Box::from);
                who.token = values.iter().map(name).collect::<Result<_, _>>()?;
            }
            _ => {
                let values = list("listener", value, "[\"10.0.0.1:4730\"]")?;
                let specification = |value| text("listener", value).map(Box::from);
                who.listener = values.iter().map(specification).collect::<Result<_, _>>()?;
            }
        }
    }
    Ok(who)
}

fn network(value: &Value<'_>) -> Result<IpNet, Misplaced> {
    let text = text("network", value)?;
    let refuse = |sentence: String| (value.span().start, sentence);
    let network = match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
        (Ok(network), _) => canonical(network),
        (_, Ok(address)) => canonical(address.into()),
        _ => {
            return Err(refuse(format!(
                "{} is no network: write it like 10.0.0.0/8 or fd00::/8",
                quoted(text)
            )));
        }
    };
    if network != network.trunc() {
        return Err(refuse(format!(
            "{} has bits behind its prefix: write {} for the network, or {} for the address",
            quoted(text),
            network.trunc(),
            network.addr()
        )));
    }
    Ok(network)
}

/// A network of IPv4 addresses written as IPv6 ones as the network of IPv4 that it is.
fn canonical(network: IpNet) -> IpNet {
    let mapped = |network: Ipv6Net| {
        let prefix = network.prefix_len().checked_sub(96)?;
        Ipv4Net::new(network.addr().to_ipv4_mapped()?, prefix).ok()
    };
    match network {
        IpNet::V6(network) => mapped(network).map_or(IpNet::V6(network), IpNet::V4),
        network => network,
    }
}

fn certificate(value: &Value<'_>) -> Result<CertificatePattern, Misplaced> {
    let text = text("certificate", value)?;
    let at = value.span().start;
    Ok(match text.split_once(':') {
        Some(("cn", pattern)) => CertificatePattern::Common(glob(value, pattern)?),
        Some(("dns", pattern)) => CertificatePattern::Dns(glob(value, pattern)?),
        Some(("uri", pattern)) => CertificatePattern::Uri(glob(value, pattern)?),
        Some(("sha256", digits)) => {
            let sha256 = digits.parse();
            CertificatePattern::Sha256(
                sha256.map_err(|error| (at, format!("{} {error}", quoted(digits))))?,
            )
        }
        _ => {
            return Err((
                at,
                format!(
                    "{} begins with none of cn:, dns:, uri: and sha256:, which say what it is",
                    quoted(text)
                ),
            ));
        }
    })
}

fn user(value: &Value<'_>) -> Result<UserPattern, Misplaced> {
    let at = value.span().start;
    match value.get_ref() {
        DeValue::String(name) => Ok(UserPattern::Name(name.as_ref().into())),
        DeValue::Integer(number) => {
            let id = u32::from_str_radix(number.as_str(), number.radix());
            let range = |_| (at, format!("{number} is no user: user ids are 0 to {}", u32::MAX));
            id.map(UserPattern::Id).map_err(range)
        }
        _ => Err((at, "a user is a name in quotes or a number".to_owned())),
    }
}
