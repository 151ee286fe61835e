//! The interface for operators by HTTP: what Gearman peers did in, JSON out, and what changes by
//! HTTP seen by Gearman peers.

mod changes;
mod cluster;
mod connections;
mod dead;
mod events;
mod functions;
mod jobs;
mod rights;
mod server;

use std::net::SocketAddr;

use serde_json::Value;

use crate::conn::{Conn, Item};
use crate::harness::{Contender, Server};
use crate::http::client::{self, Answer};

/// What each request brings along that changes something.
const CHANGING: [(&str, &str); 1] = [("X-Ringgear", "1")];

/// A server with HTTP.
struct Api {
    server: Server,
    http: SocketAddr,
}

impl Api {
    fn start(contender: Contender) -> Self {
        Self::start_with(contender, &[])
    }

    fn start_with(contender: Contender, more: &[&str]) -> Self {
        let (server, http) = crate::http::start(contender, more);
        let api = Self { server, http };
        crate::harness::wait_until("the cores", || {
            (api.get("/api/v1/server").status != 503).then_some(())
        });
        api
    }

    fn get(&self, path: &str) -> Answer {
        client::get(self.http, path)
    }

    fn change(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        client::ask(self.http, method, path, &CHANGING, body)
    }

    fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// The parameter that a request is refused for.
    fn refused(&self, path: &str) -> String {
        let answer = self.get(path);
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        assert_eq!(answer.code(), "BAD_PARAMETER");
        let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
        let words: Vec<&str> = message.split(' ').collect();
        words.get(2).copied().unwrap_or_default().to_owned()
    }

    /// All rows of a list, page by page, and how many each page said there are.
    fn pages(&self, path: &str, list: &str) -> (Vec<Value>, Vec<Value>) {
        let (mut rows, mut totals, mut after) = (Vec::new(), Vec::new(), String::new());
        loop {
            let mut page = self.json(&format!("{path}{after}"));
            totals.push(page["total"].take());
            let Value::Array(more) = page[list].take() else { panic!("no {list}: {page}") };
            rows.extend(more);
            match &page["next"] {
                Value::String(cursor) => after = format!("&after={cursor}"),
                next => {
                    assert!(next.is_null(), "{page}");
                    return (rows, totals);
                }
            }
            assert!(rows.len() < 10_000, "{path} has no end");
        }
    }

    fn connect(&self) -> Conn {
        Conn::open(self.server.address())
    }
}

/// A background job; its handle.
fn submit(client: &mut Conn, function: &[u8], payload: &[u8]) -> String {
    client.packet("SUBMIT_JOB_BG", &[function, b"", payload]);
    created(client)
}

fn created(client: &mut Conn) -> String {
    match client.next() {
        Ok(Item::Packet(8, handle)) => String::from_utf8(handle).expect("a handle"),
        other => panic!("no JOB_CREATED: {other:?}"),
    }
}

/// A job that a worker was given; its handle.
fn grab(worker: &mut Conn) -> String {
    worker.packet("GRAB_JOB", &[]);
    let Ok(Item::Packet(11, body)) = worker.next() else { panic!("no job") };
    let handle = body.split(|&byte| byte == 0).next().expect("a handle");
    String::from_utf8(handle.to_vec()).expect("a handle")
}
