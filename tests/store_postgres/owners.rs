//! One owner at a time: which server is refused, which waits, and how an owner learns of its end.

use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use postgres::error::SqlState;
use ringgear::cluster::lease::Lease;
use ringgear::engine::record::{Operation, Runs};
use ringgear::store::open::Membership;
use ringgear::store::postgres::{Opening, Postgres};
use ringgear::store::{OpenError, Store as _, StoreError};

use super::server::{
    LEASE, PATIENCE, Server, backend, insert, insist, leave, member, numbers, opening, wait_for,
    wait_for_blocked,
};

/// Opens the store on another thread, however long that takes; returns once it is waiting.
fn standby(server: &Server) -> JoinHandle<Result<Postgres, OpenError>> {
    standby_with(server, LEASE)
}

fn standby_with(server: &Server, lease: Duration) -> JoinHandle<Result<Postgres, OpenError>> {
    let conninfo = server.conninfo("jobs") + " application_name=standby";
    let (waits, waiting) = mpsc::channel();
    let standby = thread::spawn(move || {
        let membership = Membership { lease: Lease::new(lease), ..member() };
        let opening = Opening { is_standby: true, ..opening(&conninfo, &membership) };
        Postgres::open(&opening, &|| 1, &mut || waits.send(()).is_ok())
    });
    waiting.recv().unwrap();
    thread::spawn(move || {
        // Asked for as long as it waits.
        while waiting.recv().is_ok() {}
        standby.join().unwrap()
    })
}

/// Opens a store that leaves locks of others more time.
fn open_with(server: &Server, lease: Duration) -> Postgres {
    let membership = Membership { lease: Lease::new(lease), ..member() };
    Postgres::open(&opening(&server.conninfo("jobs"), &membership), &|| 1, &mut || false).unwrap()
}

/// A store that beats, as one in a server does.
struct Beating {
    store: Arc<Mutex<Option<Postgres>>>,
}

impl Beating {
    fn start(store: Postgres) -> Self {
        let store = Arc::new(Mutex::new(Some(store)));
        let beating = Arc::clone(&store);
        thread::spawn(move || {
            while let Some(store) = &mut *beating.lock().unwrap() {
                store.check().unwrap();
                thread::park_timeout(LEASE / 20);
            }
        });
        Self { store }
    }

    fn stop(self) -> Postgres {
        self.store.lock().unwrap().take().unwrap()
    }
}

#[test]
fn a_second_owner_is_turned_away() {
    let Some(server) = Server::start() else { return };
    let store = Beating::start(server.open());
    let error = server.try_open().unwrap_err();
    assert!(matches!(error, OpenError::Owned(_)), "{error}");
    let sentence = error.to_string();
    for part in ["the one at here", "--standby", "--cluster"] {
        assert!(sentence.contains(part), "{sentence}");
    }
    let mut store = store.stop();
    store.commit(&[insert(1)]).unwrap();
    leave(store);
    assert_eq!(numbers(&mut server.open()), [1]);
}

#[test]
fn a_standby_goes_on_with_the_jobs() {
    let Some(mut server) = Server::start() else { return };
    let mut store = server.open();
    let standby = standby_with(&server, PATIENCE);
    store.commit(&[insert(256), insert(512)]).unwrap();
    // Without waiting for the end of a lease.
    leave(store);
    let mut store = standby.join().unwrap().unwrap();
    assert_eq!(numbers(&mut store), [256, 512]);
    store.commit(&[Operation::Remove { number: 256 }]).unwrap();

    // One that waits while the server itself is away.
    let standby = self::standby(&server);
    server.kill();
    drop(store);
    server.run();
    assert_eq!(numbers(&mut standby.join().unwrap().unwrap()), [512]);
}

