//! A queue that most of its owners never use: one pointer until the first item comes.
//!
//! Items in at both ends, out at the front. Knows nothing of the items.
//!
//! Invariant: a queue that was used keeps its allocation, so that using it again allocates nothing.

use std::collections::VecDeque;

/// A queue of items.
#[derive(Clone, Debug)]
#[allow(clippy::box_collection, reason = "a place for a queue takes a quarter of the bytes")]
pub(super) struct RareQueue<T>(Option<Box<VecDeque<T>>>);

impl<T> Default for RareQueue<T> {
    #[inline]
    fn default() -> Self {
        Self(None)
    }
}

impl<T> RareQueue<T> {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |items| items.len())
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn push_back(&mut self, item: T) {
        self.items().push_back(item);
    }

    pub(super) fn push_front(&mut self, item: T) {
        self.items().push_front(item);
    }

    #[inline]
    pub(super) fn pop_front(&mut self) -> Option<T> {
        self.0.as_mut()?.pop_front()
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut T> {
        self.0.as_mut()?.front_mut()
    }

    #[inline]
    pub(super) fn back_mut(&mut self) -> Option<&mut T> {
        self.0.as_mut()?.back_mut()
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.0.as_mut()?.get_mut(at)
    }

    /// The items, the first one first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flat_map(|items| items.iter())
    }

    /// Moves all items of another queue behind its own.
    pub(super) fn append(&mut self, other: &mut Self) {
        if self.0.is_none() {
            self.0 = other.0.take();
        } else if let Some(others) = &mut other.0 {
            self.items().append(others);
        }
    }

    /// Gives back memory for more than so many items.
    pub(super) fn shrink_to(&mut self, capacity: usize) {
        if let Some(items) = &mut self.0 {
            items.shrink_to(capacity);
        }
    }

    fn items(&mut self) -> &mut VecDeque<T> {
        self.0.get_or_insert_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_leave_in_their_order_whichever_queue_was_used_before() {
        let mut queue = RareQueue::default();
        assert!(queue.is_empty() && queue.pop_front().is_none() && queue.back_mut().is_none());
        let mut other = RareQueue::default();
        (2..4).for_each(|item| other.push_back(item));
        queue.append(&mut other);
        queue.push_front(1);
        other.push_back(4);
        queue.append(&mut other);
        queue.append(&mut RareQueue::default());
        assert_eq!((queue.len(), other.len()), (4, 0));
        assert_eq!(queue.iter().copied().collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(queue.get_mut(1).copied(), Some(2));
        assert_eq!((queue.front_mut().copied(), queue.back_mut().copied()), (Some(1), Some(4)));
        let left: Vec<i32> = std::iter::from_fn(|| queue.pop_front()).collect();
        assert_eq!(left, [1, 2, 3, 4]);
    }

    #[test]
    fn it_takes_one_pointer_and_keeps_its_allocation() {
        assert_eq!(size_of::<RareQueue<[u64; 8]>>(), size_of::<usize>());
        let mut queue = RareQueue::default();
        queue.push_back(1);
        assert_eq!(queue.pop_front(), Some(1));
        let kept = |queue: &RareQueue<i32>| queue.0.as_ref().map_or(0, |items| items.capacity());
        assert!(kept(&queue) > 0);
        queue.shrink_to(1);
        assert_eq!(kept(&queue), 1);
    }
}
