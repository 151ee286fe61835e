//! The same work in three protocols: put a background job, take it, say that it is done, and ask
//! how many wait.
//!
//! Bytes out are appended to a buffer; bytes in are cut into events. Allocates nothing and knows no
//! sockets. On a connection that puts, `Event::Ok` says that a job is kept; on one that takes, that
//! a job which was done is forgotten. Gearman servers don't acknowledge the latter.

use anyhow::{Context, Result, bail};
use ringgear::wire::{Arguments, Command, HEADER_BYTES, Magic, encode, frame};

/// The one function, and the one list.
pub(crate) const QUEUE: &[u8] = b"bench";

/// What a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// See the module.
    Ok,
    /// A job to be worked on.
    Job {
        /// What the job is called when it is done.
        id: &'a [u8],
        /// Its payload.
        payload: &'a [u8],
    },
    /// There is no job.
    Nothing,
    /// A result for a foreground job.
    Result(&'a [u8]),
    /// Something that no answer is needed to.
    Other,
}

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Gearman,
    /// put, reserve, delete.
    Beanstalk,
    /// LPUSH, BLMOVE, LREM.
    Redis,
}

impl Protocol {
    /// Whether a job that is done is acknowledged.
    pub(crate) fn acknowledges(self) -> bool {
        self != Self::Gearman
    }

    /// What a connection that takes jobs says first.
    pub(crate) fn greet(self, out: &mut Vec<u8>) {
        if self == Self::Gearman {
            encode(out, Magic::Request, Command::CanDo, &[QUEUE], &[]);
        }
    }

    /// Puts a job. Only Gearman has unique keys.
    pub(crate) fn put(self, out: &mut Vec<u8>, unique: &[u8], payload: &[u8]) {
        match self {
            Self::Gearman => {
                encode(out, Magic::Request, Command::SubmitJobBg, &[QUEUE, unique], payload);
            }
            Self::Beanstalk => {
                let length = payload.len().to_string();
                push(out, &[b"put 1024 0 120 ", length.as_bytes(), b"\r\n", payload, b"\r\n"]);
            }
            Self::Redis => redis_command(out, &[b"LPUSH", QUEUE, payload]),
        }
    }

    /// Asks for a job; beanstalkd and Redis answer when there is one. Each worker has a list of its
    /// own for what it works on.
    pub(crate) fn take(self, out: &mut Vec<u8>, worker: usize) {
        match self {
            Self::Gearman => encode(out, Magic::Request, Command::GrabJob, &[], &[]),
            Self::Beanstalk => out.extend_from_slice(b"reserve\r\n"),
            Self::Redis => {
                let own = format!("bench:{worker}");
                let words: [&[u8]; 6] = [b"BLMOVE", QUEUE, own.as_bytes(), b"RIGHT", b"LEFT", b"0"];
                redis_command(out, &words);
            }
        }
    }

    /// Says that a job is done, with an empty result.
    pub(crate) fn done(self, out: &mut Vec<u8>, worker: usize, id: &[u8], payload: &[u8]) {
        match self {
            Self::Gearman => encode(out, Magic::Request, Command::WorkComplete, &[id], &[]),
            Self::Beanstalk => push(out, &[b"delete ", id, b"\r\n"]),
            Self::Redis => {
                let own = format!("bench:{worker}");
                redis_command(out, &[b"LREM", own.as_bytes(), b"1", payload]);
            }
        }
    }

    /// Asks how many jobs wait, on a connection that does nothing else.
    pub(crate) fn ask_count(self) -> &'static [u8] {
        match self {
            Self::Gearman => b"status\n",
            Self::Beanstalk => b"stats\r\n",
            Self::Redis => b"LLEN bench\r\n",
        }
    }

    /// How many wait for a function, or in the one queue, once all of the answer is there.
    pub(crate) fn count(self, answer: &[u8], function: &str) -> Option<Result<u64>> {
        let (last, name): (&[u8], _) = match self {
            Self::Gearman => (b".\n", format!("{function}\t")),
            Self::Beanstalk => (b"\r\n", "current-jobs-ready: ".to_owned()),
            Self::Redis => (b"\r\n", ":".to_owned()),
        };
        let text = str::from_utf8(answer.strip_suffix(last)?).unwrap_or_default();
        let whole = self != Self::Beanstalk || text.contains("current-jobs-ready");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        let digits = line.and_then(|line| line.split('\t').next());
        let count = digits.and_then(|digits| digits.trim().parse().ok());
        whole.then(|| count.with_context(|| format!("no number in {text:?}")))
    }

    /// The first event in some bytes, and how many of them it is.
    pub(crate) fn cut(self, bytes: &[u8]) -> Result<Option<(Event<'_>, usize)>> {
        match self {
            Self::Gearman => cut_gearman(bytes),
            Self::Beanstalk => cut_beanstalk(bytes),
            Self::Redis => cut_redis(bytes),
        }
    }
}

fn cut_gearman(bytes: &[u8]) -> Result<Option<(Event<'_>, usize)>> {
    let (header, body) = match frame::cut(bytes, 0)? {
        frame::Cut::Packet { header, body } => (header, body),
        frame::Cut::Line { .. } => bail!("a line from a Gearman server"),
        frame::Cut::PartialBody(_) | frame::Cut::Partial => return Ok(None),
    };
    let arguments = Arguments::split(header.command, body)?;
    let payload = body.get(arguments.payload_at()..).unwrap_or_default();
    let event = match header.command {
        Command::JobCreated => Event::Ok,
        Command::JobAssign => Event::Job { id: arguments.part(0), payload },
        Command::NoJob => Event::Nothing,
        Command::WorkComplete => Event::Result(payload),
        Command::Error | Command::WorkFail => {
            bail!("{}: {}", header.command.name(), body.escape_ascii());
        }
        _ => Event::Other,
    };
    Ok(Some((event, HEADER_BYTES + body.len())))
}