/// A server that is killed is replaced at once where its process can be looked for, and where its
/// lock tells of it much sooner than its lease.
#[test]
fn an_owner_that_has_ended_is_not_waited_for() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    let mut store = open_with(&server, PATIENCE);
    store.commit(&[insert(1)]).unwrap();
    // As if the process with this number had been started later.
    let ended = "UPDATE ringgear_partition
                 SET owner = set_byte(owner, 27, (get_byte(owner, 27) + 1) % 256)";
    admin.batch_execute(ended).unwrap();
    let started = Instant::now();
    let mut other = open_with(&server, PATIENCE);
    assert!(started.elapsed() < PATIENCE / 6, "{:?}", started.elapsed());
    assert_eq!(numbers(&mut other), [1]);
    let error = store.check().unwrap_err();
    assert!(matches!(error, StoreError::Lost(_)), "{error}");

    let standby = standby_with(&server, PATIENCE);
    let started = Instant::now();
    drop(other);
    assert_eq!(numbers(&mut standby.join().unwrap().unwrap()), [1]);
    assert!(started.elapsed() < PATIENCE / 6, "{:?}", started.elapsed());
}

/// The database failed over and came back, the standby connected first, and the healthy owner ended
/// with all the jobs that only its memory had.
#[test]
fn after_a_failover_of_the_database_the_owner_goes_on() {
    let Some(mut server) = Server::start() else { return };
    let lease = 3 * LEASE;
    let mut store = open_with(&server, lease);
    store.commit(&[insert(1)]).unwrap();
    let standby = standby_with(&server, lease);
    for number in [2, 3] {
        server.kill();
        server.run();
        let mut admin = server.admin("jobs");
        // The standby is back and has looked more than once.
        let sql = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'standby' \
                   AND query_start > backend_start + interval '1s')";
        wait_for(&mut admin, sql);
        insist(&mut store, &[insert(number)]);
        assert!(!standby.is_finished());
    }
    // An owner that is idle notices by itself.
    server.kill();
    server.run();
    store.check().unwrap();
    // One that doesn't come back is replaced.
    server.kill();
    server.run();
    let mut other = standby.join().unwrap().unwrap();
    let error = store.check().unwrap_err();
    assert!(matches!(error, StoreError::Lost(_)), "{error}");
    assert_eq!(numbers(&mut other), [1, 2, 3]);
}

#[test]
fn a_standby_refuses_what_a_newer_version_has_taken_over() {
    let Some(server) = Server::start() else { return };
    let store = server.open();
    let standby = standby(&server);
    server.admin("jobs").batch_execute("UPDATE ringgear_owner SET version = 6").unwrap();
    match standby.join().unwrap() {
        Err(OpenError::Store(StoreError::Unusable(sentence))) => {
            assert!(sentence.contains("newer"), "{sentence}");
        }
        other => panic!("{other:?}"),
    }
    drop(store);
}

#[test]
fn an_owner_that_was_cut_off_goes_on_unless_another_took_over() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    let mut store = server.open();
    store.commit(&[insert(1)]).unwrap();

    let pid = backend(&mut admin);
    admin.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
    wait_for(&mut admin, &format!("SELECT NOT EXISTS (SELECT FROM pg_locks WHERE pid = {pid})"));
    insist(&mut store, &[insert(2)]);
    assert_ne!(backend(&mut admin), pid);

    let standby = standby(&server);
    let pid = backend(&mut admin);
    admin.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
    let mut other = standby.join().unwrap().unwrap();
    // The end of the connection may be noticed first.
    let error = match store.commit(&[insert(3)]).unwrap_err() {
        StoreError::Unavailable(_) => store.commit(&[insert(3)]).unwrap_err(),
        error => error,
    };
    assert!(matches!(error, StoreError::Lost(_)), "{error}");
    other.commit(&[insert(4)]).unwrap();
    assert_eq!(numbers(&mut other), [1, 2, 4]);

    // Also once the other one is gone.
    leave(other);
    let error = store.commit(&[insert(5)]).unwrap_err();
    assert!(matches!(error, StoreError::Lost(_)), "{error}");
    assert!(matches!(store.load(&mut drop), Err(StoreError::Lost(_))));
    assert_eq!(numbers(&mut server.open()), [1, 2, 4]);
}

