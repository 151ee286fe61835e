//! A partition: its row in the database.
//!
//! Knows the columns' meaning, no SQL.
//!
//! Invariant: each change of the owner raises the generation; each commit of the owner raises the
//! beat.

/// Number of a partition. Jobs from before there were partitions are in partition 0.
pub type PartitionId = u32;

/// Whether a partition has an owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// It has no jobs and no owner; the next server that joins takes it.
    #[default]
    Free,
    /// A server owns it.
    Owned,
    /// Its owner has left it with its jobs: any server may adopt it at once.
    Offered,
}

impl State {
    /// Its name in text commands, JSON and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Owned => "owned",
            Self::Offered => "offered",
        }
    }
}

/// Number of an owner's bytes that identify its process.
pub const OWNER_PROCESS_BYTES: usize = 8;

/// What the database has of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub id: PartitionId,
    /// Number of owners so far: a commit of an earlier one is refused.
    pub generation: i64,
    /// Number of commits so far.
    pub beat: i64,
    /// Whether it has an owner.
    pub state: State,
    /// Random bytes of the owner, empty without one: `OWNER_PROCESS_BYTES` that identify its
    /// process, and others that are new each time that it becomes an owner.
    pub owner: Vec<u8>,
    /// Name of the owner's host.
    pub name: String,
    /// Where the owner takes connections, as its option `--advertise` says; may be empty.
    pub address: String,
    /// Durable jobs in it, dead letters not counted, when its owner last wrote.
    pub jobs: u64,
}

/// What a server has seen of a partition: it adopts the partition only if this is still so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seen {
    /// Its number.
    pub id: PartitionId,
    /// `Partition::generation`.
    pub generation: i64,
    /// `Partition::beat`.
    pub beat: i64,
}

impl Partition {
    /// Its owner in a sentence: the name of its host, and its address if it has one.
    #[must_use]
    pub fn place(&self) -> String {
        let Self { name, address, .. } = self;
        if address.is_empty() { name.clone() } else { format!("{name} at {address}") }
    }

    /// What identifies the owner's process; empty without one.
    #[must_use]
    pub fn process(&self) -> &[u8] {
        self.owner.get(..OWNER_PROCESS_BYTES).unwrap_or(&self.owner)
    }

    /// What identifies this state of the partition.
    #[must_use]
    pub fn seen(&self) -> Seen {
        Seen { id: self.id, generation: self.generation, beat: self.beat }
    }
}

/// What a session knows of the lock that the owner of a partition holds as a hint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HintLock {
    /// The database has no such locks, or doesn't tell.
    #[default]
    Unknown,
    /// A session holds it.
    Held,
    /// No session holds it.
    Free,
}

/// A partition as one read of the database found it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Its row.
    pub partition: Partition,
    /// Its lock.
    pub lock: HintLock,
}
