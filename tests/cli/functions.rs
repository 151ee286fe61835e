//! The functions file on the command line and in a running server: asked, checked, read anew.

use std::fs;
use std::io::Read as _;

use nix::sys::signal::Signal;

use super::{Server, at, directory, output, ringgeard, stdout_of_success};

const FILE: &str = "\
[[function]]
match = \"mail-*\"
attempts = 4
backoff = { first = \"2s\" }

[[function]]
match = \"mail-eu\"
";

/// What the log says of a match that isn't reached.
fn hidden(file: &str) -> String {
    format!(
        "{file}:7: no function has this match that the one on line 2 doesn't have before it: move \
         it up, or leave it out\n"
    )
}

#[test]
fn a_file_is_asked_for_a_function() {
    let (_guard, folder) = directory();
    let path = folder.join("functions.toml");
    fs::write(&path, FILE).unwrap();
    let file = at(&path);
    let policy = format!(
        "match \"mail-*\"\t{file}:2\nattempt 2\t1s\t2s\nattempt 3\t4s\t8s\nattempt 4\t16s\t32s\n"
    );
    for options in [format!("--functions-file {file}"), format!("--config-file {file}")] {
        let asked = |function: &str| {
            stdout_of_success(&format!("{options} --check-args --functions-check {function}"))
        };
        assert_eq!(asked("mail-eu"), policy);
        assert_eq!(asked("sms"), format!("\"sms\": no policy, as {file} has no match for it\n"));
    }
    assert!(stdout_of_success("--functions-check sms").contains("there are no policies"));
}

#[test]
fn what_has_no_effect_is_told_by_a_check_and_at_the_start() {
    let (_guard, folder) = directory();
    let path = folder.join("functions.toml");
    fs::write(&path, FILE).unwrap();
    let file = at(&path);
    let checked = output(ringgeard(&format!("--check-args --functions-file {file}")));
    assert_eq!(checked.status.code(), Some(0));
    assert!(checked.stdout.is_empty());
    let said = String::from_utf8(checked.stderr).unwrap();
    assert_eq!(said, format!("ringgeard: {}", hidden(file)));
    let mut server = Server::start(ringgeard(&format!("-p 0 --functions-file {file}")));
    server.wait_for(&format!(" WARN {}", hidden(file)));
    server.port();
    assert_eq!(server.end(Signal::SIGTERM).code(), Some(0));
}

/// A server that reads the file anew, by each of the two options that name it.
fn is_read_anew(option: &str) {
    let (_guard, folder) = directory();
    let path = folder.join("functions.toml");
    let file = at(&path);
    fs::write(&path, "").unwrap();
    let mut server = Server::start(ringgeard(&format!("-L 127.0.0.1 -p 0 {option} {file}")));
    server.port();
    let mut reload = |text: &str, said: &str| {
        fs::write(&path, text).unwrap();
        server.signal(Signal::SIGHUP);
        let before = server.said.len();
        server.wait_for(said);
        server.said[before..].to_owned()
    };
    let first = reload(FILE, "functions file read functions=2");
    assert!(first.contains(&format!(" WARN {}", hidden(file))), "{first}");
    let again = reload(FILE, "functions file read functions=2");
    assert!(!again.contains("WARN"), "an unchanged file is told of once: {again}");
    let wrong = FILE.replace("attempts", "atempts");
    let sentence = format!("{file}:3: unknown key \"atempts\": did you mean attempts?\n");
    let said = reload(&wrong, &format!("ERROR the functions stay as they were: {sentence}"));
    assert!(!said.contains("functions file read"), "{said}");
    reload("", "functions file read functions=0");
    assert_eq!(server.end(Signal::SIGTERM).code(), Some(0));
}

#[test]
fn a_functions_file_is_read_anew() {
    is_read_anew("--functions-file");
}

#[test]
fn a_configuration_file_is_read_anew_for_its_functions() {
    is_read_anew("--config-file");
}

#[test]
fn a_configuration_without_functions_is_read_anew_without_a_word() {
    let (_guard, folder) = directory();
    let [path, list] = ["ringgear.toml", "access.toml"].map(|name| folder.join(name));
    fs::write(&list, stdout_of_success("--print-access")).unwrap();
    fs::write(&path, format!("port = 0\naccess-file = \"{}\"\n", at(&list))).unwrap();
    let mut server = Server::start(ringgeard(&format!("@{}", at(&path))));
    server.port();
    // Its options aren't read anew, so that a mistake in them is none.
    fs::write(&path, "port = \"nonsense\"\n").unwrap();
    server.signal(Signal::SIGHUP);
    // In the same step as the functions.
    server.wait_for("access list read");
    server.signal(Signal::SIGTERM);
    server.stderr.read_to_string(&mut server.said).unwrap();
    assert!(server.child.wait().unwrap().success());
    assert!(
        !server.said.contains("functions") && !server.said.contains("ERROR"),
        "{}",
        server.said
    );
}
