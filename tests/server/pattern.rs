//! Bodies as transcripts write them: text in, bytes to send or a pattern to match out.
//!
//! `|` is NUL; `\n \r \t \s \| \{ \\ \xNN` escape; `{a*64}` repeats; `{H}` is a job handle:
//! captured when first seen in an answer, the same ever after; `{now+1}` is a time in seconds
//! since 1970; in answers `{#}` is a number and `{?}` anything up to the line's end or the next
//! `|`.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// Handles that a case has seen, by the name it gave them.
pub(crate) type Captures = HashMap<String, Vec<u8>>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Bytes(Vec<u8>),
    Handle(String),
    Now(i64),
    Number,
    Anything,
}

/// A body as written in a transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Part>);

impl Pattern {
    /// # Errors
    /// What is wrong with the text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = vec![Part::Bytes(Vec::new())];
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let bytes = match c {
                '|' => vec![0],
                '\\' => vec![escape(&mut chars)?],
                '{' => {
                    let inner: String = chars.by_ref().take_while(|&c| c != '}').collect();
                    match placeholder(&inner)? {
                        Part::Bytes(bytes) => bytes,
                        part => {
                            parts.push(part);
                            continue;
                        }
                    }
                }
                c => c.to_string().into_bytes(),
            };
            match parts.last_mut() {
                Some(Part::Bytes(last)) => last.extend(bytes),
                _ => parts.push(Part::Bytes(bytes)),
            }
        }
        Ok(Self(parts))
    }

    /// The bytes to send.
    pub(crate) fn bytes(&self, captures: &Captures) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        for part in &self.0 {
            match part {
                Part::Bytes(literal) => bytes.extend(literal),
                Part::Handle(name) => {
                    bytes.extend(captures.get(name).ok_or_else(|| format!("no {name} seen yet"))?);
                }
                Part::Now(offset) => bytes.extend((seconds() + offset).to_string().bytes()),
                Part::Number | Part::Anything => return Err("only answers have wildcards".into()),
            }
        }
        Ok(bytes)
    }

    /// Whether an answer is as written; captures the handles that are new.
    pub(crate) fn matches(&self, bytes: &[u8], captures: &mut Captures) -> bool {
        let mut rest = bytes;
        for (at, part) in self.0.iter().enumerate() {
            let literal = match part {
                Part::Bytes(literal) => literal.clone(),
                Part::Handle(name) if captures.contains_key(name) => captures[name].clone(),
                Part::Now(offset) => (seconds() + offset).to_string().into_bytes(),
                Part::Number => {
                    let len = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                    if len == 0 {
                        return false;
                    }
                    rest = &rest[len..];
                    continue;
                }
                Part::Handle(name) => {
                    let len = field(rest);
                    if !is_handle(&rest[..len]) {
                        return false;
                    }
                    captures.insert(name.clone(), rest[..len].to_vec());
                    rest = &rest[len..];
                    continue;
                }
                Part::Anything => {
                    let last = at + 1 == self.0.len();
                    rest = if last { &[] } else { &rest[field(rest)..] };
                    continue;
                }
            };
            let Some(after) = rest.strip_prefix(literal.as_slice()) else { return false };
            rest = after;
        }
        rest.is_empty()
    }

    /// How many lines of text the answer has.
    pub(crate) fn lines(&self) -> usize {
        let count = |part: &Part| match part {
            Part::Bytes(bytes) => bytes.iter().filter(|&&byte| byte == b'\n').count(),
            _ => 0,
        };
        self.0.iter().map(count).sum()
    }
}

fn field(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| b"\0\t\r\n".contains(byte)).unwrap_or(bytes.len())
}

fn is_handle(bytes: &[u8]) -> bool {
    let Some(colon) = bytes.iter().rposition(|&byte| byte == b':') else { return false };
    let number = &bytes[colon + 1..];
    bytes.len() < 64 && !number.is_empty() && number.iter().all(u8::is_ascii_digit)
}

fn seconds() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later than 1970");
    i64::try_from(now.as_secs()).expect("sooner than the end of time")
}

fn escape(chars: &mut std::str::Chars<'_>) -> Result<u8, String> {
    match chars.next() {
        Some('n') => Ok(b'\n'),
        Some('r') => Ok(b'\r'),
        Some('t') => Ok(b'\t'),
        Some('s') => Ok(b' '),
        Some('x') => {
            let digits: String = chars.take(2).collect();
            u8::from_str_radix(&digits, 16).map_err(|_| format!("\\x{digits} isn't a byte"))
        }
        Some(c @ ('|' | '{' | '\\' | '#')) => Ok(u8::try_from(c).expect("ASCII")),
        other => Err(format!("no escape \\{other:?}")),
    }
}

fn placeholder(inner: &str) -> Result<Part, String> {
    match inner {
        "#" => return Ok(Part::Number),
        "?" => return Ok(Part::Anything),
        "now" => return Ok(Part::Now(0)),
        _ => {}
    }
    if let Some(offset) = inner.strip_prefix("now") {
        return offset.parse().map(Part::Now).map_err(|_| format!("no time: {inner}"));
    }
    if let Some((unit, times)) = inner.rsplit_once('*') {
        let times: usize = times.parse().map_err(|_| format!("no count: {inner}"))?;
        let Pattern(parts) = Pattern::parse(unit)?;
        return match parts.as_slice() {
            [Part::Bytes(unit)] => Ok(Part::Bytes(unit.repeat(times))),
            _ => Err(format!("only bytes repeat: {inner}")),
        };
    }
    let is_name = !inner.is_empty() && inner.chars().all(|c| c.is_ascii_alphanumeric());
    if is_name { Ok(Part::Handle(inner.to_owned())) } else { Err(format!("no {{{inner}}}")) }
}

mod tests {
    use super::*;

    #[test]
    fn a_pattern_captures_a_handle_once_and_insists_on_it_afterwards() {
        let pattern = Pattern::parse("{H}|f|{a*3}\\n").expect("well formed");
        let mut captures = Captures::new();
        assert!(pattern.matches(b"H:x:12\0f\0aaa\n", &mut captures));
        assert_eq!(captures["H"], b"H:x:12");
        assert!(!pattern.matches(b"H:x:13\0f\0aaa\n", &mut captures));
        assert_eq!(pattern.bytes(&captures).expect("H is known"), b"H:x:12\0f\0aaa\n");
    }

    #[test]
    fn a_pattern_refuses_what_is_too_long_too_short_or_no_handle() {
        let pattern = Pattern::parse("{H}|x{#}").expect("well formed");
        for bytes in [&b"H:1\0x"[..], b"H:1\0x1y", b"H:\0x1", b"H\0x1", b":a\0x1"] {
            assert!(!pattern.matches(bytes, &mut Captures::new()), "{bytes:?}");
        }
    }
}
