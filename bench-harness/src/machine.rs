//! What the figures were measured on: processor, memory, kernel, and the versions of everything.

use nix::sys::utsname::uname;
use procfs::{CpuInfo, Current, Meminfo};
use serde::{Deserialize, Serialize};

use crate::locate::first_line;

const GIB: f64 = (1 << 30) as f64;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) is_virtual: bool,
    pub(crate) memory_gib: f64,
    pub(crate) kernel: String,
    pub(crate) system: String,
    /// Of what was measured, if it is known, and whether there were changes.
    pub(crate) commit: String,
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
        let said = |program, arguments: &[&str]| first_line(program, arguments).unwrap_or_default();
        let commit = said("git", &["rev-parse", "--short", "HEAD"]);
        let status = ["status", "--porcelain", "-uno"];
        let changed = !said("git", &status).is_empty();
        Self {
            cpu: cpus.and_then(|cpus| cpus.model_name(0)).unwrap_or_default().to_owned(),
            cores: cpus.map_or(0, CpuInfo::num_cores),
            is_virtual: flags.contains(&"hypervisor"),
            memory_gib: (memory_bytes as f64 / GIB * 10.0).round() / 10.0,
            kernel: uname()
                .map_or_else(|_| String::new(), |it| it.release().to_string_lossy().into_owned()),
            system: system.unwrap_or_default().trim_matches('"').to_owned(),
            commit: if changed { format!("{commit} and changes") } else { commit },
            compiler: said("rustc", &["--version"]),
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
