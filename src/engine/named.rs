//! What is counted by function, and the functions that are counted by themselves: names and counts
//! in, numbers and gauges out.
//!
//! The first functions to appear get an entry each, all others share entry 0, `_other`: metrics
//! have so many series and no more. Names of the configuration come first. Knows no text and no
//! other core, but the cores share the number of entries that are left.
//!
//! Invariant: a name that has an entry keeps it and its numbers, even while there is no such
//! function. For each entry, the jobs submitted and recovered are those that its gauges count, and
//! those that ended.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::quality::SeedableRandomState;

use super::ids::{EntryId, FunctionId};
use super::index::Index;
use super::numbers::{Gauges, Numbers, Refused};
use super::{Engine, Function};

/// The name of entry 0. A function of that name gets no entry, so that no name is there twice.
const OTHER_NAME: &[u8] = b"_other";
/// Functions with longer names get no entry: entries are kept for good, and must not fill the
/// memory.
const NAME_BYTES_MAX: usize = 512;
/// Memory of an entry beside its name: its record, and its place in the index.
const ENTRY_BYTES: usize = size_of::<Entry>() + 16;

/// Functions that get an entry of their own. Clones share the number that is left.
#[derive(Clone, Debug)]
pub struct NamedFunctions(Arc<AtomicUsize>);

