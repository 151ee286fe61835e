//! Dead letters, jobs to be run again and pauses, as operators see and change them: by text, and by
//! requests of the HTTP thread.

use super::access::Rig;
use super::cluster::{CORES, Cluster, Peer, function};
use super::*;
use crate::engine::dead::DeadBounds;
use crate::engine::glob::Glob;
use crate::engine::handle::{job_number, slot};
use crate::engine::policy::{Policy, Retries};
use crate::engine::reason::Reason;
use crate::protocol::access::{AccessList, Permissions};
use crate::shard::operator::{
    CancelOutcome, DeadAt, DeadChange, DeadFilter, LetterRow, OperatorReply, OperatorRequest,
    RunOutcome,
};
use crate::wire::Priority;

/// A dead letter with a number that no job of a test gets.
fn letter(function: &str, sequence: u64, unique: &str) -> DeadRow {
    let row = Row {
        number: job_number(1_000_000 + sequence, slot(function.as_bytes())),
        function: function.to_owned().into(),
        unique: unique.to_owned().into(),
        reducer: "".into(),
        payload: "payload".into(),
        priority: Priority::Low,
        run_at_ms: 0,
        attempts: 3,
        last_reason: Some(Reason::Fail),
        was_lost: false,
        submitted_ms: 1_699_999_000_000,
    };
    let died_ms = 1_699_999_990_500 + sequence;
    let (worker, message) = ("wanda".into(), "why".into());
    DeadRow { row, reason: Reason::Fail, died_ms, worker, message }
}

fn handle_of(row: &DeadRow) -> String {
    String::from_utf8(Handles::default().text(row.row.number).as_ref().to_vec()).unwrap()
}

impl Shard {
    /// Has a dead letter from now on; its handle.
    pub(super) fn given_letter(&mut self, function: &str, unique: &str, now: Now) -> String {
        let row = letter(function, self.engine.dead().end(), unique);
        assert!(self.restore_dead(&row, now));
        handle_of(&row)
    }
}

impl Cluster {
    /// Dead letters of a core's function; their handles.
    fn letters(&mut self, core: usize, count: usize) -> Vec<String> {
        let (name, now) = (function(core), self.now);
        (0..count).map(|_| self.shards[core].given_letter(&name, "", now)).collect()
    }

    fn line(&mut self, peer: Peer, line: &str) -> String {
        self.say(peer, format!("{line}\n").as_bytes());
        self.hear_text(peer)
    }

    /// The same, the rows in alphabetical order: cores come in their order, not functions.
    fn rows(&mut self, peer: Peer, line: &str) -> Vec<String> {
        let text = self.line(peer, line);
        let mut rows: Vec<String> = text.lines().map(str::to_owned).collect();
        assert_eq!(rows.pop().as_deref(), Some("."), "{text}");
        rows
    }

    fn use_policy(&mut self, attempts: u16) {
        let patterns = vec![Glob::new("*").unwrap()];
        let policy = Policy { patterns, retries: Some(Retries::of(attempts)), ..Policy::default() };
        self.shards[0].set_policies(&Arc::new(Policies(vec![policy])), self.now);
        self.settle();
    }

    /// A background job of a function that has failed once; its handle.
    fn failed(&mut self, client: Peer, worker: Peer, function: &str) -> String {
        let handle = self.submit(client, Command::SubmitJobBg, function, "");
        assert_eq!(self.grab(worker).as_ref(), Some(&handle));
        self.packet(worker, Command::WorkFail, &[&handle], b"");
        String::from_utf8(handle).unwrap()
    }
}

