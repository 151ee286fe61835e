//! Cursors: where a list goes on, and of which list that is, as text for clients.
//!
//! Bytes in, text out, and back. Knows no list.
//!
//! Invariant: a cursor is taken for the list that it was made for only: the same endpoint, filters
//! and order.

use std::hash::{DefaultHasher, Hash, Hasher as _};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::super::error::ApiError;
use super::params::Params;

/// What a list is: all that decides about its rows and their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListId(u64);

impl ListId {
    pub(super) fn of(list: impl Hash) -> Self {
        // Its keys are always the same, so that cursors outlive the process.
        let mut hasher = DefaultHasher::new();
        list.hash(&mut hasher);
        Self(hasher.finish())
    }

    /// The cursor for a place of the list.
    pub(super) fn cursor(self, place: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode([&self.0.to_be_bytes(), place].concat())
    }

    /// The place at which a request goes on, as `read` understands it.
    ///
    /// # Errors
    /// `ApiError` for what is no cursor of this list.
    pub(super) fn place<T>(
        self,
        params: &Params,
        read: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = params.bytes("after") else { return Ok(None) };
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let place = bytes.as_ref().and_then(|bytes| bytes.strip_prefix(&self.0.to_be_bytes()));
        place.and_then(read).map(Some).ok_or_else(|| {
            ApiError::bad_parameter(
                "after",
                "give the cursor that was \"next\" in an answer to the same request",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_good_for_its_list_only() {
        let list = ListId::of(("functions", 1));
        let params = |cursor: &str| {
            let uri = format!("/x?after={cursor}").parse().unwrap();
            Params::of(&uri, &["after"]).unwrap()
        };
        let cursor = list.cursor(b"at\xff");
        let place = |list: ListId, cursor: &str| {
            list.place(&params(cursor), |bytes| Some(bytes.to_vec())).ok().flatten()
        };
        assert_eq!(place(list, &cursor).as_deref(), Some(&b"at\xff"[..]));
        assert_eq!(place(ListId::of(("functions", 2)), &cursor), None);
        for bad in ["", "x", "AAAA", "%ff", "====", &cursor[1..]] {
            assert!(list.place(&params(bad), |_| Some(())).is_err(), "{bad}");
        }
        assert!(list.place(&params(&cursor), |_| None::<()>).is_err());
    }
}
