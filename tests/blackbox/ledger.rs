//! What bursts have brought about: each connection's requests and what came on it in, promises that
//! hold for every order out.
//!
//! A connection's own requests are dealt with in their order, so what it can do, runs and waits for
//! is known; which of several connections was first is not, and nothing here depends on it.
//! Invariant: a job's record is what is known of it when the server is at rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Instant;

use crate::conn::{Item, NAMES, readable};
use crate::model::{Checked, Place, packet};
use crate::operations::{Bytes, Request, Submission};

/// The function of submissions whose answers aren't read. Whether such a job exists is known when a
/// worker gets it.
pub(crate) const UNREAD: &[u8] = b"unread";

/// A request that has been sent, and the payload of the ECHO_REQ behind it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) token: Bytes,
}

/// How a connection's part of a burst ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It stays.
    Open,
    /// FIN: all answers come before the end.
    Fin,
    /// It is closed, or reset, without a look at what comes.
    Unread,
}

/// Bytes that messages show in part.
#[derive(Clone, PartialEq, Eq)]
struct Payload(Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&readable(&self.0))
    }
}

#[derive(Clone, Debug, Default)]
struct Job {
    function: Bytes,
    unique: Bytes,
    /// What equal submissions had.
    payloads: Vec<Payload>,
    background: bool,
    /// Foreground submissions of open connections: those before this burst, and those in it.
    clients: BTreeMap<Place, usize>,
    newcomers: BTreeMap<Place, usize>,
    /// Not to be run before, if so.
    due: Option<Instant>,
    holder: Option<Place>,
    ended: bool,
    /// A worker had it when the burst began, or it was there for one to take.
    was_held: bool,
    was_queued: bool,
    /// From 0 = high.
    priority: usize,
    /// The burst that it came in; 0 = unknown.
    since: usize,
    /// It has lost a worker, and may stand at the head of its queue.
    requeued: bool,
    /// In this burst: given out, given back, cancelled.
    assigned: usize,
    released: usize,
    cancelled: bool,
    /// In an earlier burst, and its worker doesn't know.
    was_cancelled: bool,
    /// What its worker said of it in this burst, and whether that was the last word.
    said: Vec<Item>,
    completed: bool,
    /// Its worker left without having heard whether that was taken.
    unclear: bool,
}

#[derive(Debug, Default)]
struct Peer {
    abilities: BTreeSet<Bytes>,
    held: Vec<Bytes>,
    /// The job of its last request, if that was WORK_EXCEPTION.
    excepted: Option<Bytes>,
    asleep: bool,
    woken: bool,
    /// NOOPs that may still come.
    sleeps: usize,
    /// What came of each job in this burst.
    works: BTreeMap<Bytes, Vec<Item>>,
}

/// All jobs and connections.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    jobs: BTreeMap<Bytes, Job>,
    peers: BTreeMap<Place, Peer>,
    /// Payloads of submissions whose answers weren't read.
    unread: BTreeSet<Bytes>,
    dropped: BTreeSet<Bytes>,
    /// Bursts so far, and whether a connection in this one may take jobs unseen.
    bursts: usize,
    has_unread: bool,
    /// Jobs that were given out in this burst.
    assignments: Vec<(Place, Bytes, Item)>,
}

impl Ledger {
    pub(crate) fn connect(&mut self, place: Place) {
        self.peers.insert(place, Peer::default());
    }

    /// A burst begins.
    pub(crate) fn begin(&mut self, has_unread: bool) {
        // What was taken unseen in the last one has come back, to the head of its queue.
        let was_unread = std::mem::replace(&mut self.has_unread, has_unread);
        self.bursts += 1;
        self.dropped.clear();
        self.assignments.clear();
        for job in self.jobs.values_mut() {
            job.requeued |= job.released > 0 || was_unread;
            (job.assigned, job.released) = (0, 0);
            job.was_held = job.holder.is_some();
            job.was_queued = !job.was_held && !job.ended && job.since > 0 && job.due.is_none();
            (job.cancelled, job.completed, job.unclear) = (false, false, false);
            job.said.clear();
        }
        for peer in self.peers.values_mut() {
            peer.works.clear();
        }
    }

