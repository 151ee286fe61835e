//! The access list and the tokens of HTTP clients as the configuration names them: a file's text
//! in, the list or one sentence out, and the answer of `--access-check`.
//!
//! Knows what the rest of the configuration allows a list to say; the format is `protocol`'s.
//!
//! Invariant: a sentence names the file, the line and the remedy.

use std::io::{Error, ErrorKind};
use std::sync::Arc;

use super::{EarlyExit, Options};
use crate::ops::Tokens;
use crate::protocol::access::{self, AccessList, Conditions, Peer, Permissions, Right, Scope};
use crate::protocol::toml_tables::FILE_BYTES_MAX;

/// Reads the list at `path`, which may say what the conditions allow.
///
/// # Errors
/// What is wrong with the file, in one sentence.
pub fn read_access_list(
    path: &str,
    conditions: Conditions,
    read_file: impl FnOnce(&str) -> std::io::Result<String>,
) -> Result<Arc<AccessList>, String> {
    let text = read_file(path).map_err(|cause| unreadable(path, &cause))?;
    let list = access::parse(&text, conditions).map_err(|mistake| format!("{path}:{mistake}"))?;
    Ok(Arc::new(list))
}

fn unreadable(path: &str, cause: &Error) -> String {
    let remedy = match cause.kind() {
        ErrorKind::NotFound => "name another file, or write it with ringgeard --print-access",
        ErrorKind::PermissionDenied => "let the user that the server runs as read it",
        ErrorKind::InvalidData => "save it as UTF-8",
        ErrorKind::FileTooLarge => {
            return format!("{path}:1: the list is larger than {FILE_BYTES_MAX} bytes: shorten it");
        }
        _ => "name another file with --access-file",
    };
    format!("cannot read the access list {path}: {cause}; {remedy}")
}

impl Options {
    /// What the options allow an access list to say.
    #[must_use]
    pub fn access_conditions(&self) -> Conditions {
        Conditions {
            asks_for_certificates: self.asks_for_certificates(),
            has_tokens: self.http_token_file.is_some(),
        }
    }

    /// Reads the tokens of HTTP clients; `None` if no option names a file of them.
    ///
    /// # Errors
    /// What is wrong with the file, in one sentence.
    pub fn read_tokens(
        &self,
        read_file: impl FnOnce(&str) -> std::io::Result<String>,
    ) -> Result<Option<Arc<Tokens>>, String> {
        let Some(path) = self.http_token_file.as_deref() else { return Ok(None) };
        let text = read_file(path).map_err(|cause| {
            let remedy = match cause.kind() {
                ErrorKind::NotFound => "write lines with a name and the SHA-256 of a token to it",
                ErrorKind::PermissionDenied => "let the user that the server runs as read it",
                ErrorKind::InvalidData => "save it as UTF-8",
                _ => "name another file with --http-token-file",
            };
            format!("cannot read the tokens {path}: {cause}; {remedy}")
        })?;
        let tokens = Tokens::parse(&text).map_err(|mistake| format!("{path}:{mistake}"))?;
        Ok(Some(Arc::new(tokens)))
    }
}

/// The answer to `--access-check`, whose words are peer, right and function.
pub(super) fn check(
    words: &[String],
    options: &Options,
    read_file: impl FnOnce(&str) -> std::io::Result<String>,
) -> EarlyExit {
    let answer = || {
        let [peer, right, function] = words else {
            return Err("--access-check has three words: a peer, a right and a function".to_owned());
        };
        let peer: Peer = peer.parse()?;
        let right = Right::named(right).ok_or_else(|| {
            let all = Right::ALL.map(Right::name).join(", ");
            format!("unknown right \"{right}\": {all}")
        })?;
        let scope = match function.as_str() {
            "*" => Scope::AllFunctions,
            name => Scope::Function(name.as_bytes()),
        };
        let Some(path) = &options.access_file else {
            return Err("--access-check asks an access list: name it with --access-file".to_owned());
        };
        let list = read_access_list(path, options.access_conditions(), read_file)?;
        let verdict = Permissions::of(&list, &peer).may(right, scope);
        let word = if verdict.is_allowed { "allowed" } else { "refused" };
        let rule = verdict.rule.and_then(|at| list.rules().get(at).map(|rule| (at + 1, rule.line)));
        let text = match rule {
            Some((number, line)) => format!("{word} by rule {number} (line {line})\n"),
            None => format!("{word}: no rule matches\n"),
        };
        Ok((verdict.is_allowed, text))
    };
    match answer() {
        Ok((true, text)) => EarlyExit::Print(text),
        Ok((false, text)) => EarlyExit::Refused(text),
        Err(problem) => EarlyExit::Unclear(problem),
    }
}
