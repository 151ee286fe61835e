//! Frames in, borrowed requests out; responses in, bytes out. Holds THE command table.
//!
//! Knows the layout of every packet of the Gearman protocol (its number, who sends it, its
//! NUL-terminated arguments, whether opaque bytes follow them); knows nothing of connections, jobs
//! or sockets. Allocates nothing: arguments are slices of the frame they came in.
//!
//! Invariant: arguments never exceed `ARGUMENTS_BYTES_MAX`, so every offset of one fits 16 bits;
//! what `Arguments::split` reads is what `encode` wrote.

use bytes::Bytes;
use memchr::memchr;
use thiserror::Error;

use crate::frame::{Header, Magic, header_bytes};

/// Most bytes that the arguments of one packet may take, NULs included, payload excluded
/// (gearmand's receive buffer bounds them likewise).
pub const ARGUMENTS_BYTES_MAX: usize = 8192;

/// Most arguments of any packet in the table, payload included.
const ARGUMENTS_MAX: usize = 8;

const _: () = assert!(ARGUMENTS_BYTES_MAX <= u16::MAX as usize);

/// Which side of the protocol sends a packet. Clients and workers aren't told apart by the server:
/// any connection may submit and any may grab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Clients and workers.
    Peer,
    /// The job server.
    Server,
    /// Both: results travel worker → server → client.
    Both,
    /// Nobody; the number is reserved.
    Nobody,
}

macro_rules! commands {
    ($($(#[$doc:meta])* $number:literal $variant:ident $name:literal $sender:ident
        $arguments:literal $payload:literal;)*) => {
        /// Every packet type of the Gearman protocol, by its protocol number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Command {
            $($(#[$doc])* #[doc = concat!("`", $name, "`")] $variant = $number,)*
        }

        impl Command {
            /// All of them, in the order of their numbers, which start at 1.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The protocol's name of the packet.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Who sends it.
            #[must_use]
            pub const fn sender(self) -> Sender {
                match self { $(Self::$variant => Sender::$sender,)* }
            }

            /// Number of arguments, the payload not counted.
            #[must_use]
            pub const fn arguments(self) -> usize {
                match self { $(Self::$variant => $arguments,)* }
            }

            /// Whether opaque bytes follow the arguments, each of which then ends with a NUL.
            /// Without them the last argument runs to the end of the body.
            #[must_use]
            pub const fn has_payload(self) -> bool {
                match self { $(Self::$variant => $payload,)* }
            }
        }
    };
}

commands! {
    // number, variant, name, sender, arguments, payload
    1 CanDo "CAN_DO" Peer 1 false;
    2 CantDo "CANT_DO" Peer 1 false;
    3 ResetAbilities "RESET_ABILITIES" Peer 0 false;
    4 PreSleep "PRE_SLEEP" Peer 0 false;
    5 Unused "(unused)" Nobody 0 false;
    6 Noop "NOOP" Server 0 false;
    7 SubmitJob "SUBMIT_JOB" Peer 2 true;
    8 JobCreated "JOB_CREATED" Server 1 false;
    9 GrabJob "GRAB_JOB" Peer 0 false;
    10 NoJob "NO_JOB" Server 0 false;
    11 JobAssign "JOB_ASSIGN" Server 2 true;
    12 WorkStatus "WORK_STATUS" Both 3 false;
    13 WorkComplete "WORK_COMPLETE" Both 1 true;
    14 WorkFail "WORK_FAIL" Both 1 false;
    15 GetStatus "GET_STATUS" Peer 1 false;
    16 EchoReq "ECHO_REQ" Peer 0 true;
    17 EchoRes "ECHO_RES" Server 0 true;
    18 SubmitJobBg "SUBMIT_JOB_BG" Peer 2 true;
    19 Error "ERROR" Server 2 false;
    20 StatusRes "STATUS_RES" Server 5 false;
    21 SubmitJobHigh "SUBMIT_JOB_HIGH" Peer 2 true;
    22 SetClientId "SET_CLIENT_ID" Peer 1 false;
    23 CanDoTimeout "CAN_DO_TIMEOUT" Peer 2 false;
    24 AllYours "ALL_YOURS" Nobody 0 false;
    25 WorkException "WORK_EXCEPTION" Both 1 true;
    26 OptionReq "OPTION_REQ" Peer 1 false;
    27 OptionRes "OPTION_RES" Server 1 false;
    28 WorkData "WORK_DATA" Both 1 true;
    29 WorkWarning "WORK_WARNING" Both 1 true;
    30 GrabJobUniq "GRAB_JOB_UNIQ" Peer 0 false;
    31 JobAssignUniq "JOB_ASSIGN_UNIQ" Server 3 true;
    32 SubmitJobHighBg "SUBMIT_JOB_HIGH_BG" Peer 2 true;
    33 SubmitJobLow "SUBMIT_JOB_LOW" Peer 2 true;
    34 SubmitJobLowBg "SUBMIT_JOB_LOW_BG" Peer 2 true;
    // gearmand parses it and then refuses it; the protocol text never said what it does.
    35 SubmitJobSched "SUBMIT_JOB_SCHED" Nobody 7 true;
    36 SubmitJobEpoch "SUBMIT_JOB_EPOCH" Peer 3 true;
    // Four arguments, as libgearman sends them; the protocol text lists three.
    37 SubmitReduceJob "SUBMIT_REDUCE_JOB" Peer 4 true;
    38 SubmitReduceJobBackground "SUBMIT_REDUCE_JOB_BACKGROUND" Peer 4 true;
    39 GrabJobAll "GRAB_JOB_ALL" Peer 0 false;
    40 JobAssignAll "JOB_ASSIGN_ALL" Server 4 true;
    41 GetStatusUnique "GET_STATUS_UNIQUE" Peer 1 false;
    42 StatusResUnique "STATUS_RES_UNIQUE" Server 6 false;
}

impl Command {
    /// The command with this protocol number, if there is one.
    #[inline]
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        Self::ALL.get(index).copied()
    }

    /// The protocol's number of the packet.
    #[inline]
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Whether the packet has any argument besides a payload.
    #[inline]
    #[must_use]
    pub const fn has_arguments(self) -> bool {
        self.arguments() > 0
    }
}

/// A packet that doesn't hold what its command promises, or that no peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PacketError {
    /// `\0RES` sent to the server. The peer is told; the connection stays usable.
    #[error("response magic on a packet to the server")]
    ResponseMagic,
    /// A number that only the server may send, or that nobody may. The peer is told.
    #[error("{0:?} is not a request")]
    NotARequest(Command),
    /// Fewer NUL-terminated arguments than the command has. The connection is closed.
    #[error("{0:?} lacks an argument")]
    MissingArgument(Command),
}

