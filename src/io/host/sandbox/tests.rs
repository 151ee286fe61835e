//! The sandbox from inside: each test enters it on a thread of its own, as the kernel keeps it for
//! each thread, and tries what a server must not do.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;

use super::*;
use crate::store::needs::Needs;

/// Runs `attempt` in a sandbox; `false` if this kernel has none that is complete.
fn inside(reach: Reach, attempt: impl FnOnce() + Send) -> bool {
    thread::scope(|scope| {
        let entered = scope.spawn(|| match enter(Sandbox::Require, &reach) {
            Ok(()) => {
                attempt();
                true
            }
            Err(error) => {
                eprintln!("left out: {error}");
                false
            }
        });
        entered.join().unwrap()
    })
}

fn is_refused<T>(result: std::io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

#[test]
fn files_and_ports_of_others_are_out_of_reach() {
    let folder = tempfile::tempdir().unwrap();
    let [own, secret] = ["own", "secret"].map(|name| folder.path().join(name));
    for folder in [&own, &secret] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("file"), "text").unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut reach = Reach::default();
    reach.write_beside(own.join("jobs.db"));
    inside(reach, || {
        assert!(is_refused(File::open(secret.join("file"))));
        assert!(is_refused(File::open("/etc/passwd")));
        assert!(is_refused(fs::read_dir("/etc")));
        assert!(is_refused(fs::write(secret.join("new"), "")));
        assert!(is_refused(fs::remove_file(secret.join("file"))));
        assert!(is_refused(TcpStream::connect(("127.0.0.1", port))));
        assert!(is_refused(TcpListener::bind("127.0.0.1:0")));
        assert!(is_refused(std::process::Command::new("/bin/sh").spawn()));
        // What the server does.
        fs::write(own.join("jobs.db"), "text").unwrap();
        fs::rename(own.join("jobs.db"), own.join("old")).unwrap();
        fs::write(own.join("jobs.db"), "again").unwrap();
        fs::remove_file(own.join("old")).unwrap();
        fs::read_dir(&own).unwrap();
        fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        let null = File::options().read(true).write(true).open("/dev/null");
        assert!(null.is_ok());
    });
    assert!(File::open(secret.join("file")).is_ok(), "another thread");
}

#[test]
fn a_file_may_be_replaced_by_renaming_and_be_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let [names, files] = ["names", "files"].map(|name| folder.path().join(name));
    for folder in [&names, &files] {
        fs::create_dir(folder).unwrap();
    }
    let (link, list) = (names.join("list"), files.join("list"));
    fs::write(&list, "old").unwrap();
    std::os::unix::fs::symlink(&list, &link).unwrap();
    let mut reach = Reach::default();
    reach.read_beside(&link);
    // As another program would replace it.
    let (begin, begun) = channel::<()>();
    let (done, renamed) = channel();
    thread::scope(|scope| {
        let (new, list) = (files.join("new"), &list);
        scope.spawn(move || {
            if begun.recv().is_ok() {
                fs::write(&new, "new").unwrap();
                fs::rename(&new, list).unwrap();
                done.send(()).unwrap();
            }
        });
        inside(reach, move || {
            assert_eq!(fs::read_to_string(&link).unwrap(), "old");
            assert!(is_refused(fs::write(&link, "mine")), "it is only read");
            begin.send(()).unwrap();
            renamed.recv().unwrap();
            assert_eq!(fs::read_to_string(&link).unwrap(), "new");
        });
    });
}

#[test]
fn a_database_on_the_network_is_within_reach_and_nothing_else_there() {
    let [listener, other] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let (port, other) = (port(&listener), port(&other));
    let mut reach = Reach::default();
    reach.open_store(Needs { ports: vec![port], looks_up_hosts: true, ..Needs::default() });
    inside(reach, || {
        assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
        assert!(TcpStream::connect(("localhost", port)).is_ok(), "with /etc/hosts");
        assert!(is_refused(TcpStream::connect(("127.0.0.1", other))));
    });
}

#[test]
fn a_folder_is_within_reach_for_a_file_and_a_terminal_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let log = folder.join("log");
    let written = |file: &Path| {
        let mut reach = Reach::default();
        reach.write_beside(file);
        let mut written = reach.written();
        assert!(written.remove(Path::new("/dev/null")));
        written.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(written(&log), [&*folder]);
    assert_eq!(written(Path::new("log")), [Path::new(".")]);
    assert_eq!(written(Path::new("/dev/zero")), [Path::new("/dev/zero")]);
    std::os::unix::fs::symlink("/dev/full", &log).unwrap();
    assert_eq!(written(&log), [Path::new("/dev/full")]);
}

#[test]
fn what_a_kernel_lacks_is_said_with_the_remedy() {
    let available = |effective_abi| LandlockStatus::Available { effective_abi, kernel_abi: None };
    let said = |landlock| lack(&landlock);
    assert!(said(available(ABI::V2)).contains("TCP ports are as well from Linux 6.7 on"));
    assert!(said(available(ABI::V4)).contains("other processes are as well from Linux 6.12 on"));
    assert!(said(LandlockStatus::NotEnabled).contains("lsm="));
    assert!(said(LandlockStatus::NotImplemented).contains("Linux 5.13"));
}
