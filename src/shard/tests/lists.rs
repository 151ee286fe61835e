//! The lists and numbers of the text protocol: in turns, and over several cores.

use super::cluster::{CORES, Cluster, function};
use super::*;

/// The rest of a turn, and how many more turns the shard asks for at once.
fn run_turns(desk: &mut Desk) -> usize {
    let mut turns = 1;
    loop {
        while desk.shard.poll_dirty(desk.now).is_some() {}
        if !desk.shard.has_resumed() {
            return turns;
        }
        turns += 1;
    }
}

/// A list that looks at many records for few rows has parts without any row: nothing leaves then,
/// after which the next part could follow.
#[test]
fn a_list_of_few_rows_among_many_records_takes_several_turns() {
    let mut desk = Desk::new(settings());
    let (client, admin) = (desk.connect(), desk.connect());
    for _ in 0..100_000 {
        desk.say(client, &packet(Command::SubmitJobBg, &[b"resize", b""], b""));
        while desk.send_one(client).is_some() {}
    }
    run_turns(&mut desk);
    desk.say(admin, b"show running\n");
    assert_eq!(desk.send_all(admin), b"", "the first part has no row");
    assert!(run_turns(&mut desk) >= 3, "others have their turn between two parts");
    assert_eq!(desk.send_all(admin), b".\n");
    assert_eq!(run_turns(&mut desk), 1);
}

#[test]
fn the_next_start_is_looked_for_in_several_turns() {
    let mut desk = Desk::new(settings());
    let (client, admin) = (desk.connect(), desk.connect());
    for after in 0..20_000_u64 {
        let start_s = (1_700_000_100 + after).to_string();
        let arguments: [&[u8]; 3] = [b"resize", b"", start_s.as_bytes()];
        desk.say(client, &packet(Command::SubmitJobEpoch, &arguments, b""));
        while desk.send_one(client).is_some() {}
    }
    desk.say(admin, &[b"cancel job ", &handle(1)[..], b"\n"].concat());
    desk.send_all(admin);
    run_turns(&mut desk);
    desk.say(admin, b"show functions\n");
    assert!(run_turns(&mut desk) >= 4);
    let row = "resize\t0\t0\t0\t0\t0\t-\t19999\t1700000101\t0\t0\n.\n";
    assert_eq!(String::from_utf8(desk.send_all(admin)).unwrap(), row);
}

/// The value of a line of `stats`.
fn value(text: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.split_once('\t'));
    lines.find(|(found, _)| *found == name).unwrap().1.parse().unwrap()
}

#[test]
fn stats_are_the_sums_of_all_cores() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let mut admins = Vec::new();
    for core in 0..CORES {
        let client = cluster.connect(core);
        for function in (0..CORES).map(function) {
            cluster.packet(client, Command::SubmitJobBg, &[function.as_bytes(), b""], b"x");
        }
        admins.push(cluster.connect(core));
    }
    let worker = cluster.worker(0, &[function(0), function(1)]);
    cluster.packet(worker, Command::GrabJob, &[], b"");
    for admin in admins {
        cluster.hear_text(admin);
        cluster.say(admin, b"stats\n");
        let text = cluster.hear_text(admin);
        let cores = CORES as u64;
        assert_eq!(value(&text, "cores"), cores);
        assert_eq!(value(&text, "connections"), 2 * cores + 1);
        assert_eq!(value(&text, "functions"), cores);
        assert_eq!(value(&text, "registrations"), 2);
        assert_eq!(value(&text, "jobs_submitted_total"), cores * cores);
        assert_eq!(value(&text, "jobs_running"), 1);
        assert_eq!(value(&text, "jobs_queued_normal"), cores * cores - 1);
        assert!(text.ends_with("\n.\n"));
    }
}

/// A worker of another core was known by nothing but a number where its job is.
#[test]
fn running_jobs_name_workers_of_other_cores() {
    let mut cluster = Cluster::new(Durability::None, 1);
    let client = cluster.connect(0);
    for function in (0..CORES).map(function) {
        cluster.packet(client, Command::SubmitJobBg, &[function.as_bytes(), b"u"], b"x");
    }
    let functions: Vec<String> = (0..CORES).map(function).collect();
    let worker = cluster.worker(1, &functions);
    cluster.packet(worker, Command::SetClientId, &[b"wanda"], b"");
    for _ in 0..CORES {
        cluster.packet(worker, Command::GrabJob, &[], b"");
    }
    let admin = cluster.connect(0);
    cluster.say(admin, b"show running\n");
    let text = cluster.hear_text(admin);
    let rows: Vec<Vec<&str>> = text.lines().map(|row| row.split('\t').collect()).collect();
    assert_eq!(rows.len(), CORES + 1, "{text}");
    for row in &rows[..CORES] {
        assert_eq!((&row[2][..10], row[3], row[6], row[7]), ("127.0.0.1:", "wanda", "0", "u"));
    }
}
