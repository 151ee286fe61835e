//! Any text as a functions file and as a configuration file: policies or a mistake, and the delays
//! of the policies.
//!
//! Invariant: no panic; a mistake is on a line of the text; a delay is within its bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgear::config::{parse_configured_functions, parse_functions, FunctionConditions};

fuzz_target!(|input: (bool, &str, &[u8], u16, u64)| {
    let (has_store, text, function, failures, random) = input;
    let conditions = FunctionConditions { has_store };
    let read = [
        parse_functions(text, conditions),
        parse_configured_functions(text, conditions, &|name| name == "port"),
    ];
    for read in read {
        let tables = match read {
            Ok(tables) => tables,
            Err(mistake) => {
                assert!(mistake.line > 0 && mistake.line <= text.split('\n').count());
                assert!(!mistake.sentence.contains('\n'));
                continue;
            }
        };
        assert_eq!(tables.lines.len(), tables.policies.0.len());
        let Some(policy) = tables.policies.find(function) else { continue };
        let Some(retries) = &policy.retries else { continue };
        let backoff = &retries.backoff;
        let delay = backoff.delay_ms(failures, random);
        assert!(backoff.shortest_ms(failures) <= delay && delay <= backoff.longest_ms(failures));
        assert!(backoff.longest_ms(failures) <= backoff.max_ms);
    }
});
