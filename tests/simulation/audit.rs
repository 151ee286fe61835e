//! Which letters may follow which: letters in, as they are sent and arrive.
//!
//! A letter too many about a worker's sleep costs nobody his job and wakes nobody twice, and one
//! too many to a core that is congested is only late, so nothing else would show them. Knows what
//! is in no other letter. Invariant: what is kept of a connection is what its home, and what an
//! owner, may believe after the letters that each has sent and got.

use std::collections::{BTreeMap, BTreeSet};

use ringgear::engine::ConnId;
use ringgear::shard::cores::Core;
use ringgear::shard::remote::message::{Caller, Letter, Rest};
use ringgear::wire::Command;

/// Between a worker's home and an owner of its functions.
#[derive(Debug, Default)]
struct Dealings {
    /// The session that the home last wrote about.
    session: u32,
    /// The home has said that it sleeps, and neither grabbed since nor got a NOOP.
    told: bool,
    /// A NOOP came that it has neither followed nor declined.
    owes: bool,
    /// Functions that it has named and not taken back.
    able: BTreeSet<Vec<u8>>,
    /// The owner has been told so, and has neither woken it nor been asked since.
    asleep: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Audit {
    /// By home, owner and number at home.
    dealings: BTreeMap<(Core, Core, ConnId), Dealings>,
    /// By sender, the receivers to which it is congested and who has written to each since.
    congested: BTreeMap<(Core, Core), BTreeSet<(ConnId, u32)>>,
}

impl Audit {
    /// A core is told towards which others it is congested, one bit each.
    pub(crate) fn congested(&mut self, core: Core, towards: u64) {
        self.congested.retain(|&(from, to), _| from != core || towards >> to & 1 == 1);
        for to in (0..64).filter(|to| towards >> to & 1 == 1) {
            self.congested.entry((core, to)).or_default();
        }
    }

    pub(crate) fn sent(&mut self, from: Core, to: Core, letter: &Letter) {
        if let Letter::Request { caller, .. }
        | Letter::Grab { caller, .. }
        | Letter::Sleep(caller)
        | Letter::StayedHome(caller)
        | Letter::SettledIn { caller, .. } = letter
        {
            self.of(from, to, *caller).session = caller.session;
        }
        if let Letter::Request { caller, .. } | Letter::Line { caller, .. } = letter
            && let Some(writers) = self.congested.get_mut(&(from, to))
        {
            let first = writers.insert((caller.conn, caller.session));
            assert!(first, "{caller:?} sends on and on to core {to}, for which too much waits");
        }
        match letter {
            Letter::Sleep(caller) => {
                let home = self.of(from, to, *caller);
                assert!(!home.told, "core {to} is told twice that {caller:?} sleeps");
                home.told = true;
            }
            Letter::Grab { caller, .. } => {
                let home = self.of(from, to, *caller);
                (home.told, home.owes) = (false, false);
            }
            Letter::Request { caller, header, body, .. } => {
                let name = body.split(|&byte| byte == 0).next().unwrap_or_default();
                self.of(from, to, *caller).note_ability(header.command, name);
            }
            Letter::SettledIn { caller, rest, .. } => {
                let home = self.of(from, to, *caller);
                (home.told, home.owes) = (*rest == Rest::Asleep, *rest == Rest::Woken);
            }
            Letter::Declined(caller) => {
                let home = self.of(from, to, *caller);
                assert!(home.owes, "{caller:?} declines what core {to} has no more");
                home.owes = false;
            }
            Letter::Noop { caller, .. } => {
                let owner = self.of(to, from, *caller);
                assert!(owner.asleep, "core {from} wakes {caller:?}, which doesn't sleep");
                owner.asleep = false;
            }
            Letter::Gone(conn) => {
                if let Some(home) = self.dealings.get_mut(&(from, to, *conn)) {
                    (home.told, home.owes) = (false, false);
                    home.able.clear();
                }
            }
            _ => {}
        }
    }

    pub(crate) fn received(&mut self, from: Core, to: Core, letter: &Letter) {
        match letter {
            // What was to wake one that stays at home after all may be said anew.
            Letter::Sleep(caller) | Letter::StayedHome(caller) => {
                self.of(from, to, *caller).asleep = true;
            }
            Letter::Grab { caller, .. } => self.of(from, to, *caller).asleep = false,
            Letter::SettledIn { caller, rest, .. } => {
                self.of(from, to, *caller).asleep = *rest == Rest::Asleep;
            }
            Letter::Noop { caller, .. } => {
                let home = self.of(to, from, *caller);
                if home.session == caller.session {
                    (home.told, home.owes) = (false, true);
                }
            }
            Letter::Gone(conn) => {
                if let Some(owner) = self.dealings.get_mut(&(from, to, *conn)) {
                    owner.asleep = false;
                }
            }
            _ => {}
        }
    }

    /// A connection leaves its home for the core of its jobs, or to make room. One that makes room
    /// has written to nobody, and owners may not have heard yet that the last one of its number has
    /// gone.
    pub(crate) fn departed(&mut self, home: Core, conn: ConnId, makes_room: bool) {
        let is_its = |&(from, _, other): &(Core, Core, ConnId)| (from, other) == (home, conn);
        self.dealings.retain(|key, _| makes_room || !is_its(key));
    }

    /// A connection has come to its new home; one that makes room brings functions along.
    pub(crate) fn arrived(
        &mut self,
        home: Core,
        owner: Core,
        conn: ConnId,
        functions: Vec<Vec<u8>>,
    ) {
        if !functions.is_empty() {
            let dealings = self.dealings.entry((home, owner, conn)).or_default();
            dealings.able = functions.into_iter().collect();
        }
    }

    fn of(&mut self, home: Core, owner: Core, caller: Caller) -> &mut Dealings {
        self.dealings.entry((home, owner, caller.conn)).or_default()
    }
}

impl Dealings {
    fn note_ability(&mut self, command: Command, name: &[u8]) {
        match command {
            Command::CanDo | Command::CanDoTimeout => {
                self.able.insert(name.to_vec());
            }
            Command::CantDo => {
                self.able.remove(name);
            }
            Command::ResetAbilities => self.able.clear(),
            _ => return,
        }
        if self.able.is_empty() {
            (self.told, self.owes) = (false, false);
        }
    }
}
