//! What peers ask for, by chance: a seeded generator and what may be named in, requests out.
//!
//! Names, keys and payloads come from small sets, so that they meet. Knows the model's handles only
//! as bytes. Invariant: the same generator and the same names give the same requests.

use fastrand::Rng;

use crate::operations::{Bytes, Request, SUBMISSIONS, Submission};

const UNIQUES: [&[u8]; 6] = [b"", b"", b"-", b"-", b"key", b"other key"];
const PAYLOADS: [&[u8]; 5] = [b"", b"x", b"y", b"a\0b\0", b"\xff\n\r\0REQ"];
const TIMES: [&str; 7] = ["", "0", "-5", "12abc", "1700000000", "4000000000", "9000000000"];
const UNEXPECTED: [&str; 7] =
    ["ALL_YOURS", "SUBMIT_JOB_SCHED", "NOOP", "JOB_CREATED", "STATUS_RES", "ECHO_RES", "ERROR"];
const NUMBERS: [&[u8]; 6] = [b"0", b"3", b"10", b" 7x", b"abc", b""];

/// Handles that a peer may name.
pub(crate) struct Handles<'a> {
    /// Of jobs that it runs.
    pub(crate) own: &'a [Bytes],
    /// Of jobs that there are.
    pub(crate) live: &'a [Bytes],
    /// Of all jobs that ever were.
    pub(crate) all: &'a [Bytes],
}

/// What a peer mostly does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Worker,
    Both,
}

