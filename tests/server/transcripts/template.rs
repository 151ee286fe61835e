//! The text of a step as bytes to send, or as a pattern that bytes match and handles are taken from.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ringgear::frame::{Magic, header_bytes};
use ringgear::packet::Command;

use super::escaped;

/// Longest text of a failure, in bytes of what was received.
const SHOWN_BYTES: usize = 600;

/// What the names in a transcript stand for.
pub(super) struct Names {
    run: u32,
    pid: u32,
    handles: BTreeMap<String, Vec<u8>>,
}

/// A part of a pattern.
enum Part {
    Bytes(Vec<u8>),
    /// A handle that comes up for the first time.
    Fresh(String),
    Anything,
}

/// What a packet or a line must look like; of a packet, the body.
pub(super) struct Pattern {
    command: Option<Command>,
    parts: Vec<Part>,
}

impl Names {
    pub(super) fn new(pid: u32) -> Self {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        Self { run, pid, handles: BTreeMap::new() }
    }

    /// A packet or bytes to send.
    pub(super) fn bytes(&self, text: &str) -> Result<Vec<u8>, String> {
        if let Some(raw) = quoted(text) {
            return self.known(raw);
        }
        let (magic, text) = match text.strip_prefix("RES ") {
            Some(text) => (Magic::Response, text),
            None => (Magic::Request, text),
        };
        let (name, body) = text.split_once(' ').unwrap_or((text, ""));
        let body = self.known(body)?;
        let size = u32::try_from(body.len()).expect("a short body");
        let mut bytes = header_bytes(magic, Command::EchoReq, size).to_vec();
        let number = match name.strip_prefix('#') {
            Some(number) => number.parse().map_err(|_| format!("{name} is no number"))?,
            None => command(name)?.number(),
        };
        bytes[4..8].copy_from_slice(&number.to_be_bytes());
        bytes.extend(body);
        Ok(bytes)
    }

    /// Patterns for a packet, or for each line of a text.
    pub(super) fn units(&self, text: &str) -> Result<Vec<Pattern>, String> {
        if let Some(raw) = quoted(text) {
            let lines = raw.split_inclusive("\\n");
            let pattern = |line| Ok(Pattern { command: None, parts: self.parts(line)? });
            return lines.map(pattern).collect();
        }
        let (name, body) = text.split_once(' ').unwrap_or((text, ""));
        Ok(vec![Pattern { command: Some(command(name)?), parts: self.parts(body)? }])
    }

    /// A pattern for one row of a list.
    pub(super) fn row(&self, text: &str) -> Result<Pattern, String> {
        let mut parts = self.parts(text)?;
        parts.push(Part::Bytes(b"\n".to_vec()));
        Ok(Pattern { command: None, parts })
    }

    /// Whether bytes are as expected; learns the handles in them.
    pub(super) fn matches(&mut self, pattern: &Pattern, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        if let Some(command) = pattern.command {
            let Some((head, body)) = bytes.split_first_chunk::<12>() else { return false };
            let Ok(size) = u32::try_from(body.len()) else { return false };
            if *head != header_bytes(Magic::Response, command, size) {
                return false;
            }
            rest = body;
        }
        let mut learnt = BTreeMap::new();
        for (at, part) in pattern.parts.iter().enumerate() {
            let free = match pattern.parts.get(at + 1) {
                Some(Part::Bytes(stop)) if !stop.is_empty() => memmem(rest, stop),
                _ => rest.len(),
            };
            let taken = match part {
                Part::Bytes(bytes) if rest.starts_with(bytes) => bytes.len(),
                Part::Bytes(_) => return false,
                Part::Anything => free,
                Part::Fresh(name) => {
                    let handle = rest[..free].to_vec();
                    if !is_handle(&handle) || self.handles.values().any(|old| *old == handle) {
                        return false;
                    }
                    learnt.insert(name.clone(), handle);
                    free
                }
            };
            rest = &rest[taken..];
        }
        if rest.is_empty() {
            self.handles.append(&mut learnt);
        }
        rest.is_empty()
    }

    /// A pattern for people.
    pub(super) fn show(&self, pattern: &Pattern) -> String {
        let mut text = pattern.command.map_or_else(String::new, |c| format!("{} ", c.name()));
        for part in &pattern.parts {
            text += &match part {
                Part::Bytes(bytes) => shortened(bytes),
                Part::Fresh(name) => format!("{{a fresh handle: {name}}}"),
                Part::Anything => "{*}".to_owned(),
            };
        }
        text
    }