/// A line without its end, and what follows.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    Some((bytes.get(..end)?, bytes.get(end + 2..)?))
}

fn cut_beanstalk(bytes: &[u8]) -> Result<Option<(Event<'_>, usize)>> {
    let Some((line, rest)) = line(bytes) else { return Ok(None) };
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    match words[..] {
        [b"INSERTED" | b"DELETED", ..] => Ok(Some((Event::Ok, line.len() + 2))),
        [b"RESERVED", id, length] => cut_job(line, rest, id, length),
        _ => bail!("beanstalkd says {}", line.escape_ascii()),
    }
}

fn cut_redis(bytes: &[u8]) -> Result<Option<(Event<'_>, usize)>> {
    let Some((line, rest)) = line(bytes) else { return Ok(None) };
    match line.split_first() {
        Some((b':', count)) if count != b"0" => Ok(Some((Event::Ok, line.len() + 2))),
        Some((b'$', length)) if length != b"-1" => cut_job(line, rest, &[], length),
        _ => bail!("Redis says {}", line.escape_ascii()),
    }
}

/// A job of so many bytes behind its line, and the end of a line.
fn cut_job<'a>(
    line: &[u8],
    rest: &'a [u8],
    id: &'a [u8],
    length: &[u8],
) -> Result<Option<(Event<'a>, usize)>> {
    let length: usize = str::from_utf8(length)?.parse()?;
    let payload = rest.get(..length + 2).and_then(|data| data.strip_suffix(b"\r\n"));
    Ok(payload.map(|payload| (Event::Job { id, payload }, line.len() + 2 + length + 2)))
}

fn redis_command(out: &mut Vec<u8>, words: &[&[u8]]) {
    push(out, &[format!("*{}\r\n", words.len()).as_bytes()]);
    for word in words {
        push(out, &[format!("${}\r\n", word.len()).as_bytes(), word, b"\r\n"]);
    }
}

fn push(out: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_split_of_an_answer_gives_the_same_event() {
        let mut assign = Vec::new();
        let arguments: [&[u8]; 2] = [b"H:1", QUEUE];
        encode(&mut assign, Magic::Response, Command::JobAssign, &arguments, b"a\r\nb");
        let cases: [(Protocol, &[u8], Event<'_>); 5] = [
            (Protocol::Gearman, &assign, Event::Job { id: b"H:1", payload: b"a\r\nb" }),
            (
                Protocol::Beanstalk,
                b"RESERVED 12 4\r\na\r\nb\r\n",
                Event::Job { id: b"12", payload: b"a\r\nb" },
            ),
            (Protocol::Beanstalk, b"INSERTED 12\r\n", Event::Ok),
            (Protocol::Redis, b"$4\r\na\r\nb\r\n", Event::Job { id: b"", payload: b"a\r\nb" }),
            (Protocol::Redis, b":17\r\n", Event::Ok),
        ];
        for (protocol, bytes, event) in cases {
            for end in 0..bytes.len() {
                assert_eq!(protocol.cut(&bytes[..end]).unwrap(), None, "{protocol:?} {end}");
            }
            let more = [bytes, b"more"].concat();
            assert_eq!(protocol.cut(&more).unwrap(), Some((event, bytes.len())));
        }
    }

    #[test]
    fn waiting_jobs_are_counted() {
        let stats = b"OK 41\r\n---\ncurrent-jobs-urgent: 1\ncurrent-jobs-ready: 17\nx: 2\n\r\n";
        let cases: [(Protocol, &[u8]); 3] = [
            (Protocol::Gearman, b"bench-1\t5\t0\t0\nbench-0\t17\t0\t3\n.\n"),
            (Protocol::Beanstalk, stats),
            (Protocol::Redis, b":17\r\n"),
        ];
        for (protocol, answer) in cases {
            for end in 0..answer.len() {
                assert!(protocol.count(&answer[..end], "bench-0").is_none(), "{protocol:?} {end}");
            }
            assert_eq!(protocol.count(answer, "bench-0").unwrap().unwrap(), 17);
        }
        let loading = b"-LOADING Redis is loading the dataset in memory\r\n";
        assert!(Protocol::Redis.count(loading, "").unwrap().is_err());
        assert!(Protocol::Gearman.count(b".\n", "bench-0").unwrap().is_err());
    }

    #[test]
    fn refusals_are_errors() {
        for (protocol, bytes) in [
            (Protocol::Beanstalk, &b"NOT_FOUND\r\n"[..]),
            (Protocol::Beanstalk, b"JOB_TOO_BIG\r\n"),
            (Protocol::Redis, b"-ERR unknown command\r\n"),
            (Protocol::Redis, b":0\r\n"),
        ] {
            assert!(protocol.cut(bytes).is_err());
        }
    }

    #[test]
    fn commands_are_written_as_their_servers_read_them() {
        let mut out = Vec::new();
        Protocol::Beanstalk.put(&mut out, b"", b"xy");
        Protocol::Beanstalk.done(&mut out, 0, b"7", b"xy");
        assert_eq!(out, b"put 1024 0 120 2\r\nxy\r\ndelete 7\r\n");
        out.clear();
        Protocol::Redis.done(&mut out, 3, b"", b"xy");
        assert_eq!(out, b"*4\r\n$4\r\nLREM\r\n$7\r\nbench:3\r\n$1\r\n1\r\n$2\r\nxy\r\n");
    }
}
