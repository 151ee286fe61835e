//! Transcripts as text: a file of cases in, steps out.
//!
//! ```text
//! == name                       a new case; then a line `both`, or `ours: reason`
//! server --exceptions           options of its server
//! c > SUBMIT_JOB f||payload     connection c sends a packet      c >RES NOOP   a server's magic
//! c >> status\n                 … bytes as they are          c < JOB_CREATED {H}   expects a packet
//! c << .\n                      expects lines of text            c <~ …       in any order
//! c quiet | closed | close | fin | open                      c until status\n == .\n or …   polls
//! ```

use crate::conn::packet_type;
use crate::pattern::Pattern;

/// Which servers a case holds for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    /// gearmand 1.1.20 too.
    Both,
    /// Only ours; the script says why.
    Ours,
}

#[derive(Clone, Debug)]
pub(crate) enum Action {
    Send(u32, Pattern),
    SendAsServer(u32, Pattern),
    SendRaw(Pattern),
    Expect(u32, Pattern),
    ExpectText(Pattern),
    ExpectLinesInAnyOrder(Vec<Pattern>),
    Until(Pattern, Vec<Pattern>),
    Quiet,
    Closed,
    Close,
    HalfClose,
    Open,
}

#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) conn: String,
    pub(crate) action: Action,
    pub(crate) text: String,
    pub(crate) line: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) file: &'static str,
    pub(crate) name: String,
    pub(crate) holds: Holds,
    /// It speaks of an order that letters between cores don't keep.
    pub(crate) one_core: bool,
    pub(crate) options: Vec<String>,
    pub(crate) steps: Vec<Step>,
}

/// All cases of a file.
///
/// # Errors
/// File, line and what is wrong there.
pub(crate) fn parse(file: &'static str, text: &str) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let (line, at) = (line.trim(), at + 1);
        let fail = |reason: &str| format!("{file}:{at}: {reason}: {line}");
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("== ") {
            let name = name.to_owned();
            let (options, steps) = (Vec::new(), Vec::new());
            let (holds, one_core) = (Holds::Both, false);
            cases.push(Case { file, name, holds, one_core, options, steps });
            continue;
        }
        let case = cases.last_mut().ok_or_else(|| fail("before the first case"))?;
        if line == "both" {
            case.holds = Holds::Both;
        } else if line.strip_prefix("ours: ").is_some() {
            case.holds = Holds::Ours;
        } else if line.strip_prefix("one core: ").is_some() {
            case.one_core = true;
        } else if let Some(options) = line.strip_prefix("server ") {
            case.options = options.split(' ').map(str::to_owned).collect();
        } else {
            let (conn, rest) = line.split_once(' ').ok_or_else(|| fail("no step"))?;
            let action = action(rest).map_err(|reason| fail(&reason))?;
            let (conn, text) = (conn.to_owned(), line.to_owned());
            case.steps.push(Step { conn, action, text, line: at });
        }
    }
    Ok(cases)
}

fn action(text: &str) -> Result<Action, String> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    Ok(match word {
        ">" => packet(rest).map(|(number, body)| Action::Send(number, body))?,
        ">RES" => packet(rest).map(|(number, body)| Action::SendAsServer(number, body))?,
        "<" => packet(rest).map(|(number, body)| Action::Expect(number, body))?,
        ">>" => Action::SendRaw(Pattern::parse(rest)?),
        "<<" => Action::ExpectText(Pattern::parse(rest)?),
        "<~" => {
            let lines = rest.split_inclusive("\\n").map(Pattern::parse);
            Action::ExpectLinesInAnyOrder(lines.collect::<Result<_, _>>()?)
        }
        "until" => {
            let (command, answer) = rest.split_once(" == ").ok_or("no ==")?;
            let answers = answer.split(" or ").map(Pattern::parse).collect::<Result<_, _>>()?;
            Action::Until(Pattern::parse(command)?, answers)
        }
        "quiet" => Action::Quiet,
        "closed" => Action::Closed,
        "close" => Action::Close,
        "fin" => Action::HalfClose,
        "open" => Action::Open,
        _ => return Err("no such step".into()),
    })
}

fn packet(text: &str) -> Result<(u32, Pattern), String> {
    let (name, body) = text.split_once(' ').unwrap_or((text, ""));
    let number = packet_type(name).ok_or_else(|| format!("no packet {name}"))?;
    Ok((number, Pattern::parse(body)?))
}