    /// What came on a connection in answer to its requests.
    pub(crate) fn read(&mut self, place: Place, asked: &[Asked], items: Vec<Item>) -> Checked<()> {
        let mut items = items.into_iter();
        // A NOOP before this answer may be for the sleep that the request behind it begins.
        let mut noop_since_last = false;
        for Asked { request, token } in asked {
            let end = packet("ECHO_RES", &[token]);
            let mut replies = Vec::new();
            let mut noop = false;
            // The NOOP may come before the answer to what stands behind PRE_SLEEP.
            self.peer(place).sleeps += usize::from(matches!(request, Request::PreSleep));
            loop {
                match items.next() {
                    Some(item) if item == end => break,
                    Some(item) => {
                        let before = replies.len();
                        self.unasked(place, item, &mut noop, &mut replies)?;
                        // What its worker says of it may come next.
                        if let (Request::Submit(submission), true) =
                            (request, replies.len() > before)
                        {
                            self.submitted(place, submission, &replies)
                                .map_err(|e| format!("c{place}: {request}: {e}"))?;
                        }
                    }
                    None => return Err(format!("c{place}: {request} and what follows: silence")),
                }
            }
            self.answered(place, request, &replies)
                .map_err(|e| format!("c{place}: {request}: {e}"))?;
            if matches!(request, Request::PreSleep) {
                self.peer(place).woken = noop || noop_since_last;
            }
            noop_since_last = noop;
        }
        let (mut noop, mut rest) = (false, Vec::new());
        for item in items {
            self.unasked(place, item, &mut noop, &mut rest)?;
        }
        match rest.first() {
            Some(item) => Err(format!("c{place}: nothing explains {item:?}")),
            None => Ok(()),
        }
    }

    /// Wake-ups and what workers say are put down; others are answers.
    fn unasked(
        &mut self,
        place: Place,
        item: Item,
        noop: &mut bool,
        replies: &mut Vec<Item>,
    ) -> Checked<()> {
        let name = match &item {
            Item::Packet(number, _) => NAMES.get(*number as usize).copied().unwrap_or_default(),
            _ => "",
        };
        let peer = self.peer(place);
        if name == "NOOP" {
            *noop = true;
            if peer.sleeps == 0 {
                return Err(format!("c{place} didn't sleep and got a NOOP"));
            }
            peer.sleeps -= 1;
            peer.woken = true;
        } else if name.starts_with("WORK_") {
            let Item::Packet(_, body) = &item else { unreachable!("it has a name") };
            let handle = handle_of(body);
            let last = is_last(name);
            let works = peer.works.entry(handle.clone()).or_default();
            works.push(item.clone());
            let told = works.iter().filter(|work| is_last(name_of(work))).count();
            let Some(job) = self.jobs.get(&handle) else {
                return Err(format!("c{place} got {item:?} of a job that it never heard of"));
            };
            let waits = |of: &BTreeMap<Place, usize>| of.get(&place).copied().unwrap_or(0);
            let asked = waits(&job.clients) + waits(&job.newcomers);
            if asked == 0 || (last && told > asked) {
                return Err(format!("c{place} got {item:?}, having asked {asked} times"));
            }
        } else {
            replies.push(item);
        }
        Ok(())
    }

