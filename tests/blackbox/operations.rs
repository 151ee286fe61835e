//! The vocabulary: requests and other deeds of a peer, their bytes, and words for people.
//!
//! Knows the protocol's argument lists and nothing of what they bring about. Invariant: `bytes` of
//! a request is one packet or one line.

use std::fmt;

use crate::conn::{named, packet_type, readable, request, response};

/// Bytes of a name, key or payload.
pub(crate) type Bytes = Vec<u8>;

/// Submissions by name: whether in the background, and the priority from 0 = high.
pub(crate) const SUBMISSIONS: [(&str, bool, usize); 9] = [
    ("SUBMIT_JOB", false, 1),
    ("SUBMIT_JOB_BG", true, 1),
    ("SUBMIT_JOB_HIGH", false, 0),
    ("SUBMIT_JOB_HIGH_BG", true, 0),
    ("SUBMIT_JOB_LOW", false, 2),
    ("SUBMIT_JOB_LOW_BG", true, 2),
    ("SUBMIT_JOB_EPOCH", true, 1),
    ("SUBMIT_REDUCE_JOB", false, 1),
    ("SUBMIT_REDUCE_JOB_BACKGROUND", true, 1),
];

/// A submission.
#[derive(Clone, Debug)]
pub(crate) struct Submission {
    pub(crate) kind: usize,
    pub(crate) function: Bytes,
    pub(crate) unique: Bytes,
    /// Of reduce jobs.
    pub(crate) reducer: Bytes,
    /// Of SUBMIT_JOB_EPOCH: the text of the time.
    pub(crate) epoch: Bytes,
    pub(crate) payload: Bytes,
}

impl Submission {
    pub(crate) fn name(&self) -> &'static str {
        SUBMISSIONS[self.kind].0
    }

    pub(crate) fn background(&self) -> bool {
        SUBMISSIONS[self.kind].1
    }

    pub(crate) fn priority(&self) -> usize {
        SUBMISSIONS[self.kind].2
    }

    pub(crate) fn reduces(&self) -> bool {
        self.name().starts_with("SUBMIT_REDUCE")
    }

    pub(crate) fn has_epoch(&self) -> bool {
        self.name() == "SUBMIT_JOB_EPOCH"
    }
}

/// Something to ask of the server.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Submit(Submission),
    CanDo {
        function: Bytes,
        timeout_ms: Option<&'static str>,
    },
    CantDo {
        function: Bytes,
    },
    ResetAbilities,
    /// `GRAB_JOB`, `GRAB_JOB_UNIQ` or `GRAB_JOB_ALL`.
    Grab(&'static str),
    PreSleep,
    /// A `WORK_*` packet: its name, the handle as it is sent, what follows it.
    Work {
        name: &'static str,
        handle: Bytes,
        rest: Vec<Bytes>,
    },
    GetStatus {
        handle: Bytes,
    },
    GetStatusUnique {
        unique: Bytes,
    },
    Option {
        name: Bytes,
    },
    Echo {
        payload: Bytes,
    },
    SetClientId {
        id: Bytes,
    },
    /// A packet that only a server may send, or that is no command any more.
    Unexpected(&'static str),
    /// A packet with the magic of a response.
    WrongMagic,
    /// A line of the text protocol, without its end.
    Text {
        line: String,
        crlf: bool,
    },
}

impl Request {
    /// What goes over the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Submit(submission) => {
                let Submission { function, unique, reducer, epoch, payload, .. } = submission;
                let mut arguments: Vec<&[u8]> = vec![function, unique];
                if submission.reduces() {
                    arguments.extend([&reducer[..], b""]);
                } else if submission.has_epoch() {
                    arguments.push(epoch);
                }
                arguments.push(payload);
                named(submission.name(), &arguments)
            }
            Self::CanDo { function, timeout_ms: None } => named("CAN_DO", &[function]),
            Self::CanDo { function, timeout_ms: Some(ms) } => {
                named("CAN_DO_TIMEOUT", &[function, ms.as_bytes()])
            }
            Self::CantDo { function } => named("CANT_DO", &[function]),
            Self::ResetAbilities => named("RESET_ABILITIES", &[]),
            Self::Grab(name) => named(name, &[]),
            Self::PreSleep => named("PRE_SLEEP", &[]),
            Self::Work { name, .. } => {
                request(packet_type(name).expect("a packet's name"), &self.work_body())
            }
            Self::GetStatus { handle } => named("GET_STATUS", &[handle]),
            Self::GetStatusUnique { unique } => named("GET_STATUS_UNIQUE", &[unique]),
            Self::Option { name } => named("OPTION_REQ", &[name]),
            Self::Echo { payload } => named("ECHO_REQ", &[payload]),
            Self::SetClientId { id } => named("SET_CLIENT_ID", &[id]),
            Self::Unexpected(name) => named(name, &[b"f", b"", b"", b"", b"", b"", b"", b"x"]),
            Self::WrongMagic => response(16, b"x"),
            Self::Text { line, crlf } => {
                let end = if *crlf { "\r\n" } else { "\n" };
                [line, end].concat().into_bytes()
            }
        }
    }

    /// The body of a `WORK_*` packet, which is what clients get.
    pub(crate) fn work_body(&self) -> Vec<u8> {
        let Self::Work { handle, rest, .. } = self else { unreachable!("asked of WORK_* only") };
        let parts: Vec<&[u8]> =
            std::iter::once(&handle[..]).chain(rest.iter().map(Vec::as_slice)).collect();
        parts.join(&0)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { line, .. } => write!(f, "text {line:?}"),
            Self::WrongMagic => write!(f, "a packet with the magic of a response"),
            _ => {
                let bytes = self.bytes();
                let number = u32::from_be_bytes(bytes[4..8].try_into().expect("a header"));
                let name = usize::try_from(number).ok().and_then(|at| crate::conn::NAMES.get(at));
                write!(f, "{} {}", name.unwrap_or(&"?"), readable(&bytes[12..]))
            }
        }
    }
}

/// What a peer does in one step.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    /// A new connection in a free place.
    Open,
    /// Requests in one write; with `fin`, the sending side is closed after them.
    Send { requests: Vec<Request>, fin: bool },
    /// Bytes after which the server has to close.
    Break(Vec<u8>),
    /// The end, with `reset` by RST.
    Close { reset: bool },
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => write!(f, "connects"),
            Self::Send { requests, fin } => {
                let texts: Vec<String> = requests.iter().map(Request::to_string).collect();
                let fin = if *fin { ", FIN" } else { "" };
                write!(f, "sends {}{fin}", texts.join(", "))
            }
            Self::Break(bytes) => write!(f, "sends what is no request: {}", readable(bytes)),
            Self::Close { reset: false } => write!(f, "closes"),
            Self::Close { reset: true } => write!(f, "resets"),
        }
    }
}