#[test]
fn dead_letters_of_all_cores_are_listed() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let admin = cluster.connect(0);
    assert_eq!(cluster.line(admin, "show dead"), ".\n");
    let handles: Vec<String> = (0..CORES).flat_map(|core| cluster.letters(core, 2)).collect();
    let rows = cluster.rows(admin, "show dead");
    let expected = (0..CORES).flat_map(|core| [(core, 0), (core, 1)]).zip(&handles);
    let expected = expected.map(|((core, _), handle)| {
        format!("{handle}\t{}\t-\tlow\t3\tfail\t1699999990\t7\twanda", function(core))
    });
    assert_eq!(rows, expected.collect::<Vec<_>>());
    let some = cluster.rows(admin, &format!("show dead {}*", function(1)));
    assert_eq!(some, rows[2..4]);
    assert_eq!(cluster.line(admin, "show dead f #").lines().count(), 2);
    assert!(cluster.line(admin, "Show DEAD #").starts_with("# HANDLE\tFUNCTION\tUNIQUE\tPRIO"));
    assert!(cluster.line(admin, "show dead f\\").starts_with("ERR INVALID_ARGUMENTS "));
    assert_eq!(cluster.line(admin, "show dead f g"), "ERR UNKNOWN_SHOW_ARGUMENTS\r\n");
}

#[test]
fn many_letters_are_requeued_in_portions_and_in_the_order_in_which_they_died() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let admin = cluster.connect(0);
    cluster.letters(0, 300);
    let handles = cluster.letters(1, 600);
    cluster.slow = true;
    cluster.say(admin, b"requeue dead *\nversion\n");
    let queued = |cluster: &Cluster| cluster.shards[1].engine().jobs().len();
    let (mut most, mut before) = (0, queued(&cluster));
    while cluster.step() || cluster.shards[0].has_resumed() {
        let after = queued(&cluster);
        most = most.max(after - before);
        before = after;
    }
    cluster.slow = false;
    assert_eq!(most, 256);
    assert_eq!(cluster.hear_text(admin), "OK 900\r\nOK 0.1\n");
    let worker = cluster.worker(2, &[function(1)]);
    for handle in handles {
        assert_eq!(cluster.grab(worker), Some(handle.into_bytes()));
    }
    assert_eq!(cluster.line(admin, "requeue dead *"), "OK 0\r\n");
}

#[test]
fn a_core_gives_others_their_turn_between_two_portions() {
    let mut desk = Desk::new(settings());
    let admin = desk.connect();
    for _ in 0..600 {
        desk.shard.given_letter("resize", "", desk.now);
    }
    desk.say(admin, b"drop dead r*\n");
    let mut left = Vec::new();
    loop {
        while desk.shard.poll_dirty(desk.now).is_some() {}
        left.push(desk.shard.engine().dead().len());
        if !desk.shard.has_resumed() {
            break;
        }
    }
    assert_eq!(left, [344, 88, 0]);
    assert_eq!(desk.send_all(admin), b"OK 600\r\n");
}

#[test]
fn letters_are_named_by_handle_function_or_pattern() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let admin = cluster.connect(0);
    for (core, name) in (0..CORES).map(|core| (core, function(core))) {
        let now = cluster.now;
        let handle = cluster.shards[core].given_letter(&name, "key", now);
        let twin = cluster.shards[core].given_letter(&name, "key", now);
        let job = "ERR UNKNOWN_JOB\r\n";
        assert_eq!(cluster.line(admin, &format!("REQUEUE Dead {handle}")), "OK 1\r\n");
        assert_eq!(cluster.line(admin, &format!("requeue dead {handle}")), job, "it lives");
        assert_eq!(cluster.line(admin, &format!("drop dead {handle}")), job);
        let in_use = "OK 0 skipped 1 unique_in_use\r\n";
        assert_eq!(cluster.line(admin, &format!("requeue dead {twin}")), in_use);
        assert_eq!(cluster.line(admin, &format!("requeue dead {name}")), in_use);
        assert_eq!(cluster.line(admin, "requeue dead nothing*"), "OK 0\r\n");
        assert_eq!(cluster.line(admin, &format!("cancel job {handle}")), "OK\r\n");
        cluster.shards[core].given_letter(&name, "key", now);
        let in_use = "OK 1 skipped 1 unique_in_use\r\n";
        assert_eq!(cluster.line(admin, &format!("requeue dead {name}")), in_use);
        let last = cluster.shards[core].given_letter(&name, "", now);
        assert_eq!(cluster.line(admin, &format!("cancel job {last}")), "OK\r\n", "a dead one");
        assert_eq!(cluster.line(admin, &format!("cancel job {last}")), job);
        assert_eq!(cluster.line(admin, &format!("drop dead {name}")), "OK 1\r\n");
        assert_eq!(cluster.shards[core].engine().dead().len(), 0);
    }
    for line in ["requeue", "requeue dead", "requeue dead a b", "requeue job x", "requeue dead "] {
        let expected = "ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+\
                        command+requeue\r\n";
        assert_eq!(cluster.line(admin, line), expected, "{line}");
    }
    assert!(cluster.line(admin, "drop dead").ends_with("command+drop\r\n"));
    assert!(cluster.line(admin, "drop dead x\\").starts_with("ERR INVALID_ARGUMENTS A+pattern"));
}

