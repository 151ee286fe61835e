//! A network that fails on one side: the store's connections lead through it to the server.
//!
//! After a cut the store's side is closed and the server's side stays open without a word, as it
//! does when a cable is pulled. New connections work.

use std::io;
use std::mem;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::thread;

use tempfile::TempDir;

use super::server::Server;

pub(crate) struct Proxy {
    pub(crate) conninfo: String,
    clients: Arc<Mutex<Vec<UnixStream>>>,
    _folder: TempDir,
}

impl Proxy {
    pub(crate) fn start(server: &Server) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
        let behind = server.socket();
        let clients = Arc::new(Mutex::new(Vec::new()));
        let accepted = Arc::clone(&clients);
        // The threads end with the test's process.
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let server = UnixStream::connect(&behind).unwrap();
                accepted.lock().unwrap().push(client.try_clone().unwrap());
                copy(client.try_clone().unwrap(), server.try_clone().unwrap());
                copy(server, client);
            }
        });
        let host = folder.path().display();
        let conninfo = format!("host={host} port=5432 user=postgres dbname=jobs sslmode=disable");
        Self { conninfo, clients, _folder: folder }
    }

    /// Closes the clients' side of every connection.
    pub(crate) fn cut(&self) {
        for client in self.clients.lock().unwrap().drain(..) {
            client.shutdown(Shutdown::Both).unwrap();
        }
    }
}

/// Copies one direction; what it leads to is never closed, also when nothing more comes.
fn copy(mut from: UnixStream, mut to: UnixStream) {
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        // Dropped, it would tell the other side.
        mem::forget(to);
    });
}
