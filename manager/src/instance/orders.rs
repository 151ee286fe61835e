//! What an instance is told, and by when it is to have ended.
//!
//! Knows neither jobs nor processes.
//!
//! Invariant: the time to end is set by the first order to end, and no later one extends it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Order;
use crate::counters::Ended;

/// Time between SIGTERM and SIGKILL.
pub(super) const KILL_WAIT: Duration = Duration::from_secs(5);

/// The orders of one instance.
#[derive(Debug)]
pub(super) struct Orders {
    receiver: watch::Receiver<Order>,
    stop_wait: Duration,
    /// Set by the first order to end.
    stop_at: Option<Instant>,
}

impl Orders {
    /// The orders of an instance whose jobs have `stop_wait` to end.
    pub(super) fn new(receiver: watch::Receiver<Order>, stop_wait: Duration) -> Self {
        let mut orders = Self { receiver, stop_wait, stop_at: None };
        orders.take();
        orders
    }

    /// The newest order.
    pub(super) fn take(&mut self) -> Order {
        let order = *self.receiver.borrow_and_update();
        if order != Order::Work && self.stop_at.is_none() {
            self.stop_at = Instant::now().checked_add(self.stop_wait);
        }
        order
    }

    /// Waits for the next order. May be dropped while it waits.
    pub(super) async fn changed(&mut self) -> Order {
        if self.receiver.changed().await.is_err() {
            // The supervisor has ended, and with it the reason to run.
            return Order::Kill;
        }
        self.take()
    }

    /// Waits for the order to end at once. May be dropped while it waits.
    pub(super) async fn killed(&mut self) {
        while self.take() != Order::Kill && self.changed().await != Order::Kill {}
    }

    /// Waits for the order to end at once, or until the time to end is over, unless it is known
    /// to be: returns the order that is pressing. May be dropped while it waits.
    pub(super) async fn pressing(&mut self, is_known: bool) -> Order {
        loop {
            let order = self.take();
            if order == Order::Kill {
                return order;
            }
            let stop_at = self.stop_at.filter(|_| !is_known);
            tokio::select! {
                // A closed channel is an order to end, too.
                order = self.changed() => if order == Order::Kill { return order },
                () = sleep_until(stop_at) => return order,
            }
        }
    }

    /// When a process that is to end now is told by a signal: after `stop_wait`, or when the time
    /// to end is over, if that is earlier.
    pub(super) fn term_at(&self) -> Instant {
        let now = Instant::now();
        let at = now.checked_add(self.stop_wait).unwrap_or(now);
        self.stop_at.map_or(at, |stop_at| stop_at.min(at))
    }
}

/// Waits until a time, if there is one.
pub(super) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Order {
    /// Why a process ends by this order; `None` if it doesn't.
    pub(super) fn ended(self) -> Option<Ended> {
        match self {
            Self::Work => None,
            Self::Restart => Some(Ended::Restart),
            Self::Stop | Self::Kill => Some(Ended::Stop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_order_doesnt_extend_the_time_to_end() {
        let (sender, receiver) = watch::channel(Order::Work);
        let mut orders = Orders::new(receiver, Duration::from_secs(60));
        let start = Instant::now();
        sender.send_replace(Order::Restart);
        assert_eq!(orders.changed().await, Order::Restart);
        tokio::time::advance(Duration::from_secs(40)).await;
        sender.send_replace(Order::Stop);
        assert_eq!(orders.changed().await, Order::Stop);
        assert_eq!(orders.term_at(), start + Duration::from_secs(60));
        assert_eq!(orders.pressing(false).await, Order::Stop);
        assert_eq!(start.elapsed().as_secs(), 60);
        drop(sender);
        orders.killed().await;
    }
}