#[test]
fn a_letter_beyond_the_bounds_leaves_no_job_in_the_store() {
    let mut settings = settings();
    settings.engine.durabilities.default = Durability::Fsync;
    settings.engine.dead = DeadBounds::new(0, 1 << 20, 1 << 40);
    let policy = Policy {
        patterns: vec![Glob::new("*").unwrap()],
        retries: Some(Retries::of(1)),
        ..Policy::default()
    };
    settings.engine.policies = Arc::new(Policies(vec![policy]));
    let mut desk = Desk::new(settings);
    let conn = desk.connect();
    desk.say(conn, &packet(Command::SubmitJobBg, &[b"resize", b""], b"x"));
    let number = desk.inserted()[0];
    desk.shard.stored(number, true, desk.now);
    desk.say(conn, &packet(Command::CanDo, &[b"resize"], b""));
    desk.say(conn, &packet(Command::GrabJob, &[], b""));
    desk.say(conn, &packet(Command::WorkFail, &[&handle(1)], b""));
    let mut operations = Vec::new();
    desk.shard.take_operations(&mut operations);
    assert_eq!(operations, [Operation::Remove { number }, Operation::RemoveDead { number }]);
    assert_eq!(desk.shard.engine().counters.dead_dropped, [1, 0, 0]);
}

#[test]
fn jobs_to_be_run_again_count_by_their_priority() {
    let mut cluster = Cluster::new(Durability::None, 1);
    cluster.use_policy(5);
    let (client, name) = (cluster.connect(0), function(1));
    let worker = cluster.worker(0, std::slice::from_ref(&name));
    let handle = cluster.submit(client, Command::SubmitJobHighBg, &name, "");
    assert_eq!(cluster.grab(worker).as_ref(), Some(&handle));
    cluster.packet(worker, Command::WorkFail, &[&handle], b"");
    assert_eq!(cluster.rows(client, "prioritystatus"), [format!("{name}\t1\t0\t0\t1")]);
}

