//! What the kernel tells of the process, by the names that all exporters use.
//!
//! Invariant: what can't be read is left out.

use std::fmt::Error;

use procfs::process::{LimitValue, Process};

use super::families::{Families, PLAIN};

/// What the kernel tells of the process.
#[derive(Clone, Debug)]
pub struct ProcessNumbers {
    cpu_seconds: f64,
    open_fds: u64,
    /// `None` = no limit.
    max_fds: Option<u64>,
    virtual_bytes: u64,
    resident_bytes: u64,
    /// In seconds since 1970.
    start_s: f64,
    threads: u64,
}

impl ProcessNumbers {
    /// This process; `None` if the kernel doesn't tell.
    pub fn read() -> Option<Self> {
        let process = Process::myself().ok()?;
        let stat = process.stat().ok()?;
        let ticks = procfs::ticks_per_second() as f64;
        let max_fds = match process.limits().ok()?.max_open_files.soft_limit {
            LimitValue::Value(value) => Some(value),
            LimitValue::Unlimited => None,
        };
        Some(Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
            open_fds: process.fd_count().ok()? as u64,
            max_fds,
            virtual_bytes: stat.vsize,
            resident_bytes: stat.rss * procfs::page_size(),
            start_s: procfs::boot_time_secs().ok()? as f64 + stat.starttime as f64 / ticks,
            threads: u64::try_from(stat.num_threads).unwrap_or(0),
        })
    }

    /// Writes its families.
    ///
    /// # Errors
    /// If the text can't be written.
    pub fn encode(&self, families: &mut Families<'_>) -> Result<(), Error> {
        families.counter(
            "process_cpu_seconds",
            "Time on processors, of the program and of the kernel for it",
            [(PLAIN, self.cpu_seconds)],
        )?;
        families.gauge(
            "process_open_fds",
            "Descriptors that are open",
            [(PLAIN, self.open_fds)],
        )?;
        let max_fds = self.max_fds.map_or(f64::INFINITY, |max| max as f64);
        families.gauge(
            "process_max_fds",
            "Most descriptors that may be open",
            [(PLAIN, max_fds)],
        )?;
        families.gauge(
            "process_virtual_memory_bytes",
            "Addresses that are in use",
            [(PLAIN, self.virtual_bytes)],
        )?;
        families.gauge(
            "process_resident_memory_bytes",
            "Memory that the process has",
            [(PLAIN, self.resident_bytes)],
        )?;
        families.gauge(
            "process_start_time_seconds",
            "When the process was started, in seconds since 1970",
            [(PLAIN, self.start_s)],
        )?;
        families.gauge("process_threads", "Threads of the process", [(PLAIN, self.threads)])
    }
}
