//! Functions and their workers: names in, queues and abilities out.
//!
//! A function has a queue of jobs for each priority; an ability registers one connection for one
//! function. Two pairs of lists keep the cost of a grab independent of the number of a worker's
//! functions, and that of a wakeup independent of the number of a function's workers. Invariant: an
//! ability is in exactly one list of each pair.
//! * For each priority: its worker's `maybe_ready` if the queue may hold jobs, or its function's
//!   `not_ready` if the queue was empty when last checked. A queue's first job moves it back.
//! * Its function's `maybe_asleep` if its worker may be asleep, or its worker's `awake` if the
//!   worker was awake when last checked. PRE_SLEEP moves it back.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use foldhash::quality::SeedableRandomState;

use super::handle;
use super::ids::{AbilityId, ConnId, EntryId, FunctionId, JobId, Now};
use super::index::Index;
use super::list::{Linked, Links, List, Stack};
use super::record::Pause;
use super::table::Table;
use super::timer::TimerId;
use crate::wire::Priority;

/// Slots of an ability's links: one for each priority's pair of lists, ...
pub const READY: [usize; 3] = [0, 1, 2];
/// ... one for `maybe_asleep` and `awake`, ...
pub const WAKING: usize = 3;
/// ... and one for the list of all abilities of its connection.
pub const OWN: usize = 4;

/// Memory of a function beside its name: its record, and its place in the index.
pub const FUNCTION_BYTES: usize = size_of::<Function>() + 16;

/// When a background job is answered, and whether it outlives the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// At once; it is kept in memory only.
    #[default]
    None,
    /// At once; it is on disk a moment later.
    Async,
    /// When it is on disk.
    Fsync,
}

/// The durability of every function.
#[derive(Clone, Debug, Default)]
pub struct Durabilities {
    /// For functions that `named` lacks.
    pub default: Durability,
    /// By function name.
    pub named: BTreeMap<Vec<u8>, Durability>,
}

/// What the configuration says of one function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FunctionPolicy {
    /// Place of its policy among those in force.
    pub place: Option<u32>,
    /// Durability of its background jobs.
    pub durability: Durability,
    /// See `Function::queue_max`.
    pub queue_max: [u32; 3],
    /// Whether its jobs expire.
    pub expires: bool,
    /// Whether its policy says anything of timeouts.
    pub limits_time: bool,
}

/// One queue: the jobs of one function and priority that may start, the next to start first.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    /// The jobs that may be assigned.
    pub jobs: List<JobId>,
    /// Stored jobs before these that a suspension keeps from workers, the next to start first.
    pub held: List<JobId>,
    /// Number of jobs, held ones among them.
    pub len: u32,
    /// Further jobs of this priority, whose start time is in the future, and in no list.
    pub delayed: u32,
    /// Further jobs of this priority, left to the next server and in no list.
    pub kept: u32,
}

