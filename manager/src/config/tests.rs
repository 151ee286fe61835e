//! Tests of the file: what it says, what is left out, and what is wrong with it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;

fn default_servers() -> Vec<Server> {
    vec![Server::Tcp { host: "127.0.0.1".to_owned(), port: Server::PORT }]
}

fn parse(text: &str) -> File {
    File::parse(text, default_servers()).unwrap_or_else(|mistake| panic!("{mistake}: {text}"))
}

/// A worker's table with these lines behind what it must have.
fn with(lines: &str) -> String {
    format!("[[worker]]\nname = \"w\"\nfunctions = [\"f\"]\ncommand = [\"true\"]\n{lines}")
}

#[test]
fn a_file_says_all_that_there_is_to_say() {
    let text = r#"
servers = ["127.0.0.1:4730", "unix:/run/g.sock"]
http = "127.0.0.1:4781"
[tls]
ca = "/etc/ca.pem"
certificate = "client.pem"
key = "client.key"
[[worker]]
name = "thumbnail"
functions = ["thumbnail", "crop"]
command = ["convert", "-", "-resize", "200x200", "png:-"]
mode = "lines"
count = 4
timeout = "60s"
max-jobs = 1000
max-age = "1h"
splay = 0.2
memory-max = "256M"
result-max = 1024
stop-wait = "0s"
backoff = ["2s", "1m"]
user = "www-data"
group = "33"
directory = "/srv/app"
umask = "027"
nice = -5
environment = { APP_ENV = "production" }
clear-environment = true
watch = ["/srv/app/**/*.php"]
stderr = "warning"
[[worker]]
name = "mail"
mode = "gearman"
command = ["php", "worker.php"]
"#;
    let File { config, remarks, lines } = parse(text);
    assert_eq!(remarks, []);
    assert_eq!(config.servers, Server::parse_list("127.0.0.1,unix:/run/g.sock").unwrap());
    assert_eq!(config.http, Some(HttpAddress::parse("127.0.0.1:4781").unwrap()));
    let tls = config.tls.expect("[tls]");
    let [ca, certificate, key] =
        ["/etc/ca.pem", "client.pem", "client.key"].map(|path| Some(path.into()));
    assert_eq!(tls, TlsFiles { ca, certificate, key });
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let thumbnail = Worker {
        name: "thumbnail".to_owned(),
        functions: words(&["thumbnail", "crop"]),
        command: words(&["convert", "-", "-resize", "200x200", "png:-"]),
        mode: Mode::Lines,
        count: 4,
        timeout: Some(Duration::from_secs(60)),
        max_jobs: 1000,
        max_age: Some(Duration::from_secs(3600)),
        splay: 0.2,
        memory_max: Some(256 << 20),
        result_max: 1024,
        stop_wait: Duration::ZERO,
        backoff: (Duration::from_secs(2), Duration::from_secs(60)),
        user: Some("www-data".to_owned()),
        group: Some("33".to_owned()),
        directory: Some("/srv/app".into()),
        umask: Some(0o027),
        nice: -5,
        environment: BTreeMap::from([("APP_ENV".to_owned(), "production".to_owned())]),
        clear_environment: true,
        watch: words(&["/srv/app/**/*.php"]),
        stderr: Stderr::Warning,
    };
    let mail = Worker {
        name: "mail".to_owned(),
        command: words(&["php", "worker.php"]),
        mode: Mode::Gearman,
        ..Worker::default()
    };
    assert_eq!(config.workers, [thumbnail, mail]);
    // Every key stands in this test.
    for key in KEYS.iter().chain(&WORKER_KEYS).chain(&TLS_KEYS) {
        let is_there = |line: &str| line.trim_matches(['[', ']']).starts_with(key);
        assert!(text.lines().any(is_there), "{key}");
    }
    let place = (lines.top("http"), lines.top("tls.key"), lines.worker(0, "count"));
    assert_eq!(place, (3, 7, 13));
    assert_eq!((lines.worker(1, "name"), lines.worker(1, "user")), (32, 31));
}

