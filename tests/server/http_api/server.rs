//! The server as a whole.

use serde_json::json;

use super::{Api, grab, submit};
use crate::harness::{Contender, each_ringgear, wait_until};

each_ringgear!(the_server_tells_what_it_is_and_has);

fn the_server_tells_what_it_is_and_has(contender: Contender) {
    let api = Api::start(contender);
    let (mut client, mut worker) = (api.connect(), api.connect());
    for function in ["a", "b", "c"] {
        submit(&mut client, function.as_bytes(), &[0; 1000]);
        worker.packet("CAN_DO", &[function.as_bytes()]);
    }
    grab(&mut worker);
    client.packet("SUBMIT_JOB_EPOCH", &[b"a", b"", b"4000000000", b"x"]);
    super::created(&mut client);
    let server = wait_until("the numbers", || {
        let server = api.json("/api/v1/server");
        (server["jobs"]["delayed"] == 1 && server["jobs"]["running"] == 1).then_some(server)
    });
    let jobs = json!({"queued": {"high": 0, "normal": 2, "low": 0}, "delayed": 1, "running": 1});
    assert_eq!(server["jobs"], jobs);
    assert_eq!(server["functions"], 3);
    let (driver, _) = contender.driver();
    assert_eq!(server["driver"], driver);
    assert_eq!(server["pid"], api.server.pid());
    assert_eq!(server["version"], env!("CARGO_PKG_VERSION"));
    let cores = server["cores"].as_array().expect("cores");
    assert_eq!(cores.len(), contender.cores());
    let sum = |name: &str| cores.iter().filter_map(|core| core[name].as_u64()).sum::<u64>();
    assert_eq!((sum("jobs"), sum("functions")), (4, 3), "{server}");
    assert!(sum("connections") >= 2);
    assert_eq!(server["connections"]["plain"], sum("connections"));
    assert!(cores.iter().all(|core| core["busy"].as_f64().is_some_and(|it| it <= 1.0)));
    let memory = |name: &str| server["memory"][name].as_u64().expect("a number");
    assert!(memory("job_bytes") >= 3000 && memory("used_bytes") >= 3000, "{server}");
    assert!(memory("limit_bytes") > memory("used_bytes"));
    assert!(memory("resident_bytes") > 1 << 20, "{server}");
    assert!(server["store"].is_null());
    assert_eq!(server["options"]["http"], "127.0.0.1:0");
    assert_eq!(server["options"]["io"], driver);
    let listeners = [format!("127.0.0.1:{}", api.server.port()), format!("http:{}", api.http)];
    for listener in listeners {
        let told = server["listeners"].as_array().expect("listeners");
        assert!(told.iter().any(|it| *it == listener), "{server}");
    }
    assert_eq!(server["may"], json!({"admin": true, "submit": true}));
    for part in ["rate", "totals", "history", "certificates", "uptime_seconds"] {
        assert!(server.get(part).is_some(), "{part}: {server}");
    }
    let started = server["start_time_seconds"].as_f64().expect("a moment");
    assert_eq!(api.json("/api/v1/server")["start_time_seconds"], started);
}
