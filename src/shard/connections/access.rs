//! What the access list says of one connection: rights and functions in, verdicts out.
//!
//! Remembers its latest verdict. Knows no list and no other connection.
//!
//! Invariant: what is remembered is what the permissions say.

use std::sync::Arc;

use crate::protocol::access::{Permissions, Right, Scope, Verdict};

/// Longest name of a function whose verdict a connection remembers.
const REMEMBERED_BYTES_MAX: usize = 256;

/// What the access list says of one connection, and the latest of its verdicts: peers mostly repeat
/// themselves.
#[derive(Clone, Debug)]
pub(in crate::shard) struct Access {
    permissions: Arc<Permissions>,
    latest: Option<(Right, Verdict)>,
    /// The function that `latest` is about.
    function: Vec<u8>,
}

impl Access {
    pub(in crate::shard) fn new(permissions: Arc<Permissions>) -> Box<Self> {
        Box::new(Self { permissions, latest: None, function: Vec::new() })
    }

    /// Memory that it takes, in bytes.
    pub(in crate::shard) fn bytes(&self) -> usize {
        size_of::<Self>() + self.permissions.bytes() + REMEMBERED_BYTES_MAX / 4
    }

    pub(in crate::shard) fn permissions(&self) -> &Arc<Permissions> {
        &self.permissions
    }

    pub(in crate::shard) fn may(&mut self, right: Right, scope: Scope<'_>) -> Verdict {
        let Scope::Function(function) = scope else { return self.permissions.may(right, scope) };
        if let Some((latest, verdict)) = self.latest
            && latest == right
            && self.function == function
        {
            return verdict;
        }
        let verdict = self.permissions.may(right, scope);
        if function.len() <= REMEMBERED_BYTES_MAX {
            self.function.clear();
            self.function.extend_from_slice(function);
            self.latest = Some((right, verdict));
        }
        verdict
    }
}
