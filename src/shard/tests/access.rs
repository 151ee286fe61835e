//! The access list at the gate: every kind of request by every right, on one core and on several;
//! and lists that change while jobs run.

use std::net::IpAddr;

use super::cluster::{CORES, Cluster, Peer, function};
use super::*;
use crate::protocol::access::{Conditions, Right, parse};
use crate::protocol::peer_address::{PeerAddress, UnixPeer};

/// Where the peer under test comes from.
const OTHER: &str = "10.1.2.3";

/// A rule by which this host may do everything.
const HOST: &str = "[[rule]]\nwho = { network = [\"127.0.0.1\"] }\n\
                    may = [\"submit\", \"work\", \"observe\", \"admin\"]\n";

fn list(rules: &str) -> Arc<AccessList> {
    let text = format!("{HOST}{rules}");
    Arc::new(parse(&text, Conditions::default()).unwrap_or_else(|error| panic!("{error}\n{text}")))
}

/// One core, or several.
pub(super) enum Rig {
    One(Box<Desk>),
    Several(Box<Cluster>),
}

impl Rig {
    pub(super) fn new(cores: usize, rules: &str) -> Self {
        let list = list(rules);
        let listener = |name: &str| Listener { name: Some(name.into()), speaks_tls: false };
        // By TCP, and by Unix sockets.
        let listeners: Arc<[Listener]> = [listener("10.9.9.9"), listener("unix:/g.sock")].into();
        let user_name = |uid| (uid == 33).then(|| "www-data".into());
        if cores == 1 {
            let settings = Settings { connections_max: 100, listeners, user_name, ..settings() };
            let mut desk = Desk::new(settings);
            desk.shard.set_access_list(&list, desk.now);
            return Self::One(Box::new(desk));
        }
        let mut cluster = Cluster::new(Durability::None, 1);
        for shard in &mut cluster.shards {
            shard.settings.listeners = Arc::clone(&listeners);
            shard.settings.user_name = user_name;
        }
        cluster.shards[0].set_access_list(&list, cluster.now);
        cluster.settle();
        Self::Several(Box::new(cluster))
    }

    /// A connection from an address, or from a user by its number.
    pub(super) fn connect(&mut self, core: usize, from: &str) -> Peer {
        let (peer, listener) = match from.parse::<IpAddr>() {
            Ok(address) => (PeerAddress::from((address, 4001)), 0),
            Err(_) => (UnixPeer { uid: from.parse().unwrap(), gid: 1, pid: 1 }.into(), 1),
        };
        match self {
            Self::One(desk) => {
                let origin = Origin { fd: 9, peer, listener };
                (0, desk.shard.connect(origin, desk.now).unwrap())
            }
            Self::Several(cluster) => cluster.connect_by(core, peer, listener),
        }
    }

    /// Sends bytes; the reply.
    pub(super) fn ask(&mut self, peer: Peer, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::One(desk) => {
                desk.say(peer.1, bytes);
                while desk.shard.poll_dirty(desk.now).is_some() {}
                desk.send_all(peer.1)
            }
            Self::Several(cluster) => {
                cluster.say(peer, bytes);
                cluster.hear(peer)
            }
        }
    }

    /// What replies call a peer.
    fn name(&self, (core, conn): Peer) -> String {
        let shard = match self {
            Self::One(desk) => &desk.shard,
            Self::Several(cluster) => &cluster.shards[core],
        };
        shard.permissions(conn).unwrap().peer().to_owned()
    }

    pub(super) fn line(&mut self, peer: Peer, line: &str) -> String {
        String::from_utf8(self.ask(peer, format!("{line}\n").as_bytes())).unwrap()
    }

    /// A dead letter of a function; its handle.
    pub(super) fn given_letter(&mut self, function: &str) -> String {
        match self {
            Self::One(desk) => desk.shard.given_letter(function, "", desk.now),
            Self::Several(cluster) => {
                let owner = cluster.shards[0].settings.cores.owner_of(function.as_bytes());
                let now = cluster.now;
                cluster.shards[owner].given_letter(function, "", now)
            }
        }
    }

    pub(super) fn submit(&mut self, peer: Peer, function: &str) -> Vec<u8> {
        let arguments = [function.as_bytes(), b"key"];
        self.ask(peer, &packet(Command::SubmitJobBg, &arguments, b"x"))
    }
}