    fn answered(&mut self, place: Place, request: &Request, replies: &[Item]) -> Checked<()> {
        let none = || match replies {
            [] => Ok(()),
            _ => Err(format!("no answer was due, and there came {replies:?}")),
        };
        let excepted = self.peer(place).excepted.take();
        match request {
            Request::Submit(_) if replies.len() == 1 => Ok(()),
            Request::Submit(_) => Err("no answer".to_owned()),
            Request::Grab(name) => self.grabbed(place, name, replies),
            Request::CanDo { function, .. } => {
                self.peer(place).abilities.insert(function.clone());
                none()
            }
            Request::CantDo { function } => {
                if self.peer(place).abilities.remove(function) {
                    self.release(place, |job| job.function == *function);
                }
                none()
            }
            Request::ResetAbilities => {
                self.peer(place).abilities.clear();
                self.release(place, |_| true);
                none()
            }
            Request::PreSleep => {
                let peer = self.peer(place);
                peer.asleep = true;
                none()
            }
            Request::Work { name, handle, .. } => {
                let repeats = *name == "WORK_FAIL" && excepted.as_ref() == Some(handle);
                if *name == "WORK_EXCEPTION" {
                    self.peer(place).excepted = Some(handle.clone());
                }
                let Some(at) = self.peer(place).held.iter().position(|held| held == handle) else {
                    let is_error = |item: &Item| {
                        matches!(item, Item::Packet(19, body)
                        if body.starts_with(b"JOB_NOT_FOUND\0"))
                    };
                    return match replies {
                        [] if repeats => Ok(()),
                        [item] if is_error(item) => Ok(()),
                        _ => Err(format!("that job isn't its own, and there came {replies:?}")),
                    };
                };
                let number = crate::conn::packet_type(name).expect("a packet's name");
                let last = is_last(name);
                if last {
                    self.peer(place).held.remove(at);
                }
                let job = self.jobs.get_mut(handle).expect("a job that was given out");
                job.said.push(Item::Packet(number, request.work_body()));
                if last {
                    (job.holder, job.completed) = (None, true);
                }
                none()
            }
            Request::GetStatus { handle } => match replies {
                [Item::Packet(20, body)] if handle_of(body) == *handle => Ok(()),
                _ => Err(format!("there came {replies:?}")),
            },
            Request::Text { line, .. } => self.told(line, replies),
            other => unreachable!("bursts have no {other}"),
        }
    }

    fn submitted(
        &mut self,
        place: Place,
        submission: &Submission,
        replies: &[Item],
    ) -> Checked<()> {
        let [Item::Packet(8, handle)] = replies else {
            return Err(format!("there came {replies:?}"));
        };
        let job = self.jobs.entry(handle.clone()).or_default();
        if job.payloads.is_empty() {
            submission.function.clone_into(&mut job.function);
            submission.unique.clone_into(&mut job.unique);
            // Others in this burst may have made it with another priority.
            job.since = if job.unique.is_empty() { self.bursts } else { 0 };
            job.priority = submission.priority();
        }
        if job.ended {
            return Err(format!("{} has ended before", readable(handle)));
        }
        let equal = job.function == submission.function && job.unique == submission.unique;
        if !equal || (!job.payloads.is_empty() && job.unique.is_empty()) {
            return Err(format!("{} is another job: {job:?}", readable(handle)));
        }
        job.payloads.push(Payload(submission.payload.clone()));
        if submission.background() {
            job.background = true;
        } else {
            *job.newcomers.entry(place).or_default() += 1;
        }
        if submission.has_epoch() && submission.epoch != b"0" {
            job.due = Some(Instant::now() + std::time::Duration::from_secs(3));
        }
        Ok(())
    }

    fn grabbed(&mut self, place: Place, name: &str, replies: &[Item]) -> Checked<()> {
        let peer = self.peer(place);
        (peer.asleep, peer.woken) = (false, false);
        match replies {
            [Item::Packet(10, _)] => Ok(()),
            [item @ Item::Packet(11 | 31 | 40, body)] => {
                let handle = handle_of(body);
                let function = body.split(|&byte| byte == 0).nth(1).unwrap_or_default().to_vec();
                if !peer.abilities.contains(&function) {
                    return Err(format!("it can't do {item:?}"));
                }
                peer.held.push(handle.clone());
                self.assignments.push((place, handle, item.clone()));
                Ok(())
            }
            _ => Err(format!("{name}: there came {replies:?}")),
        }
    }

