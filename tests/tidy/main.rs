//! Rules of this project that no compiler checks, tested on its source files.
//!
//! Reads the sources of the whole workspace; a failure names the file and line that breaks a rule.
//! The words that it looks for are put together at run time, so that this file passes its own
//! rules. What imports what is in `imports`, what is built from what in `dependencies`.
#![allow(clippy::unwrap_used, reason = "a tree that can't be read is a failed test")]

mod dependencies;
mod imports;

use std::fs;
use std::path::{Path, PathBuf};

use self::imports::Crate;

/// Folders whose files follow the rules.
const FOLDERS: [&str; 5] = ["src", "tests", "loadgen", "bench-harness", "manager"];
/// Crates whose files import from each other in no circle.
const CRATES: [&str; 4] = ["src", "loadgen/src", "bench-harness/src", "manager/src"];
/// The only places that may hold unsafe code.
const UNSAFE_PLACES: [&str; 2] = ["src/io/", "manager/src/process/launch.rs"];
/// The rooms of the server, the lowest first: a room imports only from those before it.
const ROOMS: [&str; 9] =
    ["wire", "engine", "cluster", "protocol", "store", "shard", "io", "ops", "config"];

/// A file by its path from the repository's root, with `/`.
struct Source {
    path: String,
    text: String,
}

fn collect(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            // Fuzzing keeps what it builds and finds beside its targets.
            if !["target", "corpus", "artifacts", "coverage"].contains(&name.as_str()) {
                collect(&path, out);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    collect(&root.join(folder), &mut paths);
    paths.sort();
    let read = |path: PathBuf| Source {
        path: path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/"),
        text: fs::read_to_string(&path).unwrap(),
    };
    let sources: Vec<Source> = paths.into_iter().map(read).collect();
    assert!(!sources.is_empty(), "nothing to read in {folder}");
    sources
}

fn all_sources() -> Vec<Source> {
    FOLDERS.iter().flat_map(|folder| sources(folder)).collect()
}

/// Every line that breaks a rule, as `path:line: text`.
fn breaches(sources: &[Source], broken: impl Fn(&Source, usize, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for (at, line) in source.text.lines().enumerate() {
            if broken(source, at, line) {
                found.push(format!("{}:{}: {}", source.path, at + 1, line.trim()));
            }
        }
    }
    found
}

/// A line without its comment, good enough for code that keeps `//` out of its strings.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// Whether `line` contains `word` as a word or path of its own.
fn mentions(line: &str, word: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(joins) && !line[at + word.len()..].starts_with(joins))
}

fn touches_the_kernel(path: &str) -> bool {
    ["src/io/", "src/store/", "src/ops/"].iter().any(|folder| path.starts_with(folder))
        || ["src/main.rs", "src/io.rs", "src/store.rs", "src/ops.rs"].contains(&path)
}

#[test]
fn only_the_outer_modules_touch_the_kernel() {
    let banned = [
        "TcpListener",
        "TcpStream",
        "UdpSocket",
        "UnixStream",
        "UnixListener",
        "std::fs",
        "std::thread",
        "Instant::now",
        "SystemTime",
        "libc",
        "mio",
        "io_uring",
        "glommio",
        "socket2",
        "nix",
        "signal_hook",
        "std::process",
        "std::env",
    ];
    let core: Vec<Source> =
        sources("src").into_iter().filter(|source| !touches_the_kernel(&source.path)).collect();
    let found = breaches(&core, |source, at, line| {
        // Unit tests may do as they like.
        let tested = source.text.lines().take(at).any(|line| line.trim() == "#[cfg(test)]");
        let is_test = source.path.ends_with("/tests.rs") || tested;
        !is_test && banned.iter().any(|word| mentions(code(line), word))
    });
    assert!(
        found.is_empty(),
        "these belong in src/io, src/store or src/ops:\n{}",
        found.join("\n")
    );
}

