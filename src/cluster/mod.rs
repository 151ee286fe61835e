//! Several servers on one database: what one server sees of the others in, what it may do out.
//!
//! A *partition* is a part of the durable jobs with one owner. `partition` is its row in the
//! database, `lease` says how long an owner may go without a beat, `watch` finds partitions whose
//! owner is gone, `blocks` says to which partition a job's number belongs, and `view` is what text
//! commands, metrics and the page show of it all.
//!
//! Knows no database, no thread and no clock: times are given to it. Specification of these terms:
//! docs/cluster.md.
//!
//! Invariant: nothing here decides which server owns a partition; the database's compare-and-swap
//! does.

pub mod blocks;
pub mod lease;
pub mod partition;
pub mod view;
pub mod watch;