    fn told(&mut self, line: &str, replies: &[Item]) -> Checked<()> {
        let is = |text: &str| *replies == [Item::Line(text.as_bytes().to_vec())];
        let words: Vec<&str> = line.split(' ').collect();
        let sound = match *words {
            ["cancel", "job", handle] => {
                let done = is("OK\r\n");
                if done && let Some(job) = self.jobs.get_mut(handle.as_bytes()) {
                    job.cancelled = true;
                }
                done || is("ERR UNKNOWN_JOB\r\n")
            }
            ["drop", "function", name] => {
                if is("OK\r\n") {
                    self.dropped.insert(name.into());
                }
                is("OK\r\n")
                    || is("ERR function not found\r\n")
                    || is("ERR there are still connected workers or executing clients\r\n")
            }
            _ => replies.last() == Some(&Item::Line(b".\n".to_vec())),
        };
        if sound { Ok(()) } else { Err(format!("there came {replies:?}")) }
    }

    fn release(&mut self, place: Place, which: impl Fn(&Job) -> bool) {
        let jobs = &mut self.jobs;
        let given_out = &self.assignments;
        let Some(peer) = self.peers.get_mut(&place) else { return };
        peer.held.retain(|handle| {
            let lost = match jobs.get(handle) {
                Some(job) if !job.payloads.is_empty() => which(job),
                // It is known only from this burst's assignment as yet.
                _ => given_out.iter().any(|(_, given, item)| {
                    let Item::Packet(_, body) = item else { return false };
                    let function = body.split(|&byte| byte == 0).nth(1).unwrap_or_default();
                    given == handle && which(&Job { function: function.to_vec(), ..Job::default() })
                }),
            };
            if lost {
                let job = jobs.entry(handle.clone()).or_default();
                job.released += 1;
                if job.holder == Some(place) {
                    job.holder = None;
                }
            }
            !lost
        });
    }

    /// A connection has ended; of what it asked for last nothing may be known.
    pub(crate) fn leave(&mut self, place: Place, asked: &[Asked]) {
        for Asked { request, .. } in asked {
            match request {
                Request::Submit(submission) => {
                    self.unread.insert(submission.payload.clone());
                }
                Request::Work { name, handle, .. } => {
                    // It may have got the job a moment before.
                    if let Some(job) = self.jobs.get_mut(handle) {
                        let number = crate::conn::packet_type(name).expect("a packet's name");
                        job.said.push(Item::Packet(number, request.work_body()));
                        job.unclear = true;
                    }
                }
                _ => {}
            }
        }
        self.release(place, |_| true);
        for job in self.jobs.values_mut() {
            job.clients.remove(&place);
            job.newcomers.remove(&place);
        }
        self.peers.remove(&place);
    }

    /// All streams have been read: jobs were given out only to one worker at a time, as submitted.
    pub(crate) fn check_assignments(&mut self) -> Checked<()> {
        for (place, handle, item) in std::mem::take(&mut self.assignments) {
            let Item::Packet(_, body) = &item else { continue };
            let mut parts = body.split(|&byte| byte == 0);
            let function = parts.nth(1).unwrap_or_default().to_vec();
            let payload = parts.next_back().unwrap_or_default().to_vec();
            let known = self.jobs.get(&handle).is_some_and(|job| !job.payloads.is_empty());
            if !known {
                if !self.unread.remove(&payload) || function != UNREAD {
                    return Err(format!("c{place} got a job that was never made: {item:?}"));
                }
                let job = self.jobs.entry(handle.clone()).or_default();
                (job.function, job.background) = (function.clone(), true);
                job.payloads.push(Payload(payload.clone()));
            }
            let job = self.jobs.get_mut(&handle).expect("made above");
            if job.ended {
                return Err(format!("c{place} got {item:?}, which has ended"));
            }
            if job.function != function || !job.payloads.contains(&Payload(payload)) {
                return Err(format!("c{place} got {item:?} of {job:?}"));
            }
            job.assigned += 1;
        }
        let mut holders: BTreeMap<&Bytes, Vec<Place>> = BTreeMap::new();
        for (&place, peer) in &self.peers {
            for handle in &peer.held {
                holders.entry(handle).or_default().push(place);
            }
        }
        for (handle, job) in &mut self.jobs {
            let now = holders.remove(handle).unwrap_or_default();
            let most = job.released + usize::from(!job.was_held);
            if job.assigned > most || now.len() > 1 {
                let text = readable(handle);
                return Err(format!("{text} is with {now:?}, given out twice: {job:?}"));
            }
            job.holder = now.first().copied();
        }
        self.check_order()
    }

