//! Commands as processes: started in a group of their own, watched, limited, and ended with all
//! that they started.
//!
//! `launch` has the one unsafe code of this program. `guard` is a process that ends the groups when
//! the manager is killed, `strays` ends what left its group. Knows no jobs.
//!
//! Invariant: a process group ends with its leader, and with the manager at the latest.

pub mod environment;
pub mod group;
pub mod guard;
pub mod identity;
pub mod launch;
pub mod launch_error;
pub mod memory;
pub mod pipes;
#[cfg(test)]
pub(crate) mod samples;
pub mod strays;

pub use self::group::{Group, Status};
pub use self::launch::{Descriptors, Launch};
pub use self::launch_error::LaunchError;
