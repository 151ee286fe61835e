//! Frames in, borrowed requests out.
//!
//! Allocates nothing: arguments are slices of the frame. Knows the layout of every packet that
//! clients and workers send, but no connections and no jobs.
//!
//! Invariant: `Arguments::split` reads what `response::encode` writes.

use memchr::memchr;
use thiserror::Error;

use super::command::{ARGUMENTS_BYTES_MAX, Command};
use super::header::{Header, Magic};
use super::payload::Payload;
use super::priority::Priority;

/// Most arguments of any packet in the table, payload included.
const ARGUMENTS_MAX: usize = 8;

/// A packet without the arguments of its command, or that no peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PacketError {
    /// `\0RES` sent to the server. Answered with ERROR; the connection stays usable.
    #[error("response magic on a packet to the server")]
    ResponseMagic,
    /// A command that only the server may send, or neither side. Answered with ERROR.
    #[error("{0:?} is not a request")]
    NotARequest(Command),
    /// Fewer NUL-terminated arguments than the command has. The connection is closed.
    #[error("{0:?} lacks an argument")]
    MissingArgument(Command),
}

/// The arguments of one packet and what follows them, as places in its body.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'a> {
    body: &'a [u8],
    /// Where each argument ends; 0 for those that the command doesn't have.
    ends: [usize; ARGUMENTS_MAX],
    payload_at: usize,
}

impl<'a> Arguments<'a> {
    /// Splits a body as the table says for `command`.
    ///
    /// # Errors
    /// `PacketError::MissingArgument` if a NUL is missing within `ARGUMENTS_BYTES_MAX`.
    #[inline(always)]
    pub fn split(command: Command, body: &'a [u8]) -> Result<Self, PacketError> {
        let count = command.arguments();
        let terminated = if command.has_payload() { count } else { count.saturating_sub(1) };
        let mut ends = [0; ARGUMENTS_MAX];
        let searched = body.get(..ARGUMENTS_BYTES_MAX).unwrap_or(body);
        let mut at = 0;
        for end in ends.iter_mut().take(terminated) {
            let rest = searched.get(at..).unwrap_or_default();
            let length = memchr(0, rest).ok_or(PacketError::MissingArgument(command))?;
            *end = at + length;
            at += length + 1;
        }
        if terminated < count
            && let Some(end) = ends.get_mut(terminated)
        {
            *end = body.len();
        }
        Ok(Self { body, ends, payload_at: at })
    }

    /// Argument `index`, counted from 0; empty beyond the command's last.
    #[inline]
    #[must_use]
    pub fn part(&self, index: usize) -> &'a [u8] {
        let ends = |index: usize| self.ends.get(index).copied().unwrap_or_default();
        let start = if index == 0 { 0 } else { ends(index - 1) + 1 };
        self.body.get(start..ends(index)).unwrap_or_default()
    }

    /// Where the payload starts in the body.
    #[inline]
    #[must_use]
    pub fn payload_at(&self) -> usize {
        self.payload_at
    }
}

/// A job as a client submits it.
#[derive(Clone, Copy, Debug)]
pub struct Submit<'a> {
    /// Name of the function to run.
    pub function: &'a [u8],
    /// Submissions with equal keys share one job; empty = none, `-` = the payload is the key.
    pub unique: &'a [u8],
    /// Function that gathers the results; empty for jobs that aren't reduce jobs.
    pub reducer: &'a [u8],
    /// Earliest start in seconds since 1970, as the client wrote it.
    pub epoch: Option<&'a [u8]>,
    /// Urgency.
    pub priority: Priority,
    /// Whether the client doesn't wait for the result.
    pub background: bool,
    /// The whole body of the packet.
    pub body: Payload<'a>,
    /// Where the unique key starts in `body`, after the function's name.
    pub unique_at: u16,
    /// Where the payload starts in `body`.
    pub payload_at: u16,
}

/// Which kind of assignment a worker requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grab {
    /// `GRAB_JOB` → `JOB_ASSIGN`
    Plain,
    /// `GRAB_JOB_UNIQ` → `JOB_ASSIGN_UNIQ`
    Unique,
    /// `GRAB_JOB_ALL` → `JOB_ASSIGN_ALL`, or `JOB_ASSIGN_UNIQ` for a job without a reducer
    All,
}

/// A worker's packet about a job that it runs; forwarded to the job's clients unchanged.
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
    /// `PacketError`; its variants say which of them end the connection.
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