fn denied(rig: &Rig, peer: Peer, right: &str, function: &str) -> Vec<u8> {
    let text = format!("{} may not {right} {function}", rig.name(peer));
    response(Command::Error, &[b"PERMISSION_DENIED", text.as_bytes()], b"")
}

/// A request of the peer under test about a function, and whether it was allowed.
type Probe = fn(&mut Rig, Peer, Peer, &str) -> bool;

/// Whether a list of the peer under test has a line with a word.
fn lists(rig: &mut Rig, peer: Peer, line: &str, word: &str) -> bool {
    let text = rig.line(peer, line);
    assert!(text.ends_with(".\n"), "{line}: {text}");
    text.contains(word)
}

/// Whether a line is answered by something else than the refusal.
fn answers(rig: &mut Rig, peer: Peer, line: &str, function: &str) -> bool {
    let text = rig.line(peer, line);
    let right = if line.starts_with("maxqueue") || line.contains("function") || line.contains("job")
    {
        "admin"
    } else {
        text.rsplit('+').next().unwrap_or_default().trim_end()
    };
    let named = if function.is_empty() { String::new() } else { format!("+{function}") };
    let refusal = format!("ERR PERMISSION_DENIED {}+may+not+{right}{named}\r\n", rig.name(peer));
    assert_eq!(text.contains("PERMISSION_DENIED"), text == refusal, "{line}: {text}");
    text != refusal
}

/// The handle of a new job of a function, which a peer that may do everything has submitted.
fn new_job(rig: &mut Rig, root: Peer, function: &str) -> Vec<u8> {
    rig.submit(root, function)[12..].to_vec()
}