#[test]
fn jobs_that_wait_are_listed_started_and_purged_by_what_they_wait_for() {
    let mut cluster = Cluster::new(Durability::None, 1);
    cluster.use_policy(5);
    let (admin, client) = (cluster.connect(0), cluster.connect(2));
    for name in (0..CORES).map(function) {
        let worker = cluster.worker(0, std::slice::from_ref(&name));
        let failed = cluster.failed(client, worker, &name);
        let arguments: [&[u8]; 3] = [name.as_bytes(), b"key", b"1700000900"];
        cluster.packet(client, Command::SubmitJobEpoch, &arguments, b"x");
        let epoch = String::from_utf8(cluster.hear(client)[12..].to_vec()).unwrap();
        let waiting = cluster.submit(client, Command::SubmitJob, &name, "");
        let retrying = cluster.rows(admin, "show retrying");
        let due = |s: u64| format!("{failed}\t{name}\t-\t1\t170000000{s}\tfail");
        assert!(retrying == [due(0)] || retrying == [due(1)], "{retrying:?}");
        let delayed = [format!("{epoch}\t{name}\tkey\t0\t1700000900\t-")];
        assert_eq!(cluster.rows(admin, &format!("show delayed {name}")), delayed);
        let titles = cluster.line(admin, "show retrying x #");
        assert_eq!(titles, "# HANDLE\tFUNCTION\tUNIQUE\tATTEMPTS\tDUE_AT\tLAST_REASON\n.\n");

        for (line, reply) in [
            (format!("run job {failed}"), "OK\r\n"),
            (format!("run job {failed}"), "ERR UNKNOWN_JOB\r\n"),
            ("run job x".to_owned(), "ERR UNKNOWN_JOB\r\n"),
            (format!("purge function {name} DELAYED"), "OK 1\r\n"),
            (format!("purge function {name} retrying"), "OK 0\r\n"),
            (format!("purge function {name} dead"), "OK 0\r\n"),
            (format!("purge function {name}"), "OK 2\r\n"),
            (format!("purge function {name} queued"), "OK 0\r\n"),
            ("purge function x running".to_owned(), {
                "ERR UNKNOWN_STATE queued,+delayed,+retrying+or+dead\r\n"
            }),
        ] {
            assert_eq!(cluster.line(admin, &line), reply, "{line}");
        }
        let fail = response(Command::WorkFail, &[&waiting], b"");
        assert_eq!(cluster.hear(client), fail, "its client waits");
        cluster.failed(client, worker, &name);
        cluster.letters(0, 1);
        assert_eq!(cluster.line(admin, "purge function f* retrying"), "OK 1\r\n");
        assert_eq!(cluster.line(admin, "purge function * dead"), "OK 1\r\n");
        assert!(cluster.shards.iter().all(Shard::is_idle));
        cluster.leave(worker);
    }
}

#[test]
fn a_paused_function_queues_its_jobs_until_it_is_resumed_or_its_time_is_over() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let (admin, client) = (cluster.connect(0), cluster.connect(2));
    for name in (0..CORES).map(function) {
        let worker = cluster.worker(1, std::slice::from_ref(&name));
        for (pause, resume) in [
            (format!("pause function {name}"), Some(format!("resume function {name}"))),
            (format!("pause function {name}*"), Some("RESUME FUNCTION *".to_owned())),
            (format!("PAUSE Function {name} 7"), None),
        ] {
            assert_eq!(cluster.line(admin, &pause), "OK\r\n");
            cluster.submit(client, Command::SubmitJobBg, &name, "");
            cluster.now.mono_ms += 6999;
            cluster.now.unix_ms += 6999;
            for shard in &mut cluster.shards {
                shard.tick(cluster.now);
            }
            assert_eq!(cluster.grab(worker), None, "{pause}");
            match resume {
                Some(resume) => assert_eq!(cluster.line(admin, &resume), "OK\r\n"),
                None => {
                    cluster.now.mono_ms += 1;
                    cluster.now.unix_ms += 1;
                    for shard in &mut cluster.shards {
                        shard.tick(cluster.now);
                    }
                }
            }
            let handle = cluster.grab(worker).expect("it goes on");
            cluster.packet(worker, Command::WorkComplete, &[&handle], b"");
        }
        cluster.leave(worker);
    }
    assert_eq!(cluster.line(admin, "pause function new"), "OK\r\n", "of which nobody has heard");
    let seconds = "ERR INVALID_ARGUMENTS SECONDS+is+a+whole+number+above+0\r\n";
    for word in ["0", "-1", "+1", "1s", "x", "99999999999"] {
        assert_eq!(cluster.line(admin, &format!("pause function x {word}")), seconds, "{word}");
    }
    for (line, command) in [
        ("pause", "pause"),
        ("pause function", "pause"),
        ("resume function ", "resume"),
        ("resume function x 7", "resume"),
        ("pause function x 1 2", "pause"),
        ("purge job x", "purge"),
        ("run", "run"),
    ] {
        let reply = cluster.line(admin, line);
        assert!(reply.starts_with("ERR INVALID_ARGUMENTS An+"), "{line}: {reply}");
        assert!(reply.ends_with(&format!("+command+{command}\r\n")), "{line}: {reply}");
    }
}

