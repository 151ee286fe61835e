//! Workers and connections: what they can run, and what they run, wherever that is.

use serde_json::{Value, json};

use super::{Api, grab, submit};
use crate::conn::{Conn, Item};
use crate::harness::{Contender, each_ringgear, wait_until};

each_ringgear!(workers_are_listed_with_what_they_run, pages_have_each_connection_once);

fn ids(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["id"].as_str().expect("an id")).collect()
}

fn workers_are_listed_with_what_they_run(contender: Contender) {
    let api = Api::start(contender);
    let mut client = api.connect();
    let mut workers: Vec<Conn> = (0..3).map(|_| api.connect()).collect();
    // Functions of several cores.
    let functions = ["a", "b", "c", "d"];
    let mut handles = Vec::new();
    for (number, worker) in workers.iter_mut().enumerate() {
        worker.packet("SET_CLIENT_ID", &[format!("w{number}").as_bytes()]);
        let can: Vec<&str> = functions.iter().copied().take(number + 2).collect();
        can.iter().for_each(|function| worker.packet("CAN_DO", &[function.as_bytes()]));
        worker.sync().expect("it lives");
    }
    for function in functions {
        submit(&mut client, function.as_bytes(), b"x");
    }
    (0..4).for_each(|_| handles.push(grab(&mut workers[2])));
    // It has heard of jobs that another worker took meanwhile.
    workers[0].packet("GRAB_JOB", &[]);
    assert!(matches!(workers[0].next(), Ok(Item::Packet(10, _))));
    workers[0].packet("PRE_SLEEP", &[]);
    workers[0].sync().expect("it lives");
    let list = api.json("/api/v1/workers?sort=running&order=desc");
    assert_eq!(list["total"], 3);
    let row = &list["workers"][0];
    assert_eq!(row["id"], "w2");
    let mut running: Vec<&str> =
        row["running"].as_array().expect("handles").iter().filter_map(Value::as_str).collect();
    running.sort_unstable();
    handles.sort_unstable();
    assert_eq!(running, handles);
    assert_eq!(row["function_count"], 4);
    assert_eq!(row["functions"].as_array().map(Vec::len), Some(4));
    assert_eq!(row["listener"], format!("127.0.0.1:{}", api.server.port()));
    assert_eq!((&row["tls"], &row["certificate"]), (&json!(false), &Value::Null));
    assert!(row["since"].as_f64().is_some_and(|since| since > 1.7e9), "{row}");
    assert_eq!(row["state"], "awake");
    wait_until("its sleep", || {
        let list = api.json("/api/v1/workers?filter=W0");
        (list["workers"][0]["state"] == "asleep").then_some(())
    });
    for (query, expected) in [
        ("function=d", &["w2"][..]),
        ("function=c", &["w1", "w2"]),
        ("function=nothing", &[]),
        ("filter=w1", &["w1"]),
        ("filter=127.0.0.1&function=c", &["w1", "w2"]),
        ("filter=nobody", &[]),
    ] {
        let list = api.json(&format!("/api/v1/workers?{query}"));
        let mut found = ids(list["workers"].as_array().expect("rows"));
        found.sort_unstable();
        assert_eq!(found, expected, "{query}");
        assert_eq!(list["total"], expected.len(), "{query}");
    }
    let all = api.json("/api/v1/connections?filter=127.0.0.1");
    let rows = all["connections"].as_array().expect("rows");
    assert_eq!(rows.iter().filter(|row| row["state"] == "-").count(), rows.len() - 3, "{all}");
    // What a worker has done is no longer listed.
    let done = handles.remove(0);
    workers[2].packet("WORK_COMPLETE", &[done.as_bytes(), b""]);
    workers[2].sync().expect("it lives");
    let list = api.json("/api/v1/workers?filter=w2");
    assert_eq!(list["workers"][0]["running"].as_array().map(Vec::len), Some(3), "{list}");
}

fn pages_have_each_connection_once(contender: Contender) {
    let api = Api::start(contender);
    let mut workers: Vec<Conn> = (0..25).map(|_| api.connect()).collect();
    for (number, worker) in workers.iter_mut().enumerate() {
        worker.packet("SET_CLIENT_ID", &[format!("w{number:02}").as_bytes()]);
        worker.packet("CAN_DO", &[b"f"]);
        worker.sync().expect("it lives");
    }
    for sort in ["address", "since", "running"] {
        for order in ["asc", "desc"] {
            let path = format!("/api/v1/workers?sort={sort}&order={order}&limit=4");
            let (rows, totals) = api.pages(&path, "workers");
            assert!(totals.iter().all(|total| *total == 25), "{totals:?}");
            let mut found = ids(&rows);
            found.sort_unstable();
            let expected: Vec<String> = (0..25).map(|number| format!("w{number:02}")).collect();
            assert_eq!(found, expected, "{path}");
            if sort == "address" {
                let port = |row: &Value| {
                    let address = row["address"].as_str().expect("an address");
                    address.rsplit(':').next().and_then(|port| port.parse::<u16>().ok())
                };
                let ports: Vec<_> = rows.iter().map(port).collect();
                let is_sorted = ports.is_sorted_by(|one, other| (one < other) == (order == "asc"));
                assert!(is_sorted, "{ports:?}");
            }
        }
    }
}
