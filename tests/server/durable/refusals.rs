//! Databases that a server must not start on: it says why in one sentence, ends with exit code 1,
//! and leaves them as they are.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::unistd::{Uid, User};
use rusqlite::Connection;

use super::{Database, drain_texts, submit_bg};
use crate::conn::Conn;
use crate::harness::{Contender, Server};

fn refusal(options: &[&str]) -> String {
    Server::launch("epoll", 0, options).wait_for_failure()
}

fn make(path: &Path, sql: &str) {
    Connection::open(path).expect("a new file").execute_batch(sql).expect("good SQL");
}

/// A database of ours that was stopped in good order, with some hundred pages of jobs.
fn make_ours(database: &Database) {
    let server = database.serve(Contender::RinggearEpoll, &[]);
    let mut client = Conn::open(server.address());
    for _ in 0..50 {
        submit_bg(&mut client, "f", &"x".repeat(4000));
    }
    server.stop();
}

#[test]
fn a_file_that_is_no_database_of_ours_stays_as_it_is() {
    type Make = fn(&Database);
    let cases: [(&str, Make, &[&str], &str); 7] = [
        (
            "text",
            |database| fs::write(database.path(), "# notes\n".repeat(2000)).expect("a file"),
            &[],
            "is no SQLite database: give another file, or move this one away",
        ),
        (
            "another program's tables",
            |database| make(&database.path(), "CREATE TABLE song (name TEXT)"),
            &[],
            "is a database with other tables and none named gearman_queue: give another file",
        ),
        (
            "another program's number",
            |database| make(&database.path(), "PRAGMA application_id = 7; CREATE TABLE a (b)"),
            &[],
            "is the database of another program: give another file",
        ),
        (
            "a table of gearmand's name",
            |database| make(&database.path(), "CREATE TABLE gearman_queue (unique_key, data)"),
            &[],
            "has no column function_name, so gearmand didn't write it: give another file",
        ),
        (
            "a later version",
            |database| {
                make_ours(database);
                make(&database.path(), "PRAGMA user_version = 99");
            },
            &[],
            "is of version 99 and this ringgeard reads version 4: start the ringgeard that",
        ),
        (
            "damaged pages",
            |database| {
                make_ours(database);
                let mut bytes = fs::read(database.path()).expect("a file");
                let third = bytes.len() / 3;
                bytes[third..2 * third].fill(0xa5);
                fs::write(database.path(), bytes).expect("a file");
            },
            &[],
            "is damaged",
        ),
        (
            "half a file",
            |database| {
                make_ours(database);
                let bytes = fs::read(database.path()).expect("a file");
                fs::write(database.path(), &bytes[..bytes.len() / 2]).expect("a file");
            },
            &[],
            "is damaged",
        ),
    ];
    for (name, make, options, expected) in cases {
        let database = Database::new();
        make(&database);
        let before = fs::read(database.path()).expect("a file");
        for _ in 0..2 {
            let sentence = refusal(&[&["--store", &database.store], options].concat());
            let path = database.path().display().to_string();
            assert!(sentence.contains(expected), "{name}: {sentence}");
            assert!(sentence.contains(&path), "{name}: {sentence}");
            assert!(fs::read(database.path()).expect("a file") == before, "{name}: changed");
        }
    }
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let gone = folder.path().join("gone/jobs.db").display().to_string();
    for options in [
        &["--store", &format!("sqlite:{gone}")][..],
        &["-q", "libsqlite3", "--libsqlite3-db", &gone],
    ] {
        let sentence = refusal(options);
        assert!(sentence.contains(&gone) && sentence.contains("folder"), "{sentence}");
    }
    let itself = folder.path().display().to_string();
    let sentence = refusal(&["--store", &format!("sqlite:{itself}")]);
    assert!(sentence.contains(&itself), "{sentence}");
}

/// What root may write, root's server gives up with `--user`.
#[test]
fn what_may_not_be_written_is_named_with_a_remedy() {
    let database = Database::new();
    make_ours(&database);
    let user: &[&str] = if Uid::effective().is_root() {
        let nobody = User::from_name("nobody").expect("a list of users");
        assert!(nobody.is_some(), "a machine without nobody");
        &["--user", "nobody"]
    } else {
        &[]
    };
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our own file");
    };
    let folder = database.folder.path();
    mode(folder, 0o755);
    let lock = folder.join("jobs.db.lock");
    for (file, lock_mode, folder_mode) in [(0o644, 0o644, 0o555), (0o444, 0o666, 0o755)] {
        mode(&database.path(), if user.is_empty() { 0o444 } else { file });
        mode(&lock, if user.is_empty() { lock_mode & 0o444 } else { lock_mode });
        mode(folder, folder_mode);
        let before = fs::read(database.path()).expect("a file");
        let sentence = refusal(&[&["--store", &database.store], user].concat());
        mode(folder, 0o755);
        assert!(sentence.contains("jobs.db"), "{sentence}");
        assert!(sentence.contains("no permission; let the server's user write"), "{sentence}");
        assert!(fs::read(database.path()).expect("a file") == before);
    }
}

#[test]
fn a_second_server_names_the_first() {
    for contender in Contender::RINGGEAR.into_iter().filter(|contender| contender.is_here()) {
        let database = Database::new();
        let server = database.serve(contender, &[]);
        let mut client = Conn::open(server.address());
        submit_bg(&mut client, "f", "first");
        let (driver, cores) = contender.driver();
        let options = ["--threads", cores, "--store", &database.store];
        let sentence = Server::launch(driver, 0, &options).wait_for_failure();
        let owner = format!("belongs to another ringgeard (process {})", server.pid());
        assert!(sentence.contains(&owner) && sentence.contains("--standby"), "{sentence}");
        submit_bg(&mut client, "f", "second");
        assert_eq!(drain_texts(&server, &["f"]), ["first", "second"]);
    }
}
