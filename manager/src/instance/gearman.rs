//! Mode `gearman`: a command that is a Gearman worker itself.
//!
//! Knows no jobs: the command takes them from the servers in `GEARMAN_SERVERS`.
//!
//! Invariant: a process is told by SIGTERM that it is to end, and has `stop-wait` to do so.

use std::os::fd::AsFd as _;
use std::rc::Rc;

use tokio::time::Instant;

use super::backoff::Backoff;
use super::lifetime::Lifetime;
use super::logged_pipe::LoggedPipe;
use super::memory::Entered;
use super::orders::Orders;
use super::subject::Subject;
use super::{Instance, Order, restarts, shutdown};
use crate::counters::{self, Ended};
use crate::process::launch::Descriptors;
use crate::process::{Group, Launch, pipes};

/// Keeps the command running, and replaces it when its lifetime is over, until an order to end.
pub(super) async fn run(instance: Instance) {
    let mut orders = Orders::new(instance.orders.clone(), instance.worker.stop_wait);
    let mut backoff = Backoff::of(&instance.worker);
    let mut told = String::new();
    while orders.take() == Order::Work {
        let started = Instant::now();
        let reason = match Process::start(&instance) {
            Ok(mut process) => {
                told.clear();
                instance.is_up.send_replace(true);
                process.watch(&instance, &mut orders, started).await
            }
            Err(sentence) => {
                restarts::tell_not_started(&instance, &mut told, sentence);
                Ended::NotStarted
            }
        };
        instance.counters.end(reason);
        if let Some(wait) = restarts::wait_after(reason, started.elapsed(), &mut backoff) {
            restarts::pause(&instance, reason, wait, &mut orders).await;
        }
    }
}

/// A process that runs.
struct Process {
    group: Group,
    memory: Entered,
    output: LoggedPipe,
    errors: LoggedPipe,
    counters: Rc<counters::Worker>,
}

impl Process {
    fn start(instance: &Instance) -> Result<Self, String> {
        let worker = &instance.worker;
        let servers = [("GEARMAN_SERVERS", instance.shared.servers_variable.as_str())];
        let launch = Launch::prepare(worker, &servers)?;
        let pipe = || {
            pipes::from_command().map_err(|error| {
                format!("cannot start the command: {error}; allow the manager more open files")
            })
        };
        let (output, output_end) = pipe()?;
        let (errors, errors_end) = pipe()?;
        let descriptors = Descriptors {
            output: Some(output_end.as_fd()),
            error: Some(errors_end.as_fd()),
            ..Descriptors::default()
        };
        let group = launch
            .start(&instance.shared.guard, &[], descriptors)
            .map_err(|error| error.to_string())?;
        let counters = Rc::clone(&instance.counters);
        counters.processes.set(counters.processes.get() + 1);
        Ok(Self {
            memory: instance.memory.enter(group.leader(), worker.memory_max, &counters),
            group,
            output: LoggedPipe::new(output, "stdout"),
            errors: LoggedPipe::new(errors, "stderr"),
            counters,
        })
    }

    /// Waits until the process has ended, or ends it; returns why.
    async fn watch(&mut self, instance: &Instance, orders: &mut Orders, started: Instant) -> Ended {
        let subject = instance.subject("");
        let worker = &instance.worker;
        let lifetime = Lifetime::begin(worker, started);
        let has_limit = worker.memory_max.is_some();
        let reason = loop {
            tokio::select! {
                status = self.group.ended() => {
                    restarts::tell_ended(subject, status, started.elapsed());
                    self.finish_logs(subject);
                    return restarts::by_itself(status);
                }
                order = orders.changed() => if let Some(reason) = order.ended() {
                    break reason;
                },
                () = lifetime.aged() => break Ended::MaxAge,
                _ = self.memory.exceeded(), if has_limit => break Ended::Memory,
                count = self.output.read() => self.output.log(count, subject),
                count = self.errors.read() => self.errors.log(count, subject),
            }
        };
        restarts::tell_replaced(instance, reason, started.elapsed());
        let now = Instant::now();
        let kill_at = orders.term_at();
        let Self { group, output, errors, .. } = self;
        let drain = async {
            loop {
                tokio::select! {
                    count = output.read() => output.log(count, subject),
                    count = errors.read() => errors.log(count, subject),
                }
            }
        };
        tokio::select! {
            _ = shutdown::end(group, now, kill_at, orders) => {}
            () = drain => {}
        }
        self.finish_logs(subject);
        reason
    }

