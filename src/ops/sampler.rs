//! Takes a sample of the functions' numbers for `history`, again and again.
//!
//! Replies of the cores in, samples out. Knows no rate.
//!
//! Invariant: a sample costs each core one reply for 256 named functions, whatever it has besides.

use std::sync::Arc;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::app::App;
use super::history::INTERVAL;
use super::snapshot::named_functions;

/// Takes samples until the server ends.
pub(super) async fn follow(app: Arc<App>) {
    let Some(link) = app.attached().await else { return };
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // The first tick is at once.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let at = Instant::now();
        let Ok(rows) = named_functions(&link).await else { return };
        let cores = 0..link.cores().count;
        let busy = cores.map(|core| link.core_times(core).1.unwrap_or_default()).collect();
        app.with_history(|history| history.sample(at, &rows, busy));
    }
}
