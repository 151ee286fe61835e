//! What cores have in common: message rings, published numbers, placement, the end of a drain.
//!
//! Everything here is shared between threads through atomics, rings, or a lock that is hardly ever
//! contended. Knows no socket.

pub(crate) mod drain;
pub(crate) mod gauges;
pub(crate) mod mesh;
pub(crate) mod numbers;
pub(crate) mod placement;
mod sleep_flag;
pub(crate) mod utilization;

use std::sync::atomic;
