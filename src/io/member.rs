//! The thread that watches the partitions: readings of the database in, the view, adopted jobs,
//! answers to lookups and other servers' pauses out.
//!
//! It has a session of its own, as a commit may take long. `adoption` loads what is adopted,
//! `lookups` and `pauses` are what they say. Knows neither SQL nor how the engine keeps a job.
//!
//! Invariant: nothing is adopted while this server is suspended, has no home or is to end, and rows
//! go to the cores by the store's thread only, so that none comes behind the report of a loss.

mod adoption;
mod lookups;
mod pauses;
mod reading;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::debug;

use self::adoption::Adoption;
use self::lookups::Lookups;
use self::pauses::Pauses;
use self::reading::{Standing, own_rank};
use crate::cluster::view::View;
use crate::cluster::watch::Watch;
use crate::engine::record::Pause;
use crate::shard::cores::{Core, Cores};
use crate::store::lease_state::LeaseState;
use crate::store::members::{Census, Members};
use crate::store::own_pauses::OwnPauses;
use crate::store::writer::{Outcome, Sender};

/// What the thread is given.
pub(crate) struct MemberSettings {
    pub(crate) members: Box<dyn Members>,
    pub(crate) lease: Arc<LeaseState>,
    pub(crate) view: Arc<View>,
    /// To the store's thread.
    pub(crate) writer: Sender,
    /// The cores, with any of them as own.
    pub(crate) cores: Cores,
    /// Whether it adopts partitions and follows other servers' pauses.
    pub(crate) is_cluster: bool,
    /// Pauses that this server writes.
    pub(crate) own_pauses: Arc<OwnPauses>,
    /// Functions that were paused when the server started.
    pub(crate) pauses: BTreeMap<Bytes, Pause>,
    /// Bytes that jobs may still take.
    pub(crate) memory_left: Box<dyn Fn() -> usize + Send>,
    /// Whether the server is to end.
    pub(crate) is_leaving: Box<dyn Fn() -> bool + Send>,
}

/// What other threads want of the thread.
enum Request {
    /// Find out whether the store has these jobs, for a core.
    LookUp(Core, Vec<u64>),
    /// A core has taken what `Outcome::Adopted` brought.
    Taken,
    Stop,
}

/// Sends requests to the thread. Cheap to clone, one for each core.
#[derive(Clone, Debug)]
pub(crate) struct MemberSender(mpsc::Sender<Request>);

impl MemberSender {
    /// Asks whether the store has these jobs; each is answered by `Outcome::Found`.
    pub(crate) fn look_up(&self, core: Core, numbers: Vec<u64>) {
        self.send(Request::LookUp(core, numbers));
    }

    /// What an `Outcome::Adopted` brought is in the engine.
    pub(crate) fn note_taken(&self) {
        self.send(Request::Taken);
    }

    fn send(&self, request: Request) {
        // Fails if the thread has ended.
        let _ = self.0.send(request);
    }
}

/// Where the thread gets its requests, before it runs.
#[derive(Debug)]
pub(crate) struct MemberReceiver(Receiver<Request>);

/// A channel to the thread.
pub(crate) fn member_channel() -> (MemberSender, MemberReceiver) {
    let (sender, receiver) = mpsc::channel();
    (MemberSender(sender), MemberReceiver(receiver))
}

/// The thread.
#[derive(Debug)]
pub(crate) struct Member {
    sender: MemberSender,
    ended: Receiver<()>,
}

impl Member {
    /// Starts the thread. `report` is called on it with a core and an outcome for it.
    ///
    /// # Errors
    /// The kernel's, if it can't create a thread.
    pub(crate) fn start(
        settings: MemberSettings,
        (sender, receiver): (MemberSender, MemberReceiver),
        report: impl Fn(Core, Outcome) + Send + 'static,
    ) -> io::Result<Self> {
        let (end, ended) = mpsc::channel();
        let member = MemberThread::new(settings, receiver, report);
        let run = move || {
            member.run();
            // Fails if the thread isn't waited for any more.
            let _ = end.send(());
        };
        thread::Builder::new().name("member".into()).spawn(run)?;
        Ok(Self { sender, ended })
    }

    /// Tells the thread to end, and doesn't wait.
    pub(crate) fn begin_stop(&self) {
        self.sender.send(Request::Stop);
    }

    /// Waits for the end of the thread, which may be held up by the database, for so long at most.
    pub(crate) fn stop(self, within: Duration) {
        self.begin_stop();
        let _ = self.ended.recv_timeout(within);
    }
}

