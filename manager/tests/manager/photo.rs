//! The photo example (`examples/photo`), as its readers run it.
//!
//! Needs what its README names: gearman-tools and ImageMagick.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::child::{spawn, tool, wait_until};
use crate::client::{Client, Ending};
use crate::examples;
use crate::observed::{get, value};
use crate::processes;
use crate::server::ask;

/// A folder with the programs of this build, where the example looks for them, and pictures.
struct Site {
    folder: TempDir,
}

impl Site {
    /// `None` where a tool of the example is missing.
    fn new() -> Option<Self> {
        tool("gearman")?;
        tool("convert")?;
        Some(Self { folder: examples::target_folder() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A picture of this size.
    fn picture(&self, name: &str, size: &str) -> PathBuf {
        let path = self.path(name);
        let mut convert = Command::new("convert");
        let status = convert.args(["-size", size, "gradient:red-blue"]).arg(&path).status();
        assert!(status.unwrap().success());
        path
    }

    /// A script of the example, whose processes can be told by their environment.
    fn script(&self, name: &str) -> Command {
        let mut command = examples::script(&format!("photo/{name}"), self.folder.path());
        command.env("DIR", self.folder.path());
        command
    }

    /// Runs `examples/photo/run`; nothing of it may be left.
    fn run(&self, picture: &Path, thumbnail: &Path) -> Output {
        let mut command = self.script("run");
        let output = command.arg(picture).arg(thumbnail).stdin(Stdio::null()).output().unwrap();
        let left = self.processes();
        assert!(left.is_empty(), "{left:?} are left: {output:?}");
        output
    }

    fn processes(&self) -> Vec<Pid> {
        processes::with(&format!("DIR={}", self.folder.path().display()))
    }
}

/// Width of a picture, which has to be a PNG.
fn width(png: &[u8]) -> u32 {
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"), "no PNG");
    u32::from_be_bytes(png[16..20].try_into().unwrap())
}

#[test]
fn a_picture_becomes_a_thumbnail_and_a_mail_and_nothing_runs_on() {
    let Some(site) = Site::new() else { return };
    let thumbnail = site.path("small.png");
    for (picture, wide) in [("large.jpg", 400), ("small one.gif", 120)] {
        let size = if wide == 400 { "900x600" } else { "120x80" };
        let output = site.run(&site.picture(picture, size), &thumbnail);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(width(&fs::read(&thumbnail).unwrap()), wide);
        let [mail, said] = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
        assert!(mail.starts_with("To: ") && mail.contains(picture), "{mail}");
        assert!(said.contains("http://127.0.0.1:"), "{said}");
    }
}

#[test]
fn what_is_no_picture_fails_and_leaves_no_file() {
    let Some(site) = Site::new() else { return };
    let text = site.path("letter.txt");
    fs::write(&text, "no picture").unwrap();
    let cut = site.path("cut.png");
    let whole = fs::read(site.picture("whole.png", "900x600")).unwrap();
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let thumbnail = site.path("small.png");
    for picture in [&site.path("missing.jpg"), &text, &cut, site.folder.path()] {
        let output = site.run(picture, &thumbnail);
        assert!(!output.status.success(), "{picture:?}: {output:?}");
        assert!(!thumbnail.exists(), "{picture:?}");
        assert!(!output.stderr.is_empty(), "{picture:?}");
    }
    assert!(!site.script("run").output().unwrap().status.success());
}

#[test]
fn services_stay_until_they_are_interrupted_and_run_two_uploads_of_a_picture_once() {
    let Some(site) = Site::new() else { return };
    let (mut serve, log) = spawn(&mut site.script("serve"));
    let port = |text: &str| -> u16 {
        log.wait_for(text, |rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
    };
    let page = port("http://127.0.0.1:");
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port("gearman -h 127.0.0.1 -p ")));
    let picture = fs::read(site.picture("large.jpg", "900x600")).unwrap();

    assert_eq!(ask(server, "pause function thumbnail"), "OK");
    let mut clients = [Client::connect(server), Client::connect(server)];
    let uploads = clients
        .each_mut()
        .map(|client| client.submit_with("SUBMIT_JOB", "thumbnail", "thumbnail-key", &picture));
    assert_eq!(uploads[0], uploads[1], "one job for both");
    assert_eq!(ask(server, "resume function thumbnail"), "OK");
    thread::scope(|scope| {
        for (client, handle) in clients.iter_mut().zip(&uploads) {
            scope.spawn(|| {
                let Some(Ending::Complete(png)) = client.wait(handle).ending else { panic!() };
                assert_eq!(width(&png), 400);
            });
        }
    });
    let (_, metrics) = get(page, "/metrics");
    let completed = "ringgear_jobs_completed_total{function=\"thumbnail\"}";
    assert_eq!(value(&metrics, completed), Some(1.0), "{metrics}");

    kill(Pid::from_raw(serve.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    wait_until("its end", || serve.try_wait().unwrap());
    assert!(site.processes().is_empty(), "{}", log.text());
}
