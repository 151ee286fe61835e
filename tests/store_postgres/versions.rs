//! A database that an earlier version's server left: when it may be opened, and what is in it then.

use std::collections::BTreeMap;

use ringgear::cluster::blocks::BLOCK_BITS;
use ringgear::engine::handle::SLOT_BITS;
use ringgear::engine::record::Pause;
use ringgear::store::{OpenError, Store as _};

use super::server::{Server, leave, load};

/// Three jobs, one of them delayed, a dead letter and a pause, numbered from a clock.
const FOURTH_VERSION: &str = include_str!("version_4.sql");
/// The lock that a server of that version holds while it lives.
const LOCK: &str = "1919838066, 'ringgear_owner'::regclass::oid::int4";

#[test]
fn a_database_of_version_4_goes_on_as_partition_0_once_its_server_has_ended() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    admin.batch_execute(FOURTH_VERSION).unwrap();
    admin.batch_execute(&format!("SELECT pg_advisory_lock({LOCK})")).unwrap();
    match server.try_open() {
        Err(OpenError::Owned(sentence)) => assert!(sentence.contains("--standby"), "{sentence}"),
        other => panic!("{other:?}"),
    }
    let version = "SELECT version FROM ringgear_owner";
    let version_of =
        |admin: &mut postgres::Client| -> i32 { admin.query_one(version, &[]).unwrap().get(0) };
    assert_eq!(version_of(&mut admin), 4, "nothing is changed while that server lives");

    admin.batch_execute(&format!("SELECT pg_advisory_unlock({LOCK})")).unwrap();
    for _ in 0..2 {
        let mut store = server.open();
        let jobs = load(&mut store);
        let numbers: Vec<u64> = jobs.iter().map(|row| row.number).collect();
        assert_eq!(numbers, [7_552_727_561_011_489, 7_552_727_561_011_859, 7_552_727_561_012_104]);
        assert_eq!((&jobs[0].unique[..], &jobs[0].payload[..]), (&b"photo-7"[..], &b"a\0b"[..]));
        assert_eq!(jobs[2].run_at_ms, 1_806_036_969_000);
        let mut dead = Vec::new();
        store.load_dead(&mut |letter| dead.push(letter)).unwrap();
        let [letter] = &dead[..] else { panic!("{dead:?}") };
        assert_eq!((letter.row.attempts, letter.died_ms), (3, 1_796_036_970_000));
        assert_eq!((&letter.worker[..], &letter.message[..]), (&b"wanda"[..], &b"boom"[..]));
        let mut pauses = BTreeMap::new();
        store
            .load_pauses(&mut |function, pause| assert!(pauses.insert(function, pause).is_none()))
            .unwrap();
        assert_eq!(pauses, BTreeMap::from([("import".into(), Pause::Unlimited)]));

        let record = store.record().unwrap();
        assert_eq!(record.prefix.as_deref(), Some(&b"H:four"[..]));
        let sequences = store.reserve(b"H:four", 0).unwrap();
        assert!(sequences.start >= 29_507_137_002_497, "what that server had reserved");
        assert_eq!(sequences.start % (1 << BLOCK_BITS), 0);
        for number in numbers {
            assert_eq!(store.partition_of(number), 0);
            assert!(number >> SLOT_BITS < sequences.start);
        }
        leave(store);
    }
    assert_eq!(version_of(&mut admin), 5, "which a server of version 4 refuses");
}
