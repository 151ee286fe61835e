//! Properties of the wire layer, and of a shard under every way in which bytes may arrive.
//!
//! What is written can be read; cutting the stream anywhere changes nothing; hostile bytes neither
//! panic nor reserve memory; refused bodies leave the stream in step. `proptest` shrinks what
//! fails.
#![allow(clippy::unwrap_used, reason = "a test helper that finds nothing is a failed test")]

use std::net::Ipv4Addr;

use proptest::collection::vec;
use proptest::prelude::*;

use ringgear::engine::handle::{self, Handles};
use ringgear::engine::{ConnId, Now};
use ringgear::shard::{Intake, Origin, Service, Settings, Shard};
use ringgear::wire::frame::{self, Cut};
use ringgear::wire::inbound::{Arrival, Bounds, Inbound};
use ringgear::wire::{
    self, Arguments, Command as C, Grab, HEADER_BYTES, Header, Magic, PacketError, Payload,
    Request, Response, Sender,
};

const NOW: Now = Now { mono_ms: 1000, unix_ms: 1_700_000_000_000 };
const UNBOUNDED: Bounds<'_> =
    Bounds { body_bytes_max: 1 << 30, memory_left: 1 << 30, buffer_pool: None };

fn encoded(magic: Magic, command: C, arguments: &[&[u8]], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::encode(&mut bytes, magic, command, arguments, payload);
    bytes
}

fn request(command: C, arguments: &[&[u8]], payload: &[u8]) -> Vec<u8> {
    encoded(Magic::Request, command, arguments, payload)
}

fn any_command() -> impl Strategy<Value = C> {
    prop::sample::select(C::ALL)
}

fn argument() -> impl Strategy<Value = Vec<u8>> {
    vec(1_u8.., 0..40)
}

/// A packet of any kind: its command, arguments and payload.
fn any_packet() -> impl Strategy<Value = (C, Vec<Vec<u8>>, Vec<u8>)> {
    any_command().prop_flat_map(|command| {
        let payload = if command.has_payload() { 0..20_000 } else { 0..1 };
        (Just(command), vec(argument(), command.arguments()), vec(any::<u8>(), payload))
    })
}

fn slices(parts: &[Vec<u8>]) -> Vec<&[u8]> {
    parts.iter().map(Vec::as_slice).collect()
}

