//! Adoption: orphaned partitions in, ownership and their rows for the cores out.
//!
//! A partition is adopted whole and then loaded in batches, the largest number first; the next is
//! read once the cores have taken the one before. Knows nothing of how an orphan is found.
//!
//! Invariant: the store's thread knows of a partition before the first of its rows is passed on,
//! and of each row before a core does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::MemberSettings;
use super::reading::Standing;
use crate::cluster::partition::{PartitionId, Seen};
use crate::cluster::view::View;
use crate::engine::record::{DeadRow, Row};
use crate::store::StoreError;
use crate::store::members::Extent;
use crate::store::writer::Part;

/// Memory that a job takes beside its texts, in bytes.
const ROW_BYTES: u64 = 192;
/// Time between two looks at how much an orphan has.
const EXTENT_INTERVAL: Duration = Duration::from_secs(5);
/// Time between two lines about an orphan for which there is no memory.
const NEWS_INTERVAL: Duration = Duration::from_secs(60);

/// What is being adopted.
#[derive(Debug, Default)]
pub(super) struct Adoption {
    /// Partitions that are being loaded, the first one first.
    loading: VecDeque<Loading>,
    /// Cores that haven't taken their part of the last batch.
    untaken: usize,
    /// The last batch couldn't be read: it is tried again after the next read of the partitions.
    is_held_up: bool,
    /// Partitions of which it isn't known whether they were adopted: what they were then.
    unclear: BTreeMap<PartitionId, Seen>,
    /// Names of the hosts of earlier owners.
    names: BTreeMap<PartitionId, String>,
    /// Orphans, as they were last looked at.
    weighed: BTreeMap<PartitionId, Weighed>,
}

/// How much memory an orphan takes.
#[derive(Clone, Copy, Debug)]
struct Weighed {
    bytes: u64,
    at: Instant,
    /// When a line was last logged that there is no memory for it.
    logged: Option<Instant>,
}

/// A partition that is being loaded.
#[derive(Debug)]
struct Loading {
    id: PartitionId,
    generation: i64,
    /// Name of the former owner's host.
    from: String,
    began: Instant,
    /// What is still to be loaded takes about so many bytes.
    bytes_left: u64,
    jobs: u64,
    dead: u64,
    /// The smallest number so far, of jobs and then of dead letters.
    below: Option<u64>,
    has_all_jobs: bool,
}

impl Adoption {
    /// Whether the next batch may be read.
    pub(super) fn can_load(&self) -> bool {
        !self.loading.is_empty() && self.untaken == 0 && !self.is_held_up
    }

    /// A core has taken its part of the last batch.
    pub(super) fn note_taken(&mut self) {
        self.untaken = self.untaken.saturating_sub(1);
    }

    /// The partitions are like this now: what isn't this server's is loaded no further.
    pub(super) fn follow(&mut self, standings: &[Standing], settings: &mut MemberSettings) {
        self.is_held_up = false;
        let named = standings.iter().filter(|it| !it.is_own && !it.partition.name.is_empty());
        self.names.extend(named.map(|it| (it.partition.id, it.partition.name.clone())));
        let owned =
            |id: PartitionId| standings.iter().find(|it| it.is_own && it.partition.id == id);
        let adopted = settings.lease.owned().adopted;
        self.loading.retain(|loading| {
            let is_own = owned(loading.id).is_some() && adopted.contains(&loading.id);
            if !is_own {
                forget(&settings.view, loading.id);
            }
            is_own
        });
        for (id, seen) in std::mem::take(&mut self.unclear) {
            let adopted = owned(id).map(|it| it.partition.generation);
            match adopted.filter(|&generation| generation > seen.generation) {
                Some(generation) => self.begin(id, generation, settings),
                None => forget(&settings.view, id),
            }
        }
    }

    /// Adopts those of these orphans for which there is memory.
    pub(super) fn adopt(
        &mut self,
        orphans: &[Seen],
        standings: &[Standing],
        settings: &mut MemberSettings,
    ) {
        self.weighed.retain(|id, _| orphans.iter().any(|it| it.id == *id));
        let owned = settings.lease.owned();
        let mut left = 0;
        for &seen in orphans {
            let id = seen.id;
            if standings.iter().any(|it| it.partition.id == id && it.is_own) {
                continue;
            }
            // The store's thread doesn't know yet that it has lost such a one.
            if owned.contains(id) || (settings.is_leaving)() {
                continue;
            }
            match self.has_room(id, settings) {
                Ok(true) => {}
                Ok(false) => {
                    left += 1;
                    continue;
                }
                // The next read is in another session.
                Err(_) => break,
            }
            // Only the database knows its jobs until all are loaded.
            settings.view.write().loading.insert(id);
            match settings.members.adopt(seen) {
                Ok(Some(generation)) => self.begin(id, generation, settings),
                // Another server was faster, or the owner lives.
                Ok(None) => forget(&settings.view, id),
                Err(error) => {
                    info!(partition = id, %error, "whether a partition was adopted isn't known");
                    self.unclear.insert(id, seen);
                    break;
                }
            }
        }
        settings.view.orphaned.store(left, Ordering::Relaxed);
    }

