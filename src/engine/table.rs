//! Records of one kind by number: a record in, its id out, and back.
//!
//! A slab whose places only the ids of its kind name. Knows nothing of the records.
//!
//! Invariant: an id leads to the record that was stored under it until that is removed; its number
//! is then given to a later record.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

use slab::Slab;

use super::ids::Id;

/// Records of type `R` by ids of type `I`.
#[derive(Clone)]
pub struct Table<I, R> {
    slab: Slab<R>,
    ids: PhantomData<I>,
}

impl<I, R> Default for Table<I, R> {
    fn default() -> Self {
        Self { slab: Slab::new(), ids: PhantomData }
    }
}

impl<I, R: fmt::Debug> fmt::Debug for Table<I, R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.slab.fmt(formatter)
    }
}

impl<I: Id, R> Table<I, R> {
    /// Number of records.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// Numbers below this one may have records; all others have none.
    #[must_use]
    pub fn places(&self) -> u32 {
        u32::try_from(self.slab.capacity()).unwrap_or(u32::MAX)
    }

    /// Stores a record.
    #[inline]
    pub fn insert(&mut self, record: R) -> I {
        id_at(self.slab.insert(record))
    }

    /// Removes a record, which must exist.
    #[inline]
    pub fn remove(&mut self, id: I) -> R {
        self.slab.remove(index(id))
    }

    /// The record of this number, if it exists.
    #[inline]
    #[must_use]
    pub fn get(&self, id: I) -> Option<&R> {
        self.slab.get(index(id))
    }

    /// The record of this number, if it exists, mutable.
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self, id: I) -> Option<&mut R> {
        self.slab.get_mut(index(id))
    }

    /// All records in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (I, &R)> {
        self.slab.iter().map(|(at, record)| (id_at(at), record))
    }
}

impl<I: Id, R> Index<I> for Table<I, R> {
    type Output = R;

    #[inline]
    fn index(&self, id: I) -> &R {
        &self.slab[index(id)]
    }
}

impl<I: Id, R> IndexMut<I> for Table<I, R> {
    #[inline]
    fn index_mut(&mut self, id: I) -> &mut R {
        &mut self.slab[index(id)]
    }
}

#[inline]
fn index(id: impl Id) -> usize {
    id.number() as usize
}

/// The id of a place in a slab. 2^32 records don't fit in memory.
#[inline]
fn id_at<I: Id>(at: usize) -> I {
    I::from_number(u32::try_from(at).unwrap_or(u32::MAX))
}
