//! Commands as processes: started in a group of their own, watched, limited, and ended with all
//! that they started.
//!
//! `launch` has the one unsafe code of this program. `guard` is a process that ends the groups when
//! the manager is killed. Knows no jobs and no workers.
//!
//! Invariant: a process group ends with its leader, and with the manager at the latest.

pub mod group;
pub mod guard;
pub mod launch;
pub mod memory;

pub use self::group::{Group, Status};
pub use self::launch::{Launch, LaunchError};
