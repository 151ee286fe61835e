//! What a peer may want to say: any request of the protocol, by weight, from one generator.
//!
//! Looks at the model to say sensible things most of the time (a worker works on jobs that it has)
//! and senseless ones now and then.

use fastrand::Rng;
use ringgear::engine::ConnId;
use ringgear::wire::Command as C;

use crate::model::{Model, handle};
use crate::wire::Request;

/// `f0` and `F0` differ in case only, for `drop function`.
pub(crate) const FUNCTIONS: [&str; 6] =
    ["f0", "F0", "reverse", "resize", "a-function-with-a-longer-name", "x"];
const UNIQUES: [&str; 8] = ["", "", "", "-", "-", "one", "two", "a-key-of-some-length-0123456789"];

/// Something that `conn` says next.
pub(crate) fn request(rng: &mut Rng, model: &Model, conn: ConnId, calm: bool) -> Request {
    // Half of the connections are rather clients, the others rather workers.
    let worker = conn.number() % 2 == 1;
    let peer = &model.peers[&conn];
    if worker && peer.woken_ms.is_some() && rng.u32(0..4) > 0 {
        return grab(rng);
    }
    // With little to do, workers sleep most of the time.
    if calm && worker && !peer.asleep && rng.u32(0..3) == 0 {
        return Request::plain(if rng.bool() { C::PreSleep } else { C::GrabJob });
    }
    if calm && !worker && rng.u32(0..3) > 0 {
        return query(rng, model);
    }
    match (worker, rng.u32(0..100)) {
        (true, 0..25) => grab(rng),
        (true, 25..50) => work(rng, model, conn),
        (true, 50..65) => Request::plain(C::PreSleep),
        (true, 65..80) => ability(rng),
        (true, 80..83) => Request::packet(C::CantDo, &[function(rng)], vec![]),
        (true, 83) => Request::plain(C::ResetAbilities),
        (true, 84..90) | (false, 0..55) => submit(rng),
        (false, 55..57) => grab(rng),
        (false, 57..59) => ability(rng),
        (false, 59..75) => query(rng, model),
        (false, 75..92) => line(rng, model),
        _ => other(rng),
    }
}

/// A background job of which there are few, so that many of them are the same.
pub(crate) fn equal_job(rng: &mut Rng) -> Request {
    let (function, unique) = (function(rng), ["one", "two"][rng.usize(0..2)].as_bytes());
    Request::packet(C::SubmitJobBg, &[function, unique], vec![b'e'; rng.usize(0..20)])
}

fn function(rng: &mut Rng) -> &'static [u8] {
    // The first ones more often, so that workers have some in common.
    let most = rng.usize(0..FUNCTIONS.len());
    FUNCTIONS[rng.usize(0..=most)].as_bytes()
}

fn grab(rng: &mut Rng) -> Request {
    Request::plain([C::GrabJob, C::GrabJobUniq, C::GrabJobAll][rng.usize(0..3)])
}

fn ability(rng: &mut Rng) -> Request {
    if rng.u32(0..3) > 0 {
        return Request::packet(C::CanDo, &[function(rng)], vec![]);
    }
    let timeout = ["0", "-5", "1", "1000", "1500", "2500", "100000"][rng.usize(0..7)];
    Request::packet(C::CanDoTimeout, &[function(rng), timeout.as_bytes()], vec![])
}

/// Mostly small, and of few kinds, so that equal ones meet; some large enough for each way of
/// keeping one.
fn payload(rng: &mut Rng) -> Vec<u8> {
    let bytes = match rng.u32(0..60) {
        0..20 => rng.usize(0..3),
        20..50 => rng.usize(0..100),
        50..55 => rng.usize(8_000..8_400),
        55..57 => rng.usize(9_000..20_000),
        57 => rng.usize(16_300..16_500),
        58 => rng.usize(60_000..140_000),
        _ => rng.usize(20_000..300_000),
    };
    vec![b'a' + rng.u8(0..3); bytes]
}

fn submit(rng: &mut Rng) -> Request {
    let function = function(rng);
    let long = "u".repeat(rng.usize(60..70));
    let unique = match rng.u32(0..30) {
        0 => &long,
        _ => UNIQUES[rng.usize(0..UNIQUES.len())],
    };
    let unique = unique.as_bytes();
    let payload = payload(rng);
    match rng.u32(0..12) {
        0..3 => Request::packet(C::SubmitJob, &[function, unique], payload),
        3 => Request::packet(C::SubmitJobHigh, &[function, unique], payload),
        4 => Request::packet(C::SubmitJobLow, &[function, unique], payload),
        5 | 6 => Request::packet(C::SubmitJobBg, &[function, unique], payload),
        7 => Request::packet(C::SubmitJobHighBg, &[function, unique], payload),
        8 => Request::packet(C::SubmitJobLowBg, &[function, unique], payload),
        9 => {
            let epoch = match rng.u32(0..12) {
                0 => "99999999999999999999".to_owned(),
                1 => "-1".to_owned(),
                2 => "0".to_owned(),
                3 => (1_700_000_000 + rng.u64(0..100_000)).to_string(),
                _ => (1_700_000_000 + rng.u64(0..60)).to_string(),
            };
            Request::packet(C::SubmitJobEpoch, &[function, unique, epoch.as_bytes()], payload)
        }
        kind => {
            let reducer: &[u8] = if rng.bool() { b"sum" } else { b"" };
            let command =
                if kind == 10 { C::SubmitReduceJob } else { C::SubmitReduceJobBackground };
            Request::packet(command, &[function, unique, reducer, b""], payload)
        }
    }
}

