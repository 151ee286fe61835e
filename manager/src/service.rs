//! What systemd is told of the manager, if it started it.
//!
//! Invariant: a stop is told before anything ends.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::sleep;
use tracing::warn;

/// Time between two messages while running jobs end.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long the manager may stay silent after each of them, in microseconds.
const PATIENCE_US: u32 = 30_000_000;

/// Tells that all workers are about to run.
pub fn ready(workers: usize) {
    let status = format!("{workers} workers");
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// Tells that the manager ends, and again and again that it takes its time. Never returns.
pub async fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("waiting for running jobs")]);
    loop {
        tell(&[NotifyState::ExtendTimeoutUsec(PATIENCE_US)]);
        sleep(INTERVAL).await;
    }
}

fn tell(states: &[NotifyState<'_>]) {
    // Does nothing without NOTIFY_SOCKET.
    if let Err(cause) = sd_notify::notify(states) {
        warn!("systemd can't be told: {cause}; NOTIFY_SOCKET names no socket that takes messages");
    }
}