/// By right, what it opens for one function.
const PROBES: [(&[Right], &str, Probe); 20] = [
    (&[Right::Submit], "submit", |rig, _, peer, function| {
        let reply = rig.submit(peer, function);
        assert!(reply == denied(rig, peer, "submit", function) || reply[7] == 8, "{reply:?}");
        reply[7] == 8
    }),
    (&[Right::Submit], "reduce", |rig, root, peer, function| {
        // The function is open to it in any case, and the reducer is the one in question.
        let arguments: [&[u8]; 4] = [b"open", b"", function.as_bytes(), b""];
        let reply = rig.ask(peer, &packet(Command::SubmitReduceJobBackground, &arguments, b"x"));
        rig.line(root, "drop function open");
        assert!(reply == denied(rig, peer, "submit", function) || reply[7] == 8, "{reply:?}");
        reply[7] == 8
    }),
    (&[Right::Work], "work", |rig, root, peer, function| {
        let reply = rig.ask(peer, &packet(Command::CanDo, &[function.as_bytes()], b""));
        assert_eq!(reply, b"", "a registration isn't answered");
        let rows = rig.line(root, "status");
        let row = rows.lines().find(|row| row.split('\t').next() == Some(function)).unwrap();
        rig.ask(peer, &packet(Command::ResetAbilities, &[], b""));
        row.ends_with("\t1")
    }),
    (&[Right::Submit, Right::Observe, Right::Admin], "state", |rig, root, peer, function| {
        let handle = new_job(rig, root, function);
        let reply = rig.ask(peer, &packet(Command::GetStatus, &[&handle], b""));
        let arguments: [&[u8]; 5] = [&handle, b"0", b"0", b"0", b"0"];
        reply != response(Command::StatusRes, &arguments, b"")
    }),
    (&[Right::Submit, Right::Observe, Right::Admin], "unique", |rig, root, peer, function| {
        new_job(rig, root, function);
        let reply = rig.ask(peer, &packet(Command::GetStatusUnique, &[b"key"], b""));
        let arguments: [&[u8]; 6] = [b"key", b"0", b"0", b"0", b"0", b"0"];
        reply != response(Command::StatusResUnique, &arguments, b"")
    }),
    (&[Right::Observe, Right::Admin], "status", |rig, _, peer, function| {
        lists(rig, peer, "status", function)
    }),
    (&[Right::Observe, Right::Admin], "prioritystatus", |rig, _, peer, function| {
        lists(rig, peer, "prioritystatus", function)
    }),
    (&[Right::Observe, Right::Admin], "show functions", |rig, _, peer, function| {
        lists(rig, peer, "show functions", function)
    }),
    (&[Right::Observe, Right::Admin], "show jobs", |rig, root, peer, function| {
        let handle = new_job(rig, root, function);
        lists(rig, peer, "show jobs", std::str::from_utf8(&handle).unwrap())
    }),
    (&[Right::Observe, Right::Admin], "show unique jobs", |rig, root, peer, function| {
        new_job(rig, root, function);
        lists(rig, peer, "show unique jobs", "key")
    }),
    (&[Right::Observe, Right::Admin], "show running", |rig, root, peer, function| {
        new_job(rig, root, function);
        rig.ask(root, &packet(Command::CanDo, &[function.as_bytes()], b""));
        rig.ask(root, &packet(Command::GrabJob, &[], b""));
        let shows = lists(rig, peer, "show running", function);
        rig.ask(root, &packet(Command::ResetAbilities, &[], b""));
        shows
    }),
    (&[Right::Admin], "maxqueue", |rig, _, peer, function| {
        answers(rig, peer, &format!("maxqueue {function} 1000"), function)
    }),
    (&[Right::Admin], "cancel job", |rig, root, peer, function| {
        let handle = new_job(rig, root, function);
        let handle = String::from_utf8(handle).unwrap();
        answers(rig, peer, &format!("cancel job {handle}"), "")
    }),
    (&[Right::Observe, Right::Admin], "show dead", |rig, root, peer, function| {
        let handle = rig.given_letter(function);
        let shows = lists(rig, peer, "show dead", &handle);
        rig.line(root, "drop dead *");
        shows
    }),
    (&[Right::Observe, Right::Admin], "show policy", |rig, _, peer, function| {
        let reply = rig.line(peer, &format!("show policy {function}"));
        let refusal =
            format!("ERR PERMISSION_DENIED {}+may+not+observe+{function}\r\n", rig.name(peer));
        assert!(reply == ".\n" || reply == refusal, "{reply}");
        reply == ".\n"
    }),
    (&[Right::Admin], "requeue and drop dead HANDLE", |rig, root, peer, function| {
        let [first, second] = [0; 2].map(|_| rig.given_letter(function));
        let requeues = answers(rig, peer, &format!("requeue dead {first} job"), "");
        assert!(requeues, "one word too many");
        let requeues = rig.line(peer, &format!("requeue dead {first}")) == "OK 1\r\n";
        let drops = rig.line(peer, &format!("drop dead {second}")) == "OK 1\r\n";
        assert_eq!(requeues, drops);
        rig.line(root, "drop dead *");
        requeues
    }),
    (&[Right::Admin], "requeue and drop dead FUNCTION", |rig, root, peer, function| {
        rig.given_letter(function);
        let requeues = rig.line(peer, &format!("requeue dead {function}")) == "OK 1\r\n";
        rig.given_letter(function);
        let drops = rig.line(peer, &format!("drop dead {function}")) == "OK 1\r\n";
        assert_eq!(requeues, drops);
        rig.line(root, "drop dead *");
        requeues
    }),
    (&[Right::Admin], "purge, pause and resume function", |rig, root, peer, function| {
        let lines = ["purge function", "pause function", "resume function"];
        let may = lines.map(|line| answers(rig, peer, &format!("{line} {function}"), function));
        assert!(may == [may[0]; 3], "{may:?}");
        rig.line(root, &format!("resume function {function}"));
        may[0]
    }),
    (&[Right::Admin], "run job", |rig, root, peer, function| {
        let arguments: [&[u8]; 3] = [function.as_bytes(), b"", b"1800000000"];
        let reply = rig.ask(root, &packet(Command::SubmitJobEpoch, &arguments, b"x"));
        let handle = String::from_utf8(reply[12..].to_vec()).unwrap();
        answers(rig, peer, &format!("run job {handle}"), "")
    }),
    (&[Right::Admin], "create and drop function", |rig, root, peer, function| {
        let creates = answers(rig, peer, &format!("create function {function}"), function);
        let drops = answers(rig, peer, &format!("drop function {function}"), function);
        assert_eq!(creates, drops);
        // Without a worker it is gone, by the one or the other.
        rig.line(root, &format!("drop function {function}"));
        rig.line(root, &format!("create function {function}"));
        creates
    }),
];