impl NamedFunctions {
    /// So many.
    #[must_use]
    pub fn up_to(count: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(count)))
    }

    fn is_spent(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// Takes an entry, unless none is left.
    fn take(&self) -> bool {
        let take = |left: usize| left.checked_sub(1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

impl Default for NamedFunctions {
    fn default() -> Self {
        Self::up_to(1000)
    }
}

#[derive(Clone, Debug, Default)]
struct Entry {
    /// Empty for `EntryId::OTHER`.
    name: Box<[u8]>,
    /// While it exists.
    function: Option<FunctionId>,
    numbers: Numbers,
}

/// All entries by number and by name.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    entries: Vec<Entry>,
    names: Index<EntryId>,
    /// Memory of all entries but the first.
    bytes: usize,
    hasher: SeedableRandomState,
    left: NamedFunctions,
}

impl Named {
    pub(super) fn new(hasher: SeedableRandomState, left: NamedFunctions) -> Self {
        let entries = vec![Entry::default()];
        Self { entries, names: Index::default(), bytes: 0, hasher, left }
    }

    /// Memory of all entries.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Memory that `enter` takes, at most.
    pub(super) fn bytes_to_enter(&self, name: &[u8]) -> usize {
        let is_new = self.may_enter(name) && self.find(name).is_none();
        if is_new { ENTRY_BYTES + name.len() } else { 0 }
    }

    fn may_enter(&self, name: &[u8]) -> bool {
        name.len() <= NAME_BYTES_MAX && name != OTHER_NAME && !self.left.is_spent()
    }

    fn find(&self, name: &[u8]) -> Option<EntryId> {
        let hash = self.hasher.hash_one(name);
        self.names.find(hash, |id| *self.entries[id.index()].name == *name)
    }

    /// The entry of this name, created if there may be more.
    fn enter(&mut self, name: &[u8]) -> EntryId {
        if let Some(id) = self.find(name) {
            return id;
        }
        if !self.may_enter(name) || !self.left.take() {
            return EntryId::OTHER;
        }
        let id = EntryId::from_index(self.entries.len());
        self.entries.push(Entry { name: name.into(), ..Entry::default() });
        self.bytes += ENTRY_BYTES + name.len();
        let Self { entries, names, hasher, .. } = self;
        let hash_of = |id: EntryId| hasher.hash_one(&*entries[id.index()].name);
        names.insert(hasher.hash_one(name), id, hash_of);
        id
    }

    fn set_function(&mut self, id: EntryId, function: Option<FunctionId>) {
        if id != EntryId::OTHER {
            self.entries[id.index()].function = function;
        }
    }

    /// All functions that exist and have an entry.
    fn functions(&self) -> impl Iterator<Item = FunctionId> {
        self.entries.iter().filter_map(|entry| entry.function)
    }
}

impl std::ops::Index<EntryId> for Named {
    type Output = Numbers;

    #[inline]
    fn index(&self, id: EntryId) -> &Numbers {
        &self.entries[id.index()].numbers
    }
}

impl std::ops::IndexMut<EntryId> for Named {
    #[inline]
    fn index_mut(&mut self, id: EntryId) -> &mut Numbers {
        &mut self.entries[id.index()].numbers
    }
}

/// A function that is counted by itself, or all others together.
#[derive(Clone, Copy, Debug)]
pub struct NamedFunction<'a> {
    /// Number of the entry; 0 for all functions that have none of their own.
    pub index: usize,
    /// Its name, any bytes; `None` for entry 0.
    pub name: Option<&'a [u8]>,
    /// Its number, if it exists; `None` for entry 0.
    pub function: Option<FunctionId>,
    /// What there is of it now; for entry 0 without `oldest_ms`.
    pub gauges: Gauges,
    /// What was counted of it.
    pub numbers: &'a Numbers,
    /// `Function::queue_max`, or zeros.
    pub queue_max: [u32; 3],
}

impl Engine {
    /// Gives the function of this name an entry if there may be more, whether it exists or not.
    /// To be called before the first functions appear.
    pub fn name_function(&mut self, name: &[u8]) {
        self.named.enter(name);
    }

    /// Creates the function of this name, which must not exist.
    pub(super) fn add_function(&mut self, name: &[u8]) -> FunctionId {
        let entry = self.named.enter(name);
        let policy = self.look_up_policy(name);
        let id = self.functions.create(name, entry, policy);
        self.named.set_function(entry, Some(id));
        id
    }

    /// Removes a function that no job and no ability refers to. Its entry stays.
    pub(super) fn remove_function(&mut self, id: FunctionId) {
        self.named.set_function(self.functions[id].entry, None);
        self.functions.remove(id);
    }

    /// The numbers that a function is counted in.
    #[inline]
    pub(super) fn numbers_of(&mut self, function: FunctionId) -> &mut Numbers {
        &mut self.named[self.functions[function].entry]
    }

    /// Counts a submission for a function that was refused before it came to `submit`.
    pub fn refuse(&mut self, function: &[u8], why: Refused) {
        let entry = self.named.find(function).unwrap_or(EntryId::OTHER);
        self.named[entry].refused[why as usize] += 1;
    }

    /// How many submissions of a function joined a job; of one without numbers of its own, those of
    /// all such functions.
    #[must_use]
    pub fn joined(&self, function: &[u8]) -> u64 {
        let entry = self.named.find(function).unwrap_or(EntryId::OTHER);
        self.named[entry].joined
    }

    /// The sums of all functions' numbers.
    #[must_use]
    pub fn totals(&self) -> Numbers {
        let mut totals = Numbers::default();
        self.named.entries.iter().for_each(|entry| totals += &entry.numbers);
        totals
    }

    /// What there is of a function now.
    #[must_use]
    pub fn gauges(&self, function: FunctionId) -> Gauges {
        let function = &self.functions[function];
        Gauges { oldest_ms: self.oldest_ms(function), ..counts_of(function) }
    }

    /// The entries from this one on, in the order in which their functions first appeared. Entry 0
    /// takes as long as all others together.
    pub fn named_from(&self, index: usize) -> impl Iterator<Item = NamedFunction<'_>> {
        let entries = self.named.entries.iter().enumerate().skip(index);
        entries.map(|(index, entry)| {
            let Entry { name, function, numbers } = entry;
            let (name, gauges) = if index == EntryId::OTHER.index() {
                (None, self.others_gauges())
            } else {
                (Some(&**name), function.map(|id| self.gauges(id)).unwrap_or_default())
            };
            let queue_max = function.map(|id| self.functions[id].queue_max).unwrap_or_default();
            NamedFunction { index, name, function: *function, gauges, numbers, queue_max }
        })
    }

    /// What there is of functions without an entry of their own: all but those that have one.
    fn others_gauges(&self) -> Gauges {
        let mut named = Gauges::default();
        self.named.functions().for_each(|id| named += &counts_of(&self.functions[id]));
        let all = self.all_gauges();
        Gauges {
            queued: [0, 1, 2].map(|priority| all.queued[priority] - named.queued[priority]),
            delayed: all.delayed - named.delayed,
            retrying: all.retrying - named.retrying,
            dead: all.dead - named.dead,
            running: all.running - named.running,
            workers: all.workers - named.workers,
            workers_busy: all.workers_busy - named.workers_busy,
            oldest_ms: None,
            paused_since_ms: None,
        }
    }

    /// What there is of all functions together, without `oldest_ms`.
    #[must_use]
    pub fn all_gauges(&self) -> Gauges {
        let count = |all: usize| u32::try_from(all).unwrap_or(u32::MAX);
        let (running, kept) = (count(self.running), self.drain.kept);
        Gauges {
            queued: [0, 1, 2].map(|priority| self.queued[priority] + kept[priority]),
            delayed: count(self.clock.delayed),
            retrying: self.retrying,
            dead: count(self.dead.len()),
            running,
            workers: self.workers,
            workers_busy: running - self.running_beside,
            oldest_ms: None,
            paused_since_ms: None,
        }
    }

    /// Jobs set aside for the next server, by priority.
    #[must_use]
    pub fn kept_by_priority(&self) -> [u32; 3] {
        self.drain.kept
    }
}

/// A function's gauges but for `oldest_ms`, which takes a look at its jobs.
fn counts_of(function: &Function) -> Gauges {
    Gauges {
        queued: function.queues.each_ref().map(|queue| queue.len + queue.kept),
        delayed: function.delayed,
        retrying: function.retrying,
        dead: function.dead,
        running: function.running,
        workers: function.workers,
        workers_busy: function.running - function.running_beside,
        oldest_ms: None,
        paused_since_ms: function.pause.map(|_| function.paused_since.unix_ms),
    }
}

#[cfg(test)]
mod tests;
