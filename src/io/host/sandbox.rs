//! The sandbox: what the server must reach in, a process that reaches nothing else out.
//!
//! Landlock, which kernels have since 5.13, keeps a thread and all threads that it starts from
//! files, TCP ports and other processes. Sockets and files that are open already stay open. Knows
//! no option but its own.
//!
//! Invariant: called before there is a second thread; what was put out of reach stays so.

mod reach;

use clap::ValueEnum;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags,
    path_beneath_rules,
};
use thiserror::Error;
use tracing::{debug, info, warn};

pub use self::reach::Reach;

/// The version that has everything which is asked for: Linux 6.12.
const COMPLETE: ABI = ABI::V6;
/// The first that has rules for TCP ports: Linux 6.7.
const WITH_PORTS: ABI = ABI::V4;

/// How much of a sandbox to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sandbox {
    /// What the kernel has of it.
    Auto,
    /// None.
    Off,
    /// All of it, or no start.
    Require,
}

/// Why there is no sandbox as it was asked for.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// The kernel has none, or less.
    #[error("--sandbox require can't be had: {0}; or take --sandbox auto for what there is")]
    Incomplete(&'static str),
    /// The kernel has one, and refuses.
    #[error(
        "the kernel refuses the sandbox: {0}; take --sandbox off if this server is in several \
         sandboxes already"
    )]
    Refused(#[from] RulesetError),
}

/// Puts everything but `reach` out of reach of this thread and those that it starts, and logs what
/// holds.
///
/// # Errors
/// `SandboxError` if all of it was required and can't be had.
pub fn enter(sandbox: Sandbox, reach: &Reach) -> Result<(), SandboxError> {
    if sandbox == Sandbox::Off {
        return Ok(());
    }
    let is_required = sandbox == Sandbox::Require;
    let status = match restrict(reach) {
        Err(error) if is_required => return Err(error.into()),
        Err(error) => {
            warn!("no sandbox: {}", SandboxError::Refused(error));
            return Ok(());
        }
        Ok(status) => status,
    };
    let lack = lack(&status.landlock);
    match status.ruleset {
        RulesetStatus::FullyEnforced => info!(
            "sandbox: files, TCP ports and processes that the server doesn't use are out of reach"
        ),
        _ if is_required => return Err(SandboxError::Incomplete(lack)),
        RulesetStatus::PartiallyEnforced => info!("sandbox, in part: {lack}"),
        RulesetStatus::NotEnforced => info!("no sandbox: {lack}"),
    }
    Ok(())
}

/// What the kernel lacks if it didn't take all rules, and the remedy.
fn lack(landlock: &LandlockStatus) -> &'static str {
    match landlock {
        LandlockStatus::NotImplemented => {
            "this kernel has no Landlock, which takes Linux 5.13, or a container's seccomp profile \
             refuses it: all of it takes Linux 6.12"
        }
        LandlockStatus::NotEnabled => {
            "Landlock isn't on: name it in the kernel's parameter lsm= (lsm=landlock,…)"
        }
        LandlockStatus::Available { effective_abi, .. } if *effective_abi < WITH_PORTS => {
            "files are out of reach but for the server's own; TCP ports are as well from Linux 6.7 \
             on, other processes from 6.12 on"
        }
        LandlockStatus::Available { effective_abi, .. } if *effective_abi >= COMPLETE => {
            "the kernel has Landlock and didn't take all rules; update it"
        }
        LandlockStatus::Available { .. } => {
            "files are out of reach but for the server's own, and TCP ports; other processes are \
             as well from Linux 6.12 on"
        }
    }
}

fn restrict(reach: &Reach) -> Result<RestrictionStatus, RulesetError> {
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let changes = make_bitflags!(AccessFs::{WriteFile | RemoveFile | MakeReg | Truncate});
    let (read_paths, written_paths) = (reach.read(), reach.written());
    debug!(read = ?read_paths, written = ?written_paths, ports = ?reach.ports(), "within reach");
    let ports = reach.ports().iter().map(|&port| Ok(NetPort::new(port, AccessNet::ConnectTcp)));
    let scopes: BitFlags<Scope> = Scope::from_all(COMPLETE);
    // Paths that don't exist are passed over.
    Ruleset::default()
        .handle_access(AccessFs::from_all(COMPLETE))?
        .handle_access(AccessNet::from_all(COMPLETE))?
        .scope(scopes)?
        .create()?
        .add_rules(path_beneath_rules(read_paths, read))?
        .add_rules(path_beneath_rules(written_paths, read | changes))?
        .add_rules(ports.map(|port: Result<_, RulesetError>| port))?
        .restrict_self()
}

#[cfg(test)]
mod tests;