/// One function.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its name, any bytes.
    pub name: Box<[u8]>,
    /// Where it is counted.
    pub entry: EntryId,
    /// Slot in the numbers of its jobs.
    pub slot: u8,
    /// Durability of its background jobs.
    pub durability: Durability,
    /// Place of its policy among those in force; `None` = as in gearmand.
    pub policy: Option<u32>,
    /// Whether its jobs expire.
    pub expires: bool,
    /// Whether its policy says anything of timeouts.
    pub limits_time: bool,
    /// What its policy says of `queue_max`.
    policy_queue_max: [u32; 3],
    /// Jobs that may start, by priority.
    pub queues: [Queue; 3],
    /// Jobs in all three queues.
    pub queued: u32,
    /// Those of them that are held.
    pub held: u32,
    /// Jobs whose start time is in the future.
    pub delayed: u32,
    /// Earliest start of a delayed job in seconds since 1970; `u32::MAX` if there is none, or if it
    /// isn't known: see `Engine::due_pass`.
    pub next_due_s: u32,
    /// Those of them that have been run and are to be run again.
    pub retrying: u32,
    /// Dead letters of its jobs.
    pub dead: u32,
    /// Jobs that start once they are on disk.
    pub storing: u32,
    /// Jobs assigned to workers.
    pub running: u32,
    /// Those of them beyond the first of each connection; few workers take a second job.
    pub running_beside: u32,
    /// Jobs left to the next server.
    pub kept: u32,
    /// Connections that can run it.
    pub workers: u32,
    /// Number of jobs, in any state, from which a submission of a priority is refused; 0 = no
    /// limit.
    pub queue_max: [u32; 3],
    /// For each priority: abilities to move to their workers' `maybe_ready` when the queue gets a
    /// job.
    pub not_ready: [List<AbilityId>; 3],
    /// Abilities whose worker may be asleep, the last to fall asleep first.
    pub maybe_asleep: List<AbilityId>,
    /// Workers that hold a lease for this function.
    pub woken: u32,
    /// The function is in `Engine::wakeup_checks`.
    pub is_check_queued: bool,
    /// Created by an operator.
    pub created: bool,
    /// Until when no job of it is assigned.
    pub pause: Option<Pause>,
    /// Ends the pause, if it ends by itself.
    pub pause_timer: Option<TimerId>,
    /// Since when it is paused.
    pub paused_since: Now,
    /// The function is in the list of unused functions.
    listed: bool,
    links: Links<FunctionId>,
    /// A lease has ended unused: the next wakeup check wakes all sleepers.
    pub has_lapsed: bool,
}

impl Function {
    fn new(name: &[u8], entry: EntryId, policy: FunctionPolicy) -> Self {
        let FunctionPolicy { place, durability, queue_max, expires, limits_time } = policy;
        Self {
            name: name.into(),
            entry,
            slot: handle::slot(name),
            durability,
            policy: place,
            expires,
            limits_time,
            policy_queue_max: queue_max,
            queues: Default::default(),
            queued: 0,
            held: 0,
            delayed: 0,
            next_due_s: u32::MAX,
            retrying: 0,
            dead: 0,
            storing: 0,
            running: 0,
            running_beside: 0,
            kept: 0,
            workers: 0,
            queue_max,
            not_ready: Default::default(),
            maybe_asleep: List::default(),
            woken: 0,
            is_check_queued: false,
            created: false,
            pause: None,
            pause_timer: None,
            paused_since: Now::default(),
            listed: false,
            links: Links::LOOSE,
            has_lapsed: false,
        }
    }

    /// Whether the function has no jobs, no dead letters and no workers.
    #[inline]
    #[must_use]
    pub fn is_unused(&self) -> bool {
        self.workers == 0 && self.total() == 0 && self.dead == 0
    }

    /// Whether the function is counted by itself.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.entry != EntryId::OTHER
    }

    /// Whether an operator created, paused or limited the function.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.created || self.pause.is_some() || self.queue_max != self.policy_queue_max
    }

    /// Follows another configuration. A limit that an operator has set stays unless the
    /// configuration's changes.
    pub fn apply(&mut self, policy: FunctionPolicy) {
        (self.policy, self.durability) = (policy.place, policy.durability);
        (self.expires, self.limits_time) = (policy.expires, policy.limits_time);
        if self.policy_queue_max != policy.queue_max {
            (self.policy_queue_max, self.queue_max) = (policy.queue_max, policy.queue_max);
        }
    }

    /// Jobs of a priority that may be assigned now.
    #[inline]
    #[must_use]
    pub fn has_ready(&self, priority: usize) -> bool {
        !self.queues[priority].jobs.is_empty() && self.pause.is_none()
    }

    /// Jobs of all priorities that may be assigned now.
    #[inline]
    #[must_use]
    pub fn ready(&self) -> u32 {
        if self.pause.is_none() { self.queued - self.held } else { 0 }
    }

    /// Jobs in any state.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.queued + self.delayed + self.storing + self.running + self.kept
    }

    /// Whether the limit for jobs of this priority is reached.
    #[must_use]
    pub fn is_full(&self, priority: Priority) -> bool {
        let max = self.queue_max[priority as usize];
        max > 0 && self.total() >= max
    }
}

