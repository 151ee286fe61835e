//! Events: what changed, each second, as long as a viewer reads.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use super::{Api, submit};
use crate::harness::{Contender, PATIENCE, each_ringgear};
use crate::http::client;

each_ringgear!(viewers_hear_of_what_changed);

/// One that has asked for events.
struct Viewer(BufReader<TcpStream>);

impl Viewer {
    fn open(api: &Api) -> Self {
        let mut stream = client::connect(api.http);
        let head = client::head("GET", "/api/v1/events", &[], 0);
        stream.write_all(&head).expect("the server reads");
        let mut viewer = Self(BufReader::new(stream));
        assert!(viewer.line().starts_with("HTTP/1.1 200"));
        let mut headers = Vec::new();
        loop {
            let line = viewer.line();
            if line.is_empty() {
                break;
            }
            headers.push(line.to_ascii_lowercase());
        }
        assert!(headers.contains(&"content-type: text/event-stream".to_owned()), "{headers:?}");
        viewer
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line in time");
        line.trim_end().to_owned()
    }

    /// The next line that isn't a chunk's length or empty.
    fn field(&mut self) -> String {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let line = self.line();
            if line.contains(':') {
                return line;
            }
            assert!(std::time::Instant::now() < deadline, "no field");
        }
    }

    fn event(&mut self) -> Value {
        assert_eq!(self.field(), "event: update");
        let data = self.field();
        serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON")
    }
}

fn viewers_hear_of_what_changed(contender: Contender) {
    let api = Api::start(contender);
    let mut client = api.connect();
    submit(&mut client, b"early", b"x");
    let mut viewers = [Viewer::open(&api), Viewer::open(&api)];
    for viewer in &mut viewers {
        assert_eq!(viewer.field(), "retry: 2000");
        let event = loop {
            let event = viewer.event();
            if event["server"]["jobs"]["queued"]["normal"] == 1 {
                break event;
            }
        };
        assert_eq!(event["more"], false);
        assert_eq!(event["server"]["cores"].as_array().map(Vec::len), Some(contender.cores()));
    }
    submit(&mut client, b"late", b"x");
    for viewer in &mut viewers {
        let changed = loop {
            let event = viewer.event();
            let changed = event["changed"].as_array().expect("rows").clone();
            if event["server"]["jobs"]["queued"]["normal"] == 2 {
                break changed;
            }
        };
        let row = changed.iter().find(|row| row["function"] == "late").expect("what changed");
        assert_eq!(row["jobs_queued"]["normal"], 1);
    }
    // Rates fall for some seconds; then nothing changes.
    while viewers[0].event()["changed"].as_array().is_none_or(|rows| !rows.is_empty()) {}
    // Many at once.
    for number in 0..150 {
        submit(&mut client, format!("many{number}").as_bytes(), b"x");
    }
    let event = loop {
        let event = viewers[0].event();
        if event["server"]["functions"] == 152 {
            break event;
        }
    };
    // Perhaps they came within two events.
    let has_more = event["more"] == true && event["changed"].as_array().is_some_and(Vec::is_empty);
    assert!(has_more || event["changed"].as_array().is_some_and(|rows| rows.len() <= 100));
}
