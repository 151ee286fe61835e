//! What the figures were measured on: processor, memory, kernel, and the versions of everything.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

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
        let cpuinfo = read("/proc/cpuinfo");
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once([':', '='])?.1.trim().trim_matches('"').to_owned())
        };
        let kilobytes = field(&read("/proc/meminfo"), "MemTotal")
            .and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
        let commit = first_line("git", &["rev-parse", "--short", "HEAD"]);
        let changed = !first_line("git", &["status", "--porcelain", "-uno"]).is_empty();
        Self {
            cpu: field(&cpuinfo, "model name").unwrap_or_default(),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            is_virtual: cpuinfo.contains(" hypervisor"),
            memory_gib: (kilobytes.unwrap_or(0.0) / 1024.0 / 1024.0 * 10.0).round() / 10.0,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            system: field(&read("/etc/os-release"), "PRETTY_NAME").unwrap_or_default(),
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

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
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
