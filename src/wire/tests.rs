//! Tests of the table and of what the properties in `tests` can't say: exact bytes and limits.
//!
//! Numbers and layouts here are the protocol's, written down a second time on purpose.

use bytes::Bytes;

use super::*;

fn parse(command: Command, body: &[u8]) -> Result<Request<'_>, PacketError> {
    let body_bytes = u32::try_from(body.len()).unwrap();
    let header = Header { magic: Magic::Request, command, body_bytes };
    Request::parse(header, Payload::borrowed(body))
}

fn submit(command: Command, body: &[u8]) -> Submit<'_> {
    match parse(command, body) {
        Ok(Request::Submit(submit)) => submit,
        other => panic!("{other:?}"),
    }
}

#[test]
fn numbers_and_commands_lead_to_each_other() {
    for (command, number) in Command::ALL.iter().zip(1..) {
        assert_eq!(command.number(), number);
        assert_eq!(Command::from_number(number), Some(*command));
    }
    assert_eq!(Command::ALL.len(), 42);
    for number in [0, 43, u32::MAX] {
        assert_eq!(Command::from_number(number), None);
    }
    assert_eq!((Command::SubmitJob as u8, Command::GrabJobAll as u8), (7, 39));
}

#[test]
fn each_submission_has_its_urgency_and_its_ground() {
    use Command as C;
    use Priority::{High, Low, Normal};
    for (command, priority, background) in [
        (C::SubmitJob, Normal, false),
        (C::SubmitJobBg, Normal, true),
        (C::SubmitJobHigh, High, false),
        (C::SubmitJobHighBg, High, true),
        (C::SubmitJobLow, Low, false),
        (C::SubmitJobLowBg, Low, true),
        (C::SubmitJobEpoch, Normal, true),
        (C::SubmitReduceJob, Normal, false),
        (C::SubmitReduceJobBackground, Normal, true),
    ] {
        let submit = submit(command, b"f\0u\0third\0fourth\0payload");
        assert_eq!((submit.priority, submit.background), (priority, background), "{command:?}");
        assert_eq!((submit.function, submit.unique), (&b"f"[..], &b"u"[..]));
        let reduces = matches!(command, C::SubmitReduceJob | C::SubmitReduceJobBackground);
        assert_eq!(submit.reducer, if reduces { &b"third"[..] } else { b"" });
        let epoch = (command == C::SubmitJobEpoch).then_some(&b"third"[..]);
        assert_eq!(submit.epoch, epoch);
    }
}

#[test]
fn payloads_may_hold_nuls_and_arguments_may_be_empty() {
    let submit = submit(Command::SubmitJob, b"\0\0\0pay\0load\0");
    assert_eq!((submit.function, submit.unique), (&b""[..], &b""[..]));
    assert_eq!((submit.unique_at, submit.payload_at), (1, 2));
    assert_eq!(submit.body.from(2).bytes(), b"\0pay\0load\0");
}

#[test]
fn a_missing_argument_is_an_error_and_a_missing_payload_is_none() {
    for body in [&b""[..], b"function", b"function\0unique"] {
        let error = PacketError::MissingArgument(Command::SubmitJob);
        assert_eq!(parse(Command::SubmitJob, body).unwrap_err(), error);
    }
    assert!(parse(Command::SubmitJob, b"function\0unique\0").is_ok());
    // The last argument of a packet without payload runs to the end, whatever it holds.
    let Ok(Request::Work(work)) = parse(Command::WorkFail, b"H:a:1\0") else { panic!() };
    assert_eq!(work.handle, b"H:a:1\0");
    let Ok(Request::CanDo { function }) = parse(Command::CanDo, b"") else { panic!() };
    assert_eq!(function, b"");
}

#[test]
fn arguments_are_not_looked_for_beyond_their_limit() {
    let mut body = vec![b'f'; ARGUMENTS_BYTES_MAX - 2];
    body.extend(b"\0\0payload");
    let at_limit = submit(Command::SubmitJob, &body);
    assert_eq!(usize::from(at_limit.payload_at), ARGUMENTS_BYTES_MAX);
    body.insert(0, b'f');
    let error = PacketError::MissingArgument(Command::SubmitJob);
    assert_eq!(parse(Command::SubmitJob, &body).unwrap_err(), error);
}

#[test]
fn error_packets_have_the_codes_that_libgearman_knows() {
    for (reply, code) in [
        (ErrorReply::RequestMagicExpected, "INVALID_MAGIC"),
        (ErrorReply::CommandNotExpected, "INVALID_COMMAND"),
        (ErrorReply::UniqueTooLarge, "ARGUMENT_TOO_LARGE"),
        (ErrorReply::HandleTooLarge, "ARGUMENT_TOO_LARGE"),
        (ErrorReply::PayloadTooLarge, "ARGUMENT_TOO_LARGE"),
        (ErrorReply::NumberOutOfRange, "ARGUMENT_TOO_LARGE"),
        (ErrorReply::QueueFull, "QUEUE_ERROR"),
        (ErrorReply::OutOfMemory, "QUEUE_ERROR"),
        (ErrorReply::UnknownOption, "UNKNOWN_OPTION"),
        (ErrorReply::NoSuchJob, "JOB_NOT_FOUND"),
        (ErrorReply::NoSuchJobForResult, "JOB_NOT_FOUND"),
        (ErrorReply::NoSuchJobForException, "JOB_NOT_FOUND"),
    ] {
        let mut bytes = Vec::new();
        Response::Error(reply).head(&mut bytes);
        let arguments = Arguments::split(Command::Error, &bytes[HEADER_BYTES..]).unwrap();
        assert_eq!(arguments.part(0), code.as_bytes());
        assert_eq!(arguments.part(1), reply.text().as_bytes());
    }
}

#[test]
fn packets_have_the_bytes_of_the_protocol_text() {
    let mut bytes = Vec::new();
    let arguments: [&[u8]; 2] = [b"reverse", b""];
    encode(&mut bytes, Magic::Request, Command::SubmitJob, &arguments, b"test");
    assert_eq!(bytes, b"\0REQ\0\0\0\x07\0\0\0\x0dreverse\0\0test");
    bytes.clear();
    Response::JobCreated { handle: b"H:lap:1" }.head(&mut bytes);
    assert_eq!(bytes, b"\0RES\0\0\0\x08\0\0\0\x07H:lap:1");
    bytes.clear();
    let (known, running) = (true, false);
    Response::StatusRes { handle: b"H:1", known, running, numerator: 5, denominator: 10 }
        .head(&mut bytes);
    assert_eq!(bytes, b"\0RES\0\0\0\x14\0\0\0\x0cH:1\x001\x000\x005\x0010");
}

#[test]
fn a_shared_payload_stays_in_its_allocation() {
    let owner = Bytes::from_static(b"head and payload");
    let payload = Payload::shared(&owner).from(9);
    let shared = payload.share().unwrap();
    assert_eq!((&shared[..], shared.as_ptr()), (&b"payload"[..], owner[9..].as_ptr()));
    assert_eq!(
        Payload::shared(&owner).from(99).share(),
        None,
        "an empty payload has no allocation"
    );
    assert_eq!(Payload::borrowed(b"payload").share(), None);
}