    /// No job that was there before the burst was passed over by one that stands behind it.
    fn check_order(&self) -> Checked<()> {
        let passed = |(_, job): &(&Bytes, &Job)| {
            // One whose clients have left is gone.
            let is_wanted = job.background || !job.clients.is_empty();
            job.was_queued && is_wanted && job.assigned == 0 && !job.cancelled && !self.has_unread
        };
        let later = |job: &Job| job.assigned > 0 && !job.requeued && job.released == 0;
        for (handle, first) in self.jobs.iter().filter(passed) {
            let overtakes = |(_, job): &(&Bytes, &Job)| {
                let behind = match job.priority.cmp(&first.priority) {
                    std::cmp::Ordering::Less => false,
                    std::cmp::Ordering::Equal => job.since > first.since,
                    std::cmp::Ordering::Greater => true,
                };
                job.function == first.function && job.since > 0 && later(job) && behind
            };
            if let Some((other, _)) = self.jobs.iter().find(overtakes)
                && !self.dropped.contains(&first.function)
            {
                let other = (readable(other), &self.jobs[other]);
                return Err(format!("{other:?} overtook {} {first:?}", readable(handle)));
            }
        }
        Ok(())
    }

    /// Jobs with a unique key are one.
    pub(crate) fn check_uniques(&self) -> Checked<()> {
        let mut seen = BTreeMap::new();
        for (handle, job) in self.jobs.iter().filter(|(_, job)| !job.ended && !job.was_cancelled) {
            if !job.unique.is_empty()
                && let Some(other) = seen.insert((&job.function, &job.unique), handle)
            {
                let (one, other) = (readable(handle), readable(other));
                return Err(format!("{one} and {other} have one unique key: {job:?}"));
            }
        }
        Ok(())
    }

    /// Jobs whose state is to be asked for.
    pub(crate) fn open_jobs(&self) -> Vec<Bytes> {
        let open = self.jobs.iter().filter(|(_, job)| !job.ended);
        open.map(|(handle, _)| handle.clone()).collect()
    }

    /// What the server says of a job at rest.
    pub(crate) fn settle(&mut self, handle: &[u8], known: bool, running: bool) -> Checked<()> {
        let job = self.jobs.get_mut(handle).expect("asked for");
        let newcomers = std::mem::take(&mut job.newcomers);
        let wanted = job.background || !job.clients.is_empty() || !newcomers.is_empty();
        // A worker that left may have said its last word before, or not; a function may have been
        // dropped before a job was submitted, or after.
        let unclear = job.unclear || self.dropped.contains(&job.function);
        let right = if job.completed {
            !known
        } else if job.holder.is_some() {
            known && running
        } else if job.cancelled {
            !known
        } else if unclear {
            !running
        } else {
            known == wanted && !running
        };
        if !right {
            let text = readable(handle);
            return Err(format!("known {known}, running {running}, but {text} is {job:?}"));
        }
        job.ended = !known;
        let failed = packet("WORK_FAIL", &[handle]);
        let job = job.clone();
        for (&place, peer) in &mut self.peers {
            let before = job.clients.get(&place).copied().unwrap_or(0);
            let new = newcomers.get(&place).copied().unwrap_or(0);
            let came = peer.works.remove(handle).unwrap_or_default();
            let due = if job.ended || job.cancelled { before + new } else { 0 };
            let last = came.iter().filter(|item| is_last(name_of(item))).count();
            let sound = came.iter().all(|item| job.said.contains(item) || *item == failed);
            // Clients from before get all of it if nothing else happened.
            let simple = new == 0 && !job.cancelled && !unclear;
            let all: Vec<&Item> =
                job.said.iter().flat_map(|item| std::iter::repeat_n(item, before)).collect();
            let is_fail =
                |item: &Item| name_of(item) == "WORK_EXCEPTION" || name_of(item) == "WORK_FAIL";
            let equal = came.len() == all.len()
                && came.iter().zip(&all).all(|(a, b)| a == *b || (is_fail(b) && *a == failed));
            if last != due || !sound || (simple && !equal) {
                let text = readable(handle);
                return Err(format!(
                    "c{place} waits {before} + {new} times for {text} and got {came:?}; {job:?}"
                ));
            }
        }
        let job = self.jobs.get_mut(handle).expect("asked for");
        if job.ended || job.cancelled {
            job.clients.clear();
        } else {
            for (place, count) in newcomers {
                *job.clients.entry(place).or_default() += count;
            }
        }
        if job.cancelled {
            job.was_cancelled = true;
            job.background = false;
        }
        Ok(())
    }