/// A failover without synchronous replication may take back that a server became the owner. The
/// healthy server took it for the work of another one, and ended.
#[test]
fn an_owner_goes_on_where_a_failover_has_brought_the_one_before_back() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    leave(server.open());
    admin.batch_execute("CREATE TABLE copy AS TABLE ringgear_partition").unwrap();
    let mut store = server.open();
    store.commit(&[insert(1)]).unwrap();
    for change in ["", "UPDATE ringgear_partition SET generation = generation + 1;"] {
        let pid = backend(&mut admin);
        let back = "UPDATE ringgear_partition SET (generation, owner) = \
                    (SELECT generation, owner FROM copy);";
        admin.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
        let gone = format!("SELECT NOT EXISTS (SELECT FROM pg_locks WHERE pid = {pid})");
        wait_for(&mut admin, &gone);
        admin.batch_execute(&format!("{back}{change}")).unwrap();
        if change.is_empty() {
            insist(&mut store, &[insert(2)]);
            assert_eq!(numbers(&mut store), [1, 2]);
        }
    }
    // The one before has been the owner again.
    let error = store.check().unwrap_err();
    assert!(matches!(error, StoreError::Lost(_)), "{error}");
}

#[test]
fn an_owner_that_was_cut_off_is_none_after_another_came_and_went() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    let mut store = server.open();
    let standby = standby(&server);
    let pid = backend(&mut admin);
    admin.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
    let mut other = standby.join().unwrap().unwrap();
    other.commit(&[insert(1)]).unwrap();
    drop(other);
    wait_for(
        &mut admin,
        "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted)",
    );
    let error = match store.commit(&[insert(2)]).unwrap_err() {
        StoreError::Unavailable(_) => store.commit(&[insert(2)]).unwrap_err(),
        error => error,
    };
    assert!(matches!(error, StoreError::Lost(_)), "{error}");
    assert_eq!(numbers(&mut server.open()), [1]);
}

#[test]
fn a_commit_of_an_earlier_generation_changes_nothing() {
    let Some(server) = Server::start() else { return };
    let mut admin = server.admin("jobs");
    let large = |number| {
        let row = super::server::row(number);
        let payload = vec![b'x'; 12 << 20].into();
        Operation::Insert { row: ringgear::engine::record::Row { payload, ..row }, answered: false }
    };
    let change = [
        insert(2),
        Operation::Retry { number: 1, runs: Runs { attempts: 9, ..Runs::default() } },
        Operation::Remove { number: 1 },
    ];
    // In one statement, in several, and in none.
    for operations in [change.to_vec(), [large(3), large(4)].into(), Vec::new()] {
        let mut store = server.open();
        store.commit(&[insert(1)]).unwrap();
        admin.batch_execute("UPDATE ringgear_partition SET generation = generation + 1").unwrap();
        let error = store.commit(&operations).unwrap_err();
        assert!(matches!(error, StoreError::Lost(_)), "{error}");
        let mut other = server.open();
        assert_eq!(numbers(&mut other), [1]);
        leave(other);
    }
}

#[test]
fn nobody_takes_over_in_the_middle_of_a_commit() {
    let Some(server) = Server::start() else { return };
    let mut store = open_with(&server, PATIENCE);
    let mut admin = server.admin("jobs");
    let mut other = server.admin("jobs");
    let pid = backend(&mut admin);
    // A row of the same number, not committed yet, keeps the commit waiting.
    let mut blocker = other.transaction().unwrap();
    blocker.batch_execute("INSERT INTO ringgear_job VALUES (1, '', '', '', 1, 0, 0, '')").unwrap();
    let commit = thread::spawn(move || store.commit(&[insert(1)]));
    wait_for_blocked(&mut admin, pid);
    let take =
        "SET lock_timeout = '100ms'; UPDATE ringgear_partition SET generation = generation + 1";
    let error = admin.batch_execute(take).unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::LOCK_NOT_AVAILABLE), "{error}");
    blocker.rollback().unwrap();
    commit.join().unwrap().unwrap();
}