#[test]
fn a_policy_is_shown_on_every_core() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let admin = cluster.connect(1);
    assert_eq!(cluster.line(admin, "show policy f"), ".\n");
    cluster.use_policy(4);
    let text = cluster.line(admin, "show policy f");
    assert!(text.starts_with("match\t\"*\"\nattempts\t4\nretry\t[\"lost\", "), "{text}");
    assert!(text.ends_with("dead\ttrue\n.\n"), "{text}");
    assert_eq!(cluster.line(admin, "show policy"), "ERR UNKNOWN_SHOW_ARGUMENTS\r\n");
}

/// A peer that may administer some functions only, by patterns that name more.
#[test]
fn a_pattern_covers_functions_only_that_the_peer_may_administer() {
    let (mine, other) = (function(1), function(2));
    let who = "who = { network = [\"10.0.0.0/8\"] }";
    let rules = format!(
        "[[rule]]\n{who}\nmay = [\"admin\"]\nfunctions = [\"{mine}\"]\n\
         [[rule]]\n{who}\nmay = [\"observe\"]\n"
    );
    for cores in [1, CORES] {
        let mut rig = Rig::new(cores, &rules);
        let (root, peer) = (rig.connect(0, "127.0.0.1"), rig.connect(0, "10.1.2.3"));
        for name in [&mine, &other] {
            rig.given_letter(name);
            rig.submit(root, name);
        }
        let rows = |rig: &mut Rig, line: &str| rig.line(root, line).lines().count() - 1;
        assert_eq!(rig.line(peer, "requeue dead *"), "OK 1\r\n");
        assert_eq!(rig.line(peer, "drop dead *"), "OK 0\r\n");
        assert_eq!((rows(&mut rig, "show dead"), rows(&mut rig, "show jobs")), (1, 3));
        assert_eq!(rig.line(peer, "purge function *"), "OK 2\r\n");
        assert_eq!(rig.line(peer, "pause function *"), "OK\r\n");
        rig.ask(root, &packet(Command::CanDo, &[other.as_bytes()], b""));
        let reply = rig.ask(root, &packet(Command::GrabJob, &[], b""));
        assert_ne!(reply, response(Command::NoJob, &[], b""), "it isn't paused");
        let lone = rig.connect(0, "192.0.2.1");
        for line in ["requeue dead *", "drop dead f*", "purge function *", "resume function ?"] {
            let refusal = "ERR PERMISSION_DENIED 192.0.2.1+may+not+admin\r\n";
            assert_eq!(rig.line(lone, line), refusal, "{line}");
        }
    }
}