/// What needs a right for all functions.
const GLOBAL: [(&[Right], &str); 7] = [
    (&[Right::Observe, Right::Admin], "workers"),
    (&[Right::Observe, Right::Admin], "show connections"),
    (&[Right::Observe, Right::Admin], "stats"),
    (&[Right::Observe, Right::Admin], "cluster #"),
    (&[Right::Admin], "verbose ERROR"),
    (&[Right::Admin], "show access"),
    (&[Right::Admin], "show refusals #"),
];

/// What the peer under test is chosen by, and where it comes from.
const WHO: [(&str, &str); 9] = [
    ("network = [\"10.1.0.0/16\"]", OTHER),
    ("network = [\"10.1.2.3\"]", "::ffff:10.1.2.3"),
    ("network = [\"::ffff:10.0.0.0/104\"]", OTHER),
    ("listener = [\"10.9.9.9\"]", OTHER),
    ("network = [\"10.0.0.0/8\"], listener = [\"10.9.9.9\", \"x\"]", OTHER),
    ("user = [33]", "33"),
    ("user = [\"nobody\", \"www-data\"]", "33"),
    ("user = [34]", "34"),
    ("user = [\"www-data\"], listener = [\"unix:/g.sock\"]", "33"),
];

/// The rules by which the peer may have one right, or none, for some functions or all.
fn rules(who: &str, right: Option<Right>, functions: &str) -> String {
    let open = format!("[[rule]]\nwho = {{ {who} }}\nmay = [\"submit\"]\nfunctions = [\"open\"]\n");
    let rule =
        right.map(|right| format!("[[rule]]\nwho = {{ {who} }}\nmay = [\"{right}\"]\n{functions}"));
    format!("{open}{}", rule.unwrap_or_default())
}

#[test]
fn each_right_opens_its_requests_for_its_functions_and_no_others() {
    let rights = [None].into_iter().chain(Right::ALL.map(Some));
    for (right, cores) in rights.flat_map(|right| [1, CORES].map(|cores| (right, cores))) {
        for (who, address) in WHO {
            // Each function is owned by another core, the peer's own one included.
            for core in 0..cores {
                let name = function(core);
                let functions = format!("functions = [\"x\", \"{name}*\"]\n");
                let mut rig = Rig::new(cores, &rules(who, right, &functions));
                let (root, peer) = (rig.connect(1 % cores, "127.0.0.1"), rig.connect(0, address));
                rig.line(root, &format!("create function {name}"));
                for (opening, probe_name, probe) in PROBES {
                    let what = format!("{probe_name} {name} with {right:?}, {cores} cores, {who}");
                    let expected = right.is_some_and(|right| opening.contains(&right));
                    assert_eq!(probe(&mut rig, root, peer, &name), expected, "{what}");
                }
                for (_, line) in GLOBAL {
                    assert!(!answers(&mut rig, peer, line, ""), "{line} with {right:?}");
                }
                // Of another function, nothing.
                let other = function((core + 1) % CORES);
                let mut rig = Rig::new(cores, &rules(who, right, &functions));
                let (root, peer) = (rig.connect(1 % cores, "127.0.0.1"), rig.connect(0, address));
                rig.line(root, &format!("create function {other}"));
                for (_, probe_name, probe) in PROBES {
                    let what = format!("{probe_name} {other} with {right:?}, {cores} cores");
                    assert!(!probe(&mut rig, root, peer, &other), "{what}");
                }
                if right.is_none() {
                    break;
                }
            }
            let mut rig = Rig::new(cores, &rules(who, right, ""));
            let peer = rig.connect(0, address);
            for (opening, line) in GLOBAL {
                let expected = right.is_some_and(|right| opening.contains(&right));
                assert_eq!(answers(&mut rig, peer, line, ""), expected, "{line} with {right:?}");
            }
            for line in ["version", "verbose", "getpid", "help", "status", "show nothing"] {
                assert!(answers(&mut rig, peer, line, ""), "{line} needs no right");
            }
        }
    }
}