impl Linked for Function {
    type Id = FunctionId;
    fn links(&self, _slot: usize) -> &Links<FunctionId> {
        &self.links
    }
    fn links_mut(&mut self, _slot: usize) -> &mut Links<FunctionId> {
        &mut self.links
    }
}

/// All functions by number and by name.
#[derive(Clone, Debug)]
pub struct Functions {
    functions: Table<FunctionId, Function>,
    /// Memory of all functions and their names.
    bytes: usize,
    names: Index<FunctionId>,
    /// Functions that may be unused, the longest unused first.
    unused: List<FunctionId>,
    unused_len: usize,
    hasher: SeedableRandomState,
}

impl Functions {
    /// No functions.
    #[must_use]
    pub fn new(hasher: SeedableRandomState) -> Self {
        Self {
            functions: Table::default(),
            bytes: 0,
            names: Index::default(),
            unused: List::default(),
            unused_len: 0,
            hasher,
        }
    }

    /// The function of this name.
    #[inline]
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<FunctionId> {
        let hash = self.hasher.hash_one(name);
        self.names.find(hash, |id| *self.functions[id].name == *name)
    }

    /// Creates the function of this name, which must not exist. It is counted in `entry`.
    pub fn create(&mut self, name: &[u8], entry: EntryId, policy: FunctionPolicy) -> FunctionId {
        let hash = self.hasher.hash_one(name);
        let id = self.functions.insert(Function::new(name, entry, policy));
        let Self { functions, names, hasher, .. } = self;
        names.insert(hash, id, |id| hasher.hash_one(&*functions[id].name));
        self.bytes += FUNCTION_BYTES + name.len();
        self.list_unused(id);
        id
    }

    /// Removes a function that no job and no ability refers to.
    pub fn remove(&mut self, id: FunctionId) {
        self.unlist(id);
        self.bytes -= FUNCTION_BYTES + self.functions[id].name.len();
        let Self { functions, names, hasher, .. } = self;
        names.remove(hasher.hash_one(&*functions[id].name), id);
        functions.remove(id);
    }

    /// Number of functions.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.functions.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// Memory of all functions and their names.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a function to those that may be unused.
    pub fn list_unused(&mut self, id: FunctionId) {
        self.unlist(id);
        self.unused.push_back(&mut self.functions, 0, id);
        self.functions[id].listed = true;
        self.unused_len += 1;
    }

    /// Takes the longest unused function off the list of those that may be unused.
    pub fn unlist_unused(&mut self) -> Option<FunctionId> {
        let id = self.unused.front()?;
        self.unlist(id);
        Some(id)
    }

    /// Number of functions that may be unused.
    #[must_use]
    pub fn unused_len(&self) -> usize {
        self.unused_len
    }

    /// Whether a function is listed as maybe unused. For tests.
    #[cfg(debug_assertions)]
    #[must_use]
    pub fn is_listed(&self, id: FunctionId) -> bool {
        self.functions[id].listed
    }

    fn unlist(&mut self, id: FunctionId) {
        if std::mem::take(&mut self.functions[id].listed) {
            self.unused.remove(&mut self.functions, 0, id);
            self.unused_len -= 1;
        }
    }

    /// The function of this number, if it exists.
    #[must_use]
    pub fn get_mut(&mut self, id: FunctionId) -> Option<&mut Function> {
        self.functions.get_mut(id)
    }

    /// All functions from number `id` on.
    pub fn iter_from(&self, id: FunctionId) -> impl Iterator<Item = (FunctionId, &Function)> {
        self.functions.iter().skip_while(move |&(at, _)| at < id)
    }
}

