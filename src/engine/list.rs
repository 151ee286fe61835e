//! Intrusive doubly linked lists of the records of a slab: a record's number in, its neighbours
//! out.
//!
//! The records contain the links, so adding, removing and moving cost a few stores and never
//! allocate. Knows nothing else of the records.
//!
//! Invariant: a record's links for one `slot` belong to at most one list; the caller knows which.

use std::ops::IndexMut;

use super::ids::Id;

#[cfg(test)]
thread_local! {
    /// Number of records that iterators have visited, for tests of a command's cost.
    pub(crate) static VISITED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// A record's neighbours in one list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Links<I> {
    prev: I,
    next: I,
}

impl<I: Id> Links<I> {
    /// Not in a list.
    pub const LOOSE: Self = Self { prev: I::NONE, next: I::NONE };
}

/// A record that can be in several lists at once, one for each of its slots.
pub trait Linked {
    /// Numbers records of this kind.
    type Id: Id;
    /// The links of `slot`.
    fn links(&self, slot: usize) -> &Links<Self::Id>;
    /// The links of `slot`, mutable.
    fn links_mut(&mut self, slot: usize) -> &mut Links<Self::Id>;
}

/// A list that grows at the front only: the number of its first record.
#[derive(Clone, Copy, Debug)]
pub struct Stack<I> {
    head: I,
}

impl<I: Id> Default for Stack<I> {
    fn default() -> Self {
        Self { head: I::NONE }
    }
}

impl<I: Id> Stack<I> {
    /// The records of a list from this one on, to look at.
    #[inline]
    #[must_use]
    pub fn starting_at(id: Option<I>) -> Self {
        Self { head: id.unwrap_or(I::NONE) }
    }

    /// Whether the list is empty.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head == I::NONE
    }

    /// The first record.
    #[inline]
    #[must_use]
    pub fn front(&self) -> Option<I> {
        (self.head != I::NONE).then_some(self.head)
    }

    /// Adds a record, which must be in no list of this slot, at the front.
    #[inline]
    pub fn push_front<S>(&mut self, records: &mut S, slot: usize, id: I)
    where
        S: IndexMut<I>,
        S::Output: Linked<Id = I>,
    {
        let next = std::mem::replace(&mut self.head, id);
        *records[id].links_mut(slot) = Links { prev: I::NONE, next };
        if next != I::NONE {
            records[next].links_mut(slot).prev = id;
        }
    }

    /// Removes a record of this list; returns its former links.
    #[inline]
    pub fn remove<S>(&mut self, records: &mut S, slot: usize, id: I) -> Links<I>
    where
        S: IndexMut<I>,
        S::Output: Linked<Id = I>,
    {
        let links = std::mem::replace(records[id].links_mut(slot), Links::LOOSE);
        let Links { prev, next } = links;
        if prev == I::NONE {
            debug_assert_eq!(self.head, id, "a record of another list");
            self.head = next;
        } else {
            records[prev].links_mut(slot).next = next;
        }
        if next != I::NONE {
            records[next].links_mut(slot).prev = prev;
        }
        links
    }

    /// All records from the first to the last.
    pub fn iter<'a, S>(
        &self,
        records: &'a S,
        slot: usize,
    ) -> impl Iterator<Item = I> + use<'a, I, S>
    where
        S: IndexMut<I>,
        S::Output: Linked<Id = I>,
    {
        let mut at = self.head;
        std::iter::from_fn(move || {
            let id = (at != I::NONE).then_some(at)?;
            #[cfg(test)]
            VISITED.set(VISITED.get() + 1);
            at = records[id].links(slot).next;
            Some(id)
        })
    }
}

/// A list that grows at both ends: the numbers of its first and last record.
#[derive(Clone, Copy, Debug)]
pub struct List<I> {
    stack: Stack<I>,
    tail: I,
}

impl<I: Id> Default for List<I> {
    fn default() -> Self {
        Self { stack: Stack::default(), tail: I::NONE }
    }
}

