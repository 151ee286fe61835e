//! Any bytes: what `frame::cut` says of all of them it also says of them one by one.
//!
//! Invariant: no panic, no frame beyond the bytes, and a frame doesn't change when more bytes
//! follow it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgear::wire::frame::{Cut, cut};
use ringgear::wire::{HEADER_BYTES};

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(whole) = cut(rest, 0) {
        let used = match whole {
            Cut::Packet { header, body } => {
                assert_eq!(header.body_bytes as usize, body.len());
                HEADER_BYTES + body.len()
            }
            Cut::Line { line, used } => {
                assert!(line.len() < used && !line.contains(&b'\n'));
                used
            }
            Cut::PartialBody(header) => {
                assert!(rest.len() < HEADER_BYTES + header.body_bytes as usize);
                return;
            }
            Cut::Partial => return,
        };
        assert_eq!(cut(&rest[..used], 0), Ok(whole), "the frame alone");
        assert!(matches!(cut(&rest[..used - 1], 0), Ok(Cut::Partial | Cut::PartialBody(_))));
        rest = &rest[used..];
    }
});
