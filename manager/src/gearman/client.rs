//! The Gearman worker of one instance: the servers take turns, so that each gets its share.
//!
//! Knows whose turn it is and which job runs; what a connection needs, `link` knows.
//!
//! Invariant: at most one server is asked for a job at a time, and none while a job runs, so that
//! no job is assigned that would wait.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

use super::link::{Announcement, Event, Link};
use super::standing::Standing;
use super::{Ability, Ending, Job, Report, Servers, Withdrawal};
use crate::config::Server;
use crate::counters::Counters;

/// A job that was returned by `next` and not yet finished.
#[derive(Debug)]
struct Running {
    server: usize,
    handle: Bytes,
    withdrawal: Option<Withdrawal>,
}

/// The Gearman worker of one instance.
#[derive(Debug)]
pub struct Client {
    links: Vec<Link>,
    /// The server whose turn it is to be asked.
    turn: usize,
    /// Whether a server that has no job is to send NOOP when it has: more will be asked for.
    is_asking: bool,
    /// A job that was assigned, and not yet returned.
    assigned: Option<Job>,
    running: Option<Running>,
    /// Ends at the earliest deadline of all links, or before it.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Client {
    /// A worker with this client id. Connects when it is first asked for a job.
    #[must_use]
    pub fn new(
        servers: Rc<Servers>,
        abilities: Vec<Ability>,
        id: String,
        counters: Rc<Counters>,
    ) -> Self {
        let announcement = Rc::new(Announcement { id, abilities });
        let link = |(number, server): (usize, &Server)| {
            let id = announcement.id.clone();
            let standing = Standing::new(server.to_string(), id, Rc::clone(&counters));
            Link::new(number, Rc::clone(&servers), Rc::clone(&announcement), standing)
        };
        let links = servers.servers.iter().enumerate().map(link).collect();
        Self { links, turn: 0, is_asking: true, assigned: None, running: None, timer: None }
    }

    /// Waits for the next job; connects and reconnects meanwhile, and logs what fails.
    ///
    /// May be dropped while it waits: a job that arrives later is returned by the next call.
    pub async fn next(&mut self) -> Job {
        self.is_asking = true;
        self.drive(|client, now| {
            let job = client.take_assigned();
            if job.is_none() {
                client.ask(now);
            }
            job
        })
        .await
    }

    /// Waits until the running job is withdrawn by its server, and at once if no job runs any
    /// longer. May be dropped while it waits.
    pub async fn withdrawn(&mut self) -> Withdrawal {
        self.drive(|client, _| match &client.running {
            Some(running) => running.withdrawal,
            None => Some(Withdrawal::Disconnected),
        })
        .await
    }

    /// Sends a packet about the running job; waits while the server doesn't read. What a broken
    /// connection can't take is dropped, as is what is about a job that was withdrawn.
    ///
    /// May be dropped while it waits: the packet is sent before anything else.
    pub async fn report(&mut self, job: &Job, report: Report) {
        let Some(link) = self.link_of(job) else { return };
        link.report(&job.handle, report, Instant::now());
        self.flush(job.server).await;
    }

    /// Ends the running job, and asks for the next in the same write, unless it is another server's
    /// turn. Returns whether the job's server took the packet, or has withdrawn the job.
    ///
    /// May be dropped while it waits: the packet is sent before anything else.
    pub async fn finish(&mut self, job: Job, ending: Ending) -> bool {
        self.end(job, ending, true).await
    }

    /// Ends the running job as `finish` does, but asks for no other until `next` is called.
    pub async fn finish_and_rest(&mut self, job: Job, ending: Ending) -> bool {
        self.end(job, ending, false).await
    }

    /// Asks for no further jobs; returns the job that a grab under way still brings.
    pub async fn settle(&mut self) -> Option<Job> {
        self.is_asking = false;
        self.drive(|client, _| match client.take_assigned() {
            Some(job) => Some(Some(job)),
            None => (!client.links.iter().any(Link::is_asked)).then_some(None),
        })
        .await
    }

    async fn end(&mut self, job: Job, ending: Ending, asks: bool) -> bool {
        // Another server may have woken meanwhile, and gets its turn then.
        self.advance_once().await;
        let now = Instant::now();
        let server = job.server;
        let is_sent = self.link_of(&job).map(|link| link.finish(&job.handle, ending, now));
        let was_cancelled = self.is_cancelled(&job);
        self.running = None;
        // The buffer that it was read into can be used again.
        drop(job);
        let asks = asks && self.is_asking;
        if asks && self.next_awake() == Some(server) {
            self.ask(now);
        }
        let is_flushed = self.flush(server).await;
        // Another server is asked only now, so that its job wouldn't wait for a slow one.
        if asks && self.ask(Instant::now()) {
            self.advance_once().await;
        }
        was_cancelled || is_sent == Some(true) && is_flushed
    }

