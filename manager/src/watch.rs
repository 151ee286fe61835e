//! Watches files: glob patterns in, the names of workers whose files changed out.
//!
//! Knows no instances.
//!
//! Invariant: a change is told one second after the last one of the same worker.
