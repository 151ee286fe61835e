//! A contender where it is measured: fresh servers of it, and loads against them.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use loadgen::distributions::Span;

use crate::certificates::Certificates;
use crate::contender::Contender;
use crate::load_generator;
use crate::options::RunOptions;
use crate::process::{Cores, Cpu, Persistence, Pinned, Server, Start};
use crate::queue;
use crate::sample::Sample;
use crate::scenario::{Load, plan};
use crate::wire_protocol::Protocol;

/// See the module.
#[derive(Clone, Copy)]
pub(crate) struct BenchTarget<'a> {
    pub(crate) contender: Contender,
    /// Options of the harness.
    pub(crate) options: &'a RunOptions,
    pub(crate) cores: &'a Cores,
    /// How long a server may take to start.
    pub(crate) patience: Duration,
    /// Of servers that speak TLS.
    pub(crate) certificates: Option<&'a Certificates>,
    /// Whether servers have HTTP.
    pub(crate) has_http: bool,
    /// Policies of servers.
    pub(crate) functions_file: Option<&'a Path>,
}

impl BenchTarget<'_> {
    /// A fresh server that keeps its jobs so, on so many threads.
    pub(crate) fn start(&self, persistence: Persistence<'_>, threads: usize) -> Result<Server> {
        let Self { cores, patience, certificates, has_http, functions_file, .. } = *self;
        let start =
            Start { cores, persistence, threads, patience, certificates, has_http, functions_file };
        self.contender.start(self.options, &start)
    }

    /// Does something with a fresh server; what goes wrong is explained by its last words.
    pub(crate) fn with_server<T>(
        &self,
        persistence: Persistence<'_>,
        threads: usize,
        work: impl FnOnce(&Server) -> Result<T>,
    ) -> Result<T> {
        let mut server = self.start(persistence, threads)?;
        work(&server).map_err(|error| server.explain(error))
    }

    /// The same with one thread and jobs in memory, driven by this thread from the load's cores.
    pub(crate) fn drive<T>(&self, work: impl FnOnce(&Server) -> Result<T>) -> Result<T> {
        self.with_server(Persistence::Memory, 1, |server| {
            let _pinned = Pinned::to(&self.cores.load);
            work(server)
        })
    }

    /// A load by options of the load generator, for as long as those of the harness say.
    pub(crate) fn plan(&self, words: &str) -> Result<Load> {
        let mut load = plan(words)?;
        load.tls_ca = self.certificates.map(Certificates::ca);
        load.tls = load.tls_ca.is_some();
        load.duration = Span(self.options.duration());
        load.warm_up =
            Span(if load.jobs.is_some() { Duration::ZERO } else { self.options.warm_up() });
        Ok(load)
    }

    /// Loads a server.
    pub(crate) fn load(&self, server: &Server, load: &Load) -> Result<Sample> {
        let protocol = self.contender.protocol();
        if protocol != Protocol::Gearman {
            return queue::run(protocol, load, server, self.cores);
        }
        let before = Cpu::of(server.pid());
        let sample = load_generator::run(load, server, self.cores)?;
        if load.jobs.is_none() {
            return Ok(sample);
        }
        // So short that ticks are too coarse, and all of it is measured: more exact from here.
        Ok(sample.with_cpu(Cpu::since(before, server.pid())))
    }
}
