//! What the figures were measured on: processor, memory, kernel, and the versions of everything.

use std::process::Command;

use nix::sys::utsname::uname;
use procfs::{CpuInfo, Current, Meminfo};
use serde::{Deserialize, Serialize};

const GIB: f64 = (1 << 30) as f64;

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Model of the processor.
    pub(crate) cpu: String,
    /// Cores that the system shows.
    pub(crate) cores: usize,
    /// Whether it is a guest of a hypervisor.
    pub(crate) is_virtual: bool,
    /// Memory in GiB.
    pub(crate) memory_gib: f64,
    /// Release of the kernel.
    pub(crate) kernel: String,
    /// Name of the system.
    pub(crate) system: String,
    /// The commit that was measured, if it is known.
    pub(crate) commit: String,
    /// Version of the compiler.
    pub(crate) compiler: String,
}

impl Machine {
    /// This one.
    pub(crate) fn this() -> Self {
        let cpus = CpuInfo::current().ok();
        let cpus = cpus.as_ref();
        let flags = cpus.and_then(|cpus| cpus.flags(0)).unwrap_or_default();
        let memory_bytes = Meminfo::current().map_or(0, |memory| memory.mem_total);
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let system = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        let commit = first_line("git", &["rev-parse", "--short", "HEAD"]);
        let status = ["status", "--porcelain", "-uno"];
        let changed = !first_line("git", &status).is_empty();
        Self {
            cpu: cpus.and_then(|cpus| cpus.model_name(0)).unwrap_or_default().to_owned(),
            cores: cpus.map_or(0, CpuInfo::num_cores),
            is_virtual: flags.contains(&"hypervisor"),
            memory_gib: (memory_bytes as f64 / GIB * 10.0).round() / 10.0,
            kernel: uname()
                .map_or_else(|_| String::new(), |it| it.release().to_string_lossy().into_owned()),
            system: system.unwrap_or_default().trim_matches('"').to_owned(),
            commit: if changed { format!("{commit} and changes") } else { commit },
            compiler: first_line("rustc", &["--version"]),
        }
    }

    /// It and what ran on it, as two points of a list.
    pub(crate) fn lines(&self) -> String {
        let kind = if self.is_virtual { "virtual machine" } else { "machine" };
        let Self { cpu, cores, memory_gib, kernel, system, commit, compiler, .. } = self;
        format!(
            "* A {kind} with {cores} cores ({cpu}) and {memory_gib} GiB of memory; {system}, \
             Linux {kernel}.\n* Commit {commit}, built by {compiler}.\n"
        )
    }
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_shape() {
        let machine = Machine::this();
        assert!(machine.cores >= 1 && machine.memory_gib > 0.1, "{machine:?}");
        assert!(!machine.kernel.is_empty());
    }
}
