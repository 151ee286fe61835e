//! The instances of one worker: settings and restarts in, instances and their orders out.
//!
//! Each step compares what there is with what is to be, so that a change in the midst of another
//! only changes what is to be. Knows no other worker.
//!
//! Invariant: at most one instance is being replaced at a time, that is, told to restart, or
//! started in its place and not yet up.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::Instant;
use tracing::{error, info};

use crate::config::Worker;
use crate::counters;
use crate::instance::memory::Memory;
use crate::instance::{Instance, Order, Shared};

/// How long the next instance waits for one that was replaced and isn't up.
const UP_WAIT: Duration = Duration::from_secs(10);
/// Time after which an instance is started again that ended without an order.
const FAULT_WAIT: Duration = Duration::from_secs(1);

/// What all workers' instances get.
#[derive(Debug)]
pub(super) struct Means {
    /// For the instances.
    pub(super) shared: Rc<Shared>,
    /// For the instances.
    pub(super) memory: Rc<Memory>,
    /// Told when an instance is up or has ended: a step is due.
    pub(super) wake: Rc<Notify>,
}

/// The instances of one worker.
#[derive(Debug)]
pub(super) struct Instances {
    means: Rc<Means>,
    counters: Rc<counters::Worker>,
    worker: Rc<Worker>,
    /// `Work`, or the order to end that all get.
    goal: Order,
    /// Restarts that were asked for.
    restarts: u64,
    running: Vec<Running>,
    /// Number of the instance that is being replaced.
    replacing: Option<usize>,
    /// After an instance that ended without an order.
    not_before: Option<Instant>,
}

/// An instance that runs.
#[derive(Debug)]
struct Running {
    number: usize,
    worker: Rc<Worker>,
    /// Restarts that were asked for when it started.
    restarts: u64,
    started: Instant,
    orders: watch::Sender<Order>,
    is_up: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

/// Tells of the end of a task, however it ends.
struct WakeAtEnd(Rc<Notify>);

impl Drop for WakeAtEnd {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Instances {
    /// A worker whose instances start with the first step.
    pub(super) fn new(worker: Worker, means: Rc<Means>) -> Self {
        let counters = means.shared.counters.worker(&worker.name);
        Self {
            means,
            counters,
            worker: Rc::new(worker),
            goal: Order::Work,
            restarts: 0,
            running: Vec::new(),
            replacing: None,
            not_before: None,
        }
    }

    /// The worker's name.
    pub(super) fn name(&self) -> &str {
        &self.worker.name
    }

    /// Takes settings of the same name, which a reload brings.
    pub(super) fn set(&mut self, worker: Worker) {
        let name = &worker.name;
        if self.goal != Order::Work {
            info!(worker = name, "the worker is there again: its instances start");
        } else if !has_same_work(&self.worker, &worker) {
            info!(worker = name, "the worker changed: its instances restart, one by one");
        } else if self.worker.count != worker.count {
            info!(worker = name, "instances: {} instead of {}", worker.count, self.worker.count);
        }
        self.goal = Order::Work;
        if *self.worker != worker {
            self.worker = Rc::new(worker);
        }
    }

    /// All instances are to be replaced, one by one.
    pub(super) fn restart(&mut self) {
        self.restarts += 1;
    }

    /// All instances are to end. Returns whether they weren't before.
    pub(super) fn end(&mut self, order: Order) -> bool {
        std::mem::replace(&mut self.goal, order) == Order::Work
    }

    /// Whether there is nothing left, and nothing to come.
    pub(super) fn has_ended(&self) -> bool {
        self.goal != Order::Work && self.running.is_empty()
    }