    /// For each function: jobs, those that run, and workers.
    pub(crate) fn totals(&self) -> BTreeMap<Bytes, [usize; 3]> {
        let mut totals: BTreeMap<Bytes, [usize; 3]> = BTreeMap::new();
        for job in self.jobs.values().filter(|job| !job.ended) {
            let row = totals.entry(job.function.clone()).or_default();
            row[0] += 1;
            row[1] += usize::from(job.holder.is_some());
        }
        for name in self.peers.values().flat_map(|peer| &peer.abilities) {
            totals.entry(name.clone()).or_default()[2] += 1;
        }
        totals
    }

    /// A runnable job beside a sleeper that got no NOOP. With `leases`, it doesn't count if as many
    /// workers have got one as there are jobs.
    pub(crate) fn job_beside_a_sleeper(&self, leases: bool) -> Option<String> {
        let now = Instant::now();
        let runnable =
            |job: &&Job| !job.ended && job.holder.is_none() && job.due.is_none_or(|due| due < now);
        let mut queued: BTreeMap<&Bytes, usize> = BTreeMap::new();
        for job in self.jobs.values().filter(runnable) {
            *queued.entry(&job.function).or_default() += 1;
        }
        for (name, count) in queued {
            let able = || self.peers.iter().filter(|(_, peer)| peer.abilities.contains(name));
            let woken = able().filter(|(_, peer)| peer.woken).count();
            if let Some((place, _)) = able().find(|(_, peer)| peer.asleep && !peer.woken)
                && !(leases && woken >= count)
            {
                let name = readable(name);
                return Some(format!(
                    "{count} jobs of {name:?} lie beside c{place}, which sleeps; {woken} are woken"
                ));
            }
        }
        None
    }

    /// Jobs that a worker has.
    pub(crate) fn held(&self, place: Place) -> Vec<Bytes> {
        self.peers[&place].held.clone()
    }

    /// How many functions a worker can do.
    pub(crate) fn abilities(&self, place: Place) -> usize {
        self.peers[&place].abilities.len()
    }

    /// Handles of all jobs, the latest last.
    pub(crate) fn handles(&self) -> Vec<Bytes> {
        self.jobs.keys().cloned().collect()
    }

    fn peer(&mut self, place: Place) -> &mut Peer {
        self.peers.get_mut(&place).expect("an open connection")
    }
}

fn handle_of(body: &[u8]) -> Bytes {
    body.split(|&byte| byte == 0).next().unwrap_or_default().to_vec()
}

fn name_of(item: &Item) -> &'static str {
    match item {
        Item::Packet(number, _) => NAMES.get(*number as usize).copied().unwrap_or_default(),
        _ => "",
    }
}

/// Whether nothing comes after it.
fn is_last(name: &str) -> bool {
    ["WORK_COMPLETE", "WORK_FAIL", "WORK_EXCEPTION"].contains(&name)
}