/// Payloads from here on are kept and sent in the allocation that they came in; copying smaller
/// ones costs less.
pub const SHARED_BYTES_MIN: usize = 16 << 10;

/// Opaque bytes of a packet, with the allocation they lie in where that allocation may be kept.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    bytes: &'a [u8],
    shared: Option<&'a Bytes>,
}

impl<'a> Payload<'a> {
    /// Bytes that must be copied to be kept.
    #[inline]
    #[must_use]
    pub fn borrowed(bytes: &'a [u8]) -> Self {
        Self { bytes, shared: None }
    }

    /// All bytes of an allocation that can be kept by sharing it.
    #[inline]
    #[must_use]
    pub fn shared(bytes: &'a Bytes) -> Self {
        Self { bytes, shared: Some(bytes) }
    }

    /// The bytes themselves.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The same bytes from `at` on.
    #[inline]
    #[must_use]
    pub fn from(&self, at: usize) -> Self {
        Self { bytes: self.bytes.get(at..).unwrap_or_default(), shared: self.shared }
    }

    /// The bytes as a share of their allocation, if they lie in one.
    #[must_use]
    pub fn share(&self) -> Option<Bytes> {
        // An empty slice has no place in any allocation.
        self.shared.filter(|_| !self.bytes.is_empty()).map(|owner| owner.slice_ref(self.bytes))
    }
}

/// The arguments of one packet and what follows them, as slices of its body.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'a> {
    parts: [&'a [u8]; ARGUMENTS_MAX],
    payload_at: usize,
}

