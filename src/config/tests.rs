//! Tests of the options: what is typed, what a file says, and what comes of both.

use std::time::Duration;

use super::settings::NUMBERS_START_MS;
use super::*;
use crate::engine::Wakeup;
use crate::engine::function::Durability;
use crate::io::log::Verbosity;
use crate::io::{ConnectionLimits, Endpoint};
use crate::store::open::StoreChoice;

pub(super) fn parse_words(words: &str, file: &str) -> Result<Options, EarlyExit> {
    let words = std::iter::once("ringgeard").chain(words.split_ascii_whitespace());
    parse(words.map(OsString::from), |_| Ok(file.to_owned()), |_| None)
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
    assert_eq!((options.backlog, options.job_retries, options.threads), (64, 3, Some(4)));
    assert_eq!(options.verbosity(), Verbosity::Info);
    assert_eq!((options.http_port(), options.dialect_specs().len()), ("8080", 0));
    assert!(options.check().is_err(), "gearmand's HTTP has no TLS");
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
    for file in [
        "port = 5000\nbacklog = 9\nexceptions = true",
        "--port 5000\n-b9 --exceptions\n",
        "# Ports\n\n  --port\n  5000\n# -b 8\n\t-b9 --exceptions",
    ] {
        for words in ["--config-file f -p 6000", "-p 6000 @f"] {
            let options = parse_words(words, file).unwrap();
            assert_eq!((options.port.as_str(), options.backlog), ("6000", 9), "{file}");
            assert!(options.exceptions, "{file}");
        }
    }
}

