//! Faults in random order under load: servers, network, database and clocks are broken one after
//! another, and healed. In the end everything that was acknowledged has been run.
//!
//! `CLUSTER_SECONDS` says for how long, `CLUSTER_SEED` replays the choice of faults (the moments
//! are the machine's), and `CLUSTER_FAULT` (as `Kill`, or `Network`) leaves out all others.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::child::tool;
use crate::cluster::Cluster;
use crate::database::Pair;
use crate::load::{LOAD, Load, insist};
use crate::network::{self, DATABASE, Host, Loss};
use crate::node::Node;
use crate::{IMPATIENCE, LEASE, PATIENCE, SLACK};

const TEST: &str = "nemesis::nothing_acknowledged_is_lost_whatever_breaks";
/// Seconds unless CLUSTER_SECONDS says more, and how much is long.
const SECONDS: u64 = 8;
const LONG: u64 = 60;
/// The lease of short runs.
const SHORT_LEASE: Duration = Duration::from_secs(3);

/// What can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    Hang,
    Leave,
    Network(Loss),
    TerminateSessions,
    CancelStatements,
    LockTable,
    FreezeDatabase,
    CrashDatabase,
    FailOver,
    /// A server's clock jumps by so many hours.
    Clock(i32),
}

/// Those that any machine allows.
const ANYWHERE: [Fault; 9] = [
    Fault::Kill,
    Fault::Hang,
    Fault::Leave,
    Fault::TerminateSessions,
    Fault::CancelStatements,
    Fault::LockTable,
    Fault::FreezeDatabase,
    Fault::CrashDatabase,
    Fault::FailOver,
];

/// Has a server's clock show what a file says.
struct FalseClock {
    folder: tempfile::TempDir,
    library: String,
}

impl FalseClock {
    /// `None` where there is no faketime.
    fn new() -> Option<Self> {
        let mut command = Command::new(tool("faketime")?);
        command.args(["-m", "-f", "+0", "sh", "-c", "echo \"$LD_PRELOAD\""]);
        let library = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let clock = Self { folder, library: library.trim().to_owned() };
        clock.jump(0);
        Some(clock)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("clock")
    }

    fn jump(&self, hours: i32) {
        // Replaced at once, so that no half of it is read.
        let part = self.folder.path().join("part");
        std::fs::write(&part, format!("{hours:+}h\n")).unwrap();
        std::fs::rename(part, self.file()).unwrap();
    }

    fn on(&self, mut node: Node) -> Node {
        // The server's sandbox would keep the library from its file.
        node.add_options(&["--sandbox", "off"]);
        node.with_variable("LD_PRELOAD", &self.library)
            .with_variable("FAKETIME_TIMESTAMP_FILE", &self.file().display().to_string())
            .with_variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .with_variable("FAKETIME_CACHE_DURATION", "1")
    }
}

/// All that can be broken.
struct Scene {
    cluster: Cluster,
    hosts: Vec<Host>,
    clock: Option<FalseClock>,
    lease: Duration,
    is_long: bool,
    rng: Rng,
}

impl Scene {
    fn new(rng: Rng, is_long: bool) -> Option<Self> {
        let hosts = if network::is_own() { network::hosts(3) } else { Vec::new() };
        let database =
            if hosts.is_empty() { Pair::start()? } else { Pair::start_at(DATABASE.into())? };
        let clock = FalseClock::new();
        let lease = if is_long { LEASE } else { SHORT_LEASE };
        let (url, seconds) = (database.url(), lease.as_secs().to_string());
        let options = ["--cluster", "--store", &url, "--lease", &seconds];
        let mut nodes = Vec::new();
        for at in 0..3 {
            let mut node = match hosts.get(at) {
                None => Node::on_loopback(&options),
                Some(host) => {
                    let address = SocketAddr::from((host.address(), 4730));
                    Node::at(address, &options).child_of(&host.enter())
                }
            };
            node.add_options(&["--advertise", &node.address.to_string()]);
            nodes.push(match &clock {
                Some(clock) if at == 2 => clock.on(node),
                _ => node,
            });
        }
        let cluster = Cluster::of(nodes, database);
        Some(Self { cluster, hosts, clock, lease, is_long, rng })
    }

    fn faults(&self) -> Vec<Fault> {
        let mut faults = ANYWHERE.to_vec();
        if !self.hosts.is_empty() {
            let all = [Loss::Link, Loss::Outgoing, Loss::Incoming, Loss::ToDatabase];
            faults.extend(all.map(Fault::Network));
        }
        if self.clock.is_some() {
            faults.extend([1, -1].map(Fault::Clock));
        }
        if let Ok(only) = std::env::var("CLUSTER_FAULT") {
            faults.retain(|fault| format!("{fault:?}").contains(&only));
            assert!(!faults.is_empty(), "there is no fault {only} here");
        }
        faults
    }

    /// Lets the load go on for a while.
    fn go_on(&self, time: Duration) {
        let never = Mutex::new(());
        drop(Condvar::new().wait_timeout(never.lock().unwrap(), time).unwrap());
    }

