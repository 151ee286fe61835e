//! Commands about jobs that died or wait, and about pauses: a line in, its reply out, or what is to
//! be changed of many.
//!
//! Knows their words and replies. A word that is a handle of this server names a job; any other
//! names functions, by a name or a pattern.
//!
//! Invariant: a command that may change many changes none here.

use super::change::{Change, DeadAt, OK, Tally, Waiting, count};
use super::columns::text;
use super::list::Listing;
use super::policy_text::policy_text;
use super::{Answer, Context, Demand, OUT_OF_MEMORY, Scope, Task, UNKNOWN_JOB, invalid_arguments};
use crate::engine::glob::Glob;
use crate::engine::handle::Handles;
use crate::engine::record::Pause;
use crate::engine::{FunctionId, JobId, Requeued};
use crate::protocol::access::{self, Right};

/// Reply to `purge function` with an unknown state.
const UNKNOWN_STATE: &[u8] = b"ERR UNKNOWN_STATE queued,+delayed,+retrying+or+dead\r\n";
/// Reply to `pause function` with something else than a number of seconds.
const BAD_SECONDS: &[u8] = b"ERR INVALID_ARGUMENTS SECONDS+is+a+whole+number+above+0\r\n";
/// Reply to a pattern that is none.
const BAD_PATTERN: &[u8] =
    b"ERR INVALID_ARGUMENTS A+pattern+ends+with+a+backslash:+write+\\\\+for+a+backslash\r\n";

/// One of the commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order<'l> {
    /// `requeue dead HANDLE|FUNCTION|*`
    Requeue(&'l [u8]),
    /// `drop dead HANDLE|FUNCTION|*`
    RemoveDead(&'l [u8]),
    /// `run job HANDLE`
    Run(&'l [u8]),
    /// `purge function FUNCTION [STATE]`
    Purge(&'l [u8], Option<&'l [u8]>),
    /// `pause function FUNCTION [SECONDS]`
    Pause(&'l [u8], Option<&'l [u8]>),
    /// `resume function FUNCTION`
    Resume(&'l [u8]),
    /// `show policy FUNCTION`
    Policy(&'l [u8]),
    /// One of the commands with wrong arguments.
    Invalid,
}

impl<'l> Order<'l> {
    fn of(command: &[u8], arguments: &[&'l [u8]]) -> Option<Self> {
        let is = |name: &str| command.eq_ignore_ascii_case(name.as_bytes());
        let (what, arguments) = match arguments {
            [what, arguments @ ..] => (*what, arguments),
            [] => (&b""[..], arguments),
        };
        let names = |what_is: &str| what.eq_ignore_ascii_case(what_is.as_bytes());
        // A space at the end of a line makes an empty word.
        Some(match *arguments {
            [it] if is("requeue") && names("dead") && !it.is_empty() => Self::Requeue(it),
            [it] if is("drop") && names("dead") && !it.is_empty() => Self::RemoveDead(it),
            [it] if is("run") && names("job") => Self::Run(it),
            [it, ref rest @ ..] if names("function") && !it.is_empty() && rest.len() < 2 => {
                match rest.first().copied() {
                    state if is("purge") => Self::Purge(it, state),
                    seconds if is("pause") => Self::Pause(it, seconds),
                    None if is("resume") => Self::Resume(it),
                    _ if is("resume") => Self::Invalid,
                    _ => return None,
                }
            }
            [it] if is("show") && names("policy") => Self::Policy(it),
            _ if ["requeue", "run", "purge", "pause", "resume"].into_iter().any(is) => {
                Self::Invalid
            }
            _ => return None,
        })
    }
}

/// Whether a word is a name and no pattern.
fn is_name(word: &[u8]) -> bool {
    !word.iter().any(|byte| matches!(byte, b'*' | b'?' | b'\\'))
}

/// The right that a line needs; `None` for other commands.
pub(super) fn demand<'l>(
    command: &[u8],
    arguments: &[&'l [u8]],
    handles: &Handles,
) -> Option<Demand<'l>> {
    let to_change = |word: &'l [u8]| {
        if is_name(word) {
            Demand::Right(Right::Admin, access::Scope::Function(word))
        } else {
            Demand::Some(Right::Admin)
        }
    };
    Some(match Order::of(command, arguments)? {
        // The job's core knows its function.
        Order::Requeue(it) | Order::RemoveDead(it) if handles.number(it).is_some() => Demand::None,
        Order::Run(_) | Order::Invalid => Demand::None,
        Order::Requeue(it)
        | Order::RemoveDead(it)
        | Order::Purge(it, _)
        | Order::Pause(it, _)
        | Order::Resume(it) => to_change(it),
        Order::Policy(name) => Demand::Right(Right::Observe, access::Scope::Function(name)),
    })
}

/// Which cores can answer a line; `None` for other commands.
pub(super) fn scope<'l>(command: &[u8], arguments: &[&'l [u8]]) -> Option<Scope<'l>> {
    Some(match Order::of(command, arguments)? {
        Order::Requeue(it) | Order::RemoveDead(it) | Order::Run(it) => Scope::Job(it),
        Order::Pause(it, _) | Order::Resume(it) if is_name(it) => Scope::Function(it),
        Order::Pause(..)
        | Order::Resume(_)
        | Order::Purge(..)
        | Order::Policy(_)
        | Order::Invalid => Scope::Any,
    })
}

