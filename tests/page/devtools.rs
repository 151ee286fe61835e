//! Chromium's DevTools protocol, as far as the tests speak it: commands to the first tab with their
//! results, and the events that came meanwhile.
//!
//! JSON over a WebSocket. Knows nothing of what the commands do.
//!
//! Invariant: a command has its result when `call` returns; events are kept in their order.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::harness::{PATIENCE, wait_until};

/// A connection to a tab.
pub(crate) struct DevTools {
    socket: RefCell<WebSocket<TcpStream>>,
    last: Cell<u64>,
    events: RefCell<Vec<Value>>,
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("Chromium listens");
    // axe takes its time on a busy machine.
    stream.set_read_timeout(Some(3 * PATIENCE)).expect("a timeout");
    stream
}

/// The tabs that there are.
fn tabs(port: u16) -> Option<Value> {
    let mut stream = connect(port);
    let request = format!("GET /json/list HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    // It leaves the connection open.
    let (mut answer, mut byte) = (Vec::new(), [0]);
    let head_bytes = loop {
        stream.read_exact(&mut byte).ok()?;
        answer.push(byte[0]);
        if answer.ends_with(b"\r\n\r\n") {
            break answer.len();
        }
    };
    let head = String::from_utf8_lossy(&answer[..head_bytes]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"))?;
    let mut body = vec![0; length.trim().parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}

impl DevTools {
    /// Connects to the first tab of the Chromium that listens there.
    pub(crate) fn connect(port: u16) -> Self {
        let url = wait_until("a tab", || {
            let tabs = tabs(port)?;
            let page = tabs.as_array()?.iter().find(|tab| tab["type"] == "page")?;
            page["webSocketDebuggerUrl"].as_str().map(str::to_owned)
        });
        let (socket, _) = tungstenite::client(url, connect(port)).expect("a WebSocket");
        Self { socket: RefCell::new(socket), last: Cell::new(0), events: RefCell::default() }
    }

    /// Gives a command, and waits for its result.
    pub(crate) fn call(&self, method: &str, params: Value) -> Value {
        let id = self.last.get() + 1;
        self.last.set(id);
        let mut socket = self.socket.borrow_mut();
        let command = json!({"id": id, "method": method, "params": params});
        socket.send(Message::text(command.to_string())).expect("Chromium reads");
        loop {
            let message = socket.read().unwrap_or_else(|error| panic!("{method}: {error}"));
            let Message::Text(text) = message else { continue };
            let message: Value = serde_json::from_str(&text).expect("JSON");
            if message["id"] == id {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.borrow_mut().push(message);
        }
    }

    /// The events so far.
    pub(crate) fn events(&self) -> Vec<Value> {
        // Those that came since the last command are read with the result of this one.
        self.call("Runtime.getIsolateId", json!({}));
        self.events.borrow().clone()
    }
}
