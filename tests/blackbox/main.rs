//! A model fuzzer of the whole server from outside: a real process, real sockets, every answer held
//! against a model that shares nothing with the server.
//!
//! `step` has one connection act at a time and knows every byte; `burst` has many write at once and
//! holds what came against what every order allows. A failure prints its seed, the server's
//! command line, what happened last and the difference. Settings: `BLACKBOX_SEED=n` replays one
//! seed, `BLACKBOX_SEEDS=n` runs so many, `BLACKBOX_SECONDS=n` takes so long for each test.

mod burst;
mod chance;
mod check;
mod connection;
mod gearmand;
mod ledger;
mod model;
mod operations;
mod process;
mod step;
mod trace;

/// Programs that are started.
#[path = "../support/child.rs"]
#[allow(dead_code)]
mod child;
/// Packets as the server's own tests cut them.
#[path = "../server/conn.rs"]
#[allow(dead_code)]
mod conn;
/// Servers as the server's own tests start them.
#[path = "../server/harness.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod harness;
/// What this machine lacks.
#[path = "../server/skips.rs"]
#[allow(dead_code)]
mod skips;

use std::time::{Duration, Instant};

use model::Checked;
use process::Variant;
use trace::Trace;

/// How long a test takes unless told otherwise.
const TIME: Duration = Duration::from_millis(1500);

type Run = fn(Variant, u64, Instant, &mut Trace) -> Checked<()>;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

/// Runs seed after seed.
fn fuzz(mode: &str, variant: Variant, run: Run) {
    let start = Instant::now();
    let far = start + Duration::from_secs(24 * 3600);
    let (seed, seeds) = (setting("BLACKBOX_SEED"), setting("BLACKBOX_SEEDS"));
    let time = setting("BLACKBOX_SECONDS").map_or(TIME, Duration::from_secs);
    let deadline = if seed.is_some() || seeds.is_some() { far } else { start + time };
    let count = if seed.is_some() { 1 } else { seeds.unwrap_or(u64::MAX) };
    let first = seed.unwrap_or_else(|| fastrand::u64(..1 << 48));
    let mut trace = Trace::default();
    let mut runs = 0;
    for seed in (first..).take(usize::try_from(count).unwrap_or(usize::MAX)) {
        if Instant::now() >= deadline {
            break;
        }
        runs += 1;
        if let Err(sentence) = run(variant, seed, deadline, &mut trace) {
            let story = trace.story();
            let after = start.elapsed().as_secs_f64();
            panic!(
                "BLACKBOX_SEED={seed}, {mode} on {variant:?}, after {after:.1} s and {runs} runs\n\
                 {story}\n{sentence}"
            );
        }
    }
    eprintln!("{mode} on {variant:?}: {runs} runs from seed {first} on, {} deeds", trace.deeds);
}

macro_rules! modes {
    ($($mode:ident: $run:path),* $(,)?) => { $(
        mod $mode {
            use crate::process::Variant;

            fn on(driver: &'static str, cores: usize) {
                run(Variant { driver, cores, store: false });
            }

            fn run(variant: Variant) {
                if variant.is_here() {
                    crate::fuzz(stringify!($mode), variant, $run);
                }
            }

            #[test]
            fn epoll() {
                on("epoll", 1);
            }

            #[test]
            fn epoll_on_3_cores() {
                on("epoll", 3);
            }

            #[test]
            fn uring() {
                on("uring", 1);
            }

            #[test]
            fn uring_on_3_cores() {
                on("uring", 3);
            }

            #[test]
            fn glommio() {
                on("glommio", 1);
            }

            #[test]
            fn epoll_on_3_cores_with_a_store() {
                run(Variant { driver: "epoll", cores: 3, store: true });
            }

            #[test]
            fn uring_with_a_store() {
                run(Variant { driver: "uring", cores: 1, store: true });
            }

            #[test]
            fn uring_on_3_cores_with_a_store() {
                run(Variant { driver: "uring", cores: 3, store: true });
            }
        }
    )* };
}

/// Debian's gearmand, with the deeds that both servers answer alike: what holds the model against
/// the protocol's first server.
#[test]
fn in_step_on_gearmand() {
    let variant = Variant { driver: process::GEARMAND, cores: 1, store: false };
    if variant.is_here() {
        fuzz("in_step", variant, step::run);
    }
}

modes! {
    in_step: crate::step::run,
    in_bursts: crate::burst::run,
}
