//! TLS in front of a server without it: bytes that arrive are passed on in plaintext, and back.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rustls::{ServerConfig, ServerConnection};

/// Starts one, and returns its address; `config` gives each connection its configuration, by the
/// number of those before it.
pub(crate) fn start(
    to: SocketAddr,
    config: impl Fn(usize) -> Arc<ServerConfig> + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, outside) in listener.incoming().flatten().enumerate() {
            let session = Arc::new(Mutex::new(ServerConnection::new(config(number)).unwrap()));
            let inside = TcpStream::connect(to).unwrap();
            for stream in [&inside, &outside] {
                stream.set_nodelay(true).unwrap();
            }
            let back = [inside.try_clone().unwrap(), outside.try_clone().unwrap()];
            let session_back = Arc::clone(&session);
            std::thread::spawn(move || {
                let [inside, outside] = &back;
                seal_all(inside, outside, &session_back);
                let _ = outside.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || {
                open_all(&outside, &inside, &session);
                let _ = inside.shutdown(Shutdown::Both);
                let _ = outside.shutdown(Shutdown::Write);
            });
        }
    });
    addr
}

fn seal_all(mut inside: &TcpStream, outside: &TcpStream, session: &Mutex<ServerConnection>) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = inside.read(&mut bytes) {
        let mut session = session.lock().unwrap();
        session.set_buffer_limit(None);
        session.writer().write_all(&bytes[..count]).unwrap();
        if send(&mut session, outside).is_none() {
            return;
        }
    }
}

fn open_all(mut outside: &TcpStream, mut inside: &TcpStream, session: &Mutex<ServerConnection>) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = outside.read(&mut bytes) {
        let (mut cipher, mut plain) = (&bytes[..count], Vec::new());
        while !cipher.is_empty() {
            let mut session = session.lock().unwrap();
            session.read_tls(&mut cipher).unwrap();
            let processed = session.process_new_packets();
            // Ends with an error once there is no more.
            let _ = session.reader().read_to_end(&mut plain);
            if send(&mut session, outside).is_none() || processed.is_err() {
                return;
            }
        }
        if inside.write_all(&plain).is_err() {
            return;
        }
    }
}

fn send(session: &mut ServerConnection, mut outside: &TcpStream) -> Option<()> {
    while session.wants_write() {
        session.write_tls(&mut outside).ok()?;
    }
    Some(())
}
