//! The text command `show access`: the rules of the access list, and how often each has decided,
//! in; their rows out.
//!
//! Knows no cores: the numbers are their sums.
//!
//! Invariant: a row for each rule, in their order, and one for what no rule has matched.

use super::columns::{name, number};
use crate::protocol::access::{AccessList, Hits, Rights, Rule};

/// The names of the columns.
pub(super) const TITLES: &str = "RULE\tLINE\tHITS\tWHO\tMAY\tMAY_NOT\tFUNCTIONS";

/// The answer; no row without a list.
#[must_use]
pub fn text(list: Option<&AccessList>, hits: &Hits) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(list) = list {
        for (at, rule) in list.rules().iter().enumerate() {
            number(&mut out, at + 1);
            out.push(b'\t');
            number(&mut out, rule.line);
            out.push(b'\t');
            number(&mut out, hits.of(at));
            row(rule, &mut out);
        }
        out.extend_from_slice(b"-\t-\t");
        number(&mut out, hits.none());
        out.extend_from_slice(b"\t-\t-\t-\t-\n");
    }
    out.extend_from_slice(b".\n");
    out
}

/// Whom a rule is for, and what it says.
fn row(rule: &Rule, out: &mut Vec<u8>) {
    let none = Rights::default();
    let (may, may_not) = if rule.allows { (rule.rights, none) } else { (none, rule.rights) };
    let functions: Vec<String> = rule.functions().map(ToString::to_string).collect();
    let functions = if rule.functions.is_none() { "*".to_owned() } else { functions.join(" ") };
    for column in [rule.who.to_string(), may.to_string(), may_not.to_string(), functions] {
        out.push(b'\t');
        name(out, column.as_bytes());
    }
    out.push(b'\n');
}
