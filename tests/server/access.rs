//! The access list of a running server: read anew on SIGHUP, all or nothing.

use std::fs;
use std::path::Path;

use crate::conn::{Conn, Item};
use crate::harness::{Contender, Server, each_ringgear};

each_ringgear!(
    a_list_is_read_anew_and_one_with_a_mistake_changes_nothing,
    a_running_job_ends_with_a_worker_that_may_not_any_more,
);

/// This host may do these things.
fn allow(path: &Path, rights: &str, functions: &str) {
    let text = format!("[[rule]]\nwho = {{ network = [\"127.0.0.1\"] }}\nmay = [{rights}]\n");
    fs::write(path, format!("{text}{functions}")).expect("the folder is writable");
}

/// Has the server read its list, and waits until it has said so.
fn reload(server: &Server, said: &str) {
    server.signal("HUP");
    server.wait_for_log(said, |_| Some(()));
}

const EVERYTHING: &str = "\"submit\", \"work\", \"observe\", \"admin\"";

fn a_list_is_read_anew_and_one_with_a_mistake_changes_nothing(contender: Contender) {
    let folder = tempfile::tempdir().expect("a folder for the list");
    let path = folder.path().join("access.toml");
    allow(&path, EVERYTHING, "");
    let option = format!("--access-file={}", path.display());
    let Some(server) = Server::start_with(contender, &[&option]) else { return };
    let mut client = Conn::open(server.address());
    let mut submit = |server: &Server| {
        client.packet("SUBMIT_JOB_BG", &[b"f", b"", b"x"]);
        let reply = client.next();
        // Each core has the list that the others have.
        assert!(server.admin("version").starts_with("OK"));
        match reply {
            Ok(Item::Packet(8, _)) => true,
            Ok(Item::Packet(19, body)) => {
                assert_eq!(body, b"PERMISSION_DENIED\x00127.0.0.1 may not submit f");
                false
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(submit(&server));
    fs::write(&path, "[[rule]]\nwho = {}\nmay = [\"sumbit\"]\n").expect("writable");
    let mistake = format!(
        "the access list stays as it was: {}:3: unknown right \"sumbit\": submit, work, observe, \
         admin",
        path.display()
    );
    reload(&server, &mistake);
    assert!(submit(&server), "the old list holds");
    fs::remove_file(&path).expect("it is there");
    reload(&server, "the access list stays as it was: cannot read the access list");
    assert!(submit(&server));
    allow(&path, "\"work\", \"admin\"", "");
    reload(&server, "access list read");
    // The other cores hear of it in their next turn.
    while submit(&server) {}
    let refusals = server.admin("show refusals #");
    assert!(refusals.contains("\t127.0.0.1\tsubmit\tf\n"), "{refusals}");
    assert!(server.admin("show access").contains("\tnetwork:127.0.0.1/32\twork admin\t-\t*\n"));
    server.wait_for_log("access refused: ringgeard --access-check tells", |_| Some(()));
}

fn a_running_job_ends_with_a_worker_that_may_not_any_more(contender: Contender) {
    let folder = tempfile::tempdir().expect("a folder for the list");
    let path = folder.path().join("access.toml");
    allow(&path, EVERYTHING, "");
    let option = format!("--access-file={}", path.display());
    let Some(server) = Server::start_with(contender, &[&option]) else { return };
    let (mut client, mut worker) = (Conn::open(server.address()), Conn::open(server.address()));
    // Functions of several cores.
    let functions: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
    let mut handles = Vec::new();
    for function in functions {
        client.packet("SUBMIT_JOB", &[function, b"", b"x"]);
        assert!(matches!(client.next(), Ok(Item::Packet(8, _))));
        worker.packet("CAN_DO", &[function]);
        worker.packet("GRAB_JOB", &[]);
        let Ok(Item::Packet(11, body)) = worker.next() else { panic!("no job") };
        handles.push(body.split(|&byte| byte == 0).next().expect("a handle").to_vec());
    }
    allow(&path, "\"submit\", \"observe\"", "");
    reload(&server, "access list read");
    let is_able = |text: &str| text.lines().any(|row| row.ends_with("\t1"));
    while is_able(&server.admin("status")) {}
    for handle in handles {
        worker.packet("WORK_COMPLETE", &[&handle, b"done"]);
        assert!(matches!(client.next(), Ok(Item::Packet(13, _))), "its result is delivered");
    }
}
