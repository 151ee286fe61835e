//! Any text as an access list: a list or a mistake, and what the list says of a peer.
//!
//! Invariant: no panic; a mistake is on a line of the text; rules that allow all functions allow
//! each.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use ringgear::protocol::access::{parse, Conditions, Peer, Permissions, Right, Scope};

fuzz_target!(|input: (bool, &str, &str, &[u8])| {
    let (has_all, text, words, function) = input;
    let conditions = Conditions { asks_for_certificates: has_all, has_tokens: has_all };
    let list = match parse(text, conditions) {
        Ok(list) => Arc::new(list),
        Err(mistake) => {
            assert!(mistake.line > 0 && mistake.line <= text.split('\n').count());
            assert!(!mistake.sentence.contains('\n'));
            return;
        }
    };
    let Ok(peer) = words.parse::<Peer>() else { return };
    let permissions = Permissions::of(&list, &peer);
    for right in Right::ALL {
        let all = permissions.may(right, Scope::AllFunctions);
        let one = permissions.may(right, Scope::Function(function));
        assert!(one.is_allowed || !all.is_allowed);
    }
});