impl std::ops::Index<FunctionId> for Functions {
    type Output = Function;

    #[inline]
    fn index(&self, id: FunctionId) -> &Function {
        &self.functions[id]
    }
}

impl std::ops::IndexMut<FunctionId> for Functions {
    #[inline]
    fn index_mut(&mut self, id: FunctionId) -> &mut Function {
        &mut self.functions[id]
    }
}

/// One connection's registration for one function.
#[derive(Clone, Debug)]
pub struct Ability {
    /// The connection.
    pub conn: ConnId,
    /// The function.
    pub function: FunctionId,
    /// How long a job may run before it returns to its queue, in milliseconds; 0 = no limit.
    pub timeout_ms: u32,
    /// For each priority: in its worker's `maybe_ready` list, not in its function's `not_ready`.
    pub maybe_ready: [bool; 3],
    /// In its function's `maybe_asleep` list, not in its worker's `awake`.
    pub maybe_asleep: bool,
    /// Jobs that its worker runs for its function, the latest first.
    pub running: Stack<JobId>,
    /// Unique among the last 2^32 abilities, removed ones included; never `u32::MAX`.
    pub serial: u32,
    /// Its worker may not run the function any more, and finishes the jobs that it has: counted
    /// nowhere, and in its worker's list of abilities only.
    pub is_revoked: bool,
    links: [Links<AbilityId>; 5],
}

impl Linked for Ability {
    type Id = AbilityId;
    #[inline]
    fn links(&self, slot: usize) -> &Links<AbilityId> {
        &self.links[slot]
    }
    #[inline]
    fn links_mut(&mut self, slot: usize) -> &mut Links<AbilityId> {
        &mut self.links[slot]
    }
}

/// All abilities by number and by connection and function.
#[derive(Clone, Debug, Default)]
pub struct Abilities {
    /// The records.
    pub records: Table<AbilityId, Ability>,
    /// Serial number of the latest ability.
    serial: u32,
    pairs: Index<AbilityId>,
}

impl Abilities {
    /// The ability of `conn` to run `function`.
    #[inline]
    #[must_use]
    pub fn find(&self, conn: ConnId, function: FunctionId) -> Option<AbilityId> {
        self.pairs.find(pair_hash(conn, function), |id| {
            let ability = &self.records[id];
            ability.conn == conn && ability.function == function
        })
    }

    /// Adds an ability, in no list yet.
    pub fn insert(&mut self, conn: ConnId, function: FunctionId, timeout_ms: u32) -> AbilityId {
        self.serial = (self.serial + 1) % u32::MAX;
        let ability = Ability {
            conn,
            function,
            timeout_ms,
            maybe_ready: [false; 3],
            maybe_asleep: false,
            running: Stack::default(),
            serial: self.serial,
            is_revoked: false,
            links: [Links::LOOSE; 5],
        };
        let id = self.records.insert(ability);
        let records = &self.records;
        self.pairs.insert(pair_hash(conn, function), id, |id| hash_of(records, id));
        id
    }

    /// Removes an ability that is in no list any more.
    pub fn remove(&mut self, id: AbilityId) {
        let Self { records, pairs, .. } = self;
        pairs.remove(hash_of(records, id), id);
        records.remove(id);
    }
}

fn hash_of(records: &Table<AbilityId, Ability>, id: AbilityId) -> u64 {
    let ability = &records[id];
    pair_hash(ability.conn, ability.function)
}

/// Hash of two numbers that the server chooses: they need no seed, as clients can't make them
/// collide.
fn pair_hash(conn: ConnId, function: FunctionId) -> u64 {
    spread(u64::from(conn.number()) << 32 | u64::from(function.number()))
}