    /// Begins to load a partition that this server has now.
    fn begin(&mut self, id: PartitionId, generation: i64, settings: &mut MemberSettings) {
        if !settings.writer.own(id, generation) {
            // The server ends.
            return;
        }
        let bytes_left = self.weighed.remove(&id).map_or(0, |it| it.bytes);
        // What was loaded before a loss has left memory with it.
        self.loading.retain(|it| it.id != id);
        self.loading.push_back(Loading {
            id,
            generation,
            from: self.names.get(&id).cloned().unwrap_or_default(),
            began: Instant::now(),
            bytes_left,
            jobs: 0,
            dead: 0,
            below: None,
            has_all_jobs: false,
        });
    }

    /// Whether there is memory for an orphan.
    fn has_room(
        &mut self,
        id: PartitionId,
        settings: &mut MemberSettings,
    ) -> Result<bool, StoreError> {
        let now = Instant::now();
        let earlier = self.weighed.get(&id).copied();
        let weighed = match earlier {
            Some(weighed) if now.saturating_duration_since(weighed.at) < EXTENT_INTERVAL => weighed,
            _ => {
                let Extent { rows, bytes } = settings.members.extent(id)?;
                let logged = earlier.and_then(|it| it.logged);
                Weighed { bytes: bytes + rows * ROW_BYTES, at: now, logged }
            }
        };
        let promised: u64 = self.loading.iter().map(|it| it.bytes_left).sum();
        let left = ((settings.memory_left)() as u64).saturating_sub(promised);
        let has_room = weighed.bytes <= left;
        let is_due = |at: Instant| now.saturating_duration_since(at) >= NEWS_INTERVAL;
        let is_news = !has_room && weighed.logged.is_none_or(is_due);
        if is_news {
            warn!(
                partition = id,
                owner = self.names.get(&id),
                bytes = weighed.bytes,
                left,
                "a partition without a living owner isn't adopted, as its jobs don't fit into \
                 memory: raise --memory-max, or start a server with more memory"
            );
        }
        let logged = if is_news { Some(now) } else { weighed.logged };
        self.weighed.insert(id, Weighed { logged, ..weighed });
        Ok(has_room)
    }

    /// Reads the next batch, and passes it on to the cores.
    pub(super) fn load(&mut self, settings: &mut MemberSettings) {
        if (settings.is_leaving)() {
            return self.end(&settings.view);
        }
        let Some(loading) = self.loading.front_mut() else { return };
        let parts = match loading.read(settings) {
            Ok(parts) => parts,
            Err(error) => {
                info!(partition = loading.id, %error, "the load of a partition will go on");
                self.is_held_up = true;
                return;
            }
        };
        let Some(parts) = parts else {
            // The store hears that there are no more.
            if settings.writer.load(loading.id, loading.generation, Vec::new()) {
                loading.finish(&settings.view);
            } else {
                forget(&settings.view, loading.id);
            }
            self.loading.pop_front();
            return;
        };
        self.untaken = parts.len();
        if !settings.writer.load(loading.id, loading.generation, parts) {
            self.untaken = 0;
            forget(&settings.view, loading.id);
            self.loading.pop_front();
        }
    }

    /// The server is to end: nothing more is loaded.
    pub(super) fn end(&mut self, view: &View) {
        for loading in self.loading.drain(..) {
            info!(partition = loading.id, "not loaded to the end, as this server ends");
        }
        view.orphaned.store(0, Ordering::Relaxed);
    }
}

impl Loading {
    /// The next batch, by core; `None` at the end.
    fn read(&mut self, settings: &mut MemberSettings) -> Result<Option<Vec<Part>>, StoreError> {
        let mut parts = BTreeMap::<usize, Part>::new();
        if !self.has_all_jobs {
            let rows = settings.members.load(self.id, self.below)?;
            self.below = rows.iter().map(|row| row.number).min();
            self.has_all_jobs = rows.is_empty();
            self.jobs += rows.len() as u64;
            self.bytes_left = self.bytes_left.saturating_sub(rows.iter().map(job_bytes).sum());
            for row in rows {
                part(&mut parts, settings, &row).jobs.push(row);
            }
        }
        if self.has_all_jobs {
            let letters = settings.members.load_dead(self.id, self.below)?;
            self.below = letters.iter().map(|letter| letter.row.number).min();
            self.dead += letters.len() as u64;
            self.bytes_left = self.bytes_left.saturating_sub(letters.iter().map(dead_bytes).sum());
            for letter in letters {
                part(&mut parts, settings, &letter.row).dead.push(letter);
            }
        }
        Ok((!parts.is_empty()).then(|| parts.into_values().collect()))
    }

    /// All is loaded.
    fn finish(&self, view: &View) {
        let Self { id, jobs, dead, from, began, .. } = self;
        forget(view, *id);
        view.adopted.fetch_add(1, Ordering::Relaxed);
        let ms = began.elapsed().as_millis();
        info!(partition = id, jobs, dead, ms, from, "partition adopted");
    }
}

/// The part of the core that owns the function of a job.
fn part<'a>(
    parts: &'a mut BTreeMap<usize, Part>,
    settings: &MemberSettings,
    row: &Row,
) -> &'a mut Part {
    let core = settings.cores.owner_of(&row.function);
    parts.entry(core).or_insert_with(|| Part { core, ..Part::default() })
}

/// A partition isn't being loaded, or no more.
fn forget(view: &View, id: PartitionId) {
    view.write().loading.remove(&id);
}

fn job_bytes(row: &Row) -> u64 {
    row.bytes() as u64 + ROW_BYTES
}

fn dead_bytes(letter: &DeadRow) -> u64 {
    letter.bytes() as u64 + ROW_BYTES
}