#[test]
fn peers_by_unix_sockets_are_called_by_their_users() {
    let rule = "[[rule]]\nwho = { user = [33, 34] }\nmay = [\"observe\"]\n";
    let mut rig = Rig::new(3, rule);
    for (uid, name) in [("33", "user:www-data"), ("34", "user:34")] {
        let peer = rig.connect(0, uid);
        assert_eq!(rig.name(peer), name);
        assert!(rig.line(peer, "workers").contains(" unix - :\n"));
        assert!(rig.line(peer, "show connections").contains(&format!("\tunix:{uid}\t")));
        rig.submit(peer, "f");
        let root = rig.connect(1, "127.0.0.1");
        let refusals = rig.line(root, "show refusals #");
        assert!(refusals.contains(&format!("\t{name}\tsubmit\tf\n")), "{refusals}");
    }
}

/// A cluster in which workers of other hosts may run the functions of all cores.
fn working_cluster() -> (Cluster, [Arc<AccessList>; 2]) {
    let rule = |functions: &str| {
        format!("[[rule]]\nwho = {{ network = [\"10.0.0.0/8\"] }}\nmay = [\"work\"]\n{functions}")
    };
    // By the second one they may run the first core's only.
    let lists = [list(&rule("")), list(&rule(&format!("functions = [\"{}\"]", function(0))))];
    let mut cluster = Cluster::new(Durability::None, 1);
    cluster.shards[0].set_access_list(&lists[0], cluster.now);
    cluster.settle();
    (cluster, lists)
}

#[test]
fn a_worker_that_may_not_any_more_finishes_its_job_and_gets_no_other() {
    for (owner, home, moves) in (0..18).map(|n| (n % 3, n / 3 % 3, n / 9 == 1)) {
        let (mut cluster, lists) = working_cluster();
        let name = function(owner);
        let client = cluster.connect(1);
        let handle = cluster.submit(client, Command::SubmitJob, &name, "");
        cluster.submit(client, Command::SubmitJob, &name, "");
        let mut worker = cluster.connect_from(home, OTHER.parse().unwrap());
        cluster.packet(worker, Command::CanDo, &[name.as_bytes()], b"");
        assert_eq!(cluster.grab(worker).as_ref(), Some(&handle));
        cluster.shards[0].set_access_list(&lists[1], cluster.now);
        cluster.settle();
        if moves && home != owner {
            // It has to do with one other core only.
            cluster.let_move(1);
            cluster.packet(worker, Command::PreSleep, &[], b"");
            cluster.hear(worker);
            if cluster.shards[home].intake(worker.1) == Intake::Move {
                worker = cluster.hand_over(worker);
            }
        }
        let admin = cluster.connect(2);
        cluster.say(admin, b"workers\n");
        let registered = cluster.hear_text(admin).contains(&format!(": {name}\n"));
        assert_eq!(registered, owner == 0, "{owner} {home}");
        cluster.packet(worker, Command::WorkData, &[&handle], b"half");
        cluster.packet(worker, Command::WorkComplete, &[&handle], b"done");
        let expected = [
            response(Command::WorkData, &[&handle], b"half"),
            response(Command::WorkComplete, &[&handle], b"done"),
        ];
        assert_eq!(cluster.hear(client), expected.concat(), "{owner} {home}");
        assert_eq!(cluster.hear(worker), b"");
        assert_eq!(cluster.grab(worker).is_some(), owner == 0, "{owner} {home}");
        // It says so again, and may again.
        cluster.packet(worker, Command::CanDo, &[name.as_bytes()], b"");
        assert_eq!(cluster.grab(worker), None, "{owner} {home}");
        cluster.shards[0].set_access_list(&lists[0], cluster.now);
        cluster.settle();
        cluster.packet(worker, Command::CanDo, &[name.as_bytes()], b"");
        assert_eq!(cluster.grab(worker).is_some(), owner != 0, "{owner} {home}");
    }
}

