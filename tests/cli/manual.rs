//! What `--generate` writes: a manual page and completions that programs of others can read.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Command, Output};

use super::{at, directory, output, refusal, ringgeard, skips, stdout_of_success};

/// The files, in a folder that there wasn't.
fn generated() -> (tempfile::TempDir, PathBuf) {
    let (guard, path) = directory();
    let folder = path.join("new/folder");
    assert_eq!(stdout_of_success(&format!("--generate {}", at(&folder))), "");
    (guard, folder)
}

/// Long options at the beginnings of lines of the help, behind short ones or not.
fn long_options(help: &str) -> Vec<&str> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let longs = lines.filter_map(|line| {
        let words =
            line.split([' ', ',']).take_while(|word| word.starts_with('-') || word.is_empty());
        words.into_iter().find_map(|word| word.strip_prefix("--"))
    });
    longs.collect()
}

/// A program's output; `None` if it isn't installed.
fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            skips::skip(&format!("{program} is not installed"));
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

#[test]
fn the_page_has_every_option_of_the_help_and_what_stands_in_no_help() {
    let (_guard, folder) = generated();
    let page = fs::read_to_string(folder.join("ringgeard.8")).unwrap();
    let (_, rest) = page.split_once("\n.SH OPTIONS\n").unwrap();
    let (options, rest) = rest.split_once("\n.SH ").unwrap();
    let help = stdout_of_success("--help");
    let names = long_options(&help);
    assert!(names.len() > 70, "{names:?}");
    for name in names {
        let escaped = format!("\\fB\\-\\-{}\\fR", name.replace('-', "\\-"));
        let entry = options.lines().position(|line| line.contains(&escaped));
        let entry = entry.unwrap_or_else(|| panic!("--{name} isn't in the page"));
        let text = options.lines().nth(entry + 1).unwrap_or_default();
        assert!(text.ends_with('.'), "--{name} has no text: {text}");
    }
    for part in [
        "ENVIRONMENT",
        "RINGGEARD_CONFIG_FILE",
        "GEARMAND_PORT",
        "FILES",
        "/etc/ringgear/tls/server.pem",
        "SIGNALS",
        "SIGTERM",
        "SIGHUP",
        "SIGUSR1",
        "SIGUSR2",
        "EXIT STATUS",
        "SEE ALSO",
    ] {
        assert!(rest.contains(part), "{part} is missing in:\n{rest}");
    }
    let version = env!("CARGO_PKG_VERSION");
    assert!(page.contains(&format!("\n.TH ringgeard 8 {version} ringgear ")), "{page}");
}

#[test]
fn groff_takes_the_page_without_a_warning() {
    let (_guard, folder) = generated();
    let page = folder.join("ringgeard.8");
    let words = ["--warnings", "-E", "UTF-8", "-l", at(&page)];
    let Some(output) = run("man", &words) else { return };
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("SYNOPSIS") && text.contains("RINGGEARD_CONFIG_FILE"), "{text}");
}

#[test]
fn bash_completes_options_and_their_values() {
    let (_guard, folder) = generated();
    let script = r#"
        . "$0"
        complete -p ringgeard | grep -q ' -F _ringgeard ' || exit 1
        COMP_WORDS=(ringgeard "$@")
        COMP_CWORD=$#
        _ringgeard ringgeard "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        echo "${COMPREPLY[@]}"
    "#;
    let file = folder.join("ringgeard.bash");
    let complete = |words: &[&str]| {
        let output = run("bash", &[&["--norc", "-c", script, at(&file)], words].concat())?;
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        Some(String::from_utf8(output.stdout).unwrap())
    };
    let Some(listen) = complete(&["--lis"]) else { return };
    assert!(listen.split_whitespace().eq(["--listen"]), "{listen}");
    assert_eq!(complete(&["-d", "--sandbox", "re"]).unwrap(), "require\n");
    assert_eq!(complete(&["--mysql"]).unwrap(), "\n", "hidden options aren't offered");
}

#[test]
fn completions_of_other_shells_are_there() {
    let (_guard, folder) = generated();
    for (name, start) in [("_ringgeard", "#compdef ringgeard\n"), ("ringgeard.fish", "complete ")] {
        let text = fs::read_to_string(folder.join(name)).unwrap();
        assert!(text.starts_with(start) && text.contains("config-file"), "{name}: {text}");
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 4);
}

#[test]
fn a_folder_that_cannot_be_written_is_named_with_the_remedy() {
    let (_guard, path) = directory();
    fs::write(path.join("file"), "").unwrap();
    fs::create_dir(path.join("ringgeard.8")).unwrap();
    for (folder, named) in [("file/new", "file/new"), ("", "ringgeard.8")] {
        let sentence = refusal(ringgeard(&format!("--generate {}/{folder}", at(&path))));
        let start = format!("cannot write {}/{named}: ", at(&path));
        assert!(sentence.starts_with(&start), "{sentence}");
        let end = "; name a folder that this user may write to";
        assert!(sentence.ends_with(end), "{sentence}");
    }
    let without = output(ringgeard("--generate"));
    let said = String::from_utf8(without.stderr).unwrap();
    assert_eq!(said, "ringgeard: --generate needs a value: write --generate DIR\n");
}
