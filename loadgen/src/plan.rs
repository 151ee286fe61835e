//! What the functions of a load are called, and what its workers register.
//!
//! In: options. Out: names, and bytes of CAN_DO packets that a worker sends once it is connected.
//! Knows nothing of connections.

use ringgear::wire::{Command, Magic, encode};

use crate::options::{IdleFor, Options};

/// Names of the functions that jobs are submitted to.
pub(crate) fn functions(options: &Options) -> Vec<Vec<u8>> {
    let prefix = &options.function_prefix;
    (0..options.functions).map(|number| format!("{prefix}-{number}").into_bytes()).collect()
}

/// What workers register, in turns.
pub(crate) fn registrations(options: &Options, functions: &[Vec<u8>]) -> Vec<Vec<u8>> {
    match options.dedicated {
        true => functions.chunks(1).map(|function| registration(options, function)).collect(),
        false => vec![registration(options, functions)],
    }
}

/// CAN_DO for all functions, the used ones in the middle.
fn registration(options: &Options, functions: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    let extra = |out: &mut Vec<u8>, number: usize| {
        can_do(out, format!("{}-extra-{number}", options.function_prefix).as_bytes());
    };
    let half = options.extra_functions / 2;
    (0..half).for_each(|number| extra(&mut out, number));
    functions.iter().for_each(|function| can_do(&mut out, function));
    (half..options.extra_functions).for_each(|number| extra(&mut out, number));
    out
}

/// The same for `--idle-workers`.
pub(crate) fn idle_registration(options: &Options, functions: &[Vec<u8>]) -> Vec<u8> {
    match options.idle_for {
        IdleFor::Same => registration(options, functions),
        IdleFor::Other => {
            let mut out = Vec::new();
            can_do(&mut out, format!("{}-idle", options.function_prefix).as_bytes());
            out
        }
    }
}

fn can_do(out: &mut Vec<u8>, function: &[u8]) {
    encode(out, Magic::Request, Command::CanDo, &[function], &[]);
}
