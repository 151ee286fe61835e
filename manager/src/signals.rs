//! Signals of the manager in, commands to the supervisor out.
//!
//! Knows the file that SIGHUP reads anew, and what systemd is told at the end.
//!
//! Invariant: a file with a mistake changes nothing.

use std::io;
use std::rc::Rc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::spawn_local;
use tracing::{error, info, warn};

use crate::config::{Config, File};
use crate::counters::Counters;
use crate::service;
use crate::source::{Checked, Source};
use crate::supervisor::Command;

/// The signals that mean something.
#[derive(Debug)]
pub struct Signals {
    hangup: Signal,
    user: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes them from now on, instead of what they do by default.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// What runs, and what may replace it.
#[derive(Debug)]
pub struct Reloads {
    /// Where the file is.
    pub source: Source,
    /// What was taken of it last.
    pub config: Config,
    /// Counts reloads.
    pub counters: Rc<Counters>,
}

impl Reloads {
    /// The file as it is now; `None` if it has a mistake, which is logged.
    fn read(&mut self) -> Option<Config> {
        let (taken, refused) = self.counters.reloads.get();
        match self.source.check() {
            Ok(Checked { file, .. }) => {
                self.counters.reloads.set((taken + 1, refused));
                Some(self.take(file))
            }
            Err(problem) => {
                self.counters.reloads.set((taken, refused + 1));
                error!("the file is not taken, and all stays as it was: {problem}");
                None
            }
        }
    }

    fn take(&mut self, mut file: File) -> Config {
        let kept = self.source.keep(&mut file, &self.config);
        for remark in kept.into_iter().chain(self.source.remarks(&file)) {
            warn!("{remark}");
        }
        info!(workers = file.config.workers.len(), "file read");
        self.config = file.config;
        self.config.clone()
    }
}

/// Turns signals into commands. Never returns.
pub async fn forward(
    mut signals: Signals,
    mut reloads: Reloads,
    commands: UnboundedSender<Command>,
) {
    let mut is_stopping = false;
    loop {
        let command = tokio::select! {
            _ = signals.hangup.recv() => reloads.read().map(Command::Reload),
            _ = signals.user.recv() => Some(Command::RestartAll),
            _ = signals.terminate.recv() => Some(Command::Stop),
            _ = signals.interrupt.recv() => Some(Command::Stop),
        };
        let Some(command) = command else { continue };
        if matches!(command, Command::Stop) && !is_stopping {
            is_stopping = true;
            spawn_local(service::stopping());
        }
        // The supervisor has ended, and so will all else.
        let _ = commands.send(command);
    }
}