/// Appends the reply to a line, or tells what is to be changed of many; `None` for other commands.
pub(super) fn answer(
    command: &[u8],
    arguments: &[&[u8]],
    cx: &mut Context<'_>,
    out: &mut Vec<u8>,
) -> Option<Answer> {
    let order = Order::of(command, arguments)?;
    let many = |change: Change, word: &[u8], out: &mut Vec<u8>| match Glob::of_bytes(word) {
        Ok(names) => Answer::Task(Task::Change(change), Some(names)),
        Err(_) => reply(out, BAD_PATTERN),
    };
    Some(match order {
        Order::Requeue(word) => match cx.handles.number(word) {
            Some(number) => requeue(number, cx, out),
            None => many(Change::Requeue(DeadAt::START), word, out),
        },
        Order::RemoveDead(word) => match cx.handles.number(word) {
            Some(number) if cx.engine.remove_dead(number) => {
                count(Tally { done: 1, skipped: 0 }, out);
                Answer::Text
            }
            Some(_) => reply(out, UNKNOWN_JOB),
            None => many(Change::RemoveDead(DeadAt::START), word, out),
        },
        Order::Run(word) => {
            let number = cx.handles.number(word);
            let runs = number.is_some_and(|number| cx.engine.run_now(number, cx.now));
            reply(out, if runs { OK } else { UNKNOWN_JOB })
        }
        Order::Purge(word, state) => match state.map_or(Some(QUEUED), purged) {
            Some(change) => many(change, word, out),
            None => reply(out, UNKNOWN_STATE),
        },
        Order::Pause(word, seconds) => match pause(seconds, cx) {
            None => reply(out, BAD_SECONDS),
            Some(pause) if is_name(word) => {
                let is_paused = cx.engine.pause(word, pause, cx.memory_left, cx.now);
                reply(out, if is_paused { OK } else { OUT_OF_MEMORY })
            }
            Some(pause) => many(Change::Pause(pause, FunctionId::FIRST), word, out),
        },
        Order::Resume(word) if is_name(word) => {
            cx.engine.resume(word, cx.now);
            reply(out, OK)
        }
        Order::Resume(word) => many(Change::Resume(FunctionId::FIRST), word, out),
        Order::Policy(name) => {
            if let Some(policy) = cx.engine.policies().find(name) {
                out.extend_from_slice(policy_text(policy).as_bytes());
            }
            reply(out, b".\n")
        }
        Order::Invalid => {
            invalid_arguments(out, command);
            Answer::Text
        }
    })
}

fn reply(out: &mut Vec<u8>, reply: &[u8]) -> Answer {
    text(out, &[reply]);
    Answer::Text
}

fn requeue(number: u64, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Answer {
    match cx.engine.requeue(number, cx.now) {
        Requeued::Done => count(Tally { done: 1, skipped: 0 }, out),
        Requeued::UniqueInUse => count(Tally { done: 0, skipped: 1 }, out),
        Requeued::Unknown => return reply(out, UNKNOWN_JOB),
    }
    Answer::Text
}

const QUEUED: Change = Change::Purge(Waiting::Queued, JobId::FIRST);

/// What `purge function` changes by the state that it names.
fn purged(state: &[u8]) -> Option<Change> {
    let states = [
        ("queued", QUEUED),
        ("delayed", Change::Purge(Waiting::Delayed, JobId::FIRST)),
        ("retrying", Change::Purge(Waiting::Retrying, JobId::FIRST)),
        ("dead", Change::RemoveDead(DeadAt::START)),
    ];
    let found = states.into_iter().find(|(name, _)| state.eq_ignore_ascii_case(name.as_bytes()));
    found.map(|(_, change)| change)
}

fn pause(seconds: Option<&[u8]>, cx: &Context<'_>) -> Option<Pause> {
    let Some(seconds) = seconds else { return Some(Pause::Unlimited) };
    let digits = str::from_utf8(seconds).ok()?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let seconds: u32 = digits.parse().ok().filter(|&seconds| is_number && seconds > 0)?;
    Some(Pause::Until(cx.now.unix_ms.saturating_add(u64::from(seconds) * 1000)))
}

/// A list, and of which functions; `None` = of all.
pub(super) type Asked = (Listing, Option<Glob>);

/// The list that `show` asks for, and of which functions.
///
/// # Errors
/// The reply to a pattern that is none.
pub(super) fn listing(arguments: &[&[u8]]) -> Option<Result<Asked, &'static [u8]>> {
    let (what, names) = match *arguments {
        [what] => (what, None),
        [what, names] if !names.is_empty() => (what, Some(names)),
        _ => return None,
    };
    let lists = [
        ("dead", Listing::Dead(0)),
        ("retrying", Listing::Retrying(JobId::FIRST)),
        ("delayed", Listing::Delayed(JobId::FIRST)),
    ];
    let found = lists.into_iter().find(|(name, _)| what.eq_ignore_ascii_case(name.as_bytes()));
    let (_, listing) = found?;
    let names = names.map(Glob::of_bytes).transpose();
    Some(names.map(|names| (listing, names)).map_err(|_| BAD_PATTERN))
}
