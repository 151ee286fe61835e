//! Mode `gearman`: a command that is a Gearman worker itself.

use super::Instance;

/// Keeps the command running, and replaces it when its lifetime is over, until an order to end.
pub(super) async fn run(_instance: Instance) {}
