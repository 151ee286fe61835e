//! The service of docs/operating.md, as systemd rates it.

use std::fs;
use std::io::ErrorKind;
use std::process::Command;

use crate::{directory, skips};

/// The worst rating that passes, times ten.
const THRESHOLD: &str = "--threshold=15";

/// The service in the manual.
fn unit() -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operating.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, unit) = page.split_once("```ini\n# /etc/systemd/system/ringgeard.service\n").unwrap();
    unit.split_once("```").unwrap().0.to_owned()
}

/// Whether systemd rates a service well enough, and what it says; `None` without systemd.
fn rate(unit: &str) -> Option<(bool, String)> {
    let (_directory, path) = directory();
    let file = path.join("ringgeard.service");
    fs::write(&file, unit).unwrap();
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["security", "--offline=yes", "--no-pager", THRESHOLD]).arg(&file);
    match analyze.output() {
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            skips::skip("systemd-analyze is not installed");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_manuals_service_may_do_little_and_its_own_sandbox_works_in_it() {
    let unit = unit();
    for call in ["create_ruleset", "add_rule", "restrict_self"] {
        assert!(unit.contains(&format!("landlock_{call}")), "{call}");
    }
    let Some((is_good, said)) = rate(&unit) else { return };
    assert!(is_good, "{said}");
    let open: String = unit
        .lines()
        .filter(|line| !line.starts_with("Protect"))
        .map(|line| format!("{line}\n"))
        .collect();
    let (is_good, said) = rate(&open).unwrap();
    assert!(!is_good, "it would pass anything: {said}");
}