#[test]
fn lists_change_while_jobs_run_and_none_is_lost() {
    const JOBS: usize = 10_000;
    let (mut cluster, lists) = working_cluster();
    // Messages arrive when this test says so, and invariants aren't checked after each.
    cluster.slow = true;
    let say = |cluster: &mut Cluster, peer, bytes: &[u8]| {
        cluster.say(peer, bytes);
        while cluster.step() {}
        cluster.hear(peer)
    };
    let client = cluster.connect(0);
    for at in 0..JOBS {
        let name = function(at % CORES);
        let submit = packet(Command::SubmitJobBg, &[name.as_bytes(), b""], b"x");
        say(&mut cluster, client, &submit);
    }
    let workers: Vec<Peer> =
        (0..2 * CORES).map(|at| cluster.connect_from(at % CORES, OTHER.parse().unwrap())).collect();
    let names: Vec<String> = (0..CORES).map(function).collect();
    let register: Vec<u8> =
        names.iter().flat_map(|name| packet(Command::CanDo, &[name.as_bytes()], b"")).collect();
    for &worker in &workers {
        say(&mut cluster, worker, &register);
    }
    let (mut done, mut reloads, mut rounds) = (0, 0, 0);
    let mut running: Vec<Option<Vec<u8>>> = vec![None; workers.len()];
    let no_job = response(Command::NoJob, &[], b"");
    while done < JOBS {
        for (at, &worker) in workers.iter().enumerate() {
            if let Some(handle) = running[at].take() {
                let result = packet(Command::WorkComplete, &[&handle], b"");
                assert_eq!(say(&mut cluster, worker, &result), b"", "every result is taken");
                done += 1;
            } else {
                let reply = say(&mut cluster, worker, &packet(Command::GrabJob, &[], b""));
                let handle = reply[12..].split(|&byte| byte == 0).next().unwrap();
                running[at] = (reply != no_job).then(|| handle.to_vec());
            }
        }
        rounds += 1;
        if reloads < 50 && rounds % 50 == 0 {
            reloads += 1;
            cluster.shards[0].set_access_list(&lists[reloads % 2], cluster.now);
            // Some cores hear of it later than others.
            for _ in 0..reloads % 4 {
                cluster.step();
            }
        }
        if reloads % 2 == 0 {
            for &worker in &workers {
                say(&mut cluster, worker, &register);
            }
        }
    }
    assert_eq!(reloads, 50);
    cluster.settle();
    assert!(cluster.shards.iter().all(Shard::is_idle));
    let totals = cluster.shards.iter().map(|shard| shard.engine().totals());
    assert_eq!(totals.flat_map(|it| it.rerun).sum::<u64>(), 0, "none was taken from its worker");
}