/// A word on a job that the connection runs, or, now and then, on one that it doesn't.
fn work(rng: &mut Rng, model: &Model, conn: ConnId) -> Request {
    if let Some(number) = model.peers[&conn].excepted
        && rng.bool()
    {
        return Request::packet(C::WorkFail, &[&handle(number)], vec![]);
    }
    let own: Vec<u64> =
        model.jobs.iter().filter(|(_, job)| job.is_with(conn)).map(|(&number, _)| number).collect();
    let number = match own.len() {
        0 if rng.u32(0..5) > 0 => return grab(rng),
        0 => any_number(rng, model),
        _ if rng.u32(0..20) == 0 => any_number(rng, model),
        count => own[rng.usize(0..count)],
    };
    let handle = handle(number);
    match rng.u32(0..13) {
        0 => Request::packet(C::WorkData, &[&handle], payload(rng)),
        1 => Request::packet(C::WorkWarning, &[&handle], payload(rng)),
        2 => {
            let n = rng.u32(0..100).to_string();
            let d = ["100", "", "4294967295"][rng.usize(0..3)];
            Request::packet(C::WorkStatus, &[&handle, n.as_bytes(), d.as_bytes()], vec![])
        }
        3 => Request::packet(C::WorkFail, &[&handle], vec![]),
        4 => Request::packet(C::WorkFail, &[&[&handle[..], b"\0"].concat()], vec![]),
        5 | 6 => Request::packet(C::WorkException, &[&handle], payload(rng)),
        _ => Request::packet(C::WorkComplete, &[&handle], payload(rng)),
    }
}

fn query(rng: &mut Rng, model: &Model) -> Request {
    if rng.bool() {
        let handle = match rng.u32(0..8) {
            0 => b"H:other:1".to_vec(),
            1 => b"H:sim:01".to_vec(),
            _ => some_handle(rng, model),
        };
        Request::packet(C::GetStatus, &[&handle], vec![])
    } else {
        let unique = UNIQUES[rng.usize(0..UNIQUES.len())];
        Request::packet(C::GetStatusUnique, &[unique.as_bytes()], vec![])
    }
}

/// The number of a job that is or was there, or now and then one near it.
fn any_number(rng: &mut Rng, model: &Model) -> u64 {
    let number = model.numbers[rng.usize(0..model.numbers.len())];
    if rng.u32(0..4) == 0 { number + rng.u64(0..512) } else { number }
}

/// The handle of a job that is there, or of one that was or will be.
fn some_handle(rng: &mut Rng, model: &Model) -> Vec<u8> {
    if model.jobs.is_empty() || rng.u32(0..4) == 0 {
        return handle(any_number(rng, model));
    }
    let at = rng.usize(0..model.jobs.len());
    handle(*model.jobs.keys().nth(at).unwrap_or(&1))
}

fn line(rng: &mut Rng, model: &Model) -> Request {
    let name = FUNCTIONS[rng.usize(0..FUNCTIONS.len())];
    Request::Line(match rng.u32(0..14) {
        0..2 => "status".to_owned(),
        2 => "prioritystatus".to_owned(),
        3 => "workers".to_owned(),
        4 => "show jobs".to_owned(),
        5 => "show unique jobs".to_owned(),
        6..9 => {
            let handle = String::from_utf8(some_handle(rng, model)).unwrap_or_default();
            format!("cancel job {handle}")
        }
        9 => format!("create function {name}"),
        10 => format!("drop function {name}"),
        11 => format!("maxqueue {name}"),
        12 => format!("maxqueue {name} {}", rng.u32(1..30)),
        _ => format!("maxqueue {name} {} {} {}", rng.u32(0..9), rng.u32(0..30), rng.u32(0..3)),
    })
}

fn other(rng: &mut Rng) -> Request {
    match rng.u32(0..24) {
        0..10 => Request::packet(C::EchoReq, &[], payload(rng)),
        10..13 => Request::packet(
            C::SetClientId,
            &[b"client".repeat(rng.usize(1..30)).as_slice()],
            vec![],
        ),
        13..16 => Request::packet(C::OptionReq, &[b"Exceptions"], vec![]),
        16 => Request::packet(C::OptionReq, &[b"nonsense"], vec![]),
        17 => Request::plain(C::Noop),
        18 => Request::plain(C::AllYours),
        19 => Request::WrongMagic,
        20 => Request::packet(C::WorkFail, &[&[b'h'; 64]], vec![]),
        21 => Request::UnknownType,
        22 if rng.bool() => Request::SixWords,
        22 => Request::LacksArgument,
        _ => Request::Line(["nonsense", "", "shutdown"][rng.usize(0..3)].to_owned()),
    }
}
