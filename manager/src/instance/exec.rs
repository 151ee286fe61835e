//! Mode `exec`: a process for each job.

use super::Instance;

/// Runs jobs, each by a process, until an order to end.
pub(super) async fn run(_instance: Instance) {}