    /// The link of a job that runs and that its server still wants to hear of.
    fn link_of(&mut self, job: &Job) -> Option<&mut Link> {
        let running = self.running.as_ref()?;
        let is_wanted = running.server == job.server && running.handle == job.handle;
        if !is_wanted || running.withdrawal.is_some() {
            return None;
        }
        self.links.get_mut(job.server)
    }

    fn is_cancelled(&self, job: &Job) -> bool {
        self.running.as_ref().is_some_and(|running| {
            running.handle == job.handle && running.withdrawal == Some(Withdrawal::Cancelled)
        })
    }

    fn take_assigned(&mut self) -> Option<Job> {
        let job = self.assigned.take()?;
        let handle = job.handle.clone();
        self.running = Some(Running { server: job.server, handle, withdrawal: None });
        Some(job)
    }

    /// The server that is to be asked: the first from `turn` on that is awake.
    fn next_awake(&self) -> Option<usize> {
        let count = self.links.len();
        let in_turn = (self.turn..count).chain(0..self.turn.min(count));
        in_turn.into_iter().find(|&at| self.links.get(at).is_some_and(Link::is_awake))
    }

    /// Asks the next server for a job, unless one is asked or has assigned one. Returns whether a
    /// request was queued.
    fn ask(&mut self, now: Instant) -> bool {
        if self.assigned.is_some() || self.links.iter().any(Link::is_asked) {
            return false;
        }
        let Some(server) = self.next_awake() else { return false };
        self.turn = server + 1;
        if let Some(link) = self.links.get_mut(server) {
            link.ask(now);
        }
        true
    }

    /// Waits until a server has taken all requests. Returns whether it has, false if its connection
    /// broke or it withdrew the running job.
    async fn flush(&mut self, server: usize) -> bool {
        self.drive(|client, _| {
            let link = client.links.get(server)?;
            let is_withdrawn = client.running.as_ref().is_some_and(|it| it.withdrawal.is_some());
            if is_withdrawn || !link.is_up() {
                Some(false)
            } else {
                link.is_flushed().then_some(true)
            }
        })
        .await
    }

    /// Connects, writes and reads as far as that needs no waiting.
    async fn advance_once(&mut self) {
        poll_fn(|cx| {
            self.advance(cx, Instant::now());
            Poll::Ready(())
        })
        .await;
    }

    /// Advances all links until `done` returns something; it may queue requests.
    async fn drive<T>(&mut self, mut done: impl FnMut(&mut Self, Instant) -> Option<T>) -> T {
        poll_fn(|cx| {
            loop {
                let now = Instant::now();
                self.advance(cx, now);
                if let Some(result) = done(self, now) {
                    return Poll::Ready(result);
                }
                if !self.links.iter().any(Link::is_dirty) && self.poll_timer(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Connects, writes and reads as far as that needs no waiting.
    fn advance(&mut self, cx: &mut Context<'_>, now: Instant) {
        for server in 0..self.links.len() {
            while let Some(link) = self.links.get_mut(server)
                && let Some(event) = link.poll(cx, now)
            {
                self.handle(server, event);
            }
        }
    }

    fn handle(&mut self, server: usize, event: Event) {
        let running = self.running.as_mut().filter(|running| running.server == server);
        let assigned = self.assigned.take_if(|job| match &event {
            Event::Withdrawn(handle) => job.server == server && job.handle == handle,
            Event::Broken => job.server == server,
            _ => false,
        });
        if assigned.is_some() {
            return;
        }
        match event {
            Event::Assigned(job) => self.assigned = Some(job),
            Event::NoJob => {
                if self.is_asking
                    && let Some(link) = self.links.get_mut(server)
                {
                    link.sleep();
                }
            }
            Event::Withdrawn(handle) => {
                // Else the notice crossed the job's end.
                if let Some(running) = running.filter(|running| running.handle == handle) {
                    running.withdrawal.get_or_insert(Withdrawal::Cancelled);
                }
            }
            Event::Broken => {
                if let Some(running) = running {
                    running.withdrawal.get_or_insert(Withdrawal::Disconnected);
                }
            }
        }
    }

    /// Waits for the earliest deadline of all links.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.links.iter().filter_map(Link::deadline).min() else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        // A timer that ends too early costs less than one that is set anew for each job.
        if timer.deadline() > deadline || timer.is_elapsed() {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }
}