#[test]
fn mistakes_are_one_sentence() {
    for (words, file, expected) in [
        ("--nonsense", "", "there is no option --nonsense: "),
        ("positional", "", "\"positional\" is no option: "),
        ("-b 1 -b 2", "", "--backlog is given twice: "),
        ("-j 256", "", "--job-retries can't be \"256\": give a whole number from -1 to 255"),
        ("--verbose info", "", "or TRACE; did you mean INFO?"),
        ("--hashtable-buckets 0", "", "--hashtable-buckets can't be \"0\": "),
        ("--config-file f", "prot = 1", "f:1:1: there is no key prot: did you mean port?"),
        ("--config-file f", "\n  backlog = [1, 2]", "f:2:13: backlog has one value: "),
        ("--config-file f", "backlog = [{}]", "f:1:11: backlog has one value: "),
        ("--durability mail=sometimes", "", "give none, async or fsync"),
        ("--config-file f", "check-args = true", "f:1:1: --check-args can't stand in a file"),
        ("--config-file f", "--port 1\n -b 2 --check-args", "f:2:7: --check-args can't stand"),
        ("--config-file f", "--help", "f:1:1: --help can't stand in a file"),
        ("--config-file f", "@g", "f:1:1: this line isn't TOML"),
        ("--config-file f", "--port 1 @g", "f:1:10: @FILE can't stand in a file"),
        ("--config-file f @g", "", "both name a file"),
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
    let port = "give a number from 0 to 65535, or a name of /etc/services";
    for (words, file, expected) in [
        ("-p 99999", "", port),
        ("-p 70266", "", port),
        ("-p 65536", "", port),
        ("-p -1", "", port),
        ("--port=99999999999999999999999", "", port),
        ("--config-file f", "port = 99999", port),
        ("--config-file f", "port = \"70266\"", port),
        ("--config-file f", "--port=70266", port),
        ("-t -1", "", "give a whole number from 0 to "),
        ("--connections-max 0", "", "of at least 1"),
        ("--memory-max 1k", "", "that leaves no room for jobs, so give at least 1m"),
        ("--config-file f", "memory-max = \"1k\"", "f:1:14: memory-max can't be \"1k\": "),
        ("--outbox-max 65535", "", "give at least 64k"),
        ("--job-size-max 1", "", "give at least 1k"),
    ] {
        let EarlyExit::Error(problem) = parse_words(words, file).unwrap_err() else { panic!() };
        assert!(problem.contains(expected), "{words} {file}: {problem}");
    }
    for words in ["-p 0", "-p 65535", "-p gearman", "--memory-max 1m", "--connections-max 1"] {
        assert!(parse_words(words, "").unwrap().check().is_ok(), "{words}");
    }
}

fn with_variable(words: &str, file: &str, value: &str) -> Result<Options, EarlyExit> {
    let words = std::iter::once("ringgeard").chain(words.split_ascii_whitespace());
    let variable = |name: &str| (name == "GEARMAND_PORT").then(|| value.into());
    parse(words.map(OsString::from), |_| Ok(file.to_owned()), variable)
}

#[test]
fn the_variable_counts_where_no_port_is_given() {
    let port = |words, file| with_variable(words, file, "5000").unwrap().port;
    assert_eq!(port("", ""), "5000");
    assert_eq!(port("-p 6000", ""), "6000");
    assert_eq!(port("--config-file f", "port = 7000"), "7000");
    assert_eq!(port("--config-file f", "threads = 2"), "5000");
    // A variable of Kubernetes ended a start whose file had a port.
    let kubernetes = "tcp://10.0.0.1:4730";
    assert_eq!(with_variable("@f", "--port 7000", kubernetes).unwrap().port, "7000");
    let EarlyExit::Error(problem) = with_variable("", "", kubernetes).unwrap_err() else {
        panic!()
    };
    assert!(problem.starts_with("GEARMAND_PORT can't be \"tcp://10.0.0.1:4730\""), "{problem}");
}

/// The options where `RINGGEARD_CONFIG_FILE` is `value`; a file has as its port the one that its
/// name ends with, and `/wrong` a mistake.
fn with_named_file(words: &str, value: &str) -> Result<Options, EarlyExit> {
    let words = std::iter::once("ringgeard").chain(words.split_ascii_whitespace());
    let variable = |name: &str| (name == "RINGGEARD_CONFIG_FILE").then(|| value.into());
    let read = |path: &str| match path.strip_prefix("/port-") {
        Some(port) => Ok(format!("port = {port}\n[[function]]\nmatch = \"mail\"\n")),
        None if path == "/wrong" => Ok("prot = 1".to_owned()),
        None if path == "/table" => Ok("[[function]]\nmatch = 1".to_owned()),
        None => Err(ErrorKind::NotFound.into()),
    };
    parse(words.map(OsString::from), read, variable)
}

#[test]
fn a_variable_names_the_file_unless_the_command_line_does() {
    let port = |words: &str, value: &str| with_named_file(words, value).unwrap().port;
    assert_eq!(port("", "/port-7000"), "7000");
    assert_eq!(port("-p 6000", "/port-7000"), "6000");
    assert_eq!(port("--config-file /port-8000", "/port-7000"), "8000");
    assert_eq!(port("@/port-8000", "/port-7000"), "8000");
    assert_eq!(port("--config-file /port-8000", "/nowhere"), "8000");
    assert_eq!(port("", ""), "4730", "an empty variable counts as unset");
    // As if it had been typed: read anew by SIGHUP, and within the sandbox's reach.
    let options = with_named_file("", "/port-7000").unwrap();
    assert_eq!(options.configuration_path(), Some("/port-7000"));
    assert!(!options.function_tables.is_empty());
    for words in ["--version", "--help", "--print-config"] {
        let early = with_named_file(words, "/nowhere").unwrap_err();
        assert!(matches!(early, EarlyExit::Print(_)), "{words}: {early}");
    }
}

#[test]
fn mistakes_in_a_file_that_a_variable_names_tell_the_variable() {
    let variable = "(RINGGEARD_CONFIG_FILE names this file)";
    for (words, value, parts) in [
        ("", "/wrong", ["/wrong:1:1: there is no key prot: did you mean port?", variable]),
        ("", "/table", ["/table:2: match", variable]),
        ("", "/nowhere", ["name another file, or unset the variable", variable]),
    ] {
        let EarlyExit::Error(problem) = with_named_file(words, value).unwrap_err() else {
            panic!()
        };
        assert!(parts.iter().all(|part| problem.contains(part)), "{problem}");
        assert_eq!(problem.lines().count(), 1, "{problem}");
    }
    for words in ["@/wrong", "--config-file /nowhere"] {
        let EarlyExit::Error(problem) = with_named_file(words, "/wrong").unwrap_err() else {
            panic!()
        };
        assert!(!problem.contains("RINGGEARD_CONFIG_FILE"), "{problem}");
    }
}

#[test]
fn passwords_are_in_no_sentence() {
    for (words, file) in [
        ("--store mysql://user:secret@host/db", ""),
        ("--store postgres://user:a@secret@host/db", ""),
        ("--store mysql://user:a@secret@host/db", ""),
        ("--store dbname=jobs;password=secret", ""),
        ("mysql://user:secret@host/db", ""),
        ("--stor=mysql://user:secret@host/db", ""),
        ("store=mysql://user:secret@host/db", ""),
        ("--config-file f", "store = mysql://user:secret@host/db"),
        ("--config-file f", "store = \"mysql://user:secret@host/db\""),
        ("--config-file f", "--store=mysql://user:secret@host/db"),
        ("--config-file f", "stor = \"mysql://user:secret@host/db\""),
        ("--config-file f", "--port 1 store=mysql://user:secret@host/db"),
        ("--config-file f", "libpq-conninfo = host=db password=secret"),
        ("--config-file f", "redis-password = secret"),
        ("--config-file f", "--port 1 redis-password=secret"),
        ("--config-file f", "port = 1\n--mysql-password secret"),
    ] {
        let EarlyExit::Error(problem) = parse_words(words, file).unwrap_err() else { panic!() };
        assert!(!problem.contains("secret"), "{problem}");
    }
}

#[test]
fn options_without_effect_have_a_remark_with_the_reason() {
    for (words, file, expected) in [
        ("--redis-server a", "", "--redis-server has no effect: this build has no Redis"),
        ("--config-file f", "redis-port = 6379", "--redis-port has no effect: "),
        ("--config-file f", "--http-port=80", "--http-port has no effect: "),
        ("--store-queue-on-shutdown", "", "--store-queue-on-shutdown has no effect: a store has"),
        ("--hashtable-buckets 7", "", "--hashtable-buckets has no effect: hash tables grow"),
        ("-R", "", "--round-robin has no effect: "),
        ("--keepalive", "", "--keepalive has no effect: "),
        ("--libsqlite3-db f", "", "--libsqlite3-db has no effect: it takes -q libsqlite3"),
        ("--libpq-conninfo f", "", "--libpq-conninfo has no effect: "),
        ("--libpq-table t --store sqlite:f", "", "--libpq-table has no effect: "),
        ("--libsqlite3-table t", "", "--libsqlite3-table has no effect: "),
        ("--store-timeout 5", "", "--store-timeout has no effect: "),
        ("--no-offload -t 1", "", "--no-offload has no effect: "),
        (
            "--unix-mode 660",
            "",
            "--unix-mode has no effect: no --listen or --http is a Unix socket",
        ),
        ("-L a --unix-owner me", "", "--unix-owner has no effect: no --listen or --http is"),
        ("-p 1 -L a:2 -L unix:/s", "", "--port has no effect: each --listen has"),
        ("-p 1 -L a:2 -L [::1]:3", "", "--port has no effect: each --listen has"),
        ("--config-file f", "port = 1\nlisten = [\"a:2\"]", "--port has no effect: "),
        ("-j 0", "", "--job-retries 0 fails a job when its first worker is lost"),
    ] {
        let remarks = parse_words(words, file).unwrap().remarks();
        let [remark] = &remarks[..] else { panic!("{words}: {remarks:?}") };
        assert!(remark.starts_with(expected), "{remark}");
    }
    let EarlyExit::Print(file) = parse_words("--print-config", "").unwrap_err() else { panic!() };
    for (words, file) in [
        ("", ""),
        ("--config-file f", file.as_str()),
        ("-q libsqlite3 --libsqlite3-db f --libsqlite3-table t --store-timeout 5", ""),
        ("-q Postgres --libpq-conninfo host=h --libpq-table t", ""),
        ("--no-offload -t 2 -j 1", ""),
        ("--no-offload", ""),
        ("-p 1 -L a:2 -L a", ""),
        ("-L a:2", ""),
        ("-L unix:/s --unix-mode 600 --unix-owner a:b", ""),
    ] {
        assert_eq!(parse_words(words, file).unwrap().remarks(), [""; 0], "{words}");
    }
}

#[test]
fn listeners_are_those_of_the_command_line_or_else_those_of_the_file() {
    let names = |words, file| -> Vec<Option<String>> {
        let specs = parse_words(words, file).unwrap().listen_specs();
        specs.iter().map(|spec| spec.name.as_deref().map(str::to_owned)).collect()
    };
    let some = |names: &[&str]| -> Vec<_> { names.iter().map(|&it| Some(it.into())).collect() };
    assert_eq!(names("", ""), [None]);
    assert_eq!(names("-L a -L [::1]:1", ""), some(&["a", "[::1]:1"]));
    assert_eq!(names("@f", "listen = \"\""), some(&[""]));
    assert_eq!(names("@f", "listen = [\"a:1\", \"b\"]"), some(&["a:1", "b"]));
    assert_eq!(names("@f", "--listen a:1\n-L b"), some(&["a:1", "b"]));
    assert_eq!(names("@f -L c", "listen = [\"a:1\", \"b\"]"), some(&["c"]));
}

#[test]
fn modes_are_octal_however_they_are_written() {
    let mode = |words, file| parse_words(words, file).unwrap().unix_mode;
    assert_eq!((mode("", ""), mode("--unix-mode 0660", "")), (None, Some(0o660)));
    assert_eq!(mode("--unix-mode 600", ""), Some(0o600));
    for file in ["unix-mode = \"0640\"", "unix-mode = 640", "unix-mode = 0o640", "--unix-mode=640"]
    {
        assert_eq!(mode("@f", file), Some(0o640), "{file}");
    }
    for (words, file) in [
        ("--unix-mode 999", ""),
        ("--unix-mode 1777", ""),
        ("--unix-mode u=rw", ""),
        ("@f", "unix-mode = 0x1b0"),
        ("--unix-owner :g", ""),
        ("--unix-owner a:b:c", ""),
        ("--unix-owner a:", ""),
    ] {
        assert!(parse_words(words, file).is_err(), "{words} {file}");
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
    let dead = &settings.engine.dead;
    assert_eq!((dead.count_max, dead.bytes_max), (10_000, 64 << 20));
    assert_eq!(dead.keep_ms, 30 * 86_400_000);
    let words = "--dead-max 0 --dead-bytes-max 1k --dead-keep 90s";
    let dead = parse_words(words, "").unwrap().settings(&host()).unwrap().engine.dead;
    assert_eq!((dead.count_max, dead.bytes_max, dead.keep_ms), (0, 1024, 90_000));
    let long = HostInfo { nodename: "n".repeat(64), ..host() };
    assert!(options.settings(&long).is_ok(), "a long host name is no boot error");
}

#[test]
fn http_of_gearmand_is_on_the_hosts_of_plain_listeners() {
    let of = |words: &str| -> Vec<Endpoint> {
        let options = parse_words(words, "").unwrap();
        options.dialect_specs().into_iter().map(|spec| spec.endpoint).collect()
    };
    let host = |host: &str| Endpoint::Host { host: host.to_owned(), port: None };
    assert_eq!(of(""), []);
    assert_eq!(of("-r http"), [Endpoint::Loopback]);
    let words = "-r http --listen a:1 --listen a:2 --listen b --listen tls:c:3 --listen unix:/g";
    assert_eq!(of(words), [host("a"), host("b")]);
}

#[test]
fn what_this_build_lacks_is_refused() {
    for words in [
        "-r spdy",
        "-r http --ssl",
        "-r http --listen unix:/g.sock",
        "--ssl --ssl-client-certificates required",
        "--ssl --ssl-crl-file f",
        "-q libsqlite3",
        "-q MySQL",
        "--store sqlite:f -q libsqlite3",
        "--standby",
        "--durability async",
        "--cluster",
        "--cluster --store sqlite:f",
        "--cluster --standby --store postgres://h/d",
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
    assert_eq!(choice("--store sqlite:///q.db"), sqlite(None));
    assert_eq!(choice("--store postgres://h/d"), postgres("postgres://h/d"));
    assert_eq!(choice("-q Postgres --libpq-conninfo host=h"), postgres("host=h"));
    assert_eq!(choice(""), None);
}

#[test]
fn what_other_servers_are_told_follows_from_the_options() {
    let of = |words: &str| {
        let options = parse_words(&format!("--store postgres://h/d {words}"), "").unwrap();
        (options.membership(&host()), options.drain_time(), options.settings(&host()).unwrap())
    };
    let seconds = Duration::from_secs;
    let (alone, drain, settings) = of("");
    assert!(!alone.is_cluster && !settings.has_other_servers);
    assert_eq!((alone.lease.length(), drain), (seconds(6), seconds(0)));
    assert_eq!((&*alone.name, &*alone.address), ("web-1", ""));
    let (member, drain, settings) = of("--cluster --lease 9 --advertise db1:4731");
    assert!(member.is_cluster && settings.has_other_servers);
    assert_eq!((member.lease.length(), drain), (seconds(9), seconds(10)));
    assert_eq!((&*member.name, &*member.address), ("web-1", "db1:4731"));
    assert_eq!(of("--cluster --drain 0").1, seconds(0));
    assert_eq!(of("--drain 3").1, seconds(3));
    let file = "store = \"postgres://h/d\"\ncluster = true\nlease = 4\nadvertise = \"[::1]:9\"";
    let from_file = parse_words("--config-file f", file).unwrap().membership(&host());
    assert!(from_file.is_cluster);
    assert_eq!((from_file.lease.length(), &*from_file.address), (seconds(4), "[::1]:9"));
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

#[test]
fn files_of_tls_are_named_by_options_then_variables_then_by_default() {
    let with_variables = |words: &str| {
        let words = format!("ringgeard {words}");
        let words = words.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        let variable = |name: &str| {
            let value = match name {
                "GEARMAND_SERVER_PEM" => "/v.pem",
                "GEARMAND_CA_CERTIFICATE" => "/ca.pem",
                _ => return None,
            };
            Some(OsString::from(value))
        };
        parse(words, |_| Ok(String::new()), variable).unwrap()
    };
    let defaults = "/etc/ringgear/tls/server.key";
    assert_eq!(with_variables("--ssl").tls_files(), ["/v.pem", defaults]);
    assert_eq!(with_variables("--ssl --ssl-certificate /o.pem").tls_files(), ["/o.pem", defaults]);
    let all = "--ssl --ssl-key /k --ssl-client-certificates optional --ssl-crl-file /l";
    assert_eq!(with_variables(all).tls_files(), ["/v.pem", "/k", "/ca.pem", "/l"]);
    assert!(with_variables("").tls_files().is_empty());
}

#[test]
fn a_file_of_tls_that_cannot_be_read_is_named_with_the_remedy() {
    let options = parse_words("--ssl --user ringgear", "").unwrap();
    let sentence =
        |kind: ErrorKind| options.read_tls(|_| Err(kind.into()), None).map(drop).unwrap_err();
    assert_eq!(
        sentence(ErrorKind::PermissionDenied),
        "cannot read the certificate /etc/ringgear/tls/server.pem: permission denied; it must be \
         readable by user ringgear"
    );
    assert_eq!(
        sentence(ErrorKind::NotFound),
        "cannot read the certificate /etc/ringgear/tls/server.pem: no such file; name it with \
         --ssl-certificate; docs/security.md tells how to make one"
    );
}
