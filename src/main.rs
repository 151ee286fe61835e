//! `ringgeard`: parse, build, run, exit code.

use ringgear::admin::Identity;
use ringgear::engine::{self, Wakeup};
use ringgear::handle::Handles;
use ringgear::io::{self, Driver, Listeners, Signals, Sockets};
use ringgear::shard::Settings;

fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut args = std::env::args().skip(1);
    let driver = match args.next().as_deref() {
        Some("epoll") => Driver::Epoll,
        Some("uring") => Driver::Uring,
        _ => Driver::Auto,
    };
    let port = args.next().and_then(|p| p.parse().ok()).unwrap_or(4730);
    let settings = Settings {
        engine: engine::Settings {
            lease_ms: 100,
            wakeup: Wakeup::Lease,
            attempts_max: None,
            hash_seed: 1,
            first_number: 1,
        },
        handles: Handles::new(b"H:vm").unwrap(),
        identity: Identity { version: "0.1.0", verbosity: "NOTICE", pid: std::process::id() },
        exceptions: false,
        body_bytes_max: u32::MAX as usize - 64,
        memory_bytes_max: 16 << 30,
        outbox_bytes_max: 256 << 20,
        connections_max: 19000,
    };
    let sockets = Sockets { backlog: 1024, keep_alive: None, user_timeout: None };
    let listeners = Listeners::open(None, port, &sockets).unwrap();
    let signals = Signals::install().unwrap();
    io::run(settings, driver, listeners, signals, Box::new(|| {})).unwrap();
}