impl<'a> Arguments<'a> {
    /// Splits a body as the table says for `command`.
    ///
    /// # Errors
    /// `PacketError::MissingArgument` if a NUL is missing within `ARGUMENTS_BYTES_MAX`.
    #[inline]
    pub fn split(command: Command, body: &'a [u8]) -> Result<Self, PacketError> {
        let count = command.arguments();
        let terminated = if command.has_payload() { count } else { count.saturating_sub(1) };
        let mut parts: [&[u8]; ARGUMENTS_MAX] = [&[]; ARGUMENTS_MAX];
        let searched = body.get(..ARGUMENTS_BYTES_MAX).unwrap_or(body);
        let mut at = 0;
        for part in parts.iter_mut().take(terminated) {
            let rest = searched.get(at..).unwrap_or_default();
            let length = memchr(0, rest).ok_or(PacketError::MissingArgument(command))?;
            *part = rest.get(..length).unwrap_or_default();
            at += length + 1;
        }
        if terminated < count
            && let Some(part) = parts.get_mut(terminated)
        {
            *part = body.get(at..).unwrap_or_default();
        }
        Ok(Self { parts, payload_at: at })
    }

    /// Argument `index`, counted from 0; empty beyond the command's last.
    #[inline]
    #[must_use]
    pub fn part(&self, index: usize) -> &'a [u8] {
        self.parts.get(index).copied().unwrap_or_default()
    }

    /// Where the payload starts in the body.
    #[inline]
    #[must_use]
    pub fn payload_at(&self) -> usize {
        self.payload_at
    }
}

/// A job's urgency; within one worker, jobs of a higher one go first whatever their function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Priority {
    /// `SUBMIT_JOB_HIGH*`
    High = 0,
    /// `SUBMIT_JOB*`, and every delayed and every reduce job.
    Normal = 1,
    /// `SUBMIT_JOB_LOW*`
    Low = 2,
}

impl Priority {
    /// From the most to the least urgent.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];
}

/// A job as some client hands it in.
#[derive(Clone, Copy, Debug)]
pub struct Submit<'a> {
    /// Name of the function that shall run.
    pub function: &'a [u8],
    /// Key under which equal work is run once; empty = never, `-` = equal payloads.
    pub unique: &'a [u8],
    /// Function that gathers the results; empty for jobs that aren't reduce jobs.
    pub reducer: &'a [u8],
    /// When the job may run, in seconds since 1970, as the client wrote it.
    pub epoch: Option<&'a [u8]>,
    /// Urgency.
    pub priority: Priority,
    /// Whether the client stays attached for the result (foreground) or not.
    pub background: bool,
    /// The whole body of the packet.
    pub body: Payload<'a>,
    /// Where the unique starts in `body`; what stands before it is the function's name.
    pub unique_at: u16,
    /// Where the payload starts in `body`.
    pub payload_at: u16,
}

/// Which form of assignment a worker asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grab {
    /// `GRAB_JOB` → `JOB_ASSIGN`
    Plain,
    /// `GRAB_JOB_UNIQ` → `JOB_ASSIGN_UNIQ`
    Unique,
    /// `GRAB_JOB_ALL` → `JOB_ASSIGN_ALL`, or `JOB_ASSIGN_UNIQ` for a job without a reducer
    All,
}

/// What a worker says about a job it runs; forwarded to the job's clients as it came.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// One of the `WORK_*` commands.
    pub command: Command,
    /// Handle of the job, as the worker wrote it.
    pub handle: &'a [u8],
    /// First argument behind the handle: the numerator of `WORK_STATUS`.
    pub numerator: &'a [u8],
    /// Second argument behind the handle: the denominator of `WORK_STATUS`.
    pub denominator: &'a [u8],
    /// The whole body of the packet.
    pub body: Payload<'a>,
}

