//! Dependencies by `deny.toml`: their licences, crates that there must not be, and where they come
//! from. cargo-deny reads the same file; it takes minutes to build.

use std::fs;
use std::process::Command;

use spdx::{Expression, ParseMode};
use toml::{Table, Value};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// The one registry, as lock files name it.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// Lock files of all builds.
const LOCK_FILES: [&str; 3] = ["Cargo.lock", "tests/fuzz/Cargo.lock", "tests/loom/Cargo.lock"];

fn table(path: &str) -> Table {
    fs::read_to_string(format!("{ROOT}/{path}")).unwrap().parse().unwrap()
}

/// The texts at `key`, of a list of them or of tables with the key `crate`.
fn texts(table: &Value, key: &str) -> Vec<String> {
    let list = table.get(key).and_then(Value::as_array).unwrap_or_else(|| panic!("no {key}"));
    let text = |value: &Value| value.get("crate").unwrap_or(value).as_str().unwrap().to_owned();
    list.iter().map(text).collect()
}

/// Name and licence of every crate that is built here, in all members and for tests, too.
fn crates() -> Vec<(String, String)> {
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--workspace", "--offline", "--locked", "--prefix=none"]);
    tree.args(["--edges=normal,build,dev", "--format={p}\t{l}"]).current_dir(ROOT);
    let output = tree.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let mut crates: Vec<_> = lines
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(package, licence)| {
            let name = package.split(' ').next().unwrap_or_default();
            // A crate that was listed before.
            (name.to_owned(), licence.trim_end_matches(" (*)").to_owned())
        })
        .collect();
    crates.sort();
    crates.dedup();
    crates
}

/// Whether the licences in `allowed` are enough.
fn is_licensed(licence: &str, allowed: &[String]) -> bool {
    let expression = Expression::parse_mode(licence, ParseMode::LAX);
    let expression = expression.unwrap_or_else(|error| panic!("{licence}: {error}"));
    expression.evaluate(|required| {
        let id = required.license.id().map(|id| id.name);
        required.addition.is_none() && id.is_some_and(|id| allowed.iter().any(|name| name == id))
    })
}

#[test]
fn dependencies_have_licences_that_are_allowed_and_none_is_banned() {
    let rules = table("deny.toml");
    let (licences, bans) = (&rules["licenses"], &rules["bans"]);
    let allowed = texts(licences, "allow");
    let exceptions = licences["exceptions"].as_array().unwrap();
    let banned = texts(bans, "deny");
    let crates = crates();
    assert!(crates.len() > 100, "{}", crates.len());
    for (name, licence) in &crates {
        let is_exception = |it: &&Value| it["crate"].as_str() == Some(name);
        let more = exceptions.iter().find(is_exception).map(|it| texts(it, "allow"));
        let allowed = [allowed.clone(), more.unwrap_or_default()].concat();
        assert!(is_licensed(licence, &allowed), "deny.toml has no licence of {name}: {licence}");
        assert!(!banned.contains(name), "deny.toml bans {name}");
    }
    assert!(!is_licensed("MIT AND GPL-3.0-only", &allowed));
    assert!(!is_licensed("GPL-2.0 OR AGPL-3.0", &allowed));
}

#[test]
fn dependencies_come_from_the_one_registry() {
    for path in LOCK_FILES {
        let lock = table(path);
        let packages = lock["package"].as_array().unwrap();
        for package in packages {
            let source = package.get("source").and_then(Value::as_str);
            let is_known = source.is_none_or(|source| source == REGISTRY);
            assert!(is_known, "{path}: {} comes from {source:?}", package["name"]);
        }
    }
}