    fn finish_logs(&mut self, subject: Subject<'_>) {
        self.output.finish(subject);
        self.errors.finish(subject);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.counters.processes.set(self.counters.processes.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Mode, Worker};
    use crate::instance::fake_server::{Running, in_local_set, until};
    use crate::process::samples;

    fn worker(script: &str) -> Worker {
        let backoff = (Duration::from_millis(5), Duration::from_millis(5));
        Worker { mode: Mode::Gearman, backoff, ..samples::worker(&["sh", "-c", script]) }
    }

    async fn until_ended(running: &Running, reason: Ended, count: u64) {
        until(&format!("{count} x {reason:?}"), || running.ends(reason) >= count).await;
    }

    #[test]
    fn a_worker_gets_the_servers_and_ends_by_sigterm_in_its_time() {
        in_local_set(async {
            let folder = tempfile::tempdir().expect("a folder");
            let script = r#"trap 'sleep 0.05; echo drained >> log; exit' TERM
                echo "$GEARMAN_SERVERS" > log; while :; do sleep 0.01; done"#;
            let directory = Some(folder.path().to_owned());
            let running = Running::start(Worker { directory, ..worker(script) });
            let log = || std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            until("its start", || log() == "fake:4730\n").await;
            let counters = Rc::clone(&running.counters);
            running.end(Order::Restart).await;
            assert_eq!(log(), "fake:4730\ndrained\n");
            assert_eq!(counters.ends.borrow().get(&Ended::Restart), Some(&1));
        });
    }

    #[test]
    fn a_worker_that_doesnt_end_is_killed_after_stop_wait() {
        in_local_set(async {
            let script = "trap '' TERM; touch up; while :; do sleep 1000; done";
            let folder = tempfile::tempdir().expect("a folder");
            let directory = Some(folder.path().to_owned());
            let stop_wait = Duration::from_millis(50);
            let running = Running::start(Worker { directory, stop_wait, ..worker(script) });
            until("its start", || folder.path().join("up").exists()).await;
            let start = Instant::now();
            running.end(Order::Stop).await;
            assert!(start.elapsed() >= stop_wait);
        });
    }

    #[test]
    fn a_worker_is_started_again_after_its_exit_its_age_and_too_much_memory() {
        in_local_set(async {
            let running = Running::start(worker("exit 1"));
            until_ended(&running, Ended::Exit, 3).await;
            running.end(Order::Stop).await;

            let max_age = Some(Duration::from_millis(20));
            let running = Running::start(Worker { max_age, ..worker("exec sleep 1000") });
            until_ended(&running, Ended::MaxAge, 3).await;
            running.end(Order::Stop).await;

            let script = r#"x="$(head -c 40000000 /dev/zero | tr '\0' x)"; sleep 1000; echo "$x""#;
            let memory_max = Some(32 << 20);
            let running = Running::start(Worker { memory_max, ..worker(script) });
            until_ended(&running, Ended::Memory, 1).await;
            running.end(Order::Kill).await;
        });
    }

    #[test]
    fn a_worker_that_writes_without_end_is_still_watched() {
        in_local_set(async {
            let max_age = Some(Duration::from_millis(20));
            let script = "yes & exec yes >&2";
            let running = Running::start(Worker { max_age, ..worker(script) });
            until_ended(&running, Ended::MaxAge, 2).await;
            running.end(Order::Stop).await;
        });
    }
}
