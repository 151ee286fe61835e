//! Pauses of other servers: all pauses of the store and this server's own changes in, changes that
//! others have made out.
//!
//! Knows neither the store nor the cores.
//!
//! Invariant: a change that this server made is never among those of others.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::engine::record::Pause;
use crate::store::own_pauses::PauseChange;

/// The pauses that the store had at the last comparison.
#[derive(Debug)]
pub(super) struct Pauses(BTreeMap<Bytes, Pause>);

impl Pauses {
    /// This server has started with these.
    pub(super) fn new(pauses: BTreeMap<Bytes, Pause>) -> Self {
        Self(pauses)
    }

    /// What others have changed, by all pauses that the store has now. `own` is what this server
    /// has committed since the last comparison, before these were read.
    pub(super) fn follow(
        &mut self,
        own: Vec<PauseChange>,
        stored: Vec<(Bytes, Pause)>,
    ) -> Vec<PauseChange> {
        for (function, pause) in own {
            match pause {
                Some(pause) => self.0.insert(function, pause),
                None => self.0.remove(&function),
            };
        }
        let stored: BTreeMap<Bytes, Pause> = stored.into_iter().collect();
        let earlier = std::mem::take(&mut self.0);
        let ended = earlier.keys().filter(|&function| !stored.contains_key(function));
        let ended = ended.map(|function| (function.clone(), None));
        let is_new = |(function, pause): &(&Bytes, &Pause)| earlier.get(*function) != Some(*pause);
        let begun = stored.iter().filter(is_new);
        let changes = ended.chain(begun.map(|(function, &pause)| (function.clone(), Some(pause))));
        let changes = changes.collect();
        self.0 = stored;
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &'static str) -> Bytes {
        Bytes::from_static(name.as_bytes())
    }

    #[test]
    fn what_others_pause_resume_and_change_is_found_and_own_changes_are_not() {
        let (always, until) = (Pause::Unlimited, Pause::Until(9));
        let started = [("a", always), ("b", until)].map(|(it, pause)| (name(it), pause));
        let mut pauses = Pauses::new(started.into());
        assert_eq!(pauses.follow(vec![], vec![(name("a"), always), (name("b"), until)]), []);
        let stored = || vec![(name("b"), always), (name("c"), until)];
        let changes = pauses.follow(vec![], stored());
        let expected = [(name("a"), None), (name("b"), Some(always)), (name("c"), Some(until))];
        assert_eq!(changes, expected);
        assert_eq!(pauses.follow(vec![], stored()), []);

        // Own changes, of which another server has undone one before the read.
        let own = vec![(name("b"), None), (name("d"), Some(always)), (name("e"), Some(always))];
        let stored = vec![(name("c"), until), (name("d"), always)];
        assert_eq!(pauses.follow(own, stored), [(name("e"), None)]);
    }
}
