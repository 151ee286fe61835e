//! Numbers of records, each kind a type of its own, and the time.
//!
//! Values only. Knows nothing of the records that they number.
//!
//! Invariant: a number is reused once its record is removed.

/// The number of a record of one kind, as lists, tables and indexes store it.
pub trait Id: Copy + Eq + std::fmt::Debug {
    /// Marks the absence of a record.
    const NONE: Self;
    /// The bare number.
    fn number(self) -> u32;
    /// The id of a bare number.
    fn from_number(number: u32) -> Self;
}

/// Declares the number of one kind of records. Text shows the bare number.
macro_rules! id {
    ($(#[$attribute:meta])* $vis:vis struct $name:ident) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis struct $name(u32);

        #[allow(dead_code, reason = "no kind of records needs all of them")]
        impl $name {
            /// The first number.
            $vis const FIRST: Self = Self(0);

            /// The id of a bare number.
            #[inline]
            #[must_use]
            $vis const fn from_number(number: u32) -> Self {
                Self(number)
            }

            /// The id of the record at this place of a table; there are fewer than 2^32 - 1.
            #[inline]
            #[must_use]
            $vis fn from_index(index: usize) -> Self {
                Self(u32::try_from(index).unwrap_or(u32::MAX))
            }

            /// The bare number.
            #[inline]
            #[must_use]
            $vis const fn number(self) -> u32 {
                self.0
            }

            /// The record's place in a table.
            #[inline]
            #[must_use]
            $vis const fn index(self) -> usize {
                self.0 as usize
            }

            /// The next number.
            #[inline]
            #[must_use]
            $vis const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl $crate::engine::ids::Id for $name {
            const NONE: Self = Self(u32::MAX);

            #[inline]
            fn number(self) -> u32 {
                self.0
            }

            #[inline]
            fn from_number(number: u32) -> Self {
                Self(number)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(&self.0, formatter)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&self.0, formatter)
            }
        }
    };
}
pub(super) use id;

id! {
    /// Number of a connection, chosen by the shard and reused after a disconnect.
    pub struct ConnId
}

id! {
    /// Where a job's record is stored; reused after the job is removed.
    pub struct JobId
}

id! {
    /// Number of a function; valid until it is dropped, then reused.
    pub struct FunctionId
}

id! {
    /// Number of an ability.
    pub struct AbilityId
}

id! {
    /// Number of an attachment.
    pub struct AttachmentId
}

id! {
    /// Number of an entry in which jobs are counted: a function's own, or that of several.
    pub struct EntryId
}

impl EntryId {
    /// The entry of all functions that have none of their own.
    pub const OTHER: Self = Self::FIRST;
}

/// Longest unique key and reducer name in bytes (gearmand's check; its store cuts them to 63).
pub const UNIQUE_BYTES_MAX: usize = 64;

/// Number of a submission that waits for the store.
pub type Ticket = u32;

/// The time by two clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of the monotonic clock, for durations.
    pub mono_ms: u64,
    /// Milliseconds since 1970, for the start of delayed jobs.
    pub unix_ms: u64,
}