/// A packet that clients and workers may send.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the variants and their fields are the protocol's own words")]
pub enum Request<'a> {
    CanDo { function: &'a [u8] },
    CanDoTimeout { function: &'a [u8], timeout_ms: &'a [u8] },
    CantDo { function: &'a [u8] },
    ResetAbilities,
    PreSleep,
    GrabJob(Grab),
    Submit(Submit<'a>),
    Work(Work<'a>),
    GetStatus { handle: &'a [u8] },
    GetStatusUnique { unique: &'a [u8] },
    Echo { payload: Payload<'a> },
    SetClientId { id: &'a [u8] },
    Option { name: &'a [u8] },
}

impl<'a> Request<'a> {
    /// Reads a packet that was sent to the server.
    ///
    /// # Errors
    /// `PacketError`: see there for which of them end the connection.
    #[inline]
    pub fn parse(header: Header, body: Payload<'a>) -> Result<Self, PacketError> {
        use Command as C;
        let command = header.command;
        let arguments = Arguments::split(command, body.bytes())?;
        if header.magic == Magic::Response {
            return Err(PacketError::ResponseMagic);
        }
        let first = arguments.part(0);
        Ok(match command {
            C::CanDo => Self::CanDo { function: first },
            C::CanDoTimeout => {
                Self::CanDoTimeout { function: first, timeout_ms: arguments.part(1) }
            }
            C::CantDo => Self::CantDo { function: first },
            C::ResetAbilities => Self::ResetAbilities,
            C::PreSleep => Self::PreSleep,
            C::GrabJob => Self::GrabJob(Grab::Plain),
            C::GrabJobUniq => Self::GrabJob(Grab::Unique),
            C::GrabJobAll => Self::GrabJob(Grab::All),
            C::SubmitJob
            | C::SubmitJobBg
            | C::SubmitJobHigh
            | C::SubmitJobHighBg
            | C::SubmitJobLow
            | C::SubmitJobLowBg
            | C::SubmitJobEpoch
            | C::SubmitReduceJob
            | C::SubmitReduceJobBackground => Self::Submit(submit(command, &arguments, body)),
            C::WorkStatus
            | C::WorkComplete
            | C::WorkFail
            | C::WorkException
            | C::WorkData
            | C::WorkWarning => Self::Work(Work {
                command,
                handle: first,
                numerator: arguments.part(1),
                denominator: arguments.part(2),
                body,
            }),
            C::GetStatus => Self::GetStatus { handle: first },
            C::GetStatusUnique => Self::GetStatusUnique { unique: first },
            C::EchoReq => Self::Echo { payload: body },
            C::SetClientId => Self::SetClientId { id: first },
            C::OptionReq => Self::Option { name: first },
            _ => return Err(PacketError::NotARequest(command)),
        })
    }
}

fn submit<'a>(command: Command, arguments: &Arguments<'a>, body: Payload<'a>) -> Submit<'a> {
    use Command as C;
    let priority = match command {
        C::SubmitJobHigh | C::SubmitJobHighBg => Priority::High,
        C::SubmitJobLow | C::SubmitJobLowBg => Priority::Low,
        _ => Priority::Normal,
    };
    let background = matches!(
        command,
        C::SubmitJobBg
            | C::SubmitJobHighBg
            | C::SubmitJobLowBg
            | C::SubmitJobEpoch
            | C::SubmitReduceJobBackground
    );
    let reduces = matches!(command, C::SubmitReduceJob | C::SubmitReduceJobBackground);
    let function = arguments.part(0);
    // `Arguments::split` bounds both by `ARGUMENTS_BYTES_MAX`.
    let offset = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
    Submit {
        function,
        unique: arguments.part(1),
        reducer: if reduces { arguments.part(2) } else { &[] },
        epoch: (command == C::SubmitJobEpoch).then(|| arguments.part(2)),
        priority,
        background,
        body,
        unique_at: offset(function.len() + 1),
        payload_at: offset(arguments.payload_at()),
    }
}

/// The ERROR packets that gearmand knows, code and text byte by byte, and two of our own texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorReply {
    /// A packet with `\0RES` magic.
    RequestMagicExpected,
    /// A packet that only the server may send, or nobody.
    CommandNotExpected,
    /// A unique key (or a reducer's name) beyond 64 bytes.
    UniqueTooLarge,
    /// WORK_FAIL for a handle of 64 bytes or more.
    HandleTooLarge,
    /// A payload beyond `--job-size-max`.
    PayloadTooLarge,
    /// A large body of a request that has none.
    BodyTooLarge,
    /// A number that isn't one: an epoch out of range.
    NumberOutOfRange,
    /// The function's maximum queue size is reached.
    QueueFull,
    /// The server holds as many bytes as `--memory-max` allows.
    OutOfMemory,
    /// The same, for what a worker can do.
    OutOfMemoryToRegister,
    /// The job could not be put on disk.
    NotStored,
    /// The server finishes the jobs it has.
    Draining,
    /// OPTION_REQ for anything but `exceptions`.
    UnknownOption,
    /// WORK_DATA or WORK_WARNING for a job that this connection doesn't run.
    NoSuchJob,
    /// WORK_STATUS, WORK_COMPLETE or WORK_FAIL for a job that this connection doesn't run.
    NoSuchJobForResult,
    /// WORK_EXCEPTION for a job that this connection doesn't run.
    NoSuchJobForException,
}

impl ErrorReply {
    /// The code: gearmand's name of the error, which libgearman maps back to its own enum.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::RequestMagicExpected => "INVALID_MAGIC",
            Self::CommandNotExpected => "INVALID_COMMAND",
            Self::UniqueTooLarge
            | Self::HandleTooLarge
            | Self::PayloadTooLarge
            | Self::BodyTooLarge
            | Self::NumberOutOfRange => "ARGUMENT_TOO_LARGE",
            Self::QueueFull | Self::OutOfMemory | Self::NotStored => "QUEUE_ERROR",
            Self::OutOfMemoryToRegister => "MEMORY_ALLOCATION_FAILURE",
            Self::Draining => "SHUTDOWN",
            Self::UnknownOption => "UNKNOWN_OPTION",
            Self::NoSuchJob | Self::NoSuchJobForResult | Self::NoSuchJobForException => {
                "JOB_NOT_FOUND"
            }
        }
    }

    /// The text for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::RequestMagicExpected => "Request magic expected",
            Self::CommandNotExpected => "Command not expected",
            Self::UniqueTooLarge => "Unique value too large",
            Self::HandleTooLarge => {
                "Error occurred due to GEARMAND_JOB_HANDLE_SIZE being too small from snprintf"
            }
            Self::PayloadTooLarge => "Job payload exceeds job-size-max",
            Self::BodyTooLarge => "This request has no body",
            Self::NumberOutOfRange => "Epoch out of range",
            Self::QueueFull => "Job queue is full",
            Self::OutOfMemory => "MEMORY_ALLOCATION_FAILURE",
            Self::OutOfMemoryToRegister => "No memory for one more function of a worker",
            Self::NotStored => "Job could not be stored",
            Self::Draining => "The server finishes its jobs and takes no more: use another one",
            Self::UnknownOption => "Server does not recognize given option",
            Self::NoSuchJob => "Job does not exist on server",
            Self::NoSuchJobForResult => "Job given in work result not found",
            Self::NoSuchJobForException => {
                "An exception was received for a job that does not exist"
            }
        }
    }
}

/// A packet that the server sends.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the variants and their fields are the protocol's own words")]
pub enum Response<'a> {
    Noop,
    NoJob,
    JobCreated {
        handle: &'a [u8],
    },
    JobAssign {
        grab: Grab,
        handle: &'a [u8],
        function: &'a [u8],
        unique: &'a [u8],
        reducer: &'a [u8],
        payload: Payload<'a>,
    },
    /// A worker's packet, passed on with the body it came with.
    Work {
        command: Command,
        body: Payload<'a>,
    },
    StatusRes {
        handle: &'a [u8],
        known: bool,
        running: bool,
        numerator: u32,
        denominator: u32,
    },
    StatusResUnique {
        unique: &'a [u8],
        known: bool,
        running: bool,
        numerator: u32,
        denominator: u32,
        clients: u32,
    },
    EchoRes {
        payload: Payload<'a>,
    },
    OptionRes {
        name: &'a [u8],
    },
    Error(ErrorReply),
}

impl<'a> Response<'a> {
    /// The bytes that go out behind what `head` writes.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> Payload<'a> {
        match *self {
            Self::JobAssign { payload, .. } | Self::EchoRes { payload } => payload,
            Self::Work { body, .. } => body,
            _ => Payload::borrowed(&[]),
        }
    }

    /// Appends the header and all arguments to `out`; the header counts the payload too.
    #[inline]
    pub fn head(&self, out: &mut Vec<u8>) {
        use Command as C;
        let payload_bytes = self.payload().bytes().len();
        match *self {
            Self::Noop => head(out, C::Noop, &[], 0),
            Self::NoJob => head(out, C::NoJob, &[], 0),
            Self::JobCreated { handle } => head(out, C::JobCreated, &[handle], 0),
            Self::JobAssign { grab, handle, function, unique, reducer, .. } => match grab {
                Grab::Plain => head(out, C::JobAssign, &[handle, function], payload_bytes),
                Grab::All if !reducer.is_empty() => {
                    let arguments = [handle, function, unique, reducer];
                    head(out, C::JobAssignAll, &arguments, payload_bytes);
                }
                Grab::Unique | Grab::All => {
                    head(out, C::JobAssignUniq, &[handle, function, unique], payload_bytes);
                }
            },
            Self::Work { command, .. } => {
                out.extend_from_slice(&header_bytes(
                    Magic::Response,
                    command,
                    u32::try_from(payload_bytes).unwrap_or(u32::MAX),
                ));
            }
            Self::StatusRes { handle, known, running, numerator, denominator } => {
                let (mut n, mut d) = (itoa::Buffer::new(), itoa::Buffer::new());
                let (n, d) = (n.format(numerator).as_bytes(), d.format(denominator).as_bytes());
                head(out, C::StatusRes, &[handle, flag(known), flag(running), n, d], 0);
            }
            Self::StatusResUnique { unique, known, running, numerator, denominator, clients } => {
                let mut buffers = [itoa::Buffer::new(), itoa::Buffer::new(), itoa::Buffer::new()];
                let [n, d, c] = &mut buffers;
                let (n, d) = (n.format(numerator).as_bytes(), d.format(denominator).as_bytes());
                let c = c.format(clients).as_bytes();
                let arguments = [unique, flag(known), flag(running), n, d, c];
                head(out, C::StatusResUnique, &arguments, 0);
            }
            Self::EchoRes { .. } => head(out, C::EchoRes, &[], payload_bytes),
            Self::OptionRes { name } => head(out, C::OptionRes, &[name], 0),
            Self::Error(error) => {
                head(out, C::Error, &[error.code().as_bytes(), error.text().as_bytes()], 0);
            }
        }
    }
}

fn flag(value: bool) -> &'static [u8] {
    if value { b"1" } else { b"0" }
}