    /// Bytes without anything to be learnt.
    fn known(&self, text: &str) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        for part in self.parts(text)? {
            match part {
                Part::Bytes(part) => bytes.extend(part),
                Part::Fresh(name) => return Err(format!("{name} isn't known yet")),
                Part::Anything => return Err("can't send anything".to_owned()),
            }
        }
        Ok(bytes)
    }

    fn parts(&self, text: &str) -> Result<Vec<Part>, String> {
        let mut parts = Vec::new();
        let mut bytes = Vec::new();
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            rest = &rest[next.len_utf8()..];
            match next {
                '|' => bytes.push(0),
                '\\' => bytes.push(escape(&mut rest)?),
                '{' => {
                    let (name, behind) = rest.split_once('}').ok_or("a { without }")?;
                    rest = behind;
                    match self.named(name)? {
                        Part::Bytes(part) => bytes.extend(part),
                        part => {
                            parts.push(Part::Bytes(std::mem::take(&mut bytes)));
                            parts.push(part);
                        }
                    }
                }
                _ => bytes.extend(next.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        parts.push(Part::Bytes(bytes));
        Ok(parts)
    }

    fn named(&self, name: &str) -> Result<Part, String> {
        let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{{{name}}}?"));
        if name == "*" {
            return Ok(Part::Anything);
        } else if name == "pid" {
            return Ok(Part::Bytes(self.pid.to_string().into_bytes()));
        } else if let Some((text, times)) = name.split_once('*') {
            let times = usize::try_from(number(times)?).expect("64 bits");
            return Ok(Part::Bytes(text.repeat(times).into_bytes()));
        } else if let Some(offset) = name.strip_prefix("now") {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
            let when = match offset.split_at_checked(1) {
                Some(("+", seconds)) => now + number(seconds)?,
                Some(("-", seconds)) => now - number(seconds)?,
                _ => now,
            };
            return Ok(Part::Bytes(when.to_string().into_bytes()));
        } else if name.len() > 1 && name.starts_with('h') {
            let known = self.handles.get(name);
            return Ok(known.map_or_else(
                || Part::Fresh(name.to_owned()),
                |handle| Part::Bytes(handle.clone()),
            ));
        }
        // In lower case and upper case a name is the same but for the case.
        let run = self.run;
        Ok(Part::Bytes(match name.chars().next() {
            Some(first) if first.is_ascii_uppercase() => format!("T{run}{name}").into_bytes(),
            _ => format!("t{run}{name}").into_bytes(),
        }))
    }
}

/// A packet or a line for people.
pub(super) fn readable(bytes: &[u8]) -> String {
    let number = bytes.get(4..8).filter(|_| bytes.first() == Some(&0));
    let number = number.map(|number| u32::from_be_bytes(number.try_into().expect("4 bytes")));
    match (number.and_then(Command::from_number), bytes.get(12..)) {
        (Some(command), Some(body)) => format!("{} {}", command.name(), shortened(body)),
        _ => shortened(bytes),
    }
}

/// Where `wanted` starts in `bytes`; their end if it doesn't.
fn memmem(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).position(|part| part == wanted).unwrap_or(bytes.len())
}

fn shortened(bytes: &[u8]) -> String {
    match bytes.get(..SHOWN_BYTES) {
        Some(start) => format!("{}... ({} bytes)", escaped(start), bytes.len()),
        None => escaped(bytes),
    }
}

fn quoted(text: &str) -> Option<&str> {
    text.strip_prefix('\'')?.strip_suffix('\'')
}

fn command(name: &str) -> Result<Command, String> {
    let found = Command::ALL.iter().find(|command| command.name() == name);
    found.copied().ok_or_else(|| format!("no packet {name}"))
}

fn escape(rest: &mut &str) -> Result<u8, String> {
    let next = rest.chars().next().ok_or("nothing behind \\")?;
    *rest = &rest[next.len_utf8()..];
    Ok(match next {
        '0' => 0,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'x' => {
            let (digits, behind) = rest.split_at_checked(2).ok_or("no two digits behind \\x")?;
            *rest = behind;
            u8::from_str_radix(digits, 16).map_err(|_| "not hexadecimal")?
        }
        '\\' | '|' | '{' => next as u8,
        _ => return Err(format!("\\{next}?")),
    })
}

/// `prefix:digits`, and short enough for the C library.
fn is_handle(bytes: &[u8]) -> bool {
    let Some(at) = bytes.iter().rposition(|&byte| byte == b':') else { return false };
    let (prefix, digits) = (&bytes[..at], &bytes[at + 1..]);
    bytes.len() < 64
        && !prefix.is_empty()
        && !digits.is_empty()
        && digits.iter().all(u8::is_ascii_digit)
}