#[test]
fn a_list_that_comes_while_a_connection_moves_holds_where_it_arrives() {
    let (mut cluster, lists) = working_cluster();
    let name = function(1);
    let (core, conn) = cluster.connect_from(0, OTHER.parse().unwrap());
    cluster.let_move(1);
    cluster.packet((core, conn), Command::CanDo, &[name.as_bytes()], b"");
    cluster.packet((core, conn), Command::GrabJob, &[], b"");
    cluster.hear((core, conn));
    assert_eq!(cluster.shards[0].intake(conn), Intake::Move);
    let hand_over = cluster.shards[0].begin_hand_over(conn).unwrap();
    let migrating = cluster.shards[0].detach(hand_over, cluster.now);
    cluster.shards[0].set_access_list(&lists[1], cluster.now);
    cluster.settle();
    let worker = (1, cluster.shards[1].attach(0, migrating, cluster.now));
    cluster.settle();
    let client = cluster.connect(2);
    cluster.submit(client, Command::SubmitJobBg, &name, "");
    assert_eq!(cluster.grab(worker), None);
}

#[test]
fn hits_and_refusals_are_those_of_all_cores() {
    let rule = "[[rule]]\nwho = { network = [\"10.0.0.0/8\"] }\nmay-not = [\"submit\"]\n\
                functions = [\"f*\"]\n[[rule]]\nwho = {}\nmay = [\"submit\"]\n";
    for cores in [1, CORES] {
        let mut rig = Rig::new(cores, rule);
        for core in 0..cores {
            let peer = rig.connect(core, OTHER);
            for name in ["f1", "f1", "g", "a\tb"] {
                rig.submit(peer, name);
            }
            rig.line(peer, "drop function f1");
        }
        let root = rig.connect(cores - 1, "127.0.0.1");
        let n = cores as u64;
        let expected = format!(
            "# RULE\tLINE\tHITS\tWHO\tMAY\tMAY_NOT\tFUNCTIONS\n\
             1\t1\t1\tnetwork:127.0.0.1/32\tsubmit work observe admin\t-\t*\n\
             2\t4\t{}\tnetwork:10.0.0.0/8\t-\tsubmit\tf*\n\
             3\t8\t{}\t*\tsubmit\t-\t*\n\
             -\t-\t{n}\t-\t-\t-\t-\n.\n",
            2 * n,
            2 * n,
        );
        assert_eq!(rig.line(root, "show access #"), expected);
        let row = |right, function| format!("1700000000\t{OTHER}\t{right}\t{function}\n");
        let rows = [row("submit", "f1"), row("submit", "f1"), row("admin", "f1")].concat();
        let refusals = rig.line(root, "show refusals");
        assert_eq!(refusals, format!("{}.\n", rows.repeat(cores)));
        let stats = rig.line(root, "stats");
        for (right, count) in [("submit", 2 * n), ("work", 0), ("observe", 0), ("admin", n)] {
            let line = format!("refused_access_{right}_total\t{count}\n");
            assert!(stats.contains(&line), "{line}{stats}");
        }
    }
    let mut desk = Desk::new(settings());
    let conn = desk.connect();
    desk.say(conn, b"show access\nshow refusals\n");
    assert_eq!(desk.send_all(conn), b".\n.\n", "without a list");
}

#[test]
fn functions_that_differ_in_case_are_dropped_by_their_own_names() {
    let rule = "[[rule]]\nwho = { network = [\"10.0.0.0/8\"] }\nmay = [\"admin\"]\n\
                functions = [\"mail\"]\n";
    for cores in [1, CORES] {
        let mut rig = Rig::new(cores, rule);
        let (root, peer) = (rig.connect(0, "127.0.0.1"), rig.connect(0, OTHER));
        for name in ["mail", "MAIL"] {
            rig.line(root, &format!("create function {name}"));
        }
        assert_eq!(rig.line(peer, "drop function mail"), "OK\r\n");
        let refusal = format!("ERR PERMISSION_DENIED {OTHER}+may+not+admin+Mail\r\n");
        assert_eq!(rig.line(peer, "drop function Mail"), refusal);
        assert_eq!(rig.line(root, "status"), "MAIL\t0\t0\t0\n.\n");
    }
}
