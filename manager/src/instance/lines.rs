//! Mode `lines`: a long-lived process that gets each job as a line of JSON.

use super::Instance;

/// Keeps a process at work, and replaces it when its lifetime is over, until an order to end.
pub(super) async fn run(_instance: Instance) {}