/// State of the thread.
struct MemberThread<R> {
    settings: MemberSettings,
    receiver: Receiver<Request>,
    report: R,
    /// The moment from which the watch's times count.
    began: Instant,
    watch: Watch,
    lookups: Lookups,
    pauses: Pauses,
    adoption: Adoption,
    /// The last read has failed.
    has_failed: bool,
    is_stopped: bool,
}

impl<R: Fn(Core, Outcome)> MemberThread<R> {
    fn new(
        mut settings: MemberSettings,
        MemberReceiver(receiver): MemberReceiver,
        report: R,
    ) -> Self {
        let pauses = Pauses::new(std::mem::take(&mut settings.pauses));
        Self {
            watch: Watch::new(settings.lease.lease()),
            settings,
            receiver,
            report,
            began: Instant::now(),
            lookups: Lookups::default(),
            pauses,
            adoption: Adoption::default(),
            has_failed: false,
            is_stopped: false,
        }
    }

    fn run(mut self) {
        let interval = self.settings.lease.lease().read_interval();
        let mut read_at = Instant::now();
        while !self.is_stopped {
            self.receive(if self.adoption.can_load() { Instant::now() } else { read_at });
            self.answer_lookups();
            let now = Instant::now();
            if self.is_stopped {
                break;
            }
            if read_at <= now {
                self.read();
                read_at = now + interval;
            } else if self.adoption.can_load() {
                let Self { adoption, settings, .. } = &mut self;
                adoption.load(settings);
            }
        }
    }

    /// Receives all requests; waits for the first until `until`.
    fn receive(&mut self, until: Instant) {
        let wait = until.saturating_duration_since(Instant::now());
        let mut request = self.receiver.recv_timeout(wait);
        loop {
            match request {
                Ok(Request::LookUp(core, numbers)) => self.lookups.add(core, numbers),
                Ok(Request::Taken) => self.adoption.note_taken(),
                Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.is_stopped = true;
                    return;
                }
                Err(RecvTimeoutError::Timeout) => return,
            }
            request = self.receiver.recv_timeout(Duration::ZERO);
        }
    }

    fn answer_lookups(&mut self) {
        let Self { lookups, settings, report, .. } = self;
        lookups.answer(settings.members.as_mut(), |core, numbers| {
            report(core, Outcome::Found { numbers });
        });
    }

    /// Reads the partitions, and does what follows from it.
    fn read(&mut self) {
        let committed = self.settings.own_pauses.committed();
        let census = match self.settings.members.read() {
            Ok(census) => census,
            Err(error) => {
                self.watch.failed();
                // The store's thread says it to the operator.
                if !std::mem::replace(&mut self.has_failed, true) {
                    debug!(%error, "the partitions can't be read");
                }
                return;
            }
        };
        self.has_failed = false;
        // When it was answered.
        let at = self.began.elapsed();
        self.watch.read(at, census.session, &census.readings);
        let standings = self.standings(&census);
        self.adoption.follow(&standings, &mut self.settings);
        self.update_view(&standings, &census);
        if !self.settings.is_cluster {
            return;
        }
        self.follow_pauses(census.pauses, committed);
        let MemberSettings { lease, is_leaving, .. } = &self.settings;
        if is_leaving() {
            self.adoption.end(&self.settings.view);
        } else if lease.owned().home.is_some() && !lease.is_suspended_now() {
            let orphans = self.watch.orphans(at, own_rank(&standings, lease.lease(), at));
            self.adoption.adopt(&orphans, &standings, &mut self.settings);
        }
    }

    fn standings(&self, census: &Census) -> Vec<Standing> {
        let readings = census.readings.iter();
        readings
            .map(|reading| {
                let partition = reading.partition.clone();
                let is_own = self.settings.members.is_own(reading);
                let beat_at = self.watch.beat_at(partition.id).unwrap_or_default();
                Standing { partition, is_own, beat_at }
            })
            .collect()
    }

    fn update_view(&self, standings: &[Standing], census: &Census) {
        let known = |standing: &Standing| standing.known(self.began);
        let mut contents = self.settings.view.write();
        for &(block, partition) in &census.blocks {
            contents.blocks.insert(block, partition);
        }
        contents.partitions = standings.iter().map(known).collect();
    }

    fn follow_pauses(&mut self, stored: Vec<(Bytes, Pause)>, committed: u64) {
        let Some(own) = self.settings.own_pauses.take_settled(committed) else { return };
        let changes = self.pauses.follow(own, stored);
        let cores = self.settings.cores;
        for core in 0..cores.count {
            let owned = changes.iter().filter(|(function, _)| cores.owner_of(function) == core);
            let changes: Arc<[_]> = owned.cloned().collect();
            if !changes.is_empty() {
                (self.report)(core, Outcome::Pauses { changes });
            }
        }
    }
}

#[cfg(test)]
mod tests;
