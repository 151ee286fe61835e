//! What is counted by function of requests that don't come to the engine, and which functions each
//! core names.

use super::cluster::{CORES, Cluster, function};
use super::*;
use crate::engine;
use crate::engine::function::Durabilities;
use crate::engine::numbers::{Numbers, REFUSALS};
use crate::protocol::access::{AccessList, Conditions, parse};
use crate::shard::cores::Cores;

fn refused(shard: &Shard, name: Option<&[u8]>) -> [u64; REFUSALS.len()] {
    let found = shard.engine().named_from(0).find(|entry| entry.name == name);
    found.map_or([0; REFUSALS.len()], |entry| entry.numbers.refused)
}

#[test]
fn submissions_refused_at_the_gate_count_by_function() {
    let rules = "[[rule]]\nwho = { network = [\"127.0.0.1\"] }\nmay = [\"work\"]\n\
                 [[rule]]\nwho = { network = [\"127.0.0.1\"] }\nmay = [\"submit\"]\n\
                 functions = [\"resize\"]\n";
    let list: Arc<AccessList> = Arc::new(parse(rules, Conditions::default()).unwrap());
    let mut desk = Desk::new(settings());
    desk.shard.set_access_list(&list, desk.now);
    let conn = desk.connect();
    for name in ["resize", "mail"] {
        desk.say(conn, &packet(Command::CanDo, &[name.as_bytes()], b""));
        desk.say(conn, &packet(Command::SubmitJobBg, &[name.as_bytes(), b""], b""));
    }
    // Of a large body the server reads what names the function.
    let body_bytes = 9 << 20;
    for command in [Command::SubmitJobLow, Command::EchoReq] {
        let head = b"resize\0unique\0";
        let length = u32::try_from(body_bytes).unwrap();
        desk.say(conn, &header_bytes(Magic::Request, command, length));
        desk.say(conn, head);
        desk.say(conn, &vec![b'x'; body_bytes - head.len()]);
    }
    assert_eq!(refused(&desk.shard, Some(b"resize")), [0, 0, 0, 1, 0]);
    assert_eq!(refused(&desk.shard, Some(b"mail")), [0, 0, 0, 0, 1]);
    assert_eq!(refused(&desk.shard, None), [0; 5]);
    let Numbers { submitted, refused, .. } = desk.shard.engine().totals();
    assert_eq!((submitted, refused), ([0, 1], [0, 0, 0, 1, 1]));
}

/// Those of another core's functions were counted with functions that have no numbers of their own.
#[test]
fn submissions_refused_at_another_gate_count_at_the_core_of_the_function() {
    let rules = "[[rule]]\nwho = { network = [\"127.0.0.1\"] }\nmay = [\"work\"]\n";
    let list: Arc<AccessList> = Arc::new(parse(rules, Conditions::default()).unwrap());
    let mut cluster = Cluster::new(Durability::None, 1);
    let now = cluster.now;
    cluster.shards[0].set_access_list(&list, now);
    cluster.settle();
    for owner in 0..CORES {
        let name = function(owner);
        let worker = cluster.worker(owner, std::slice::from_ref(&name));
        for home in 0..CORES {
            let client = cluster.connect(home);
            cluster.packet(client, Command::SubmitJobBg, &[name.as_bytes(), b""], b"x");
        }
        cluster.settle();
        let refused = refused(&cluster.shards[owner], Some(name.as_bytes()));
        assert_eq!(refused, [0, 0, 0, 0, CORES as u64], "{name}");
        cluster.hear(worker);
    }
}

#[test]
fn functions_of_the_configuration_are_named_by_the_core_that_owns_them() {
    let names = (0..30).map(|at| format!("f{at}").into_bytes());
    let named = names.map(|name| (name, Durability::None)).collect();
    let engine = engine::Settings {
        durabilities: Durabilities { default: Durability::None, named },
        ..engine::Settings::default()
    };
    let settings = Settings { engine, ..settings() };
    let mut found = 0;
    for own in 0..CORES {
        let cores = Cores { own, count: CORES };
        let shard = Shard::new(Settings { cores, ..settings.clone() }, Now::default());
        let names: Vec<&[u8]> = shard.engine().named_from(1).filter_map(|it| it.name).collect();
        assert!(!names.is_empty() && names.iter().all(|name| cores.owner_of(name) == own));
        found += names.len();
    }
    assert_eq!(found, 30);
}
