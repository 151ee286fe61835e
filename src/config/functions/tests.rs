//! Tests of the tables of functions: what a file says, what is wrong with it, and what is asked.

use std::ffi::OsString;

use proptest::prelude::*;

use super::*;
use crate::config;
use crate::engine::function::Durability;
use crate::engine::glob::Glob;
use crate::engine::policy::{Expiry, Policy};

const STORE: Conditions = Conditions { has_store: true };

fn policies(text: &str) -> Vec<Policy> {
    parse(text, STORE).unwrap().policies.0.clone()
}

/// A table with these lines behind its `match`.
fn policy(lines: &str) -> Policy {
    let [policy] = &policies(&format!("[[function]]\nmatch = \"*\"\n{lines}"))[..] else {
        panic!("one table")
    };
    policy.clone()
}

fn globs(patterns: &[&str]) -> Vec<Glob> {
    patterns.iter().map(|pattern| Glob::new(pattern).unwrap()).collect()
}

/// The options of a command line with files of these contents.
fn options(words: &str, files: &[(&str, &str)]) -> Result<Options, EarlyExit> {
    let words = std::iter::once("ringgeard").chain(words.split_ascii_whitespace());
    config::parse(words.map(OsString::from), |path| read(files, path), |_| None)
}

fn read(files: &[(&str, &str)], path: &str) -> std::io::Result<String> {
    let found = files.iter().find(|&&(name, _)| name == path);
    found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| ErrorKind::NotFound.into())
}