/// The one packet that `bytes` are.
fn whole(bytes: &[u8]) -> (Header, &[u8]) {
    match frame::cut(bytes, 0) {
        Ok(Cut::Packet { header, body }) if HEADER_BYTES + body.len() == bytes.len() => {
            (header, body)
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_split_into_the_same_parts((command, parts, payload) in any_packet()) {
        let bytes = encoded(Magic::Response, command, &slices(&parts), &payload);
        let (header, body) = whole(&bytes);
        prop_assert_eq!((header.magic, header.command), (Magic::Response, command));
        prop_assert_eq!(header.body_bytes as usize, body.len());
        let arguments = Arguments::split(command, body).unwrap();
        for (at, part) in parts.iter().enumerate() {
            prop_assert_eq!(arguments.part(at), part.as_slice());
        }
        if command.has_payload() {
            prop_assert_eq!(&body[arguments.payload_at()..], payload);
        }
    }

    #[test]
    fn every_request_is_understood_and_nothing_else((command, parts, payload) in any_packet()) {
        let bytes = request(command, &slices(&parts), &payload);
        let (header, body) = whole(&bytes);
        let parsed = Request::parse(header, Payload::borrowed(body));
        if matches!(command.sender(), Sender::Server | Sender::Neither) {
            prop_assert_eq!(parsed.unwrap_err(), PacketError::NotARequest(command));
            return Ok(());
        }
        match parsed.unwrap() {
            Request::Submit(submit) => {
                prop_assert_eq!((submit.function, submit.unique), (&*parts[0], &*parts[1]));
                prop_assert_eq!(&body[usize::from(submit.payload_at)..], payload);
                prop_assert!(body[usize::from(submit.unique_at)..].starts_with(&parts[1]));
                prop_assert_eq!(submit.epoch.is_some(), command == C::SubmitJobEpoch);
                let name = command.name();
                let background = name.ends_with("_BG") || name.ends_with("_BACKGROUND");
                prop_assert_eq!(submit.background, background || submit.epoch.is_some());
            }
            Request::Work(work) => {
                prop_assert_eq!((work.command, work.handle), (command, &*parts[0]));
                prop_assert_eq!(work.body.bytes(), body);
            }
            Request::CanDo { function: part }
            | Request::CanDoTimeout { function: part, .. }
            | Request::CantDo { function: part }
            | Request::GetStatus { handle: part }
            | Request::GetStatusUnique { unique: part }
            | Request::SetClientId { id: part }
            | Request::Option { name: part } => prop_assert_eq!(part, &*parts[0]),
            Request::Echo { payload: echoed } => prop_assert_eq!(echoed.bytes(), payload),
            Request::ResetAbilities | Request::PreSleep | Request::GrabJob(_) => {}
        }
        let answer = Header { magic: Magic::Response, ..header };
        let parsed = Request::parse(answer, Payload::borrowed(body));
        prop_assert_eq!(parsed.unwrap_err(), PacketError::ResponseMagic);
    }

    #[test]
    fn assignments_and_statuses_read_as_they_were_written(
        parts in vec(argument(), 4), payload in vec(any::<u8>(), 0..5000),
        numbers in any::<[u32; 3]>(), known: bool, running: bool,
    ) {
        let [handle, function, unique, reducer] = [&*parts[0], &*parts[1], &*parts[2], &*parts[3]];
        for grab in [Grab::Plain, Grab::Unique, Grab::All] {
            let payload = Payload::borrowed(&payload);
            let assign = Response::JobAssign { grab, handle, function, unique, reducer, payload };
            let mut bytes = Vec::new();
            assign.head(&mut bytes);
            bytes.extend_from_slice(assign.payload().bytes());
            let (header, body) = whole(&bytes);
            let expected = match grab {
                Grab::Plain => C::JobAssign,
                Grab::All if !reducer.is_empty() => C::JobAssignAll,
                Grab::All | Grab::Unique => C::JobAssignUniq,
            };
            prop_assert_eq!(header.command, expected);
            let arguments = Arguments::split(expected, body).unwrap();
            for (at, part) in parts.iter().enumerate().take(expected.arguments()) {
                prop_assert_eq!(arguments.part(at), part.as_slice());
            }
            prop_assert_eq!(&body[arguments.payload_at()..], payload.bytes());
        }
        let [numerator, denominator, clients] = numbers;
        let status = Response::StatusResUnique {
            unique, known, running, numerator, denominator, clients,
        };
        let mut bytes = Vec::new();
        status.head(&mut bytes);
        let (header, body) = whole(&bytes);
        let arguments = Arguments::split(header.command, body).unwrap();
        let read: Vec<String> =
            (1..6).map(|at| String::from_utf8_lossy(arguments.part(at)).into_owned()).collect();
        let written = [u32::from(known), u32::from(running), numerator, denominator, clients];
        prop_assert_eq!(read, written.map(|number| number.to_string()));
    }

    #[test]
    fn any_bytes_at_all_are_survived(
        pieces in vec(prop_oneof![
            vec(any::<u8>(), 0..300),
            any_packet().prop_map(|(command, parts, payload)| {
                request(command, &slices(&parts), &payload)
            }),
            // A header that announces whatever it likes.
            (1_u32..43, any::<u32>()).prop_map(|(command, bytes)| {
                let command = C::from_number(command).unwrap();
                wire::header_bytes(Magic::Request, command, bytes).to_vec()
            }),
        ], 0..12),
    ) {
        let mut shard = shard(1 << 20, 1 << 30);
        let conn = connect(&mut shard);
        let mut arrived = 0;
        for piece in &pieces {
            if matches!(shard.intake(conn), Intake::Close) {
                break;
            }
            arrived += piece.len();
            shard.received(conn, piece, NOW);
            output(&mut shard, conn);
            prop_assert!(shard.memory_bytes() <= 2 * arrived + (64 << 10) + 4096 * pieces.len());
            shard.engine().check_invariants();
        }
        shard.disconnect(conn, NOW);
        prop_assert_eq!(shard.memory_bytes() - shard.engine().job_bytes(), 0);
    }

    #[test]
    fn arrivals_do_not_depend_on_how_the_bytes_are_cut(
        packets in vec(prop_oneof![
            any_packet().prop_map(|(command, parts, payload)| {
                request(command, &slices(&parts), &payload)
            }),
            Just(b"status\r\n".to_vec()),
            Just(request(C::EchoReq, &[], &[b'x'; 200_000])),
        ], 1..8),
        cuts in vec(any::<prop::sample::Index>(), 0..30),
        lends: bool,
    ) {
        let stream = packets.concat();
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        places.extend([0, stream.len()]);
        places.sort_unstable();
        let mut arrivals = Vec::new();
        let mut inbound = Inbound::default();
        for pair in places.windows(2) {
            let mut piece = &stream[pair[0]..pair[1]];
            if lends && let Some((mut body, room_bytes)) = inbound.lend() {
                let room = room_bytes.min(piece.len());
                let (taken, rest) = piece.split_at(room);
                body.extend_from_slice(taken);
                piece = rest;
                inbound.give_back(body);
            }
            while let Some(arrival) = inbound.next(&mut piece, UNBOUNDED).unwrap() {
                arrivals.push(format!("{arrival:?}"));
            }
            prop_assert!(piece.is_empty(), "everything is used up");
            prop_assert!(inbound.held_bytes() <= 2 * stream.len() + (64 << 10));
        }
        prop_assert_eq!(inbound.held_bytes(), 0);
        prop_assert_eq!(plain(&arrivals), plain(&all_at_once(&stream)));
    }

    #[test]
    fn refused_bodies_leave_the_stream_in_step(
        sizes in vec(prop_oneof![0_usize..300, 9_000_usize..120_000], 1..8),
        cuts in vec(any::<prop::sample::Index>(), 0..10),
        memory_left in 0_usize..100_000,
    ) {
        let bounds = Bounds { body_bytes_max: 100_000, memory_left, buffer_pool: None };
        let stream: Vec<u8> = sizes
            .iter()
            .flat_map(|&bytes| {
                let result = request(C::WorkComplete, &[b"H:test:1"], &vec![b'r'; bytes]);
                [result, b"status\n".to_vec()].concat()
            })
            .collect();
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        places.extend([0, stream.len()]);
        places.sort_unstable();
        let (mut bodies, mut lines, mut held_bytes_most) = (0, 0, 0);
        let mut inbound = Inbound::default();
        for pair in places.windows(2) {
            let mut piece = &stream[pair[0]..pair[1]];
            while let Some(arrival) = inbound.next(&mut piece, bounds).unwrap() {
                match arrival {
                    Arrival::Line(line) => {
                        prop_assert_eq!(line, b"status");
                        lines += 1;
                    }
                    Arrival::Packet { header, .. } => {
                        prop_assert_eq!(header.body_bytes as usize, sizes[bodies] + 9);
                        bodies += 1;
                    }
                    Arrival::Refused { head, .. } => {
                        prop_assert!(head.starts_with(b"H:test:1\0"), "it tells whose it was");
                        bodies += 1;
                    }
                }
            }
            held_bytes_most = held_bytes_most.max(inbound.held_bytes());
        }
        prop_assert_eq!((bodies, lines), (sizes.len(), sizes.len()));
        // What is short enough to be held as an unfinished frame isn't asked for.
        prop_assert!(held_bytes_most <= memory_left.max(8 << 10) + HEADER_BYTES + 128);
    }
}

/// Without what tells a shared body from a borrowed one.
fn plain(arrivals: &[String]) -> Vec<String> {
    let shared = |text: &String| text.split(", shared:").next().unwrap_or_default().to_owned();
    arrivals.iter().map(shared).collect()
}

fn all_at_once(stream: &[u8]) -> Vec<String> {
    let (mut rest, mut inbound) = (stream, Inbound::default());
    let mut arrivals = Vec::new();
    while let Some(arrival) = inbound.next(&mut rest, UNBOUNDED).unwrap() {
        arrivals.push(format!("{arrival:?}"));
    }
    arrivals
}

fn shard(memory_bytes_max: usize, body_bytes_max: usize) -> Shard {
    let settings = Settings { body_bytes_max, memory_bytes_max, ..Settings::default() };
    Shard::new(settings, NOW)
}

fn connect(shard: &mut Shard) -> ConnId {
    let peer = (Ipv4Addr::LOCALHOST, 4001).into();
    shard.connect(Origin { fd: 3, peer, listener: 0 }, NOW).unwrap()
}

/// What the shard has to send to `conn`, and to nobody else.
fn output(shard: &mut Shard, conn: ConnId) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(dirty) = shard.poll_dirty(NOW) {
        assert_eq!(dirty, conn);
        while let Some((chunk, _)) = shard.take(conn) {
            bytes.extend_from_slice(chunk.as_ref());
            shard.sent(conn, chunk, NOW);
        }
    }
    bytes
}

/// The handle of the job of `reverse` that comes as the `sequence`th.
fn handle(sequence: u64) -> Vec<u8> {
    let number = handle::job_number(sequence, handle::slot(b"reverse"));
    Handles::default().text(number).as_ref().to_vec()
}

/// One connection that submits, works and asks, with bodies on both sides of every threshold.
fn recorded_stream() -> Vec<u8> {
    let small = b"payload".as_slice();
    let (owned, large) = (vec![b'o'; 9_000], vec![b'l'; 70_000]);
    [
        request(C::CanDo, &[b"reverse"], b""),
        request(C::SubmitJob, &[b"reverse", b"one"], small),
        b"status\r\n".to_vec(),
        request(C::SubmitJobBg, &[b"reverse", b""], &owned),
        request(C::GrabJobUniq, &[], b""),
        request(C::WorkData, &[&handle(1)], &owned),
        b"show jobs\n".to_vec(),
        request(C::WorkComplete, &[&handle(1)], &large),
        request(C::SubmitReduceJob, &[b"reverse", b"-", b"sum", b""], &large),
        request(C::EchoReq, &[], &large),
        request(C::GrabJob, &[], b""),
        request(C::WorkException, &[&handle(2)], small),
        request(C::GrabJobAll, &[], b""),
        request(C::WorkStatus, &[&handle(3), b"1", b"2"], b""),
        request(C::GetStatus, &[&handle(3)], b""),
        request(C::WorkFail, &[&handle(3)], b""),
        request(C::Noop, &[], b""),
        encoded(Magic::Response, C::Noop, &[], b""),
        request(C::PreSleep, &[], b""),
        b"workers\n".to_vec(),
        request(C::SubmitJobHigh, &[b"reverse", b""], b""),
    ]
    .concat()
}

fn replies(pieces: &[&[u8]]) -> Vec<u8> {
    let mut shard = shard(1 << 30, 1 << 30);
    let conn = connect(&mut shard);
    let mut bytes = Vec::new();
    for piece in pieces {
        shard.received(conn, piece, NOW);
        bytes.extend(output(&mut shard, conn));
    }
    bytes
}

#[test]
fn a_cut_at_any_byte_changes_no_reply() {
    let stream = recorded_stream();
    let expected = replies(&[&stream]);
    assert!(expected.ends_with(&wire::header_bytes(Magic::Response, C::Noop, 0)));
    // Within the large bodies one cut is like another.
    let boring = |at: &usize| {
        !matches!(stream.get(at.saturating_sub(40)..at + 40), Some(around)
        if around.iter().all(|byte| *byte == around[0]))
    };
    for at in (0..=stream.len()).filter(boring) {
        let (before, behind) = stream.split_at(at);
        assert!(replies(&[before, behind]) == expected, "cut at byte {at}");
    }
}

#[test]
fn bytes_that_come_one_by_one_change_no_reply() {
    let stream = recorded_stream();
    let pieces: Vec<&[u8]> = stream.chunks(1).collect();
    assert!(replies(&pieces) == replies(&[&stream]));
}

#[test]
fn memory_grows_with_what_arrives_and_not_with_what_is_announced() {
    let mut shard = shard(usize::MAX, usize::MAX);
    let conn = connect(&mut shard);
    let head = wire::header_bytes(Magic::Request, C::SubmitJob, u32::MAX);
    shard.received(conn, &head, NOW);
    assert!(shard.memory_bytes() <= 64 << 10);
    let piece = vec![b'a'; 10_000];
    shard.received(conn, b"reverse\0\0", NOW);
    for count in 1..200 {
        shard.received(conn, &piece, NOW);
        let arrived = count * piece.len();
        let held = shard.memory_bytes();
        assert!(arrived <= held && held <= 2 * arrived + (64 << 10), "{held} for {arrived}");
    }
    shard.disconnect(conn, NOW);
    assert_eq!(shard.memory_bytes(), 0);
}
