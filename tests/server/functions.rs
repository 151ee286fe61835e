//! The functions file of a running server: read anew on SIGHUP, all or nothing.

use std::fs;

use crate::conn::{Conn, Item};
use crate::harness::{Contender, Server, each_ringgear, wait_until};

each_ringgear!(a_policy_that_changed_holds_and_one_with_a_mistake_changes_nothing);

/// How often a worker gets a job of `mail-a` that it fails each time.
fn runs(server: &Server) -> usize {
    let (mut client, mut worker) = (Conn::open(server.address()), Conn::open(server.address()));
    client.packet("SUBMIT_JOB_BG", &[b"mail-a", b"", b"x"]);
    assert!(matches!(client.next(), Ok(Item::Packet(8, _))));
    worker.packet("CAN_DO", &[b"mail-a"]);
    let mut runs = 0;
    wait_until("the job is gone", || {
        worker.packet("GRAB_JOB", &[]);
        match worker.next() {
            Ok(Item::Packet(11, body)) => {
                runs += 1;
                let handle = body.split(|&byte| byte == 0).next().expect("a handle");
                worker.packet("WORK_FAIL", &[handle]);
                None
            }
            Ok(Item::Packet(10, _)) => {
                let status = server.admin("status");
                status.contains("mail-a\t0\t0\t").then_some(())
            }
            other => panic!("{other:?}"),
        }
    });
    runs
}

fn a_policy_that_changed_holds_and_one_with_a_mistake_changes_nothing(contender: Contender) {
    let folder = tempfile::tempdir().expect("a folder for the file");
    let path = folder.path().join("functions.toml");
    let write = |attempts: &str| {
        let table = format!(
            "[[function]]\nmatch = \"mail-*\"\nattempts = {attempts}\nbackoff = {{ first = \
             \"1ms\", factor = 1 }}\n"
        );
        fs::write(&path, table).expect("the folder is writable");
    };
    write("3");
    let option = format!("--functions-file={}", path.display());
    let Some(server) = Server::start_with(contender, &[&option]) else { return };
    assert_eq!(runs(&server), 3);
    let reload = |said: &str| {
        server.signal("HUP");
        server.wait_for_log(said, |_| Some(()));
    };
    // Cores hear of it in their next turn.
    let runs_become = |expected| {
        wait_until("the policy holds", || (runs(&server) == expected).then_some(()));
    };
    write("5");
    reload("functions file read functions=1");
    runs_become(5);
    write("\"many\"");
    let place = path.display();
    reload(&format!("the functions stay as they were: {place}:3: attempts can't be \"many\": "));
    assert_eq!(runs(&server), 5, "the old policy holds");
    fs::remove_file(&path).expect("it is there");
    reload(&format!("the functions stay as they were: cannot read the functions file {place}: "));
    assert_eq!(runs(&server), 5);
    fs::write(&path, "").expect("the folder is writable");
    reload("functions file read functions=0");
    runs_become(1);
}