#[test]
fn what_is_left_out_has_a_default() {
    let file = parse(&with(""));
    assert_eq!(file.config.servers, default_servers());
    assert_eq!((file.config.http, file.config.tls, file.remarks), (None, None, Vec::new()));
    let [worker] = &file.config.workers[..] else { panic!("a worker") };
    let expected = Worker {
        name: "w".to_owned(),
        functions: vec!["f".to_owned()],
        command: vec!["true".to_owned()],
        ..Worker::default()
    };
    assert_eq!(worker, &expected);
    assert_eq!((worker.mode, worker.count, worker.stop_wait.as_secs()), (Mode::Exec, 1, 60));
    assert_eq!((worker.result_max, worker.memory_max, worker.timeout), (64 << 20, None, None));
    assert_eq!(parse(&format!("\u{feff}{}", with(""))).config.workers.len(), 1);
}

#[test]
fn a_mistake_has_its_line_and_the_remedy() {
    let worker = |lines: &str| with(lines);
    let jobless = "makes no sense in mode gearman, where the command takes its jobs itself: leave \
                   it out, or use mode = \"lines\"";
    let name = "write 1 to 64 of the letters a to z and A to Z, digits, -, _ and . in quotes";
    for (text, expected) in [
        // The file.
        ("", "1: the file has no worker: add [[worker]], with name, functions and command"),
        ("x = ", "1: this isn't TOML: string values must be quoted, expected literal string"),
        ("server = []", "1: unknown key \"server\": did you mean servers?"),
        ("pidfile = 1", "1: unknown key \"pidfile\": a file has servers, http, tls, worker"),
        ("\ncount = 1", "2: count is in no table: write [[worker]] above it"),
        ("worker = 1", "1: write workers as tables: [[worker]], with name, functions and command"),
        ("[worker]", "1: write workers as tables: [[worker]], with name, functions and command"),
        // Servers.
        ("servers = \"a\"", "1: servers is a list: write servers = [\"127.0.0.1:4730\"]"),
        (
            "servers = []",
            "1: servers has no value: write servers = [\"127.0.0.1:4730\"], or leave it out",
        ),
        ("servers = [4730]", "1: write each value of servers in quotes"),
        (
            "servers = [\"a:0\"]",
            "1: servers can't be \"a:0\": give a port from 1 to 65535 behind the colon",
        ),
        (
            "servers = [\"a\",\n\"a:4730\"]",
            "2: servers can't be \"a:4730\": it is there before, so leave one of them out",
        ),
        // HTTP and TLS.
        (
            "http = 4781",
            "1: http can't be 4781: write an address in quotes, as in \"127.0.0.1:4781\"",
        ),
        (
            "http = \"0.0.0.0:4781\"",
            "1: http can't be \"0.0.0.0:4781\": there are no passwords, so give an address that \
             only this machine reaches, as in 127.0.0.1:4781, or unix:/PATH",
        ),
        (
            "tls = true",
            "1: tls is a table: write [tls] behind all other keys, with ca = \"FILE\" below it",
        ),
        ("[tls]\ncert = \"\"", "2: unknown key \"cert\": tls has ca, certificate, key"),
        ("[tls]\nca = \"\"", "2: ca can't be \"\": write the path of a file in quotes"),
        ("[tls]\nkey = \"k\"", "1: key needs its certificate: add certificate = \"FILE\""),
        ("[tls]\ncertificate = \"c\"", "1: certificate needs its key: add key = \"FILE\""),
        // What a worker must have.
        ("[[worker]]", "1: the worker has no name: add name = \"thumbnail\""),
        (
            "[[worker]]\nname = \"w\"",
            "1: the worker has no command: add command = [\"convert\", \"-\", \"png:-\"]",
        ),
        (
            "[[worker]]\nname = \"w\"\ncommand = [\"true\"]",
            "1: the worker has no functions: add functions = [\"thumbnail\"]",
        ),
        (
            &worker(&with("")),
            "6: the worker on line 2 is called \"w\", too: give each a name of its own",
        ),
        (
            &worker("http = \"127.0.0.1:1\""),
            "5: http is no key of a worker: write http above the first [[worker]]",
        ),
        (&worker("max_jobs = 1"), "5: unknown key \"max_jobs\": did you mean max-jobs?"),
        // Its values.
        ("[[worker]]\nname = \"a b\"", &format!("2: name can't be \"a b\": {name}")),
        ("[[worker]]\nname = \"a/b\"", &format!("2: name can't be \"a/b\": {name}")),
        ("[[worker]]\nname = 1", &format!("2: name can't be 1: {name}")),
        (
            "[[worker]]\nfunctions = [\"a b\"]",
            "2: functions can't be \"a b\": write a name of 1 to 512 bytes in quotes, without \
             blanks",
        ),
        (
            "[[worker]]\nfunctions = [\"a\", \"a\"]",
            "2: functions can't be \"a\": it is there before, so leave one of them out",
        ),
        (
            "[[worker]]\nfunctions = [\"a\\u0000\"]",
            "2: functions can't be \"a\\0\": write a name of 1 to 512 bytes in quotes, without \
             blanks",
        ),
        (
            "[[worker]]\ncommand = []",
            "2: command has no value: write command = [\"convert\", \"-\", \"png:-\"], or leave it \
             out",
        ),
        (
            "[[worker]]\ncommand = \"a | b\"",
            "2: command can't be \"a | b\": write program and arguments as a list, as in \
             [\"convert\", \"-\", \"png:-\"], or [\"sh\", \"-c\", \"a | b\"] for a line of the \
             shell",
        ),
        (
            "[[worker]]\ncommand = [\"\"]",
            "2: command can't be \"\": name a program, as in [\"convert\", \"-\", \"png:-\"]",
        ),
        (
            "[[worker]]\ncommand = [\"nice\", 5]",
            "2: command can't be 5: write each argument in quotes, without NUL",
        ),
        (
            &worker("mode = \"line\""),
            "5: mode can't be \"line\": write \"exec\", \"lines\" or \"gearman\"; did you mean \
             \"lines\"?",
        ),
        (&worker("count = 0"), "5: count can't be 0: write a whole number from 1 to 4096"),
        (&worker("count = \"4\""), "5: count can't be \"4\": write a whole number from 1 to 4096"),
        (
            &worker("timeout = 60"),
            "5: timeout can't be 60: give it a unit and quotes, as in \"60s\"",
        ),
        (
            &worker("timeout = \"0s\""),
            "5: timeout can't be \"0s\": give at least \"1ms\", or leave it out for no limit",
        ),
        (&worker("timeout = \"60d\""), "5: timeout can't be \"60d\": give at most \"48d\""),
        (
            &worker("max-jobs = -1"),
            "5: max-jobs can't be -1: write a whole number from 0 to 1000000000, 0 for no limit",
        ),
        (
            &worker("max-age = \"1 hour\""),
            "5: max-age can't be \"1 hour\": give a whole number and ms, s, m, h or d, as in 90s",
        ),
        (&worker("splay = 1.5"), "5: splay can't be 1.5: write a number from 0 to 1"),
        (&worker("memory-max = \"1k\""), "5: memory-max can't be \"1k\": give at least \"1M\""),
        (
            &worker("memory-max = \"a lot\""),
            "5: memory-max can't be \"a lot\": give a number of bytes, or with k, m or g behind \
             it, as in 512m",
        ),
        (
            &worker("memory-max = true"),
            "5: memory-max can't be true: write a number of bytes, or a size in quotes, as in \
             \"512M\"",
        ),
        (&worker("result-max = 0"), "5: result-max can't be 0: give at least \"1\""),
        (&worker("result-max = \"3G\""), "5: result-max can't be \"3G\": give at most \"2G\""),
        (
            &worker("stop-wait = \"9999d\""),
            "5: stop-wait can't be \"9999d\": give at most \"3650d\"",
        ),
        (
            &worker("backoff = \"1s\""),
            "5: backoff can't be \"1s\": write the first and the longest time, as in backoff = \
             [\"1s\", \"60s\"]",
        ),
        (
            &worker("backoff = [\"0s\", \"1s\"]"),
            "5: backoff can't be \"0s\": give at least \"1ms\"",
        ),
        (
            &worker("backoff = [\"1m\", \"1s\"]"),
            "5: backoff can't be \"1s\": give at least \"1m\", which is the first time",
        ),
        (
            &worker("user = 33"),
            "5: user can't be 33: write a name or number in quotes, as in \"www-data\"",
        ),
        (
            &worker("group = \"\""),
            "5: group can't be \"\": write a name or number in quotes, as in \"www-data\"",
        ),
        (
            &worker("directory = \"app\""),
            "5: directory can't be \"app\": write the whole path of a folder in quotes, as in \
             \"/srv/app\"",
        ),
        (
            &worker("umask = 22"),
            "5: umask can't be 22: write three octal digits in quotes, as in \"022\"",
        ),
        (
            &worker("umask = \"888\""),
            "5: umask can't be \"888\": write three octal digits in quotes, as in \"022\"",
        ),
        (&worker("nice = 20"), "5: nice can't be 20: write a whole number from -20 to 19"),
        (
            &worker("environment = \"A=1\""),
            "5: environment can't be \"A=1\": write a table, as in environment = { APP_ENV = \
             \"production\" }",
        ),
        (
            &worker("environment = { A = 1 }"),
            "5: A can't be 1: write its value in quotes, as in A = \"1\"",
        ),
        (
            &worker("environment = { \"A=B\" = \"1\" }"),
            "5: \"A=B\" is no variable's name: leave = and NUL out",
        ),
        (&worker("clear-environment = 1"), "5: clear-environment can't be 1: write true or false"),
        (
            &worker("watch = [\"*.php\"]"),
            "5: watch can't be \"*.php\": write a pattern with the whole path in quotes, as in \
             \"/srv/app/**/*.php\"",
        ),
        (
            &worker("watch = [\"/srv/{a\"]"),
            "5: watch can't be \"/srv/{a\": unclosed alternate group; missing '}' (maybe escape \
             '{' with '[{]'?), so mend the pattern",
        ),
        (&worker("stderr = \"null\""), "5: stderr can't be \"null\": write \"log\" or \"warning\""),
        // What makes no sense together.
        (&worker("timeout = \"1s\"\nmode = \"gearman\""), &format!("5: timeout {jobless}")),
        (&worker("mode = \"gearman\"\nmax-jobs = 1"), &format!("6: max-jobs {jobless}")),
        (&worker("mode = \"gearman\"\nresult-max = 1"), &format!("6: result-max {jobless}")),
        (
            &worker("stderr = \"warning\"\nmode = \"gearman\"\nmax-jobs = 1"),
            &format!("5: stderr = \"warning\" {jobless}"),
        ),
    ] {
        let mistake = File::parse(text, default_servers()).expect_err(text);
        assert_eq!(mistake.to_string(), expected, "{text}");
        assert_eq!(expected.lines().count(), 1);
    }
    let long = format!("# {}", "x".repeat(1 << 20));
    let mistake = File::parse(&long, default_servers()).expect_err("too long");
    assert_eq!(mistake.to_string(), "1: the file is larger than 1048576 bytes: shorten it");
}