#[test]
fn a_worker_hears_that_its_job_is_cancelled_if_it_has_asked_for_that() {
    for (owner, home, moves) in (0..18).map(|n| (n % 3, n / 3 % 3, n / 9 == 1)) {
        let mut cluster = Cluster::new(Durability::None, 1);
        let (admin, client) = (cluster.connect(0), cluster.connect(1));
        let name = function(owner);
        let mut worker = cluster.connect(home);
        cluster.packet(worker, Command::OptionReq, &[b"Cancel-Notice"], b"");
        assert_eq!(cluster.hear(worker), response(Command::OptionRes, &[b"Cancel-Notice"], b""));
        cluster.packet(worker, Command::CanDo, &[name.as_bytes()], b"");
        let deaf = cluster.worker(home, std::slice::from_ref(&name));
        cluster.submit(client, Command::SubmitJobBg, &name, "");
        let handle = cluster.grab(worker).unwrap();
        if moves && home != owner {
            cluster.let_move(100);
            cluster.packet(worker, Command::PreSleep, &[], b"");
            worker = cluster.hand_over(worker);
            cluster.let_move(0);
        }
        let line = format!("cancel job {}", String::from_utf8(handle.clone()).unwrap());
        assert_eq!(cluster.line(admin, &line), "OK\r\n");
        assert_eq!(cluster.hear(worker), response(Command::WorkFail, &[&handle], b""));
        cluster.submit(client, Command::SubmitJobBg, &name, "");
        let handle = cluster.grab(deaf).unwrap();
        let line = format!("cancel job {}", String::from_utf8(handle.clone()).unwrap());
        assert_eq!(cluster.line(admin, &line), "OK\r\n");
        assert_eq!(cluster.hear(deaf), b"", "it hasn't");
    }
}

#[test]
fn a_worker_may_say_of_a_job_that_it_failed_behind_its_exception() {
    let error =
        response(Command::Error, &[b"JOB_NOT_FOUND", b"Job given in work result not found"], b"");
    for (owner, home) in (0..9).map(|n| (n % 3, n / 3)) {
        let mut cluster = Cluster::new(Durability::None, 1);
        let (client, name) = (cluster.connect(1), function(owner));
        let worker = cluster.worker(home, std::slice::from_ref(&name));
        for between in [None, Some(Command::EchoReq)] {
            cluster.submit(client, Command::SubmitJobBg, &name, "");
            let handle = cluster.grab(worker).unwrap();
            cluster.packet(worker, Command::WorkException, &[&handle], b"why");
            between.into_iter().for_each(|it| cluster.packet(worker, it, &[], b""));
            cluster.hear(worker);
            cluster.packet(worker, Command::WorkFail, &[&handle], b"");
            let expected = if between.is_some() { &error[..] } else { b"" };
            assert_eq!(cluster.hear(worker), expected);
            cluster.packet(worker, Command::WorkFail, &[&handle], b"");
            assert_eq!(cluster.hear(worker), error, "once more is once too often");
        }
    }
}

impl Cluster {
    fn dead_rows(&mut self, core: usize, filter: DeadFilter, limit: usize) -> Vec<LetterRow> {
        let (mut at, mut rows) = (Some(DeadAt::START), Vec::new());
        while let Some(from) = at {
            let request = OperatorRequest::Dead { filter: filter.clone(), at: from, limit };
            let OperatorReply::Dead(more, next) = self.ask(core, request) else { panic!() };
            assert!(more.len() <= limit);
            rows.extend(more);
            at = next;
        }
        rows
    }
}

#[test]
fn the_http_thread_lists_letters_by_filter_in_parts_of_any_size() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let handles = cluster.letters(1, 7);
    let now = cluster.now;
    cluster.shards[1].given_letter(&function(1), "key", now);
    let all = DeadFilter::default();
    for limit in [1, 2, 256] {
        let rows = cluster.dead_rows(1, all.clone(), limit);
        let listed = rows.iter().map(|row| &*row.handle);
        assert!(listed.take(7).eq(handles.iter().map(|it| &**it)), "{limit}");
        assert_eq!(rows.len(), 8);
    }
    let nothing = Arc::new(AccessList::new(Vec::new()));
    let nothing = Some(Arc::new(Permissions::of(&nothing, &Default::default())));
    for (filter, count) in [
        (DeadFilter { unique: Some((*b"key").into()), ..all.clone() }, 1),
        (DeadFilter { reason: Some(Reason::Lost), ..all.clone() }, 0),
        (DeadFilter { reason: Some(Reason::Fail), ..all.clone() }, 8),
        // The last one died 7 ms after the first, 9.5 s ago.
        (DeadFilter { older_ms: Some(9497), ..all.clone() }, 4),
        (DeadFilter { function: Some(Glob::new("g*").unwrap()), ..all.clone() }, 0),
        (DeadFilter { access: nothing.clone(), ..all.clone() }, 0),
    ] {
        assert_eq!(cluster.dead_rows(1, filter.clone(), 256).len(), count, "{filter:?}");
    }
    let number = letter(&function(1), 0, "").row.number;
    for (access, payload_bytes, payload) in
        [(None, 0, Some(&b""[..])), (None, 3, Some(b"pay")), (nothing, 0, None)]
    {
        let request = OperatorRequest::DeadLetter { number, payload_bytes, access };
        let OperatorReply::DeadLetter(row) = cluster.ask(1, request) else { panic!() };
        let row = row.as_deref();
        assert_eq!(row.map(|row| &*row.payload), payload);
        assert!(row.is_none_or(|row| *row.message == *b"why" && row.payload_bytes == 7));
    }
}

