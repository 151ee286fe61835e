//! Commands that tell what they see of themselves, and ones that can't be started.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::{Uid, pipe2};

use super::*;
use crate::process::Status;
use crate::process::samples::{eventually, is_alive, worker};

/// Starts a worker's command with a pipe as standard output.
fn start(worker: &Worker, guard: &Guard, further: &[&str]) -> Result<(Group, File), LaunchError> {
    let launch = Launch::prepare(worker, &[]).expect("settings that are right");
    let (read, write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("descriptors");
    let further: Vec<CString> =
        further.iter().map(|&entry| CString::new(entry).expect("no NUL")).collect();
    let output = Some(write.as_fd());
    let group = launch.start(guard, &further, Descriptors { output, ..Descriptors::default() })?;
    Ok((group, File::from(read)))
}

async fn output_of(worker: &Worker, further: &[&str]) -> String {
    let guard = Guard::of_test();
    let (mut group, mut pipe) = start(worker, &guard, further).expect("it can be started");
    assert_eq!(group.ended().await, Status::Code(0));
    let mut output = String::new();
    pipe.read_to_string(&mut output).expect("text");
    output
}

fn shell(script: &str) -> Worker {
    worker(&["sh", "-c", script])
}

async fn status_of(script: &str) -> Status {
    let guard = Guard::of_test();
    let (mut group, _pipe) = start(&shell(script), &guard, &[]).expect("it can be started");
    let status = group.ended().await;
    assert_eq!(group.ended().await, status, "another status when asked again");
    assert!(!guard.knows(group.leader()));
    status
}

fn error_of(worker: &Worker) -> LaunchError {
    let guard = Guard::of_test();
    let error = start(worker, &guard, &[]).map(drop).expect_err("it can't be started");
    // What couldn't run its command is no child any more.
    let own = Pid::this().to_string();
    let children = Command::new("ps").args(["--ppid", &own, "-o", "stat=,comm="]).output();
    if let Ok(children) = children {
        let children = String::from_utf8_lossy(&children.stdout).into_owned();
        assert!(!children.contains("defunct"), "{children}");
    }
    error
}

#[tokio::test]
async fn exit_codes_and_signals_are_told_apart() {
    assert_eq!(status_of("exit 0").await, Status::Code(0));
    assert_eq!(status_of("exit 75").await, Status::Code(75));
    assert_eq!(status_of("kill -SEGV $$").await, Status::Signal(Signal::SIGSEGV));
    assert_eq!(status_of("kill -KILL $$").await, Status::Signal(Signal::SIGKILL));
}

#[tokio::test]
async fn settings_are_seen_by_the_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut worker = shell("umask; pwd; nice; printf '%s\\n' \"$A\" \"$GEARMAN_HANDLE\" \"$0 $1\"");
    worker.command.extend(["zero".into(), "o n e".into()]);
    worker.umask = Some(0o27);
    worker.nice = 3;
    worker.directory = Some(folder.path().to_owned());
    worker.environment.insert("A".into(), "b c".into());
    worker.environment.insert("GEARMAN_HANDLE".into(), "old".into());
    let output = output_of(&worker, &["GEARMAN_HANDLE=H:h:1", "GEARMAN_HAND=x"]).await;
    let lines: Vec<&str> = output.lines().collect();
    let nice = Command::new("nice").output().expect("coreutils").stdout;
    let nice: i32 = String::from_utf8_lossy(&nice).trim().parse().expect("a number");
    let expected = [
        "0027".to_owned(),
        folder.path().canonicalize().expect("it is there").display().to_string(),
        (nice + 3).min(19).to_string(),
        "b c".into(),
        "H:h:1".into(),
        "zero o n e".into(),
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_cleared_environment_has_what_is_kept_and_set() {
    let mut worker = worker(&["env"]);
    worker.clear_environment = true;
    worker.environment.insert("A".into(), "b".into());
    let output = output_of(&worker, &["GEARMAN_UNIQUE=u=v"]).await;
    let names: Vec<&str> = output.lines().filter_map(|line| line.split('=').next()).collect();
    assert!(names.iter().all(|name| ["PATH", "LANG", "TZ", "A", "GEARMAN_UNIQUE"].contains(name)));
    assert!(output.contains("GEARMAN_UNIQUE=u=v\n"), "{output}");
    assert!(names.contains(&"PATH"), "{output}");
}

#[tokio::test]
async fn a_command_has_its_own_descriptors_only() {
    // Inherited by all children but for what `redirect` does.
    let inherited = File::open("/dev/zero").expect("it is there");
    fcntl(&inherited, FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).expect("a descriptor");
    let script = "for fd in 0 1 2 3; do readlink /proc/$$/fd/$fd || echo none; done; \
        ls /proc/$$/fd";
    let output = output_of(&shell(script), &[]).await;
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0], "/dev/null");
    assert!(lines[1].starts_with("pipe:"), "{output}");
    assert_eq!(lines[2..4], ["/dev/null", "none"]);
    assert_eq!(lines[4..], ["0", "1", "2"]);
}

