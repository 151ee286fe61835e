//! Opaque bytes of a packet, with the allocation that they are part of.
//!
//! Bytes in, the same bytes or a share of their allocation out, so that a large payload is never
//! copied between connections. Knows nothing of what the bytes are.
//!
//! Invariant: `bytes` is part of the allocation `shared`, if there is one.

use bytes::Bytes;

/// Smallest payload that is kept and sent in the allocation that it was received into; copying
/// smaller ones costs less.
pub const SHARED_BYTES_MIN: usize = 16 << 10;

/// Opaque bytes of a packet, with their allocation if it may be kept.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    bytes: &'a [u8],
    shared: Option<&'a Bytes>,
}

impl<'a> Payload<'a> {
    /// Bytes that must be copied to be kept.
    #[inline]
    #[must_use]
    pub fn borrowed(bytes: &'a [u8]) -> Self {
        Self { bytes, shared: None }
    }

    /// All bytes of an allocation that can be kept by sharing it.
    #[inline]
    #[must_use]
    pub fn shared(bytes: &'a Bytes) -> Self {
        Self { bytes, shared: Some(bytes) }
    }

    /// The bytes themselves.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The same bytes from `at` on.
    #[inline]
    #[must_use]
    pub fn from(&self, at: usize) -> Self {
        Self { bytes: self.bytes.get(at..).unwrap_or_default(), shared: self.shared }
    }

    /// The bytes as a share of their allocation, if it may be kept.
    #[must_use]
    pub fn share(&self) -> Option<Bytes> {
        // `slice_ref` panics for an empty slice from elsewhere.
        self.shared.filter(|_| !self.bytes.is_empty()).map(|owner| owner.slice_ref(self.bytes))
    }
}
