//! The rehearsal of a cluster (`examples/cluster`), as its readers run it.
//!
//! Needs what its README names: PostgreSQL and curl.

use std::process::Stdio;

use crate::child::tool;
use crate::skips::skip;
use crate::{examples, processes};

#[test]
fn the_rehearsal_of_a_cluster_loses_nothing_and_leaves_nothing_behind() {
    if tool("curl").is_none() {
        return;
    }
    let folder = examples::target_folder();
    let mut script = examples::script("cluster/rehearsal", folder.path());
    let output = script.env("DIR", folder.path()).stdin(Stdio::null()).output().unwrap();
    let [told, errors] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    if errors.contains("initdb is missing") {
        return skip("no PostgreSQL here: apt-get install postgresql");
    }
    assert!(output.status.success(), "{told}{errors}");
    let last = told.lines().last().unwrap_or_default();
    let count = |text: &str| -> Option<u64> {
        last.split_once(text)?.0.split(' ').next_back()?.parse().ok()
    };
    assert!(count(" jobs acknowledged").is_some_and(|jobs| jobs > 100), "{told}");
    assert_eq!(count(" of them lost"), Some(0), "{told}");
    let left = processes::with(&format!("DIR={}", folder.path().display()));
    assert!(left.is_empty(), "{left:?} are left: {told}");
}