    /// How long a fault lasts at least.
    fn duration(&mut self, fault: Fault) -> Duration {
        match (self.is_long, fault) {
            (false, _) => Duration::from_millis(self.rng.u64(500..1500)),
            (true, Fault::Hang) => Duration::from_secs(30),
            (true, _) => Duration::from_millis(self.rng.u64(10_000..20_000)),
        }
    }

    /// Breaks something, sees that what is promised for it comes true, and heals it.
    fn step(&mut self, fault: Fault) {
        let target = self.rng.usize(0..3);
        let lasts = self.duration(fault);
        let before = self.cluster.owners((target + 1) % 3);
        let start = Instant::now();
        let ledger = self.cluster.ledger.clone();
        ledger.during(|| {
            self.break_and_heal(fault, target, lasts);
            self.cluster.wait_until_whole();
        });
        let moves = matches!(fault, Fault::Kill | Fault::Hang | Fault::Leave | Fault::Network(_));
        if !moves {
            let after = self.cluster.owners((target + 1) % 3);
            assert_eq!(after, before, "{fault:?} moved a partition");
        }
        eprintln!("{fault:?} of {target} for {lasts:.1?}: whole after {:.1?}", start.elapsed());
        for node in &self.cluster.nodes {
            insist(node.address, LOAD, &ledger);
        }
        let before = self.cluster.entries().acknowledgements();
        let goes_on = ledger.wait(PATIENCE, |entries| entries.acknowledgements() > before + 100);
        assert!(goes_on, "nothing is acknowledged after {fault:?}");
    }

    fn break_and_heal(&mut self, fault: Fault, target: usize, lasts: Duration) {
        let survivor = (target + 1) % 3;
        let partitions = self.cluster.owned_by(target, survivor);
        let taken = |scene: &Self| {
            let after = scene.cluster.wait_until_taken(&partitions, target, survivor);
            let promised = scene.lease + Duration::from_secs(2);
            eprintln!("{fault:?} of {target}: its partitions were taken after {after:.1?}");
            assert!(after < promised + SLACK, "{fault:?}: {after:?}");
        };
        match fault {
            Fault::Kill => {
                self.cluster.nodes[target].kill();
                taken(self);
                self.go_on(lasts);
                self.cluster.nodes[target].start();
            }
            Fault::Hang => {
                self.cluster.nodes[target].signal("STOP");
                taken(self);
                self.go_on(lasts);
                self.cluster.nodes[target].signal("CONT");
            }
            Fault::Leave => {
                self.cluster.nodes[target].signal("TERM");
                assert_eq!(self.cluster.nodes[target].wait().code(), Some(0));
                taken(self);
                self.go_on(lasts);
                self.cluster.nodes[target].start();
            }
            Fault::Network(loss) => {
                self.hosts[target].lose(loss);
                taken(self);
                self.go_on(lasts);
                self.hosts[target].heal(loss);
            }
            Fault::TerminateSessions => {
                self.cluster.database.terminate_sessions();
            }
            Fault::CancelStatements => {
                for _ in 0..10 {
                    self.cluster.database.cancel_statements();
                    self.go_on(lasts / 10);
                }
            }
            Fault::LockTable => self.cluster.database.lock_jobs(lasts.min(self.lease)),
            Fault::FreezeDatabase => {
                self.cluster.database.freeze(true);
                self.go_on(lasts);
                self.cluster.database.freeze(false);
            }
            Fault::CrashDatabase => self.cluster.database.crash(),
            Fault::FailOver => {
                self.cluster.database.fail_over();
                self.cluster.database.add_standby();
            }
            Fault::Clock(hours) => {
                let clock = self.clock.as_ref().expect("it is broken where there is one");
                clock.jump(hours);
                self.go_on(lasts);
                clock.jump(0);
            }
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

#[test]
fn nothing_acknowledged_is_lost_whatever_breaks() {
    if !network::is_own()
        && let Some(succeeded) = network::run_in_own(TEST)
    {
        assert!(succeeded, "see above");
        return;
    }
    let seconds = number("CLUSTER_SECONDS").unwrap_or(SECONDS);
    let seed = number("CLUSTER_SEED").unwrap_or_else(|| Rng::new().u64(..1 << 32));
    eprintln!("CLUSTER_SEED={seed}");
    let Some(mut scene) = Scene::new(Rng::with_seed(seed), seconds >= LONG) else { return };
    let ledger = scene.cluster.ledger.clone();
    let load = Load::on(&scene.cluster.addresses(), &ledger, IMPATIENCE);
    assert!(ledger.wait(PATIENCE, |entries| entries.acknowledgements() > 100));
    let start = Instant::now();
    let mut faults = Vec::new();
    while start.elapsed() < Duration::from_secs(seconds) {
        // Each of them once, in another order, before any comes again.
        if faults.is_empty() {
            faults = scene.faults();
            scene.rng.shuffle(&mut faults);
        }
        scene.step(faults.pop().expect("some"));
    }
    scene.cluster.wait_until_whole();
    load.end();
    scene.cluster.check(&format!("{seconds} s of faults"));
}
