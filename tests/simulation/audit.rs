//! Which letters may follow which: letters in, as they are sent and arrive.
//!
//! A letter too many about a worker's sleep costs nobody his job and wakes nobody twice, and one
//! too many to a core that is congested is only late, so nothing else would show them. Knows what
//! is in no other letter. Invariant: what is kept of a connection is what its home, and what an
//! owner, may believe after the letters that each has sent and got.

use std::collections::{BTreeMap, BTreeSet};

use ringgear::engine::ConnId;
use ringgear::shard::cores::Core;
use ringgear::shard::remote::message::{ConnKey, Message, Rest};
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
    remote_counts: BTreeMap<(Core, Core, ConnId), Dealings>,
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

    pub(crate) fn sent(&mut self, from: Core, to: Core, letter: &Message) {
        if let Message::Request { key, .. }
        | Message::Grab { key, .. }
        | Message::Sleep(key)
        | Message::MigrationCancelled(key)
        | Message::Offloaded { key, .. } = letter
        {
            self.of(from, to, *key).session = key.generation;
        }
        if let Message::Request { key, .. } | Message::Line { key, .. } = letter
            && let Some(writers) = self.congested.get_mut(&(from, to))
        {
            let first = writers.insert((key.conn, key.generation));
            assert!(first, "{key:?} sends on and on to core {to}, for which too much waits");
        }
        match letter {
            Message::Sleep(key) => {
                let home = self.of(from, to, *key);
                assert!(!home.told, "core {to} is told twice that {key:?} sleeps");
                home.told = true;
            }
            Message::Grab { key, .. } => {
                let home = self.of(from, to, *key);
                (home.told, home.owes) = (false, false);
            }
            Message::Request { key, header, body, .. } => {
                let name = body.split(|&byte| byte == 0).next().unwrap_or_default();
                self.of(from, to, *key).note_ability(header.command, name);
            }
            Message::Offloaded { key, rest, .. } => {
                let home = self.of(from, to, *key);
                (home.told, home.owes) = (*rest == Rest::Asleep, *rest == Rest::Woken);
            }
            Message::Declined(key) => {
                let home = self.of(from, to, *key);
                assert!(home.owes, "{key:?} declines what core {to} has no more");
                home.owes = false;
            }
            Message::Noop { key, .. } => {
                let owner = self.of(to, from, *key);
                assert!(owner.asleep, "core {from} wakes {key:?}, which doesn't sleep");
                owner.asleep = false;
            }
            Message::Gone(conn) => {
                if let Some(home) = self.remote_counts.get_mut(&(from, to, *conn)) {
                    (home.told, home.owes) = (false, false);
                    home.able.clear();
                }
            }
            _ => {}
        }
    }

    pub(crate) fn received(&mut self, from: Core, to: Core, letter: &Message) {
        match letter {
            // What was to wake one that stays at home after all may be said anew.
            Message::Sleep(key) | Message::MigrationCancelled(key) => {
                self.of(from, to, *key).asleep = true;
            }
            Message::Grab { key, .. } => self.of(from, to, *key).asleep = false,
            Message::Offloaded { key, rest, .. } => {
                self.of(from, to, *key).asleep = *rest == Rest::Asleep;
            }
            Message::Noop { key, .. } => {
                let home = self.of(to, from, *key);
                if home.session == key.generation {
                    (home.told, home.owes) = (false, true);
                }
            }
            Message::Gone(conn) => {
                if let Some(owner) = self.remote_counts.get_mut(&(from, to, *conn)) {
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
        self.remote_counts.retain(|key, _| makes_room || !is_its(key));
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
            let remote_counts = self.remote_counts.entry((home, owner, conn)).or_default();
            remote_counts.able = functions.into_iter().collect();
        }
    }

    fn of(&mut self, home: Core, owner: Core, key: ConnKey) -> &mut Dealings {
        self.remote_counts.entry((home, owner, key.conn)).or_default()
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
