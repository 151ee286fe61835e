//! The partitions of a database and their servers, as text, JSON and metrics tell them.
//!
//! A server alone has one partition; several servers are tested in `tests/cluster`.

use serde_json::{Value, json};

use super::{Api, submit};
use crate::harness::{Contender, wait_until};
use crate::postgresql;

/// The rows of the text command, by column.
fn rows(api: &Api) -> Vec<Vec<String>> {
    let text = api.server.admin("cluster");
    let rows = text.lines().filter(|line| *line != ".");
    rows.map(|row| row.split('\t').map(str::to_owned).collect()).collect()
}

/// The value of a sample of the metrics.
fn sample(metrics: &str, name: &str) -> Option<f64> {
    let mut lines = metrics.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn without_postgresql_there_is_no_partition() {
    let folder = tempfile::tempdir().expect("a folder for the store");
    let store = format!("--store=sqlite:{}", folder.path().join("jobs.db").display());
    for options in [&[][..], &[&*store]] {
        let api = Api::start_with(Contender::RinggearEpoll, options);
        assert_eq!(api.server.admin("cluster"), ".\n");
        let none = json!({"partitions": [], "total": 0, "next": null});
        assert_eq!(api.json("/api/v1/cluster"), none);
        assert_eq!(api.json("/api/v1/server")["cluster"], Value::Null);
        assert!(!api.get("/metrics").text().contains("ringgear_partition"));
    }
}

#[test]
fn a_server_alone_on_postgresql_lists_its_one_partition() {
    let Some(mut database) = postgresql::Server::start() else { return };
    let store = crate::durable::url(&database);
    let options = ["--store", &*store, "--advertise", "jobs.example:4730", "--lease", "3"];
    let api = Api::start_with(Contender::RinggearEpoll, &options);
    let mut client = api.connect();
    (0..3).for_each(|_| drop(submit(&mut client, b"f", b"x")));
    let row = wait_until("the jobs", || {
        let rows = rows(&api);
        assert!(rows.len() <= 1, "{rows:?}");
        rows.into_iter().next().filter(|row| row[6] == "3")
    });
    let host = nix::unistd::gethostname().expect("a name").into_string().expect("text");
    assert_eq!(row[..4], ["0", "owned", &*host, "jobs.example:4730"]);
    let age = |text: &str| text.parse::<f64>().expect("a number");
    assert!(row[4].parse::<u32>().is_ok_and(|generation| generation > 0), "{row:?}");
    assert!(age(&row[5]) < 3.0, "{row:?}");
    assert!(api.server.admin("cluster #").starts_with("# ID\tSTATE\tNAME\tADDRESS\t"));

    let list = api.json("/api/v1/cluster");
    let told = &list["partitions"][0];
    let beat_age = &told["beat_age_seconds"];
    assert!(beat_age.as_f64().is_some_and(|age| age < 3.0), "{list}");
    let expected = json!({"id": 0, "state": "owned", "name": host,
        "address": "jobs.example:4730", "generation": row[4].parse::<u32>().expect("a number"),
        "beat_age_seconds": beat_age, "jobs": 3});
    assert_eq!(list, json!({"partitions": [expected], "total": 1, "next": null}));
    assert_eq!(api.refused("/api/v1/cluster?state=free"), "state");
    let own = json!({"partitions": 1, "own": [0], "suspended": false, "adopted": 0, "lost": 0,
        "orphaned": 0});
    assert_eq!(api.json("/api/v1/server")["cluster"], own);

    let metrics = api.get("/metrics").text();
    for (name, value) in [
        ("ringgear_partitions{state=\"free\"}", 0.0),
        ("ringgear_partitions{state=\"owned\"}", 1.0),
        ("ringgear_partitions{state=\"offered\"}", 0.0),
        ("ringgear_partition_jobs{partition=\"0\"}", 3.0),
        ("ringgear_partitions_adopted_total", 0.0),
        ("ringgear_partitions_lost_total", 0.0),
        ("ringgear_partitions_orphaned", 0.0),
        ("ringgear_suspended", 0.0),
    ] {
        assert_eq!(sample(&metrics, name), Some(value), "{name}\n{metrics}");
    }
    let beat_age = sample(&metrics, "ringgear_partition_beat_age_seconds{partition=\"0\"}");
    assert!(beat_age.is_some_and(|age| age < 3.0), "{metrics}");

    // Out of reach for two thirds of its lease, it is suspended until it gets through again.
    database.stop();
    let suspended = |value: f64| {
        wait_until("the server to notice", || {
            let metrics = api.get("/metrics").text();
            (sample(&metrics, "ringgear_suspended") == Some(value)).then_some(())
        });
    };
    suspended(1.0);
    assert_eq!(api.json("/api/v1/server")["cluster"]["suspended"], true);
    let ready = api.get("/readyz");
    assert_eq!((ready.status, &*ready.text()), (503, "store\n"));
    database.run();
    suspended(0.0);
    wait_until("it to be ready", || (api.get("/readyz").status == 200).then_some(()));
}