#[test]
fn a_table_says_all_that_there_is_to_say() {
    let all = "\
[[function]]
match = \"mail-*\"                  # or a list
attempts = 10
retry = [\"lost\", \"timeout\", \"fail\"]
backoff = { first = \"2s\", factor = 3, max = \"2h\", jitter = 0.25 }
foreground = true
dead = false
expire = \"24h\"
expire-to = \"dead\"
timeout = \"60s\"
timeout-max = \"1h\"
touch = true
durability = \"async\"
queue-max = [0, 1_000, 0x10]

[[function]]
match = [\"resize\", \"a?\"]
";
    let backoff = Backoff { first_ms: 2000, factor: 3.0, max_ms: 7_200_000, jitter: 0.25 };
    let retried = [true, true, true, false];
    let retries = Retries { attempts: 10, retried, backoff, foreground: true, dead: false };
    let first = Policy {
        patterns: globs(&["mail-*"]),
        retries: Some(retries),
        expiry: Some(Expiry { after_ms: 86_400_000, dead: true }),
        timeout_ms: 60_000,
        timeout_max_ms: 3_600_000,
        touch: true,
        queue_max: Some([0, 1000, 16]),
        durability: Some(Durability::Async),
    };
    let second = Policy { patterns: globs(&["resize", "a?"]), ..Policy::default() };
    let tables = parse(all, STORE).unwrap();
    assert_eq!(tables.policies.0, [first, second]);
    assert_eq!((tables.lines, tables.remarks), (vec![2, 17], Vec::new()));
}

#[test]
fn what_a_table_does_not_say_has_a_default() {
    assert_eq!(policy("").patterns, globs(&["*"]));
    assert_eq!(policy(""), Policy { patterns: globs(&["*"]), ..Policy::default() });
    assert_eq!(policy("attempts = 0").retries, Some(Retries::of(0)));
    assert_eq!(policy("attempts = 65535").retries, Some(Retries::of(65_535)));
    assert_eq!(policy("attempts = 3\nbackoff = {}").retries, Some(Retries::of(3)));
    assert_eq!(policy("attempts = 3\nretry = []").retries.unwrap().retried, [false; 4]);
    let expiry = Expiry { after_ms: 1, dead: false };
    assert_eq!(policy("expire = \"1ms\"").expiry, Some(expiry));
    assert_eq!(policy("expire = \"3650d\"").expiry.unwrap().after_ms, duration::MS_MAX);
    assert_eq!(policy("timeout = \"49d\"").timeout_ms, 4_233_600_000);
    for (lines, factor) in [("factor = 1", 1.0), ("factor = 1.0", 1.0), ("factor = 1e2", 100.0)] {
        let retries = policy(&format!("attempts = 1\nbackoff = {{ {lines} }}")).retries;
        assert!((retries.unwrap().backoff.factor - factor).abs() < f64::EPSILON, "{lines}");
    }
    assert_eq!(policies(""), []);
    assert_eq!(policies("\u{feff}# nothing\n"), []);
}

#[test]
fn a_mistake_has_its_line_and_the_remedy() {
    for (text, expected) in [
        ("[[functions]]", "1: unknown key \"functions\": did you mean function?"),
        ("[[job]]", "1: unknown key \"job\": a functions file has function"),
        ("[function]\nmatch = \"a\"", "1: write functions as tables: [[function]], with match"),
        ("\nfunction = [1]", "2: write functions as tables: [[function]], with match"),
        ("attempts = 3", "1: attempts is in no table: write [[function]] above it"),
        ("[[schedule]]\nname = \"x\"", "1: [[schedule]] is not in this version: leave it out"),
        (
            "[[function]]\nattempts = 3",
            "1: the function has no match: match = \"*\" stands for all functions",
        ),
        (
            "[[function]]\nmatch = []",
            "2: match has no value: write match = [\"mail-*\", \"resize\"], or leave it out",
        ),
        (
            "[[function]]\nmatch = 7",
            "2: match can't be 7: write a name, or a list of names, as in match = [\"mail-*\", \
             \"resize\"]",
        ),
        (
            "[[function]]\nmatch = ['a\\']",
            "2: \"a\\\\\" ends with a backslash: write \\\\ for a backslash",
        ),
    ] {
        assert_eq!(parse(text, STORE).unwrap_err().to_string(), expected, "{text}");
    }
    for (line, expected) in [
        ("atempts = 3", "unknown key \"atempts\": did you mean attempts?"),
        ("expire_to = \"dead\"", "unknown key \"expire_to\": did you mean expire-to?"),
        (
            "parallel = 3",
            "unknown key \"parallel\": a function has match, attempts, retry, backoff, \
             foreground, dead, expire, expire-to, timeout, timeout-max, touch, queue-max, \
             durability",
        ),
        ("rate = \"1/s\"", "rate is not in this version: leave it out"),
        ("running-max = 0", "running-max is not in this version: leave it out"),
        ("results = {}", "results is not in this version: leave it out"),
        (
            "attempts = 65536",
            "attempts can't be 65536: write a whole number from 0 to 65535, 0 for no limit",
        ),
        (
            "attempts = -1",
            "attempts can't be -1: write a whole number from 0 to 65535, 0 for no limit",
        ),
        (
            "attempts = 5.0",
            "attempts can't be 5.0: write a whole number from 0 to 65535, 0 for no limit",
        ),
        (
            "attempts = \"5\"",
            "attempts can't be \"5\": write a whole number from 0 to 65535, 0 for no limit",
        ),
        (
            "retry = \"fail\"",
            "retry can't be \"fail\": write a list of lost, timeout, fail, exception, as in retry \
             = [\"lost\"]",
        ),
        (
            "retry = [\"fial\"]",
            "retry can't be \"fial\": write \"lost\", \"timeout\", \"fail\" or \"exception\"; did \
             you mean \"fail\"?",
        ),
        (
            "retry = [\"expired\"]",
            "retry can't be \"expired\": write \"lost\", \"timeout\", \"fail\" or \"exception\"",
        ),
        ("retry = [\"lost\", \"lost\"]", "retry has \"lost\" twice: leave one of them out"),
        (
            "backoff = \"1s\"",
            "backoff can't be \"1s\": write a table, as in backoff = { first = \"1s\", factor = \
             4.0 }",
        ),
        ("backoff = { fist = \"1s\" }", "unknown key \"fist\": did you mean first?"),
        ("backoff.factor = 0.99", "factor can't be 0.99: write a number from 1 to 100"),
        ("backoff.factor = 101", "factor can't be 101: write a number from 1 to 100"),
        ("backoff.factor = inf", "factor can't be inf: write a number from 1 to 100"),
        ("backoff.factor = nan", "factor can't be nan: write a number from 1 to 100"),
        ("backoff.jitter = 1.01", "jitter can't be 1.01: write a number from 0 to 1"),
        ("backoff.jitter = -0.5", "jitter can't be -0.5: write a number from 0 to 1"),
        (
            "backoff = { first = \"5s\", max = \"1s\" }",
            "max can't be \"1s\": give at least \"5s\", which is first",
        ),
        (
            "backoff = { first = \"2h\" }",
            "first can't be \"2h\": give max = \"2h\", too, which is 1h unless given",
        ),
        (
            "backoff.first = \"5\"",
            "first can't be \"5\": give it a unit, as in 5s: ms, s, m, h or d stand for \
             milliseconds to days",
        ),
        ("timeout = 60", "timeout can't be 60: give it a unit and quotes, as in \"60s\""),
        (
            "timeout = true",
            "timeout can't be true: write a number with a unit in quotes, as in \"90s\"",
        ),
        (
            "timeout = \"1 min\"",
            "timeout can't be \"1 min\": give a whole number and ms, s, m, h or d, as in 90s",
        ),
        ("timeout = \"50d\"", "timeout can't be \"50d\": give at most \"49d\""),
        (
            "expire = \"99999999999999999999d\"",
            "expire can't be \"99999999999999999999d\": give at most \"3650d\"",
        ),
        (
            "expire = \"0s\"",
            "expire can't be \"0s\": give at least \"1ms\", or leave it out for no limit",
        ),
        (
            "expire-to = \"ded\"",
            "expire-to can't be \"ded\": write \"gone\" or \"dead\"; did you mean \"dead\"?",
        ),
        ("dead = \"no\"", "dead can't be \"no\": write true or false"),
        (
            "touch = true",
            "touch needs a timeout: add timeout = \"60s\", or timeout-max for workers that bring \
             their own",
        ),
        (
            "queue-max = 1000",
            "queue-max can't be 1000: write three numbers, for high, normal and low priority, 0 \
             for no limit, as in queue-max = [0, 1000, 1000]",
        ),
        (
            "queue-max = [1, 2, 4294967296]",
            "queue-max can't be 4294967296: write a whole number from 0 to 4294967295, 0 for no \
             limit",
        ),
        (
            "durability = \"sync\"",
            "durability can't be \"sync\": write \"none\", \"async\" or \"fsync\"; did you mean \
             \"async\"?",
        ),
    ] {
        let text = format!("[[function]]\nmatch = \"a\"\n\n{line}\n");
        let said = parse(&text, STORE).unwrap_err().to_string();
        assert_eq!(said, format!("4: {expected}"), "{line}");
    }
    let text = "[[function]]\nmatch = \"a\"\ndurability = \"none\"";
    assert_eq!(
        parse(text, Conditions::default()).unwrap_err().to_string(),
        "3: durability needs a store: add --store sqlite:PATH or --store postgres://…"
    );
    for text in ["[[function]]\nmatch = \"a\"\nmatch = \"b\"", "[[function]\n", "match = 90s"] {
        let mistake = parse(text, STORE).unwrap_err();
        assert!(mistake.sentence.starts_with("this isn't TOML: "), "{mistake}");
    }
    let large = "#".repeat(FILE_BYTES_MAX + 1);
    assert!(parse(&large, STORE).is_err());
    let many: String = (0..=4096).map(|at| format!("[[function]]\nmatch = \"f{at}\"\n")).collect();
    let mistake = parse(&many, STORE).unwrap_err();
    assert_eq!(mistake.to_string(), "8194: a file has at most 4096 patterns: join some with *");
}

#[test]
fn what_has_no_effect_has_a_remark() {
    let remarks = |text: &str| -> Vec<String> {
        parse(text, STORE).unwrap().remarks.iter().map(ToString::to_string).collect()
    };
    let text = "\
[[function]]
match = [\"mail-*\", \"x\"]
[[function]]
# a comment
match = [\"mail-a\", \"x\"]
[[function]]
match = [\"mail-a\", \"y\"]
dead = false
expire-to = \"dead\"
";
    let expected = [
        "5: no function has this match that the one on line 2 doesn't have before it: move it up, \
         or leave it out",
        "8: dead has no effect without attempts: add attempts = 5, or leave it out",
        "9: expire-to has no effect without expire: add expire = \"24h\", or leave it out",
    ];
    assert_eq!(remarks(text), expected);
    assert_eq!(remarks("[[function]]\nmatch = \"a\"\n[[function]]\nmatch = \"*\""), [""; 0]);
}

#[test]
fn tables_stand_in_a_file_or_behind_the_options_of_the_configuration() {
    let configuration = "port = 4731\n[[function]]\nmatch = \"mail-*\"\nattempts = 3\n";
    let is_mail = |file: &FunctionsFile| file.policies().position(b"mail-a").is_some();
    let inside = options("--config-file c", &[("c", configuration)]).unwrap();
    assert_eq!(inside.port, "4731");
    assert!(is_mail(&inside.read_functions(|_| unreachable!()).unwrap()));
    let files = [("c", "port = 4731\n"), ("f", "[[function]]\nmatch = \"mail-*\"\n")];
    let beside = options("@c --functions-file f", &files).unwrap();
    assert!(is_mail(&beside.read_functions(|path| read(&files, path)).unwrap()));
    let named = options("@c", &[("c", "functions-file = \"f\"\n")]).unwrap();
    assert_eq!(named.functions_file.as_deref(), Some("f"));
    let neither = options("", &[]).unwrap();
    assert!(neither.read_functions(|_| unreachable!()).unwrap().is_empty());

    for (words, text, expected) in [
        (
            "@c --functions-file f",
            configuration,
            "c:3: functions are here and in --functions-file f: leave one of them out",
        ),
        (
            "@c",
            "[[function]]\nmatch = \"a\"\nport = 1",
            "c:3: port is no key of a function: write it above the first [[function]]",
        ),
        ("@c", "[[functions]]", "c:1:3: there is no table functions: did you mean [[function]]?"),
        ("@c", "[[schedule]]", "c:1: [[schedule]] is not in this version: leave it out"),
        ("@c", "function = 1", "c:1: write functions as tables: [[function]], with match"),
        (
            "@c",
            "[[function]]\nmatch = \"a\"\ndurability = \"fsync\"",
            "c:3: durability needs a store: add --store sqlite:PATH or --store postgres://…",
        ),
    ] {
        let EarlyExit::Error(problem) = options(words, &[("c", text)]).unwrap_err() else {
            panic!("{text}")
        };
        assert_eq!(problem, expected, "{text}");
    }
    let stored = "store = \"sqlite:f\"\n[[function]]\nmatch = \"a\"\ndurability = \"fsync\"";
    assert!(options("@c", &[("c", stored)]).is_ok());
}

#[test]
fn a_file_is_read_anew_for_its_tables_only() {
    let table = "[[function]]\nmatch = \"a\"\n";
    let reread = |options: &Options, files: &[(&str, &str)]| {
        options.reread_functions(|path| read(files, path))
    };
    let of_file = options("--functions-file f", &[]).unwrap();
    let file = reread(&of_file, &[("f", table)]).unwrap().unwrap();
    assert_eq!(file, of_file.read_functions(|_| Ok(table.to_owned())).unwrap());
    assert_eq!(
        reread(&of_file, &[]).unwrap_err(),
        "cannot read the functions file f: entity not found; name another file with \
         --functions-file"
    );
    assert_eq!(
        reread(&of_file, &[("f", "[[function]]\n")]).unwrap_err(),
        "f:1: the function has no match: match = \"*\" stands for all functions"
    );

    let inside = options("@c", &[("c", table)]).unwrap();
    let other = format!("port = \"nonsense\"\n{table}attempts = 3\n");
    let file = reread(&inside, &[("c", &other)]).unwrap().unwrap();
    assert_eq!(file.policies().0[0].retries, Some(Retries::of(3)));
    assert!(reread(&inside, &[("c", "")]).unwrap().unwrap().is_empty());
    assert!(reread(&inside, &[]).is_err());

    let both = options("@c --functions-file f", &[("c", "")]).unwrap();
    assert!(reread(&both, &[("f", table), ("c", table)]).unwrap_err().contains("leave one of"));
    assert!(reread(&both, &[("f", table)]).is_ok(), "its options aren't read anew");
    assert_eq!(reread(&options("", &[]).unwrap(), &[]), Ok(None));
    let words = options("@c", &[("c", "--port 4731")]).unwrap();
    assert!(reread(&words, &[("c", "--port 4731")]).unwrap().unwrap().is_empty());
}

#[test]
fn a_function_is_asked_for_its_delays() {
    let file = "\
[[function]]
match = [\"x\", \"mail-*\"]
attempts = 5
[[function]]
match = \"endless\"
attempts = 0
backoff = { first = \"500ms\", factor = 2, max = \"3s\", jitter = 0.1 }
[[function]]
match = \"same\"
attempts = 0
backoff = { factor = 1, jitter = 1 }
[[function]]
match = \"once\"
timeout = \"1m\"
";
    let asked = |function: &str| {
        let words = format!("--functions-file f --functions-check {function}");
        let EarlyExit::Print(text) = options(&words, &[("f", file)]).unwrap_err() else {
            panic!("{function}")
        };
        text
    };
    assert_eq!(
        asked("mail-a"),
        "match \"mail-*\"\tf:2\nattempt 2\t500ms\t1s\nattempt 3\t2s\t4s\nattempt 4\t8s\t16s\n\
         attempt 5\t32s\t64s\n"
    );
    assert_eq!(
        asked("endless"),
        "match \"endless\"\tf:5\nattempt 2\t450ms\t500ms\nattempt 3\t900ms\t1s\nattempt \
         4\t1800ms\t2s\nattempt 5\t2700ms\t3s\nevery further attempt\t2700ms\t3s\n"
    );
    assert_eq!(
        asked("same"),
        "match \"same\"\tf:9\nattempt 2\t0s\t1s\nevery further attempt\t0s\t1s\n"
    );
    assert_eq!(asked("once"), "match \"once\"\tf:13\n");
    assert_eq!(asked("other"), "\"other\": no policy, as f has no match for it\n");
    let EarlyExit::Print(text) = options("--functions-check f", &[]).unwrap_err() else { panic!() };
    assert!(text.contains("name a file with --functions-file"), "{text}");
    let EarlyExit::Error(problem) =
        options("--functions-file f --functions-check a", &[]).unwrap_err()
    else {
        panic!()
    };
    assert!(problem.starts_with("cannot read the functions file f: "), "{problem}");
}

#[test]
fn the_manuals_examples_are_functions_files() {
    let manual = include_str!("../../../docs/failed-jobs.md");
    let examples: Vec<&str> = manual.split("```toml\n").skip(1).collect();
    assert!(examples.len() > 5);
    let mut all_keys = String::new();
    for example in examples {
        let (text, _) = example.split_once("```").unwrap();
        let tables = parse(text, STORE).unwrap_or_else(|mistake| panic!("{text}{mistake}"));
        assert_eq!(tables.remarks, [], "{text}");
        assert!(!tables.policies.0.is_empty(), "{text}");
        all_keys.push_str(text);
    }
    for key in tables::KEYS {
        assert!(all_keys.contains(&format!("\n{key} = ")), "no example of {key}");
    }
    let policy = parse("[[function]]\nmatch = \"*\"\nattempts = 10", STORE).unwrap();
    let retries = policy.policies.0[0].retries.clone().unwrap();
    let said = "attempt 2\t500ms\t1s\nattempt 3\t2s\t4s\nattempt 4\t8s\t16s\nattempt 5\t32s\t64s\n\
                attempt 6\t128s\t256s\nattempt 7\t512s\t1024s\nattempt 8\t30m\t1h\nattempt \
                9\t30m\t1h\nattempt 10\t30m\t1h\n";
    assert_eq!(delays(&retries), said, "the table of delays");
}

/// A policy as a table.
fn written(policy: &Policy) -> String {
    let mut text = String::from("[[function]]\n");
    let quoted = |word: &str| toml::Value::from(word).to_string();
    let patterns: Vec<String> = policy.patterns.iter().map(|it| quoted(&it.to_string())).collect();
    text.push_str(&format!("match = [{}]\n", patterns.join(", ")));
    if let Some(retries) = &policy.retries {
        let Retries { attempts, retried, backoff, foreground, dead } = retries;
        let names = ["lost", "timeout", "fail", "exception"].iter().zip(retried);
        let names: Vec<String> =
            names.filter(|&(_, &is_retried)| is_retried).map(|(name, _)| quoted(name)).collect();
        let Backoff { first_ms, factor, max_ms, jitter } = backoff;
        let [first, max] = [*first_ms, *max_ms].map(|ms| quoted(&duration::text(ms)));
        text.push_str(&format!(
            "attempts = {attempts}\nretry = [{}]\nforeground = {foreground}\ndead = {dead}\n\
             backoff = {{ first = {first}, factor = {factor:?}, max = {max}, jitter = {jitter:?} \
             }}\n",
            names.join(", ")
        ));
    }
    if let Some(Expiry { after_ms, dead }) = policy.expiry {
        let to = if dead { "dead" } else { "gone" };
        let after = duration::text(after_ms);
        text.push_str(&format!("expire = \"{after}\"\nexpire-to = \"{to}\"\n"));
    }
    for (name, ms) in [("timeout", policy.timeout_ms), ("timeout-max", policy.timeout_max_ms)] {
        if ms > 0 {
            text.push_str(&format!("{name} = \"{}\"\n", duration::text(ms.into())));
        }
    }
    text.push_str(&format!("touch = {}\n", policy.touch));
    if let Some(queue_max) = policy.queue_max {
        text.push_str(&format!("queue-max = {queue_max:?}\n"));
    }
    if let Some(durability) = policy.durability {
        let name = format!("{durability:?}").to_lowercase();
        text.push_str(&format!("durability = \"{name}\"\n"));
    }
    text
}

prop_compose! {
    fn any_backoff()(
        first_ms in 0..duration::MS_MAX,
        more_ms in 0..duration::MS_MAX,
        factor in 1.0..=100.0_f64,
        jitter in 0.0..=1.0_f64,
    ) -> Backoff {
        let max_ms = (first_ms + more_ms).min(duration::MS_MAX);
        Backoff { first_ms, factor, max_ms, jitter }
    }
}

prop_compose! {
    fn any_retries()(
        attempts: u16, retried: [bool; 4], backoff in any_backoff(), foreground: bool, dead: bool
    ) -> Retries {
        Retries { attempts, retried, backoff, foreground, dead }
    }
}

prop_compose! {
    fn any_policy()(
        patterns in prop::collection::vec("[a-z*?\"' é\t]{0,6}", 1..4),
        retries in prop::option::of(any_retries()),
        expiry in prop::option::of((1..duration::MS_MAX, any::<bool>())),
        timeouts in [0_u32..100_000, 0..4_000_000_000],
        touch: bool,
        queue_max: Option<[u32; 3]>,
        durability in prop::option::of(prop::sample::select(vec![
            Durability::None, Durability::Async, Durability::Fsync
        ])),
    ) -> Policy {
        let patterns = patterns.iter().map(|pattern| Glob::new(pattern).unwrap()).collect();
        let expiry = expiry.map(|(after_ms, dead)| Expiry { after_ms, dead });
        let [timeout_ms, timeout_max_ms] = timeouts;
        let touch = touch && (timeout_ms > 0 || timeout_max_ms > 0);
        Policy {
            patterns, retries, expiry, timeout_ms, timeout_max_ms, touch, queue_max, durability
        }
    }
}

proptest! {
    #[test]
    fn any_policies_are_read_as_they_are_written(
        policies in prop::collection::vec(any_policy(), 0..4)
    ) {
        let text: String = policies.iter().map(written).collect();
        let tables = parse(&text, STORE).unwrap();
        prop_assert_eq!(&tables.policies.0, &policies, "{}", text);
        prop_assert_eq!(tables.lines.len(), policies.len());
    }

    #[test]
    fn a_text_with_anything_changed_is_policies_or_a_mistake_on_one_of_its_lines(
        policies in prop::collection::vec(any_policy(), 1..3),
        cuts in prop::collection::vec(
            (any::<prop::sample::Index>(), "\\PC{0,3}|[\\[\\]=\"\n]"), 1..4
        ),
    ) {
        let text: String = policies.iter().map(written).collect();
        let mut text: Vec<char> = text.chars().collect();
        for (at, piece) in cuts {
            let at = at.index(text.len());
            text.splice(at..(at + 1).min(text.len()), piece.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(mistake) = parse(&text, STORE) {
            prop_assert!(mistake.line >= 1 && mistake.line <= text.split('\n').count());
            prop_assert!(!mistake.sentence.contains('\n'));
        }
        let _ = parse_configuration(&text, Conditions::default(), &|name| name == "port");
    }
}
