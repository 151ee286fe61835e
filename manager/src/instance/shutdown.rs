//! Ends a process group: first asks, then kills.
//!
//! Knows no jobs.
//!
//! Invariant: the group has ended when `end` returns, and it does by `kill_at`.

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep_until};

use super::orders::Orders;
use crate::process::{Group, Status};

/// Waits until a group has ended: gets SIGTERM at `term_at` and SIGKILL at `kill_at`, or at once by
/// `Order::Kill`. Returns how its leader ended.
pub(super) async fn end(
    group: &mut Group,
    term_at: Instant,
    kill_at: Instant,
    orders: &mut Orders,
) -> Status {
    let mut is_asked = false;
    loop {
        tokio::select! {
            biased;
            status = group.ended() => return status,
            () = orders.killed() => break,
            () = sleep_until(kill_at) => break,
            () = sleep_until(term_at), if !is_asked => {
                is_asked = true;
                group.signal(Signal::SIGTERM);
            }
        }
    }
    kill(group).await
}

/// Kills a group, and waits until it has ended. Returns how its leader did.
pub(super) async fn kill(group: &mut Group) -> Status {
    group.signal(Signal::SIGKILL);
    group.ended().await
}
