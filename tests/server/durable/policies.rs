//! What `--durability` promises, for all functions and for single ones.

use std::fs;

use super::{Database, SIGNALS, drain_texts, end, is_error, is_known, submit_bg};
use crate::conn::Conn;
use crate::harness::{Contender, each_ringgear, wait_until};

each_ringgear!(
    without_durability_nothing_is_kept,
    one_function_may_do_without,
    answered_at_once_is_kept_at_a_stop_in_good_order,
    each_function_waits_as_its_policy_says,
    a_table_of_functions_is_between_the_two_options,
);

fn functions_kept(database: &Database) -> Vec<String> {
    database.select("SELECT DISTINCT function FROM ringgear_job ORDER BY function")
}

fn without_durability_nothing_is_kept(contender: Contender) {
    for signal in SIGNALS {
        let database = Database::new();
        let options = ["--durability", "none", "--durability", "kept=fsync"];
        let server = database.serve(contender, &options);
        let mut client = Conn::open(server.address());
        let gone = submit_bg(&mut client, "f", "gone");
        let kept = submit_bg(&mut client, "kept", "kept");
        assert!(is_known(&mut client, &gone));
        assert_eq!(functions_kept(&database), ["kept"]);
        end(server, signal);
        assert_eq!(functions_kept(&database), ["kept"], "{signal}");
        let server = database.serve(contender, &options);
        let mut client = Conn::open(server.address());
        assert!(!is_known(&mut client, &gone) && is_known(&mut client, &kept), "{signal}");
        assert_eq!(drain_texts(&server, &["f", "kept"]), ["kept"], "{signal}");
    }
}

fn one_function_may_do_without(contender: Contender) {
    let database = Database::new();
    let options = ["--durability", "f=none"];
    let server = database.serve(contender, &options);
    let mut client = Conn::open(server.address());
    submit_bg(&mut client, "f", "gone");
    submit_bg(&mut client, "g", "kept");
    // Names are compared as they are.
    submit_bg(&mut client, "F", "kept, too");
    assert_eq!(functions_kept(&database), ["F", "g"]);
    server.kill();
    let server = database.serve(contender, &options);
    let status = server.admin("status");
    assert!(status.contains("F\t1\t") && status.contains("g\t1\t"), "{status}");
    assert!(!status.contains("f\t"), "{status}");
    // Another policy is one for jobs to come.
    server.kill();
    let server = database.serve(contender, &["--durability", "none"]);
    assert_eq!(drain_texts(&server, &["F"]), ["kept, too"]);
    assert_eq!(drain_texts(&server, &["f", "g"]), ["kept"]);
    server.stop();
    assert_eq!(functions_kept(&database), [""; 0]);
}

fn a_table_of_functions_is_between_the_two_options(contender: Contender) {
    let folder = tempfile::tempdir().expect("a folder for the file");
    let path = folder.path().join("functions.toml");
    let table = "[[function]]\nmatch = [\"a\", \"b\"]\ndurability = \"fsync\"\n";
    fs::write(&path, table).expect("the folder is writable");
    let file = format!("--functions-file={}", path.display());
    let database = Database::new();
    let options = [&*file, "--durability", "none", "--durability", "b=none"];
    let server = database.serve(contender, &options);
    let mut client = Conn::open(server.address());
    for function in ["a", "b", "c"] {
        submit_bg(&mut client, function, "x");
    }
    assert_eq!(functions_kept(&database), ["a"]);
}

fn answered_at_once_is_kept_at_a_stop_in_good_order(contender: Contender) {
    let database = Database::new();
    let options = ["--durability", "async"];
    let server = database.serve(contender, &options);
    let mut client = Conn::open(server.address());
    let expected: Vec<String> = (0..200).map(|at| format!("job {at}")).collect();
    let handles: Vec<String> =
        expected.iter().map(|payload| submit_bg(&mut client, "f", payload)).collect();
    server.stop();
    let server = database.serve(contender, &options);
    let mut client = Conn::open(server.address());
    for handle in &handles {
        assert!(is_known(&mut client, handle), "{handle}");
    }
    assert_eq!(drain_texts(&server, &["f"]), expected);
    server.stop();
    assert_eq!(functions_kept(&database), [""; 0]);
}

/// A locked database tells who waits for it.
fn each_function_waits_as_its_policy_says(contender: Contender) {
    let database = Database::new();
    let options = ["--durability", "async", "--durability", "safe=fsync", "--durability", "f=none"];
    let server = database.serve(contender, &options);
    let mut client = Conn::open(server.address());
    let lock = database.lock();
    submit_bg(&mut client, "async", "answered");
    submit_bg(&mut client, "f", "answered");
    client.packet("SUBMIT_JOB_BG", &[b"safe", b"", b"refused"]);
    let refusal = client.next().expect("an answer");
    assert!(is_error(&refusal, "QUEUE_ERROR"), "{refusal:?}");
    submit_bg(&mut client, "async", "answered, too");
    assert_eq!(functions_kept(&database), [""; 0]);
    drop(lock);
    // What was answered goes to the disk as soon as that is possible.
    wait_until("both of them on disk", || {
        let count: Vec<i64> = database.select("SELECT count(*) FROM ringgear_job");
        (count == [2]).then_some(())
    });
    server.kill();
    let server = database.serve(contender, &options);
    assert_eq!(drain_texts(&server, &["async", "f", "safe"]), ["answered", "answered, too"]);
}
