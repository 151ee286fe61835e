//! How many cores serve: what was asked for, or what suits the host.
//!
//! An option and facts about the host in, numbers of cores out. Knows no threads.
//!
//! Invariant: a number that was asked for is taken as it is.

use super::Options;
use crate::io::CoreCount;

/// Most cores that serve unless more are asked for: as many as gearmand has threads for its
/// connections. Each takes memory for its buffers, and splits the load into smaller batches.
const DEFAULT_MAX: usize = 4;
/// One core serves, unless more are asked for, where the process may have fewer descriptors than
/// these: each core takes some for itself.
const DESCRIPTORS_MIN: u64 = 1024;

impl Options {
    /// How many cores serve where the process may use so many processors and descriptors.
    #[must_use]
    pub fn cores(&self, processors: usize, descriptors: u64) -> CoreCount {
        match self.threads {
            // 0 means 1, as in gearmand.
            Some(asked) => CoreCount::exactly(usize::from(asked.max(1))),
            None => CoreCount { most: default_cores(processors, descriptors), fewest: 1 },
        }
    }
}

/// Half of the processors, as clients and workers often run on the same host: with two in all, a
/// second core costs more than it brings.
fn default_cores(processors: usize, descriptors: u64) -> usize {
    if descriptors < DESCRIPTORS_MIN { 1 } else { (processors / 2).clamp(1, DEFAULT_MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::parse_words;

    /// `docs/operating.md` and `docs/coming-from-gearmand.md` say the same, and why.
    #[test]
    fn half_of_the_processors_serve_and_four_at_most() {
        let cores =
            [0, 1, 2, 3, 4, 6, 8, 16, 128].map(|processors| default_cores(processors, 4096));
        assert_eq!(cores, [1, 1, 1, 1, 2, 3, 4, 4, 4]);
        assert_eq!((default_cores(16, 1024), default_cores(16, 1023)), (4, 1));
    }

    #[test]
    fn what_was_asked_for_is_no_default() {
        let cores = |words| parse_words(words, "").unwrap().cores(16, 64);
        assert_eq!(cores("-t 9"), CoreCount::exactly(9));
        assert_eq!(cores("-t 0"), CoreCount::exactly(1));
        assert_eq!(cores(""), CoreCount { most: 1, fewest: 1 });
        assert_eq!(parse_words("", "").unwrap().cores(6, 4096), CoreCount { most: 3, fewest: 1 });
    }
}
