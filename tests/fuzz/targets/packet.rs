//! Any command with any body: parsing it never panics, and its parts lie in the body.
//!
//! Invariant: what can be split can be put together again, byte by byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgear::wire::{encode, Arguments, Command, HEADER_BYTES, Header, Magic, Payload, Request};

fuzz_target!(|input: (u8, &[u8])| {
    let (number, body) = input;
    let Some(command) = Command::from_number(u32::from(number) % 43) else { return };
    let Ok(body_bytes) = u32::try_from(body.len()) else { return };
    let header = Header { magic: Magic::Request, command, body_bytes };
    let parsed = Request::parse(header, Payload::borrowed(body));
    let Ok(arguments) = Arguments::split(command, body) else {
        assert!(parsed.is_err());
        return;
    };
    let parts: Vec<&[u8]> = (0..command.arguments()).map(|at| arguments.part(at)).collect();
    let payload = if command.has_payload() { &body[arguments.payload_at()..] } else { &[][..] };
    let mut bytes = Vec::new();
    encode(&mut bytes, Magic::Request, command, &parts, payload);
    if command.has_arguments() || command.has_payload() {
        assert_eq!(&bytes[HEADER_BYTES..], body);
    }
    if let Ok(Request::Submit(submit)) = parsed {
        assert_eq!(submit.body.from(usize::from(submit.payload_at)).bytes(), payload);
        assert!(submit.body.from(usize::from(submit.unique_at)).bytes().starts_with(submit.unique));
    }
});
