//! Policies as they were read: the tables of a file in, and where each stands out.
//!
//! Values. Knows no options, and reads nothing.
//!
//! Invariant: a place is a file and a line of it.

use std::sync::Arc;

use super::tables::Tables;
use crate::engine::policy::Policies;

/// Policies, and the file that has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FunctionsFile {
    path: String,
    tables: Tables,
}

impl FunctionsFile {
    /// Policies that this file has.
    pub(super) fn new(path: &str, tables: Tables) -> Self {
        Self { path: path.to_owned(), tables }
    }

    /// The file.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The policies, in the order of the file.
    #[must_use]
    pub fn policies(&self) -> &Arc<Policies> {
        &self.tables.policies
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies().0.is_empty()
    }

    /// A sentence for each thing in it that has no effect.
    pub fn remarks(&self) -> impl Iterator<Item = String> {
        self.tables.remarks.iter().map(|remark| format!("{}:{remark}", self.path))
    }

    /// The file and line of the policy at this position.
    pub(super) fn place(&self, position: usize) -> String {
        let line = self.tables.lines.get(position).copied().unwrap_or_default();
        format!("{}:{line}", self.path)
    }
}