/// Spreads a number that no client chooses over all 64 bits, for the hash tables.
#[inline]
#[must_use]
pub fn spread(number: u64) -> u64 {
    // The odd constant nearest to 2^64 divided by the golden ratio: Fibonacci hashing (Knuth, The
    // Art of Computer Programming 3, 6.4). Its high bits are the well-mixed ones, so they are
    // copied to the low half.
    let product = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 32)
}

#[cfg(test)]
mod tests {
    use foldhash::SharedSeed;

    use super::*;

    fn functions() -> Functions {
        let hasher = SeedableRandomState::with_seed(7, SharedSeed::global_fixed());
        Functions::new(hasher)
    }

    #[test]
    fn names_are_any_bytes_and_lead_to_one_function_each() {
        let mut functions = functions();
        let names: [&[u8]; 5] = [b"resize", b"Resize", b"", b"\xff\x01", b"resize "];
        let ids =
            names.map(|name| functions.create(name, EntryId::OTHER, FunctionPolicy::default()));
        for (name, id) in names.iter().zip(ids) {
            assert_eq!(functions.find(name), Some(id));
            assert_eq!(&*functions[id].name, *name);
        }
        assert_eq!(functions.iter_from(FunctionId::FIRST).count(), 5);
        assert_eq!(functions.iter_from(ids[3]).count(), 2);
    }

    #[test]
    fn a_removed_function_is_not_found_and_its_number_serves_again() {
        let mut functions = functions();
        let [first, second] = [b"a", b"b"]
            .map(|name| functions.create(name, EntryId::OTHER, FunctionPolicy::default()));
        functions[first].queue_max = [5; 3];
        functions.remove(first);
        assert_eq!((functions.find(b"a"), functions.find(b"b")), (None, Some(second)));
        assert_eq!(functions.create(b"c", EntryId::OTHER, FunctionPolicy::default()), first);
        assert_eq!(functions[first].queue_max, [0; 3], "nothing of the old one is left");
    }

    #[test]
    fn full_means_jobs_in_any_state_for_those_priorities_that_have_a_limit() {
        let mut function = Function::new(b"resize", EntryId::OTHER, FunctionPolicy::default());
        (function.queued, function.delayed, function.running) = (1, 1, 1);
        function.queue_max = [0, 3, 4];
        assert_eq!(function.total(), 3);
        let full = Priority::ALL.map(|priority| function.is_full(priority));
        assert_eq!(full, [false, true, false]);
    }

    #[test]
    fn abilities_are_found_by_connection_and_function() {
        let mut abilities = Abilities::default();
        let pairs = [(1, 2), (2, 1), (1, 1), (u32::MAX, 0), (0, u32::MAX)]
            .map(|(conn, function)| (ConnId::from_number(conn), FunctionId::from_number(function)));
        let ids = pairs.map(|(conn, function)| abilities.insert(conn, function, conn.number()));
        for ((conn, function), id) in pairs.into_iter().zip(ids) {
            assert_eq!(abilities.find(conn, function), Some(id));
            assert_eq!(abilities.records[id].timeout_ms, conn.number());
        }
        abilities.remove(ids[0]);
        let [(conn, function), (other_conn, other_function), ..] = pairs;
        assert_eq!(abilities.find(conn, function), None);
        assert_eq!(abilities.find(other_conn, other_function), Some(ids[1]));
    }

    #[test]
    fn spreading_keeps_numbers_apart_at_both_ends() {
        // Hash tables use the highest bits and the lowest ones.
        let numbers = || (0..1000).map(|number| spread(number << 20));
        let count = |of: fn(u64) -> u64| {
            let mut parts: Vec<u64> = numbers().map(of).collect();
            parts.sort_unstable();
            parts.dedup();
            parts.len()
        };
        assert!(count(|hash| hash >> 48) > 900, "{}", count(|hash| hash >> 48));
        assert!(count(|hash| hash & 0xffff) > 900, "{}", count(|hash| hash & 0xffff));
    }
}
