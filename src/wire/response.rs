//! Responses in, bytes out.
//!
//! Knows the layout of every packet that the server sends, and the codes and texts of ERROR.
//! Payloads aren't copied here: `Response::head` writes what precedes them.
//!
//! Invariant: a packet has as many arguments as its command.

use super::command::Command;
use super::header::{Magic, header_bytes};
use super::payload::Payload;
use super::request::Grab;

/// The ERROR packets of gearmand, with code and text byte by byte, and a few of this server's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorReply {
    /// A packet with `\0RES` magic.
    RequestMagicExpected,
    /// A packet that only the server may send, or neither side.
    CommandNotExpected,
    /// A unique key (or a reducer's name) beyond 64 bytes.
    UniqueTooLarge,
    /// WORK_FAIL for a handle of 64 bytes or more.
    HandleTooLarge,
    /// A payload beyond `--job-size-max`.
    PayloadTooLarge,
    /// A large body for a request that has none.
    BodyTooLarge,
    /// A number that isn't one: an epoch out of range.
    NumberOutOfRange,
    /// The function's maximum queue size is reached.
    QueueFull,
    /// `--memory-max` is reached.
    OutOfMemory,
    /// `--memory-max` is reached, for CAN_DO.
    OutOfMemoryToRegister,
    /// The job could not be put on disk.
    NotStored,
    /// The server is finishing its jobs before it exits.
    Draining,
    /// A packet without TLS on a port that speaks TLS only.
    TlsRequired,
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
            Self::TlsRequired => "TLS_REQUIRED",
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
            Self::TlsRequired => {
                "this port speaks TLS only; the client library may be built without TLS"
            }
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
    /// A worker's packet, forwarded with its body unchanged.
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
    /// ERROR with the code `PERMISSION_DENIED`.
    PermissionDenied {
        text: &'a [u8],
    },
}

impl<'a> Response<'a> {
    /// The bytes that follow what `head` writes.
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
            Self::PermissionDenied { text } => {
                head(out, C::Error, &[b"PERMISSION_DENIED", text], 0);
            }
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
    // The last argument ends with a NUL only if a payload follows.
    let unterminated = usize::from(!command.has_payload() && !arguments.is_empty());
    let body_bytes = arguments_bytes - unterminated + payload_bytes;
    // The largest body is that of an assignment: the submission's with a handle added, for which
    // `--job-size-max` leaves 64 bytes.
    let body_bytes = u32::try_from(body_bytes).unwrap_or(u32::MAX);
    out.extend_from_slice(&header_bytes(magic, command, body_bytes));
    for (index, argument) in arguments.iter().enumerate() {
        out.extend_from_slice(argument);
        if command.has_payload() || index + 1 < arguments.len() {
            out.push(0);
        }
    }
}

/// Appends a whole packet of either direction to `out`, for clients, load generators and tests. The
/// number of arguments must be the command's.
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