#[test]
fn what_has_no_effect_is_remarked() {
    let process = "has no effect in mode exec, where each job has a process of its own: leave it \
                   out";
    let splay = "has no effect without max-jobs or max-age in mode lines or gearman: leave it out";
    let functions = "has no effect in mode gearman, where the command names its functions itself: \
                     leave it out";
    for (text, expected) in [
        (
            with("max-jobs = 5\nmax-age = \"1h\""),
            vec![format!("5: max-jobs {process}"), format!("6: max-age {process}")],
        ),
        (with("splay = 0.5\nmode = \"lines\""), vec![format!("5: splay {splay}")]),
        (with("mode = \"gearman\""), vec![format!("3: functions {functions}")]),
        (with("splay = 0.5\nmax-jobs = 5\nmode = \"lines\""), vec![]),
        (
            format!("servers = [\"unix:/g\"]\n[tls]\n{}", with("")),
            vec![
                "2: tls has no effect on Unix sockets, and all servers are such: leave it out"
                    .to_owned(),
            ],
        ),
    ] {
        let remarks: Vec<String> = parse(&text).remarks.iter().map(ToString::to_string).collect();
        assert_eq!(remarks, expected, "{text}");
    }
}

/// The page for users.
const PAGE: &str = include_str!("../../../docs/manager.md");

#[test]
fn the_files_on_the_page_are_right() {
    let blocks: Vec<&str> = PAGE.split("```toml\n").skip(1).collect();
    assert!(blocks.len() >= 5, "{}", blocks.len());
    for block in blocks {
        let text = block.split("```").next().unwrap();
        let file = parse(text);
        assert_eq!(file.remarks, [], "{text}");
    }
}

#[test]
fn the_page_has_every_key_in_a_table() {
    let has = |key: &str| PAGE.lines().any(|line| line.starts_with(&format!("| `{key}` |")));
    for key in KEYS.iter().chain(&TLS_KEYS).chain(&WORKER_KEYS) {
        assert!(has(key), "{key}");
    }
    for default in ["\"64M\"", "\"60s\"", "[\"1s\", \"60s\"]", "0.1", "\"exec\"", "\"log\""] {
        assert!(PAGE.contains(&format!("| `{default}` |")), "{default}");
    }
}