#[test]
fn unsafe_code_has_its_places_and_gives_its_reason() {
    let keyword = ["un", "safe"].concat();
    let found = breaches(&all_sources(), |source, at, line| {
        if !mentions(code(line), &keyword) || code(line).contains('"') {
            return false;
        }
        let above: Vec<&str> = source.text.lines().take(at).collect();
        let reasons = above.iter().rev().take_while(|line| {
            let line = line.trim_start();
            line.starts_with("//") || line.starts_with("#[") || line.ends_with('=')
        });
        let explained = line.contains("// SAFETY:")
            || reasons.clone().any(|line| line.contains("SAFETY:"))
            || reasons.clone().any(|line| line.contains("# Safety"));
        let has_place = UNSAFE_PLACES.iter().any(|place| source.path.starts_with(place));
        !has_place || !explained
    });
    assert!(
        found.is_empty(),
        "elsewhere than {UNSAFE_PLACES:?}, or without a SAFETY reason:\n{}",
        found.join("\n")
    );
}

#[test]
fn every_file_opens_with_a_comment_that_can_be_read_at_a_glance() {
    for source in all_sources() {
        let lines = source.text.lines().take_while(|line| line.starts_with("//!")).count();
        assert!(lines > 0, "{} says nothing about itself", source.path);
        let exempt = ["src/lib.rs", "src/main.rs"].contains(&source.path.as_str());
        assert!(lines <= 12 || exempt, "{}: {lines} lines of opening comment", source.path);
    }
}

#[test]
fn files_and_lines_are_short() {
    for source in all_sources() {
        let lines = source.text.lines().count();
        let is_test = source.path.starts_with("tests/") || source.path.contains("/tests/");
        let lines_max = if is_test { 900 } else { 800 };
        assert!(lines <= lines_max, "{} has {lines} lines", source.path);
    }
    let found = breaches(&all_sources(), |_, _, line| {
        // Tables in comments may be as wide as they are.
        let table = line.starts_with("//!") && line.contains("   ");
        line.chars().count() > 100 && !table
    });
    assert!(found.is_empty(), "longer than 100 columns:\n{}", found.join("\n"));
}

#[test]
fn nothing_is_left_half_done() {
    let parts = [
        ["thread::", "sleep"],
        ["#[ig", "nore]"],
        ["to", "do!("],
        ["un", "implemented!("],
        ["db", "g!("],
        ["FIX", "ME"],
        ["TO", "DO"],
        ["XX", "X"],
    ];
    let words: Vec<String> = parts.iter().map(|parts| parts.concat()).collect();
    let found = breaches(&all_sources(), |_, _, line| words.iter().any(|word| line.contains(word)));
    assert!(found.is_empty(), "unfinished, or waiting for luck:\n{}", found.join("\n"));
}

#[test]
fn the_map_names_every_module_and_every_module_exists() {
    let sources = sources("src");
    let lib = sources.iter().find(|source| source.path == "src/lib.rs").unwrap();
    let named: Vec<&str> = lib
        .text
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    assert!(!named.is_empty());
    for name in &named {
        let files = [format!("src/{name}.rs"), format!("src/{name}/mod.rs")];
        let count = sources.iter().filter(|source| files.contains(&source.path)).count();
        assert_eq!(count, 1, "the module `{name}` has one file");
    }
    for source in &sources {
        let top = source.path.trim_start_matches("src/").split('/').next().unwrap_or_default();
        let name = top.trim_end_matches(".rs");
        let known = ["lib", "main", "bin"].contains(&name) || named.contains(&name);
        assert!(known, "{} isn't on the map in lib.rs", source.path);
    }
}

#[test]
fn a_room_imports_only_from_rooms_below_it() {
    let rank = |name: &String| ROOMS.iter().position(|room| room == name);
    let mut found = Vec::new();
    for import in Crate::read("src").imports() {
        let from = import.from.trim_start_matches("src/").split('/').next().unwrap().to_owned();
        let Some(from_rank) = rank(&from) else { continue };
        let Some(to) = import.path.first() else { continue };
        let to_rank = rank(to).unwrap_or_else(|| panic!("{}: `{to}` is no room", import.from));
        if to_rank > from_rank {
            found.push(format!("{} -> crate::{}", import.from, import.path.join("::")));
        }
    }
    found.sort();
    found.dedup();
    let order = ROOMS.join(" < ");
    assert!(found.is_empty(), "{order}, but these import upwards:\n{}", found.join("\n"));
}

#[test]
fn no_files_import_from_each_other_in_a_circle() {
    let circles = CRATES.map(|folder| Crate::read(folder).circles()).concat();
    let circles: Vec<String> = circles.iter().map(|files| files.join("\n    ")).collect();
    assert!(circles.is_empty(), "circles of imports:\n    {}", circles.join("\nand\n    "));
}
