//! An access list, and what it says of one peer.
//!
//! Rules and a peer in, permissions out; of these, a right and a function in, a verdict out. The
//! first rule that matches decides; if none does, the verdict is a refusal. Knows no file and no
//! connections.
//!
//! Invariant: the permissions of a peer give the same verdicts as its rules, tried one by one.

use std::fmt;
use std::ops::AddAssign;
use std::sync::Arc;

use super::peer::Peer;
use super::right::{RIGHTS, Right};
use super::rule::Rule;

/// What a right is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// One function, by its name.
    Function(&'a [u8]),
    /// All functions, those included that are created later.
    AllFunctions,
}

/// An answer of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the peer may.
    pub is_allowed: bool,
    /// The rule that has decided, from 0 on; `None` if no rule matches.
    pub rule: Option<usize>,
}

/// An access list.
pub struct AccessList {
    rules: Vec<Rule>,
}

/// What an access list says of one peer.
#[derive(Clone)]
pub struct Permissions {
    list: Arc<AccessList>,
    /// What the peer is called.
    peer: Box<str>,
    /// By right, the rules that may decide about it, in their order.
    rules: [Box<[u16]>; RIGHTS],
}

impl Permissions {
    /// Memory that they take, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let rules: usize = self.rules.iter().map(|rules| size_of_val(&rules[..])).sum();
        size_of::<Self>() + self.peer.len() + rules
    }
}

/// Its size: what travels between cores is written to the log.
impl fmt::Debug for AccessList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessList of {} rules", self.rules.len())
    }
}

/// Its peer.
impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permissions of {}", self.peer)
    }
}

/// Most rules of a list: their numbers fit `Permissions`.
pub const RULES_MAX: usize = 1000;

impl AccessList {
    /// A list of at most `RULES_MAX` rules.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        debug_assert!(rules.len() <= RULES_MAX);
        Self { rules }
    }

    /// Its rules, in their order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

impl Permissions {
    /// What a list says of a peer.
    #[must_use]
    pub fn of(list: &Arc<AccessList>, peer: &Peer) -> Self {
        let is_for_peer: Vec<bool> = list.rules.iter().map(|it| it.who.includes(peer)).collect();
        let rules = Right::ALL.map(|right| {
            let mut numbers = Vec::new();
            for (number, rule) in list.rules.iter().enumerate() {
                if is_for_peer.get(number) == Some(&true) && rule.is_about(right) {
                    numbers.extend(u16::try_from(number));
                    if rule.functions.is_none() {
                        break;
                    }
                }
            }
            numbers.into()
        });
        Self { list: Arc::clone(list), peer: peer.to_string().into(), rules }
    }

    /// The list.
    #[must_use]
    pub fn list(&self) -> &Arc<AccessList> {
        &self.list
    }

    /// What the peer is called in replies and in the log.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Whether the peer may do what needs a right. All functions are allowed by a rule without
    /// functions only, and not behind a rule that refuses any of them.
    #[must_use]
    pub fn may(&self, right: Right, scope: Scope<'_>) -> Verdict {
        for (number, rule) in self.rules_about(right) {
            let decides = match scope {
                Scope::Function(function) => rule.is_for(function),
                Scope::AllFunctions => rule.functions.is_none() || !rule.allows,
            };
            if decides {
                return Verdict { is_allowed: rule.allows, rule: Some(number) };
            }
        }
        Verdict { is_allowed: false, rule: None }
    }

    /// Whether there may be functions for which the peer may do what needs a right.
    #[must_use]
    pub fn may_some(&self, right: Right) -> bool {
        // None follows a rule that is for all functions.
        self.rules_about(right).any(|(_, rule)| rule.allows)
    }

    /// Whether the peer may see a function in lists.
    #[must_use]
    pub fn shows(&self, function: &[u8]) -> bool {
        self.may(Right::Observe, Scope::Function(function)).is_allowed
    }

    /// Whether the peer may ask for the state of a function's jobs: submitting them is enough.
    #[must_use]
    pub fn tells_status(&self, function: &[u8]) -> bool {
        self.status_verdict(function).is_allowed
    }

    /// The verdict about the state of a function's jobs.
    #[must_use]
    pub fn status_verdict(&self, function: &[u8]) -> Verdict {
        let observe = self.may(Right::Observe, Scope::Function(function));
        let submit = self.may(Right::Submit, Scope::Function(function));
        if submit.is_allowed { submit } else { observe }
    }

    /// How many patterns a look at a right compares a name with, at most.
    #[must_use]
    pub fn patterns(&self, right: Right) -> usize {
        self.rules_about(right).map(|(_, rule)| rule.functions().count()).sum()
    }

    fn rules_about(&self, right: Right) -> impl Iterator<Item = (usize, &Rule)> {
        let [submit, work, observe, admin] = &self.rules;
        let numbers = match right {
            Right::Submit => submit,
            Right::Work => work,
            Right::Observe => observe,
            Right::Admin => admin,
        };
        let rule = |&number: &u16| {
            let number = usize::from(number);
            self.list.rules.get(number).map(|rule| (number, rule))
        };
        numbers.iter().filter_map(rule)
    }
}

/// How often each rule of a list has decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// By the number of the rule.
    rules: Vec<u64>,
    /// Where no rule matched.
    none: u64,
}

impl Hits {
    /// Counts a verdict.
    pub fn count(&mut self, verdict: Verdict) {
        let Some(number) = verdict.rule else {
            self.none += 1;
            return;
        };
        if self.rules.len() <= number {
            self.rules.resize(number + 1, 0);
        }
        if let Some(hits) = self.rules.get_mut(number) {
            *hits += 1;
        }
    }

    /// Begins anew, for another list.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Memory that they take, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&self.rules[..])
    }

    /// How often a rule has decided.
    #[must_use]
    pub fn of(&self, rule: usize) -> u64 {
        self.rules.get(rule).copied().unwrap_or(0)
    }

    /// How often none did.
    #[must_use]
    pub fn none(&self) -> u64 {
        self.none
    }
}

impl AddAssign<&Self> for Hits {
    fn add_assign(&mut self, other: &Self) {
        self.none += other.none;
        self.rules.resize(self.rules.len().max(other.rules.len()), 0);
        self.rules.iter_mut().zip(&other.rules).for_each(|(sum, more)| *sum += more);
    }
}