#[tokio::test]
async fn descriptor_3_is_passed_on_and_low_sources_are_moved() {
    let guard = Guard::of_test();
    let launch = Launch::prepare(&shell("echo out; echo status >&3"), &[]).expect("right");
    let (out, out_write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("descriptors");
    let (status, status_write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("descriptors");
    let input = std::io::stdin();
    let descriptors = Descriptors {
        // Standard input is what would be overwritten, if it weren't moved.
        error: Some(input.as_fd()),
        output: Some(out_write.as_fd()),
        status: Some(status_write.as_fd()),
        ..Descriptors::default()
    };
    let mut moved = Vec::new();
    let sources = launch.sources(descriptors, &mut moved).expect("descriptors");
    assert!(sources.iter().all(|&source| source >= FIRST_OTHER), "{sources:?}");
    assert_eq!(moved.len(), 1);
    let mut group = launch.start(&guard, &[], descriptors).expect("it can be started");
    assert_eq!(group.ended().await, Status::Code(0));
    drop((out_write, status_write));
    let mut text = String::new();
    File::from(out).read_to_string(&mut text).expect("text");
    File::from(status).read_to_string(&mut text).expect("text");
    assert_eq!(text, "out\nstatus\n");
}

#[tokio::test]
async fn signals_have_their_defaults() {
    // Rust ignores SIGPIPE, and this thread has all signals blocked while it makes the child.
    let output = output_of(&worker(&["grep", "Sig", "/proc/self/status"]), &[]).await;
    for set in ["SigBlk", "SigIgn", "SigPnd"] {
        let line = format!("{set}:\t0000000000000000\n");
        assert!(output.contains(&line), "{output}");
    }
    // And this thread takes them as before.
    let own = std::fs::read_to_string("/proc/thread-self/status").expect("readable");
    assert!(own.contains("SigBlk:\t0000000000000000\n"), "{own}");
}

#[tokio::test]
async fn a_guard_that_has_ended_ends_no_command() {
    let guard = Guard::of_test();
    nix::sys::signal::kill(guard.process(), Signal::SIGKILL).expect("it runs");
    eventually("the end of the guard", || !is_alive(guard.process()));
    let first = guard.process();
    let (mut group, _pipe) = start(&shell("exit 3"), &guard, &[]).expect("it can be started");
    assert_eq!(group.ended().await, Status::Code(3));
    assert_ne!(guard.process(), first);
}

/// Reads the first number of a line that a command writes.
fn number(pipe: &mut File) -> Pid {
    let mut digits = String::new();
    let mut byte = [0];
    while pipe.read_exact(&mut byte).is_ok() && byte[0] != b'\n' {
        digits.push(char::from(byte[0]));
    }
    Pid::from_raw(digits.parse().expect("a number"))
}

/// A child of a shell that ignores SIGTERM and SIGUSR1; writes the child's number.
const STUBBORN: &str = "sh -c 'trap \"\" TERM USR1; echo $$; while :; do sleep 1000; done' & ";

#[tokio::test]
async fn a_group_ends_with_its_leader() {
    let guard = Guard::of_test();
    let script = format!("trap 'exit 5' USR1; {STUBBORN} wait");
    let (mut group, mut pipe) = start(&shell(&script), &guard, &[]).expect("it can be started");
    let child = number(&mut pipe);
    group.signal(Signal::SIGUSR1);
    assert_eq!(group.ended().await, Status::Code(5));
    eventually("the end of the child", || !is_alive(child));
}

#[tokio::test]
async fn a_group_that_is_dropped_is_killed_and_reaped() {
    let guard = Guard::of_test();
    let script = format!("trap '' TERM; {STUBBORN} wait");
    let (mut group, mut pipe) = start(&shell(&script), &guard, &[]).expect("it can be started");
    let child = number(&mut pipe);
    group.signal(Signal::SIGTERM);
    let waited = tokio::time::timeout(Duration::from_millis(50), group.ended()).await;
    assert!(waited.is_err(), "SIGTERM isn't ignored");
    let leader = group.leader();
    assert!(is_alive(leader) && is_alive(child) && guard.knows(leader));
    drop(group);
    assert!(!std::fs::exists(format!("/proc/{leader}")).expect("readable"), "not reaped");
    assert!(!guard.knows(leader));
    eventually("the end of the child", || !is_alive(child));
}

#[tokio::test]
async fn programs_are_found_as_execvp_finds_them() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, text: &str, mode: u32| {
        std::fs::create_dir_all(path(name).parent().expect("a folder")).expect("writable");
        std::fs::write(path(name), text).expect("writable");
        std::fs::set_permissions(path(name), PermissionsExt::from_mode(mode)).expect("writable");
    };
    write("a/tool", "#!/bin/sh\necho a", 0o644);
    write("b/tool", "#!/bin/sh\necho b", 0o755);
    write("a/plain", "#!/bin/sh\necho a", 0o644);
    write("a/text", "echo a", 0o755);
    write("a/lost", "#!/no/such/interpreter", 0o755);
    let folders = |names: &[&str]| -> String {
        let all: Vec<PathBuf> = names.iter().map(|name| path(name)).collect();
        std::env::join_paths(all).expect("no colon").into_string().expect("text")
    };
    let with = |command: &str, names: &[&str]| {
        let mut worker = worker(&[command]);
        worker.environment.insert("PATH".into(), folders(names));
        worker
    };
    // The worker's PATH counts, and what isn't executable is passed over.
    assert_eq!(output_of(&with("tool", &["none", "a/tool", "a", "b"]), &[]).await, "b\n");
    let error = |command, names: &[&str]| {
        let error = error_of(&with(command, names));
        assert_eq!(error.step, Step::Execute);
        error.cause
    };
    assert_eq!(error("tool", &["none"]), Errno::ENOENT);
    assert_eq!(error("plain", &["a", "b"]), Errno::EACCES);
    assert_eq!(error("text", &["a"]), Errno::ENOEXEC);
    assert_eq!(error("lost", &["a"]), Errno::ENOENT);
    assert_eq!(error("./tool", &["b"]), Errno::ENOENT);
    // A path is relative to the worker's folder.
    let mut relative = with("./tool", &[]);
    relative.directory = Some(path("b"));
    assert_eq!(output_of(&relative, &[]).await, "b\n");
}

#[tokio::test]
async fn errors_say_what_failed_and_what_to_do() {
    let mut worker = worker(&["no-such-program"]);
    assert_eq!(
        error_of(&worker).to_string(),
        "cannot start no-such-program: executing it failed: No such file or directory; install it \
         (or the interpreter in its first line), or correct `command` or PATH"
    );
    worker.directory = Some("/no/such/folder".into());
    let error = error_of(&worker);
    assert_eq!((error.step, error.cause), (Step::Directory, Errno::ENOENT));
    worker.directory = None;
    worker.user = Some("no-such-user".into());
    assert_eq!(
        Launch::prepare(&worker, &[]).map(drop),
        Err("worker w: there is no user no-such-user on this machine; create it (useradd)".into())
    );
    worker.user = None;
    worker.command.push("a\0b".into());
    let nul = "worker w: its settings contain a NUL character; remove it";
    assert_eq!(Launch::prepare(&worker, &[]).map(drop), Err(nul.into()));
}

#[tokio::test]
async fn a_user_is_taken_where_that_is_allowed() {
    let mut worker = shell("id -u; id -g; id -G; echo $HOME; nice");
    worker.clear_environment = true;
    if Uid::effective().is_root() {
        worker.user = Some("3999999".into());
        worker.group = Some("4242".into());
        // Before the user is changed, as only root may.
        worker.nice = -1;
        let nice = Command::new("nice").output().expect("coreutils").stdout;
        let nice: i32 = String::from_utf8_lossy(&nice).trim().parse().expect("a number");
        let nice = (nice - 1).max(-20);
        let expected = format!("3999999\n4242\n4242\n\n{nice}\n");
        assert_eq!(output_of(&worker, &[]).await, expected);
        worker.user = Some("root".into());
        worker.group = None;
        assert!(output_of(&worker, &[]).await.contains("\n/root\n"));
    } else {
        worker.user = Some("root".into());
        let error = error_of(&worker);
        assert_eq!((error.step, error.cause), (Step::Groups, Errno::EPERM));
        worker.user = Some(Uid::effective().to_string());
        worker.group = Some(nix::unistd::getegid().to_string());
        assert!(output_of(&worker, &[]).await.starts_with(&format!("{}\n", Uid::effective())));
    }
}

#[tokio::test]
async fn many_are_started_at_once() {
    let guard = Guard::of_test();
    let started = Instant::now();
    let mut all = Vec::new();
    for at in 0..200 {
        let script = format!("exit {}", at % 7);
        all.push((at % 7, start(&shell(&script), &guard, &[]).expect("it can be started")));
    }
    for (code, (mut group, _)) in all {
        assert_eq!(group.ended().await, Status::Code(code));
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}
