//! Tests of the options: what is typed, what a file says, and what comes of both.

use super::settings::NUMBERS_START_MS;
use super::*;
use crate::engine::Wakeup;
use crate::engine::function::Durability;
use crate::io::ConnectionLimits;
use crate::io::log::Verbosity;
use crate::store::open::StoreChoice;

fn parse_words(words: &str, file: &str) -> Result<Options, EarlyExit> {
    let words = std::iter::once("ringgeard").chain(words.split_ascii_whitespace());
    parse(words.map(OsString::from), |_| Ok(file.to_owned()))
}

fn host() -> HostInfo {
    HostInfo {
        nodename: "web-1".to_owned(),
        memory_bytes: 1 << 30,
        descriptors: 1024,
        connections: ConnectionLimits { per_core: 960, total: 960 },
        random: 7,
        unix_ms: NUMBERS_START_MS + 10,
        pid: 4711,
    }
}

#[test]
fn every_option_of_gearmand_is_accepted() {
    let words = "-b 64 -d --exceptions -f 2000 -j 3 --job-handle-prefix H:x -R \
        --hashtable-buckets 1009 --keepalive --keepalive-idle 9 --keepalive-interval 8 \
        --keepalive-count=7 -l /l -L 127.0.0.1 -p 4731 -P /p -r http -q builtin --syslog \
        --coredump -t 4 -u gearman --verbose INFO -w 2 --ssl --ssl-ca-file a \
        --ssl-certificate b --ssl-key c --http-port 8080 --libsqlite3-db d \
        --libsqlite3-table t --store-queue-on-shutdown --mysql-host h --libpq-conninfo i \
        --libdrizzle-uds u --redis-server r --libmemcached-servers m \
        --libtokyocabinet-file f --check-args";
    let options = parse_words(words, "").unwrap();
    assert_eq!((options.backlog, options.job_retries, options.threads), (64, 3, 4));
    assert_eq!(options.verbosity(), Verbosity::Info);
    assert!(options.check().is_err(), "TLS is refused, not ignored");
}

#[test]
fn the_printed_configuration_changes_nothing() {
    let EarlyExit::Print(file) = parse_words("--print-config", "").unwrap_err() else { panic!() };
    let from_file = parse_words("--config-file f", &file).unwrap();
    let defaults = Options { config_file: Some("f".into()), ..parse_words("", "").unwrap() };
    assert_eq!(format!("{from_file:?}"), format!("{defaults:?}"));
}

#[test]
fn the_command_line_wins_over_the_file_of_either_format() {
    for file in ["port = 5000\nbacklog = 9\nexceptions = true", "--port 5000\n-b9 --exceptions\n"] {
        let options = parse_words("--config-file f -p 6000", file).unwrap();
        assert_eq!((options.port.as_str(), options.backlog), ("6000", 9), "{file}");
        assert!(options.exceptions, "{file}");
    }
}

#[test]
fn mistakes_are_one_sentence() {
    for (words, file, expected) in [
        ("--nonsense", "", "unexpected argument '--nonsense' found"),
        ("positional", "", "unexpected argument 'positional' found"),
        ("-b 1 -b 2", "", "cannot be used multiple times"),
        ("-j 256", "", "job-retries must be"),
        ("--verbose info", "", "invalid value 'info'"),
        ("--hashtable-buckets 0", "", "0 is not in"),
        ("--config-file f", "prot = 1", "unexpected argument '--prot' found"),
        ("--config-file f", "backlog = [1, 2]", "cannot be used multiple times"),
        ("--config-file f", "backlog = [{}]", "backlog can't be a table"),
        ("--durability mail=sometimes", "", "must be none, async or fsync"),
        ("--config-file f", "check-args = true", "can't be set in a configuration file"),
    ] {
        let EarlyExit::Error(problem) = parse_words(words, file).unwrap_err() else { panic!() };
        assert!(problem.contains(expected), "{problem}");
        assert_eq!(problem.lines().count(), 1, "{problem}");
    }
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    // `-p 99999` listened on 34463 and `-p 70266` on 4730: the resolver keeps the low 16 bits of
    // any number. A server with room for no connection or for no job started, too.
    let port = "a port is a number from 0 to 65535, or a name of /etc/services";
    for (words, file, expected) in [
        ("-p 99999", "", port),
        ("-p 70266", "", port),
        ("-p 65536", "", port),
        ("-p -1", "", port),
        ("--port=99999999999999999999999", "", port),
        ("--config-file f", "port = 99999", port),
        ("--config-file f", "port = \"70266\"", port),
        ("--config-file f", "--port=70266", port),
        ("-t -1", "", "-1 is not in 0..="),
    ] {
        let EarlyExit::Error(problem) = parse_words(words, file).unwrap_err() else { panic!() };
        assert!(problem.contains(expected), "{words} {file}: {problem}");
    }
    for (words, expected) in [
        ("--connections-max 0", "give at least 1,"),
        ("--memory-max 1k", "--memory-max 1024 leaves no room for jobs: give at least 1m"),
    ] {
        let problem = parse_words(words, "").unwrap().check().unwrap_err().to_string();
        assert!(problem.contains(expected), "{words}: {problem}");
    }
    for words in ["-p 0", "-p 65535", "-p gearman", "--memory-max 1m", "--connections-max 1"] {
        assert!(parse_words(words, "").unwrap().check().is_ok(), "{words}");
    }
}