#[inline]
fn head(out: &mut Vec<u8>, command: Command, arguments: &[&[u8]], payload_bytes: usize) {
    write_head(out, Magic::Response, command, arguments, payload_bytes);
}

#[inline]
fn write_head(
    out: &mut Vec<u8>,
    magic: Magic,
    command: Command,
    arguments: &[&[u8]],
    payload_bytes: usize,
) {
    debug_assert_eq!(arguments.len(), command.arguments(), "{command:?}");
    let arguments_bytes: usize = arguments.iter().map(|argument| argument.len() + 1).sum();
    // The last argument has no NUL behind it unless a payload follows.
    let unterminated = usize::from(!command.has_payload() && !arguments.is_empty());
    let body_bytes = arguments_bytes - unterminated + payload_bytes;
    // Nothing that fits a request grows beyond one: assignments carry the arguments of the
    // submission minus its queueing ones plus a handle, and `JOB_BYTES_MAX` leaves room for that.
    let body_bytes = u32::try_from(body_bytes).unwrap_or(u32::MAX);
    out.extend_from_slice(&header_bytes(magic, command, body_bytes));
    for (index, argument) in arguments.iter().enumerate() {
        out.extend_from_slice(argument);
        if command.has_payload() || index + 1 < arguments.len() {
            out.push(0);
        }
    }
}

/// Appends a whole packet to `out`, whoever sends it: the one writer that clients, load generators
/// and tests need. The number of arguments must be the command's.
pub fn encode(
    out: &mut Vec<u8>,
    magic: Magic,
    command: Command,
    arguments: &[&[u8]],
    payload: &[u8],
) {
    debug_assert!(command.has_payload() || payload.is_empty(), "{command:?}");
    write_head(out, magic, command, arguments, payload.len());
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests;
