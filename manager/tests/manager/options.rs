//! The command line: `--check`, `--dry-run`, and files with mistakes.

use std::fs;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const FILE: &str = "servers = [\"127.0.0.1:4730\", \"unix:/run/gearman\"]

[[worker]]
name = \"thumbnail\"
functions = [\"thumbnail\", \"crop\"]
command = [\"convert\", \"-\", \"-resize\", \"200x200\", \"png:-\"]
mode = \"exec\"
count = 4
timeout = \"60s\"

[[worker]]
name = \"mail\"
command = [\"php\", \"worker.php\"]
mode = \"gearman\"
";

fn manager(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringgear-manager"));
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn file(text: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manager.toml");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn check_says_nothing_of_a_good_file_and_starts_nothing() {
    let (_folder, path) = file(FILE);
    let output = manager(&["--config-file", &path, "--check"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_dry_run_prints_what_would_run_to_standard_output() {
    let (_folder, path) = file(FILE);
    let output = manager(&["--config-file", &path, "--dry-run"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for word in ["thumbnail", "crop", "convert", "200x200", "mail", "worker.php", "4", "60s"] {
        assert!(text.contains(word), "no {word:?}:\n{text}");
    }
}

#[test]
fn a_mistake_is_exit_code_1_and_a_sentence_with_key_and_line() {
    let cases = [
        ("count = 4", "count = 0", "count"),
        ("count = 4", "cout = 4", "cout"),
        ("mode = \"exec\"", "mode = \"exce\"", "exce"),
        ("timeout = \"60s\"", "timeout = 60", "timeout"),
        ("timeout = \"60s\"", "timeout = \"60\"", "timeout"),
        ("timeout = \"60s\"", "memory-max = \"lots\"", "memory-max"),
        ("timeout = \"60s\"", "splay = 2.0", "splay"),
        ("timeout = \"60s\"", "backoff = [\"2s\", \"1s\"]", "backoff"),
        ("timeout = \"60s\"", "stderr = \"console\"", "stderr"),
        ("timeout = \"60s\"", "umask = \"999\"", "umask"),
        ("timeout = \"60s\"", "watch = [\"[\"]", "watch"),
        ("functions = [\"thumbnail\", \"crop\"]", "functions = []", "functions"),
        ("name = \"mail\"", "name = \"thumbnail\"", "thumbnail"),
        ("servers = [\"127.0.0.1:4730\", \"unix:/run/gearman\"]", "servers = []", "servers"),
    ];
    for (line, mistake, word) in cases {
        let text = FILE.replace(line, mistake);
        assert_ne!(text, FILE);
        let number =
            1 + text.lines().collect::<Vec<_>>().iter().rposition(|it| *it == mistake).unwrap();
        let (_folder, path) = file(&text);
        for arguments in [&["--config-file", &path, "--check"][..], &["--config-file", &path]] {
            let output = manager(arguments);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{mistake}: {said}");
            assert!(said.contains(&format!("{path}:{number}")), "{mistake}: {said}");
            assert!(said.contains(word), "{mistake}: {said}");
            assert_eq!(said.lines().count(), 1, "{mistake}: {said}");
            assert!(output.stdout.is_empty(), "{mistake}: {output:?}");
        }
    }
}

#[test]
fn a_file_that_isnt_there_is_named() {
    for arguments in [&["--check"][..], &["--dry-run"], &[]] {
        let output =
            manager(&[&["--config-file", "/nonexistent/manager.toml"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("/nonexistent/manager.toml"), "{said}");
    }
}

/// What only this machine can tell is looked at before anything starts.
#[test]
fn a_user_that_doesnt_exist_ends_the_start() {
    let (_folder, path) = file(&FILE.replace("count = 4", "user = \"no-such-user\""));
    let output = manager(&["--config-file", &path]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no-such-user"), "{said}");
}