/// The generator.
pub(crate) struct Chance {
    pub(crate) rng: Rng,
    /// Names of functions of this run.
    pub(crate) functions: Vec<Bytes>,
}

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let names: [&[u8]; 6] = [b"f", b"g", b"h", b"F", b"", b"two words"];
        let count = rng.usize(1..=names.len());
        let mut functions: Vec<Bytes> = names[..count].iter().map(|name| name.to_vec()).collect();
        // A long name is sent and kept in other ways than a short one.
        if rng.u8(..8) == 0 {
            functions.push(vec![b'n'; 700]);
        }
        Self { rng, functions }
    }

    pub(crate) fn role(&mut self) -> Role {
        [Role::Client, Role::Worker, Role::Worker, Role::Both][self.rng.usize(..4)]
    }

    /// True once in `n` times.
    pub(crate) fn once_in(&mut self, n: u32) -> bool {
        self.rng.u32(..n) == 0
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.rng.usize(..from.len())].clone()
    }

    pub(crate) fn function(&mut self) -> Bytes {
        let at = self.rng.usize(..self.functions.len());
        self.functions[at].clone()
    }

    /// A request for a peer of this role.
    pub(crate) fn request(&mut self, role: Role, handles: &Handles<'_>) -> Request {
        let as_worker = match role {
            Role::Client => self.once_in(12),
            Role::Worker => !self.once_in(8),
            Role::Both => self.rng.bool(),
        };
        if as_worker { self.worker_request(handles) } else { self.client_request(handles) }
    }

    fn worker_request(&mut self, handles: &Handles<'_>) -> Request {
        let grabs = ["GRAB_JOB", "GRAB_JOB_UNIQ", "GRAB_JOB_ALL"];
        match self.rng.u32(..100) {
            0..30 => Request::Grab(self.pick(&grabs)),
            30..48 => Request::PreSleep,
            48..62 => {
                let timeout = self.pick(&[None, None, Some("0"), Some("3600000"), Some("-1")]);
                Request::CanDo { function: self.function(), timeout_ms: timeout }
            }
            62..66 => Request::CantDo { function: self.function() },
            66 => Request::ResetAbilities,
            67..94 => self.work(handles),
            _ => self.other_request(),
        }
    }

    fn work(&mut self, handles: &Handles<'_>) -> Request {
        let names = [
            "WORK_COMPLETE",
            "WORK_COMPLETE",
            "WORK_FAIL",
            "WORK_EXCEPTION",
            "WORK_DATA",
            "WORK_WARNING",
            "WORK_STATUS",
        ];
        let name = self.pick(&names);
        let mut handle = self.handle(handles, true);
        let rest = match name {
            "WORK_FAIL" => {
                if self.once_in(6) {
                    handle.push(0);
                }
                Vec::new()
            }
            "WORK_STATUS" => vec![self.pick(&NUMBERS).to_vec(), self.pick(&NUMBERS).to_vec()],
            _ => vec![self.payload()],
        };
        Request::Work { name, handle, rest }
    }

    fn handle(&mut self, handles: &Handles<'_>, works: bool) -> Bytes {
        let lists = if works {
            [handles.own, handles.own, handles.own, handles.own, handles.live, handles.all]
        } else {
            [handles.live, handles.live, handles.live, handles.live, handles.own, handles.all]
        };
        let list = lists[self.rng.usize(..lists.len())];
        if list.is_empty() || self.once_in(40) {
            let long = [b'h'; 64];
            return self.pick(&[b"H:none:1", &b""[..], b"nonsense", &long]).to_vec();
        }
        self.pick(list)
    }

    fn client_request(&mut self, handles: &Handles<'_>) -> Request {
        match self.rng.u32(..100) {
            0..60 => Request::Submit(self.submission()),
            60..68 => {
                let mut handle = self.handle(handles, false);
                if self.once_in(6) {
                    handle.push(0);
                }
                Request::GetStatus { handle }
            }
            68..74 => Request::GetStatusUnique { unique: self.unique() },
            74..94 => self.text(handles),
            _ => self.other_request(),
        }
    }

    fn other_request(&mut self) -> Request {
        match self.rng.u32(..10) {
            0..3 => {
                let names: [&[u8]; 4] = [b"exceptions", b"Exceptions", b"exceptions", b"bogus"];
                Request::Option { name: self.pick(&names).to_vec() }
            }
            3..5 => Request::Echo { payload: self.payload() },
            5..8 => {
                let long = [b'n'; 300];
                let ids: [&[u8]; 4] = [b"one", b"two", b"", &long];
                Request::SetClientId { id: self.pick(&ids).to_vec() }
            }
            8 => Request::WrongMagic,
            _ => Request::Unexpected(self.pick(&UNEXPECTED)),
        }
    }

    /// Bytes after which a server closes.
    pub(crate) fn nonsense(&mut self) -> Bytes {
        let all: [&[u8]; 5] = [
            b"a b c d e f\n",
            b"\0BAD\0\0\0\x10\0\0\0\0",
            b"\0REQ\0\0\0\x63\0\0\0\0",
            b"\0REQ\0\0\0\0\0\0\0\0",
            b"\0REQ\0\0\0\x07\0\0\0\x03f\0u",
        ];
        self.pick(&all).to_vec()
    }

    pub(crate) fn submission(&mut self) -> Submission {
        let mut kind = self.rng.usize(..SUBMISSIONS.len());
        if self.once_in(3) {
            kind = self.rng.usize(..2);
        }
        Submission {
            kind,
            function: self.function(),
            unique: self.unique(),
            reducer: self.pick(&[b"sum".to_vec(), Vec::new(), vec![b'r'; 64], vec![b'r'; 65]]),
            epoch: self.pick(&TIMES).as_bytes().to_vec(),
            payload: self.payload(),
        }
    }

    fn unique(&mut self) -> Bytes {
        if self.once_in(20) {
            return vec![b'u'; self.rng.usize(63..=65)];
        }
        self.pick(&UNIQUES).to_vec()
    }

    fn payload(&mut self) -> Bytes {
        if self.once_in(150) {
            // One that is received straight into its job's memory.
            return vec![b'p'; self.rng.usize(10_000..300_000)];
        }
        self.pick(&PAYLOADS).to_vec()
    }

    fn text(&mut self, handles: &Handles<'_>) -> Request {
        let lines = [
            "status",
            "prioritystatus",
            "workers",
            "show jobs",
            "show unique jobs",
            "version",
            "verbose",
            "getpid",
            "show me",
            "bogus",
        ];
        let function = String::from_utf8(self.function()).expect("names are text");
        let word = !function.is_empty() && !function.contains(' ');
        let function = if word { function } else { "f".to_owned() };
        let line = match self.rng.u32(..20) {
            0..12 => self.pick(&lines).to_owned(),
            12..15 => {
                let handle = String::from_utf8(self.handle(handles, false)).expect("text");
                let handle = if handle.is_empty() { "nonsense".to_owned() } else { handle };
                format!("cancel job {handle}")
            }
            15..17 => format!("drop function {function}"),
            17 => format!("create function {function}"),
            _ => {
                let sizes = ["", " 0", " 1", " 2", " 3 2", " 1 2 3", " 5"];
                format!("maxqueue {function}{}", self.pick(&sizes))
            }
        };
        Request::Text { line, crlf: self.rng.bool() }
    }
}