    /// Starts instances and gives orders as far as that is possible now. Returns when the next step
    /// is due, if no event is before it.
    pub(super) fn step(&mut self, now: Instant) -> Option<Instant> {
        self.take_ended(now);
        let count = if self.goal == Order::Work { self.worker.count } else { 0 };
        self.counters.instances.set(count);
        for running in &self.running {
            if self.goal != Order::Work {
                running.order(self.goal);
            } else if running.number > count {
                running.order(Order::Stop);
            }
        }
        if self.replacing.is_some_and(|number| number > count) {
            self.replacing = None;
        }
        if let Some(at) = self.not_before {
            if now < at {
                return Some(at);
            }
            self.not_before = None;
        }
        for number in 1..=count {
            if !self.running.iter().any(|running| running.number == number) {
                self.start(number, now);
            }
        }
        if count == 0 { None } else { self.replace_next(now) }
    }

    /// Goes on to replace instances that are to be. Returns when the wait for a new one is over.
    fn replace_next(&mut self, now: Instant) -> Option<Instant> {
        if let Some(number) = self.replacing
            && let Some(running) = self.running.iter().find(|running| running.number == number)
            && !self.is_stale(running)
        {
            let due = running.started + UP_WAIT;
            if !*running.is_up.borrow() && now < due {
                return Some(due);
            }
            self.replacing = None;
        }
        let count = self.worker.count;
        let is_next = |running: &&Running| match self.replacing {
            // It may have been told already; and if not, its replacement is stale itself.
            Some(number) => running.number == number,
            None => running.number <= count && self.is_stale(running),
        };
        let next = self.running.iter().filter(is_next).min_by_key(|running| running.number)?;
        let number = next.number;
        if next.order(Order::Restart) {
            info!(worker = self.worker.name, instance = number, "the instance restarts");
        }
        self.replacing = Some(number);
        None
    }

    fn is_stale(&self, running: &Running) -> bool {
        running.restarts != self.restarts || !has_same_work(&running.worker, &self.worker)
    }

    fn take_ended(&mut self, now: Instant) {
        let name = &self.worker.name;
        for ended in self.running.extract_if(.., |running| running.task.is_finished()) {
            let instance = ended.number;
            if *ended.orders.borrow() == Order::Work {
                // A fault of the manager: it must not keep it busy.
                error!(worker = name, instance, "the instance ended without an order; report this");
                self.not_before = Some(now + FAULT_WAIT);
            } else {
                info!(worker = name, instance, "the instance has ended");
            }
        }
    }

    fn start(&mut self, number: usize, now: Instant) {
        let (orders, orders_receiver) = watch::channel(Order::Work);
        let (is_up_sender, is_up) = watch::channel(false);
        let instance = Instance {
            worker: Rc::clone(&self.worker),
            number,
            shared: Rc::clone(&self.means.shared),
            counters: Rc::clone(&self.counters),
            memory: Rc::clone(&self.means.memory),
            orders: orders_receiver,
            is_up: is_up_sender,
        };
        let wake = Rc::clone(&self.means.wake);
        let mut up = is_up.clone();
        let task = spawn_local(async move {
            let at_end = WakeAtEnd(wake);
            let mut run = pin!(instance.run());
            tokio::select! {
                () = &mut run => return,
                _ = async { up.wait_for(|is_up| *is_up).await.is_ok() } => at_end.0.notify_one(),
            }
            run.await;
        });
        info!(worker = self.worker.name, instance = number, "the instance starts");
        self.running.push(Running {
            number,
            worker: Rc::clone(&self.worker),
            restarts: self.restarts,
            started: now,
            orders,
            is_up,
            task,
        });
    }
}

impl Running {
    /// Gives an order, unless it has that or a stronger one. Returns whether it was given.
    fn order(&self, order: Order) -> bool {
        let strength = |order| match order {
            Order::Work => 0,
            Order::Restart => 1,
            Order::Stop => 2,
            Order::Kill => 3,
        };
        let is_new = strength(*self.orders.borrow()) < strength(order);
        if is_new {
            self.orders.send_replace(order);
        }
        is_new
    }
}

/// Whether instances with these settings do the same: how many there are, and which files are
/// watched, is no matter of theirs.
fn has_same_work(one: &Worker, other: &Worker) -> bool {
    let alike = Worker { count: other.count, watch: other.watch.clone(), ..one.clone() };
    alike == *other
}