#[test]
fn a_change_of_many_ends_with_the_letters_that_there_were_when_it_began() {
    let mut cluster = Cluster::new(Durability::None, 1);
    cluster.letters(1, 300);
    let filter = DeadFilter::default();
    let change = |cluster: &mut Cluster, at| {
        let request = OperatorRequest::Requeue { filter: filter.clone(), at };
        let OperatorReply::DeadChanged(change) = cluster.ask(1, request) else { panic!() };
        change
    };
    let DeadChange { done: 256, skipped: 0, next: Some(next) } =
        change(&mut cluster, DeadAt::START)
    else {
        panic!()
    };
    cluster.letters(1, 5);
    let rest = change(&mut cluster, next);
    assert_eq!(rest, DeadChange { done: 44, skipped: 0, next: None });
    let request = OperatorRequest::RemoveDead { filter: DeadFilter::default(), at: DeadAt::START };
    let OperatorReply::DeadChanged(removed) = cluster.ask(1, request) else { panic!() };
    assert_eq!(removed, DeadChange { done: 5, skipped: 0, next: None });
}

#[test]
fn the_http_thread_starts_cancels_and_pauses() {
    let mut cluster = Cluster::new(Durability::None, 1);
    cluster.use_policy(5);
    let (client, name) = (cluster.connect(0), function(1));
    let worker = cluster.worker(0, std::slice::from_ref(&name));
    let failed = cluster.failed(client, worker, &name);
    let number = Handles::default().number(failed.as_bytes()).unwrap();
    let nothing = Arc::new(AccessList::new(Vec::new()));
    let nothing = Some(Arc::new(Permissions::of(&nothing, &Default::default())));
    for (number, access, outcome) in [
        (number, nothing, RunOutcome::Forbidden),
        (number, None, RunOutcome::Queued),
        (number, None, RunOutcome::NotWaiting),
        (number + 256, None, RunOutcome::Unknown),
    ] {
        let reply = cluster.ask(1, OperatorRequest::RunNow { number, access });
        assert!(matches!(reply, OperatorReply::Run(it) if it == outcome), "{reply:?}");
    }
    let function: Box<[u8]> = name.as_bytes().into();
    let request = OperatorRequest::Pause { function: function.clone(), pause: Pause::Unlimited };
    assert!(matches!(cluster.ask(1, request), OperatorReply::Paused(true)));
    assert_eq!(cluster.grab(worker), None);
    let request = OperatorRequest::Resume { function };
    assert!(matches!(cluster.ask(1, request), OperatorReply::Resumed(true)));
    assert!(cluster.grab(worker).is_some());
    let dead = cluster.letters(1, 1).pop().unwrap();
    let number = Handles::default().number(dead.as_bytes()).unwrap();
    for outcome in [CancelOutcome::Cancelled, CancelOutcome::Unknown] {
        let reply = cluster.ask(1, OperatorRequest::Cancel { number, access: None });
        assert!(matches!(reply, OperatorReply::Cancelled(it) if it == outcome), "{reply:?}");
    }
}
