//! The host: clocks, signals, listening sockets, limits, the log, the allocator, and facts about
//! the machine.
//!
//! Each file wraps one part of the kernel or the C library. Knows no core and no connection.

pub(crate) mod accept;
pub(crate) mod alarm;
pub(crate) mod clock;
pub mod folder;
pub(crate) mod listen;
pub(crate) mod liveness;
pub mod log;
pub mod machine;
pub mod memory;
pub mod privileges;
pub mod process;
pub(crate) mod quick_ack;
pub(crate) mod retry;
pub mod sandbox;
pub(crate) mod service_manager;
pub(crate) mod signals;
