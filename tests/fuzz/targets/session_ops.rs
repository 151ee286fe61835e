//! A list of operations on a shard with several connections: what peers say, when they leave, time.
//!
//! Invariant: the engine's own after each operation, and no byte of memory left when all have left
//! and every job has been cancelled.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringgear::engine::{ConnId, JobId, Now};
use ringgear::wire::{encode, Command, Magic};
use ringgear::engine::handle::{job_number, slot};
use ringgear::shard::{Intake, Service, Shard};

#[path = "../shard.rs"]
mod shard;

use shard::NOW;

const CONNS: usize = 5;
const OPERATIONS_MAX: usize = 200;

#[derive(Arbitrary, Debug)]
enum Operation<'a> {
    Submit { kind: u8, function: u8, unique: u8, run_at_s: u8, payload_bytes: u16 },
    Grab { kind: u8 },
    Work { kind: u8, number: u8 },
    CanDo { function: u8, timeout_s: u8 },
    CantDo { function: u8 },
    Reset,
    Sleep,
    Status { number: u8 },
    StatusUnique { unique: u8 },
    Line { kind: u8, function: u8, number: u8 },
    Raw(&'a [u8]),
    LacksArgument,
    Pass { ms: u16 },
    End,
    Reconnect,
}

/// Of the handles, as the settings' default has it.
const PREFIX: &str = "H:test";
const FUNCTIONS: [&[u8]; 3] = [b"f", b"F", b"g"];
const UNIQUES: [&[u8]; 4] = [b"", b"-", b"one", b"two"];

fn pick<T: Copy>(from: &[T], which: u8) -> T {
    from[usize::from(which) % from.len()]
}

/// The handle of one of the first jobs, if they are of the function that the number says, too.
fn handle(number: u8) -> Vec<u8> {
    let slot = slot(pick(&FUNCTIONS, number));
    format!("{PREFIX}:{}", job_number(u64::from(number) / 3 + 1, slot)).into_bytes()
}

fn bytes_of(operation: &Operation<'_>) -> Vec<u8> {
    use Command as C;
    let mut out = Vec::new();
    let mut say = |command, arguments: &[&[u8]], payload: &[u8]| {
        encode(&mut out, Magic::Request, command, arguments, payload);
    };
    match *operation {
        Operation::Submit { kind, function, unique, run_at_s, payload_bytes } => {
            let payload = vec![kind; usize::from(payload_bytes)];
            let (function, unique) = (pick(&FUNCTIONS, function), pick(&UNIQUES, unique));
            let run_at = (1_700_000_000 + u64::from(run_at_s)).to_string();
            let plain = [C::SubmitJob, C::SubmitJobBg, C::SubmitJobHigh, C::SubmitJobLowBg];
            match kind % 6 {
                4 => say(C::SubmitJobEpoch, &[function, unique, run_at.as_bytes()], &payload),
                5 => say(C::SubmitReduceJob, &[function, unique, b"sum", b""], &payload),
                kind => say(pick(&plain, kind), &[function, unique], &payload),
            }
        }
        Operation::Grab { kind } => {
            say(pick(&[C::GrabJob, C::GrabJobUniq, C::GrabJobAll], kind), &[], &[]);
        }
        Operation::Work { kind, number } => {
            let handle = handle(number);
            let commands = [C::WorkData, C::WorkWarning, C::WorkComplete, C::WorkException];
            match kind % 6 {
                4 => say(C::WorkFail, &[&handle], &[]),
                5 => say(C::WorkStatus, &[&handle, b"1", b"2"], &[]),
                kind => say(pick(&commands, kind), &[&handle], b"result"),
            }
        }
        Operation::CanDo { function, timeout_s } => {
            let timeout_ms = (u32::from(timeout_s) * 1000).to_string();
            say(C::CanDoTimeout, &[pick(&FUNCTIONS, function), timeout_ms.as_bytes()], &[]);
        }
        Operation::CantDo { function } => say(C::CantDo, &[pick(&FUNCTIONS, function)], &[]),
        Operation::Reset => say(C::ResetAbilities, &[], &[]),
        Operation::Sleep => say(C::PreSleep, &[], &[]),
        Operation::Status { number } => say(C::GetStatus, &[&handle(number)], &[]),
        Operation::StatusUnique { unique } => {
            say(C::GetStatusUnique, &[pick(&UNIQUES, unique)], &[]);
        }
        Operation::Line { kind, function, number } => {
            let function = String::from_utf8_lossy(pick(&FUNCTIONS, function));
            let handle = handle(number);
            let handle = String::from_utf8_lossy(&handle);
            let state = pick(&["", " queued", " delayed", " retrying", " dead"], number);
            out = match kind % 16 {
                0 => format!("cancel job {handle}\n"),
                1 => format!("drop function {function}\n"),
                2 => format!("maxqueue {function} {number}\n"),
                3 => format!("create function {function}\n"),
                4 => "workers\n".to_owned(),
                5 => format!("run job {handle}\n"),
                6 => format!("requeue dead {handle}\n"),
                7 => format!("drop dead {handle}\n"),
                8 => "requeue dead *\n".to_owned(),
                9 => format!("drop dead {function}\n"),
                10 => format!("purge function {function}{state}\n"),
                11 => format!("pause function {function}\n"),
                12 => format!("pause function {function}* {}\n", u32::from(number) + 1),
                13 => format!("resume function {function}\n"),
                14 => "show dead\nshow retrying\nshow delayed #\n".to_owned(),
                _ => "show jobs\n".to_owned(),
            }
            .into_bytes();
        }
        Operation::Raw(bytes) => out = bytes.to_vec(),
        Operation::LacksArgument => out = b"\0REQ\0\0\0\x07\0\0\0\x04f\0uu".to_vec(),
        Operation::Pass { .. } | Operation::End | Operation::Reconnect => {}
    }
    out
}

