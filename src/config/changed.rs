//! Options that differ from their defaults, for operators: what was parsed in, names and values out.
//!
//! Knows no option but those that hold secrets.
//!
//! Invariant: no password is in a value.

use clap::{Arg, ArgAction, ArgMatches};

use super::is_given;
use super::options::{COMMAND_LINE_ONLY, IGNORED, command};
use super::values::shown;

/// Stands for a value that may hold a secret.
const HIDDEN: &str = "…";
/// Options whose values hold secrets in several spellings.
const SECRETS: [&str; 1] = ["libpq-conninfo"];

/// Options with a value that isn't their default, wherever it was given.
pub(super) fn changed(matches: &ArgMatches) -> Vec<(String, String)> {
    let command = command();
    let options = command.get_arguments().filter(|it| is_given(matches, it.get_id().as_str()));
    let named = options.filter_map(|option| {
        let name = option.get_long().unwrap_or(option.get_id().as_str());
        let has_no_effect = IGNORED.iter().any(|it| it.name == name);
        let value = value(matches, option, name)?;
        let is_told = !has_no_effect && !COMMAND_LINE_ONLY.contains(&name);
        is_told.then(|| (name.to_owned(), value))
    });
    named.collect()
}

/// The value of an option; `None` if it is the default.
fn value(matches: &ArgMatches, option: &Arg, name: &str) -> Option<String> {
    let id = option.get_id().as_str();
    match option.get_action() {
        ArgAction::Count => Some(matches.get_count(id).to_string()),
        action if !action.takes_values() => Some("true".to_owned()),
        _ => {
            let values: Vec<_> = matches.get_raw(id)?.collect();
            let defaults = option.get_default_values().iter().map(|it| it.as_os_str());
            if defaults.eq(values.iter().copied()) {
                return None;
            }
            let texts = values.into_iter().map(|value| told(name, &value.to_string_lossy()));
            Some(texts.collect::<Vec<_>>().join(", "))
        }
    }
}

fn told(name: &str, value: &str) -> String {
    let may_tell = !SECRETS.contains(&name) && !value.to_lowercase().contains("password");
    if may_tell { shown(name, value) } else { HIDDEN.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    #[test]
    fn what_differs_from_the_defaults_is_told_without_secrets() {
        let words = [
            "ringgeard",
            "--threads=3",
            "--backlog=1024",
            "--listen=127.0.0.1:1",
            "--listen=127.0.0.1:2",
            "-vv",
            "--ssl",
            "--libpq-conninfo=host=db password = secret",
            "--store=postgres://joe:secret@db/jobs",
        ];
        let unset = |_: &str| None;
        let options = parse(words.map(Into::into), |_| unreachable!(), unset).unwrap();
        let mut changed = options.changed;
        changed.sort();
        let expected = [
            ("libpq-conninfo", "…"),
            ("listen", "127.0.0.1:1, 127.0.0.1:2"),
            ("more_verbose", "2"),
            ("ssl", "true"),
            ("store", "postgres://…@db/jobs"),
            ("threads", "3"),
        ];
        assert_eq!(changed, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let file = |_: &str| Ok("threads = 2\n".to_owned());
        let words = ["ringgeard", "--config-file=x"].map(Into::into);
        let options = parse(words, file, |_| Some("4731".into())).unwrap();
        let expected = [("port", "4731"), ("threads", "2")];
        let mut changed = options.changed;
        changed.sort();
        assert_eq!(changed, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
