//! Sends in flight, beside their connections: of thousands of connections a few send at a time, and
//! what is next to each other here is used again first.
//!
//! A chunk in, a key of four bytes out. Knows no connection and no ring.
//!
//! Invariant: a chunk is kept, and its bytes don't move, until its key is removed.

use std::num::NonZero;

use slab::Slab;

use crate::io::driver::sending::Sending;

/// A send in flight.
#[derive(Debug)]
pub(super) struct SendKey(NonZero<u32>);

/// All sends in flight.
#[derive(Debug, Default)]
pub(super) struct Sends(Slab<Sending>);

impl Sends {
    pub(super) fn insert(&mut self, sending: Sending) -> SendKey {
        let at = u32::try_from(self.0.insert(sending)).unwrap_or(u32::MAX);
        SendKey(NonZero::<u32>::MIN.saturating_add(at))
    }

    pub(super) fn get(&self, key: &SendKey) -> &Sending {
        &self.0[index(key)]
    }

    pub(super) fn get_mut(&mut self, key: &SendKey) -> &mut Sending {
        &mut self.0[index(key)]
    }

    /// Takes out a send that has completed.
    pub(super) fn remove(&mut self, key: SendKey) -> Sending {
        self.0.remove(index(&key))
    }

    /// Bytes of its chunk that the kernel has taken, if there is a send.
    pub(super) fn sent_bytes(&self, key: Option<&SendKey>) -> Option<usize> {
        key.map(|key| self.get(key).sent_bytes)
    }
}

fn index(key: &SendKey) -> usize {
    key.0.get() as usize - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::outbox::Chunk;

    #[test]
    fn a_key_leads_to_its_send_and_is_used_again() {
        let mut sends = Sends::default();
        let mut insert = |bytes: &[u8]| {
            let sending = Sending::new(Chunk::Packets(bytes.to_vec()), false);
            sends.insert(sending)
        };
        let (first, second) = (insert(b"first"), insert(b"second"));
        assert_eq!(
            (sends.get(&first).rest(), sends.get(&second).rest()),
            (&b"first"[..], &b"second"[..])
        );
        sends.get_mut(&second).advance(2);
        assert_eq!((sends.sent_bytes(Some(&second)), sends.sent_bytes(None)), (Some(2), None));
        let number = first.0;
        assert_eq!(sends.remove(first).rest(), b"first");
        let third = sends.insert(Sending::new(Chunk::Packets(b"third".to_vec()), false));
        assert_eq!((third.0, sends.get(&second).rest()), (number, &b"cond"[..]));
        assert_eq!(size_of::<Option<SendKey>>(), 4);
    }
}