fn apply(shard: &mut Shard, conn: &mut ConnId, operation: &Operation<'_>, now: &mut Now) {
    match *operation {
        Operation::Pass { ms } => {
            now.mono_ms += u64::from(ms);
            now.unix_ms += u64::from(ms);
            shard.tick(*now);
        }
        Operation::End => shard.ended(*conn, *now),
        Operation::Reconnect => {
            shard.disconnect(*conn, *now);
            *conn = shard::connect(shard);
        }
        _ => {
            let bytes = bytes_of(operation);
            match shard.intake(*conn) {
                Intake::Read | Intake::Direct => shard.received(*conn, &bytes, *now),
                Intake::Pause | Intake::Move => {}
                Intake::Close => {
                    shard.disconnect(*conn, *now);
                    *conn = shard::connect(shard);
                }
            }
        }
    }
}

fuzz_target!(|operations: Vec<(u8, Operation<'_>)>| {
    let mut shard = shard::new(1 << 20);
    let mut conns: Vec<ConnId> = (0..CONNS).map(|_| shard::connect(&mut shard)).collect();
    let mut now = NOW;
    for (which, operation) in operations.iter().take(OPERATIONS_MAX) {
        let conn = &mut conns[usize::from(*which) % CONNS];
        apply(&mut shard, conn, operation, &mut now);
        shard::flush(&mut shard);
        shard.engine().check_invariants();
    }
    for conn in conns {
        shard.disconnect(conn, now);
    }
    let admin = shard::connect(&mut shard);
    let jobs = shard.engine().jobs().iter_from(JobId::FIRST);
    let numbers: Vec<u64> = jobs.map(|(_, job)| job.number).collect();
    for number in numbers {
        let line = format!("cancel job {PREFIX}:{number}\n");
        shard.received(admin, line.as_bytes(), now);
    }
    shard.received(admin, b"drop dead *\nresume function *\n", now);
    shard::flush(&mut shard);
    shard.disconnect(admin, now);
    // The timer of dead letters ends by itself.
    now.mono_ms += 60_000;
    now.unix_ms += 60_000;
    shard.tick(now);
    shard.engine().check_invariants();
    assert!(shard.is_idle());
    assert_eq!(shard.memory_bytes(), 0);
    assert_eq!(shard.deadline_ms(), None);
});
