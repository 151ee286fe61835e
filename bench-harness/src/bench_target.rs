//! A contender where it is measured: fresh servers of it, and loads against them.
//!
//! The scenarios with several phases share this; which servers and which loads is theirs to say.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::contender::{Contender, Persistence, Protocol, Start};
use crate::load_generator;
use crate::options::RunOptions;
use crate::process::{Cores, Server};
use crate::queue;
use crate::sample::Sample;
use crate::scenario::Load;

/// See the module.
#[derive(Clone, Copy)]
pub(crate) struct BenchTarget<'a> {
    /// Who is measured.
    pub(crate) contender: Contender,
    /// Options of the harness.
    pub(crate) options: &'a RunOptions,
    /// Who runs where.
    pub(crate) cores: &'a Cores,
    /// The load generator.
    pub(crate) loadgen: &'a Path,
    /// How long a server may take to start.
    pub(crate) patience: Duration,
}

/// A load and how long it lasts.
#[derive(Clone, Copy)]
pub(crate) struct Period {
    /// What is sent.
    pub(crate) load: Load,
    /// Jobs a second of an open loop.
    pub(crate) rate: Option<u64>,
    /// Measured time, unless the load says how many jobs.
    pub(crate) duration: Duration,
    /// Time under load before that.
    pub(crate) warm_up: Duration,
}

impl BenchTarget<'_> {
    /// A server that keeps its jobs so, on so many threads.
    pub(crate) fn start(&self, persistence: Persistence<'_>, threads: usize) -> Result<Server> {
        let Self { cores, patience, .. } = *self;
        self.contender.start(self.options, &Start { cores, persistence, threads, patience })
    }

    /// A closed loop, for as long as the options say.
    pub(crate) fn closed(&self, load: Load) -> Period {
        let (duration, warm_up) = (self.options.duration(), self.options.warm_up());
        Period { load, rate: None, duration, warm_up }
    }

    /// Loads a server.
    pub(crate) fn load(&self, server: &Server, period: Period) -> Result<Sample> {
        let Period { load, rate, duration, warm_up } = period;
        let protocol = self.contender.protocol();
        if protocol == Protocol::Gearman {
            let run = load_generator::Run { program: self.loadgen, load, rate, duration, warm_up };
            run.against(server.address, server.pid(), self.cores)
        } else {
            let run = queue::Run { protocol, load, duration, warm_up };
            run.against(server.address, server.pid(), self.cores)
        }
    }
}
