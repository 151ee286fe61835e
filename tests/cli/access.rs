//! The access list on the command line: printed, checked and asked.

use std::fs;
use std::process::Output;

use super::{at, directory, output, ringgeard, stdout_of_success};

const LIST: &str = "\
[[rule]]
who = { network = [\"10.0.0.0/8\"] }
may-not = [\"submit\"]
functions = [\"secret\"]

# The rest
[[rule]]
who = { network = [\"10.0.0.0/8\"], user = [\"www-data\", 33] }
may = [\"submit\", \"admin\"]
";

/// Exit code, standard output and standard error.
fn all(Output { status, stdout, stderr }: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn the_printed_list_is_an_access_list_and_this_host_may_do_everything_by_it() {
    let (_guard, folder) = directory();
    let path = folder.join("access.toml");
    fs::write(&path, stdout_of_success("--print-access")).unwrap();
    let file = at(&path);
    assert_eq!(stdout_of_success(&format!("--check-args --access-file {file}")), "");
    for right in ["submit", "work", "observe", "admin"] {
        for function in ["f", "*"] {
            let line = format!("--access-file {file} --access-check 127.0.0.1 {right} {function}");
            let answer = stdout_of_success(&line);
            assert!(answer.starts_with("allowed by rule 1 (line "), "{answer}");
            let line = format!("--access-file {file} --access-check 10.0.0.1 {right} {function}");
            let refused = (1, "refused: no rule matches\n".to_owned(), String::new());
            assert_eq!(all(output(ringgeard(&line))), refused);
        }
    }
}

#[test]
fn a_list_is_asked_by_words() {
    let (_guard, folder) = directory();
    let path = folder.join("access.toml");
    fs::write(&path, LIST).unwrap();
    let file = at(&path);
    for (words, code, answer) in [
        ("10.1.1.1,user:33 submit f", 0, "allowed by rule 2 (line 7)\n"),
        ("network:10.1.1.1,user:www-data observe f", 0, "allowed by rule 2 (line 7)\n"),
        ("10.1.1.1,user:33 submit secret", 1, "refused by rule 1 (line 1)\n"),
        ("10.1.1.1,user:33 submit *", 1, "refused by rule 1 (line 1)\n"),
        ("10.1.1.1,user:33 admin *", 0, "allowed by rule 2 (line 7)\n"),
        ("10.1.1.1 submit f", 1, "refused: no rule matches\n"),
    ] {
        let line = format!("--access-file {file} --access-check {words}");
        let expected = (code, answer.to_owned(), String::new());
        assert_eq!(all(output(ringgeard(&line))), expected, "{words}");
    }
    let options = format!("--access-file {file}");
    for (options, words, sentence) in [
        (&*options, "10.1.1.1 sumbit f", "unknown right \"sumbit\": submit, work, observe, admin"),
        (
            &options,
            "host:x submit f",
            "\"host:x\" names no peer: network:, cn:, dns:, uri:, \
          sha256:, user:, token: or listener: and its value, or an address",
        ),
        ("", "10.1.1.1 submit f", "--access-check asks an access list: name it with --access-file"),
        (
            "--access-file /nowhere/list",
            "10.1.1.1 submit f",
            "cannot read the access list \
          /nowhere/list: No such file or directory (os error 2); name another file, or write it \
          with ringgeard --print-access",
        ),
    ] {
        let line = format!("{options} --access-check {words}");
        let expected = (2, String::new(), format!("ringgeard: {sentence}\n"));
        assert_eq!(all(output(ringgeard(line.trim()))), expected, "{words}");
    }
}