#[test]
fn settings_come_from_options_and_host() {
    let options = parse_words("--memory-max 2g -w 0 -j 5", "").unwrap();
    let settings = options.settings(&host()).unwrap();
    assert_eq!(settings.memory_bytes_max, 2 << 30);
    assert_eq!(settings.engine.wakeup, Wakeup::Each(0));
    assert_eq!(settings.engine.attempts_max, Some(5));
    assert_eq!((settings.connections_max, settings.core_connections_max), (960, 960));
    let cores = HostInfo { connections: ConnectionLimits { per_core: 960, total: 1920 }, ..host() };
    let settings = options.settings(&cores).unwrap();
    assert_eq!((settings.connections_max, settings.core_connections_max), (1920, 960));
    let few = parse_words("--connections-max 100", "").unwrap().settings(&cores).unwrap();
    assert_eq!((few.connections_max, few.core_connections_max), (100, 100));
    let many = parse_words("--connections-max 5000", "").unwrap().settings(&cores).unwrap();
    assert_eq!(many.connections_max, 1920);
    let settings = options.settings(&host()).unwrap();
    assert_eq!(settings.handles.text(7).as_ref(), b"H:web-1:7");
    assert_eq!(settings.engine.first_sequence, 10_241);
    let unlimited = parse_words("--memory-max 0", "").unwrap().settings(&host()).unwrap();
    assert_eq!(unlimited.memory_bytes_max, usize::MAX);
    assert_eq!(unlimited.engine.attempts_max, None);
    let long = HostInfo { nodename: "n".repeat(64), ..host() };
    assert!(options.settings(&long).is_ok(), "a long host name is no boot error");
}

#[test]
fn what_this_build_lacks_is_refused() {
    for words in [
        "--ssl",
        "-r http",
        "-q libsqlite3",
        "-q MySQL",
        "--job-size-max 1",
        "--store mysql://host",
        "--store sqlite:",
        "--store sqlite:f -q libsqlite3",
        "--standby",
        "--durability async",
    ] {
        assert!(parse_words(words, "").unwrap().settings(&host()).is_err(), "{words}");
    }
    assert!(parse_words("-q BuiltIn", "").unwrap().settings(&host()).is_ok());
}

#[test]
fn stores_are_named_in_our_words_and_in_gearmands() {
    let choice = |words: &str| parse_words(words, "").unwrap().store_choice().unwrap();
    let sqlite = |table: Option<&str>| {
        let table = table.map(str::to_owned);
        Some(StoreChoice::Sqlite { path: "/q.db".into(), table })
    };
    assert_eq!(choice("--store sqlite:/q.db"), sqlite(None));
    let theirs = "-q libsqlite3 --libsqlite3-db /q.db --libsqlite3-table t";
    assert_eq!(choice(theirs), sqlite(Some("t")));
    let postgres =
        |conninfo: &str| Some(StoreChoice::Postgres { conninfo: conninfo.into(), table: None });
    assert_eq!(choice("--store postgres://h/d"), postgres("postgres://h/d"));
    assert_eq!(choice("-q Postgres --libpq-conninfo host=h"), postgres("host=h"));
    assert_eq!(choice(""), None);
}

#[test]
fn durability_is_by_function_and_needs_a_store() {
    let durabilities = |words: &str, file: &str| {
        parse_words(words, file).unwrap().settings(&host()).unwrap().engine.durabilities
    };
    assert_eq!(durabilities("", "").default, Durability::None);
    let words = "--store sqlite:f --durability a=b=none --durability mail=async";
    let by_name = durabilities(words, "");
    assert_eq!(by_name.default, Durability::Fsync);
    assert_eq!(by_name.named[&b"a=b"[..]], Durability::None);
    assert_eq!(by_name.named[&b"mail"[..]], Durability::Async);
    let file = "store = \"sqlite:f\"\ndurability = [\"async\", \"mail=fsync\"]";
    let from_file = durabilities("--config-file f", file);
    assert_eq!(from_file.default, Durability::Async);
    assert_eq!(from_file.named[&b"mail"[..]], Durability::Fsync);
}