impl<I: Id> List<I> {
    /// Whether the list is empty.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stack.is_empty()
    }

    /// The first record.
    #[inline]
    #[must_use]
    pub fn front(&self) -> Option<I> {
        self.stack.front()
    }

    /// Adds a record, which must be in no list of this slot, at the front.
    #[inline]
    pub fn push_front<S>(&mut self, records: &mut S, slot: usize, id: I)
    where
        S: IndexMut<I>,
        S::Output: Linked<Id = I>,
    {
        if self.is_empty() {
            self.tail = id;
        }
        self.stack.push_front(records, slot, id);
    }

    /// Adds a record, which must be in no list of this slot, at the back.
    #[inline]
    pub fn push_back<S>(&mut self, records: &mut S, slot: usize, id: I)
    where
        S: IndexMut<I>,
        S::Output: Linked<Id = I>,
    {
        let prev = std::mem::replace(&mut self.tail, id);
        *records[id].links_mut(slot) = Links { prev, next: I::NONE };
        if prev == I::NONE {
            self.stack.head = id;
        } else {
            records[prev].links_mut(slot).next = id;
        }
    }

    /// Moves all records of another list of this slot to the front, in their order.
    pub fn prepend<S>(&mut self, records: &mut S, slot: usize, other: &mut Self)
    where
        S: IndexMut<I>,
        S::Output: Linked<Id = I>,
    {
        let Self { stack, tail } = std::mem::take(other);
        match self.front() {
            _ if stack.is_empty() => return,
            None => self.tail = tail,
            Some(head) => {
                records[tail].links_mut(slot).next = head;
                records[head].links_mut(slot).prev = tail;
            }
        }
        self.stack = stack;
    }

    /// Removes a record of this list.
    #[inline]
    pub fn remove<S>(&mut self, records: &mut S, slot: usize, id: I)
    where
        S: IndexMut<I>,
        S::Output: Linked<Id = I>,
    {
        let Links { prev, next } = self.stack.remove(records, slot, id);
        if next == I::NONE {
            debug_assert_eq!(self.tail, id, "a record of another list");
            self.tail = prev;
        }
    }

    /// Moves a record of this list to its back.
    #[inline]
    pub fn move_to_back<S>(&mut self, records: &mut S, slot: usize, id: I)
    where
        S: IndexMut<I>,
        S::Output: Linked<Id = I>,
    {
        if self.tail != id {
            self.remove(records, slot, id);
            self.push_back(records, slot, id);
        }
    }

    /// Removes the first record.
    #[inline]
    pub fn pop_front<S>(&mut self, records: &mut S, slot: usize) -> Option<I>
    where
        S: IndexMut<I>,
        S::Output: Linked<Id = I>,
    {
        let id = self.front()?;
        self.remove(records, slot, id);
        Some(id)
    }

    /// All records from the first to the last.
    pub fn iter<'a, S>(
        &self,
        records: &'a S,
        slot: usize,
    ) -> impl Iterator<Item = I> + use<'a, I, S>
    where
        S: IndexMut<I>,
        S::Output: Linked<Id = I>,
    {
        self.stack.iter(records, slot)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::engine::ids::id;
    use crate::engine::table::Table;

    id! {
        struct NodeId
    }

    struct Node([Links<NodeId>; 2]);

    impl Linked for Node {
        type Id = NodeId;
        fn links(&self, slot: usize) -> &Links<NodeId> {
            &self.0[slot]
        }
        fn links_mut(&mut self, slot: usize) -> &mut Links<NodeId> {
            &mut self.0[slot]
        }
    }

    #[test]
    fn a_list_is_put_before_another_as_it_is() {
        for (first, second) in
            [(0..0, 0..0), (0..0, 0..2), (0..2, 2..2), (0..3, 3..5), (0..1, 1..2)]
        {
            let mut nodes = Table::default();
            let count = first.len() + second.len();
            for _ in 0..count {
                nodes.insert(Node([Links::LOOSE; 2]));
            }
            let (mut front, mut back) = (List::default(), List::default());
            for id in first.map(NodeId::from_number) {
                front.push_back(&mut nodes, 1, id);
            }
            for id in second.map(NodeId::from_number) {
                back.push_back(&mut nodes, 1, id);
            }
            back.prepend(&mut nodes, 1, &mut front);
            assert!(front.is_empty());
            let last = NodeId::from_number(u32::try_from(count).unwrap());
            assert_eq!(nodes.insert(Node([Links::LOOSE; 2])), last);
            back.push_back(&mut nodes, 1, last);
            let removed: Vec<NodeId> =
                std::iter::from_fn(|| back.pop_front(&mut nodes, 1)).collect();
            let expected = (0..=u32::try_from(count).unwrap()).map(NodeId::from_number);
            assert!(removed.into_iter().eq(expected));
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_deque(moves in prop::collection::vec((0u32..16, 0u8..4), 0..200)) {
            let mut nodes = Table::default();
            for _ in 0..16 {
                nodes.insert(Node([Links::LOOSE; 2]));
            }
            let (mut list, mut model) = (List::default(), VecDeque::new());
            for (id, what) in moves {
                let id = NodeId::from_number(id);
                match (model.iter().position(|&other| other == id), what) {
                    (Some(at), 3) => {
                        list.move_to_back(&mut nodes, 1, id);
                        model.remove(at);
                        model.push_back(id);
                    }
                    (Some(at), _) => {
                        list.remove(&mut nodes, 1, id);
                        model.remove(at);
                    }
                    (None, 0) => {
                        list.push_front(&mut nodes, 1, id);
                        model.push_front(id);
                    }
                    (None, 1) => {
                        list.push_back(&mut nodes, 1, id);
                        model.push_back(id);
                    }
                    (None, _) => prop_assert_eq!(list.pop_front(&mut nodes, 1), model.pop_front()),
                }
                prop_assert!(list.iter(&nodes, 1).eq(model.iter().copied()));
                prop_assert_eq!(list.is_empty(), model.is_empty());
            }
        }
    }
}
