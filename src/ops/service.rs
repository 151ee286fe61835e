//! What the service manager is told: that the server is ready, how it is, that it ends, and that
//! every core turns.
//!
//! The phase and the cores' replies in, datagrams out, as sd_notify(3) says. Knows no HTTP.
//!
//! Invariant: the watchdog hears nothing while a core doesn't turn; no wait for a core keeps the
//! manager from hearing of a phase.

use std::fmt::Write as _;
use std::io::Error;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::net::UnixDatagram;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};
use tracing::warn;

use super::Phase;
use super::app::App;
use super::health::{STUCK_AFTER, stuck_core};
use crate::io::ServiceManager;
use crate::shard::operator::{OperatorReply, OperatorRequest};
use crate::shard::stats::Stats;

/// Time between two status lines.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// How much longer the manager is to wait for a server that starts or ends, in microseconds; it is
/// told again after `STATUS_INTERVAL`.
const EXTENSION_US: u32 = 30_000_000;
/// How long the numbers of a status line may take.
const NUMBERS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the last message may take.
const LAST_TIMEOUT: Duration = Duration::from_millis(100);
/// Signs of life in the time after which the manager misses one. Each comes with the replies of the
/// cores, which may take as long as the time to the next: so there are two at least.
const SIGNS_OF_LIFE: u32 = 4;
/// The shortest time between two signs of life.
const SIGN_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// The way to the service manager.
struct Notifier {
    socket: UnixDatagram,
}

impl Notifier {
    async fn tell(&self, states: &[NotifyState<'_>]) {
        let mut text = String::new();
        for state in states {
            // Writing to a string doesn't fail.
            let _ = writeln!(text, "{state}");
        }
        // Without a manager that listens there is nothing to be done about it.
        drop(self.socket.send(text.as_bytes()).await);
    }
}

/// Tells the manager what there is to tell, until the server ends.
pub(super) async fn follow(
    app: Arc<App>,
    manager: ServiceManager,
    mut stop: watch::Receiver<bool>,
) {
    let watchdog = manager.watchdog;
    let notifier = match UnixDatagram::from_std(manager.socket) {
        Ok(socket) => Notifier { socket },
        Err(error) => return warn!(%error, "the service manager can't be told anything"),
    };
    let mut has_told = Told::default();
    tokio::select! {
        told = tell_phases(&app, &notifier, &mut has_told) => {
            if let Err(error) = told {
                warn!(%error, "the service manager can't be told of signals");
            }
        }
        () = feed_watchdog(&app, &notifier, watchdog) => {}
        _ = stop.wait_for(|&stops| stops) => {}
    }
    if !has_told.is_stopping {
        drop(timeout(LAST_TIMEOUT, notifier.tell(&[NotifyState::Stopping])).await);
    }
}

/// What is told once.
#[derive(Debug, Default)]
struct Told {
    is_ready: bool,
    is_stopping: bool,
}

/// Tells of each phase at once, and of the numbers again and again.
async fn tell_phases(app: &App, notifier: &Notifier, told: &mut Told) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut drain = signal(SignalKind::user_defined1())?;
    let mut phases = app.phases();
    let mut last = None;
    loop {
        let phase = app.phase();
        let mut states = Vec::new();
        // A standby is as far as it gets by itself.
        let is_up = matches!(phase, Phase::Serving | Phase::Standby);
        if is_up && !std::mem::replace(&mut told.is_ready, true) {
            states.push(NotifyState::Ready);
        }
        if app.settings().leaving.stops() && !std::mem::replace(&mut told.is_stopping, true) {
            states.push(NotifyState::Stopping);
        }
        if matches!(phase, Phase::Recovering | Phase::Draining) {
            states.push(NotifyState::ExtendTimeoutUsec(EXTENSION_US));
        }
        if last.replace(phase) != Some(phase) {
            states.push(NotifyState::Status(phase.name()));
        }
        if !states.is_empty() {
            notifier.tell(&states).await;
        }
        let due = sleep(STATUS_INTERVAL);
        let next = async {
            if let Some(numbers) = numbers(app).await {
                let line = format!("{}: {}", phase.name(), numbers.summary());
                notifier.tell(&[NotifyState::Status(&line)]).await;
            }
            due.await;
        };
        tokio::select! {
            () = next => {}
            _ = phases.changed() => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = drain.recv() => {}
        }
    }
}

/// The sums of all cores' numbers; `None` if there are no cores, or they don't reply in time.
async fn numbers(app: &App) -> Option<Stats> {
    let link = app.link().ok()?;
    let deadline = Instant::now() + NUMBERS_TIMEOUT;
    let mut sum = Stats::default();
    for core in 0..link.cores().count {
        let reply = timeout_at(deadline, link.ask(core, OperatorRequest::Numbers)).await;
        let Ok(Ok(OperatorReply::Numbers(numbers))) = reply else { return None };
        sum += numbers.stats;
    }
    Some(sum)
}

/// Gives signs of life as long as every core turns.
async fn feed_watchdog(app: &App, notifier: &Notifier, watchdog: Option<Duration>) {
    let Some(watchdog) = watchdog else { return std::future::pending().await };
    let every = (watchdog / SIGNS_OF_LIFE).max(SIGN_INTERVAL_MIN);
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if stuck_core(app, every.min(STUCK_AFTER)).await.is_none() {
            notifier.tell(&[NotifyState::Watchdog]).await;
        }
    }
}
