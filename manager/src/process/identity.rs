//! `user` and `group` of a worker in, numbers out.
//!
//! Reads the user database, and changes nothing.
//!
//! Invariant: an identity has all groups of its user, and none of the manager's.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgrouplist};

/// The user and the groups that a process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub user: Uid,
    /// Group.
    pub group: Gid,
    /// All groups of the user, with `group`.
    pub groups: Vec<Gid>,
}

/// A user and a group, looked up.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// What to change to; `None` = the manager's own.
    pub identity: Option<Identity>,
    /// The user's entry, if a user was asked for that has one.
    pub entry: Option<User>,
}

impl Account {
    /// Looks up a user and a group, by name or number. Neither: the manager's own.
    ///
    /// # Errors
    /// If there is no such user or group, or the user database can't be read: a sentence.
    pub fn look_up(user: Option<&str>, group: Option<&str>) -> Result<Self, String> {
        if user.is_none() && group.is_none() {
            return Ok(Self::default());
        }
        let (number, entry) = match user {
            Some(user) => look_up_user(user)?,
            None => (geteuid(), None),
        };
        let group = match (group, &entry) {
            (Some(group), _) => look_up_group(group)?,
            (None, Some(entry)) => entry.gid,
            (None, None) => {
                let user = user.unwrap_or_default();
                return Err(format!(
                    "the user {user} is in no group that this machine knows; give `group`, too"
                ));
            }
        };
        let groups = match &entry {
            Some(entry) => {
                let name = CString::new(entry.name.as_bytes()).unwrap_or_default();
                getgrouplist(&name, group)
                    .map_err(|error| format!("cannot read the groups of {}: {error}", entry.name))?
            }
            None => vec![group],
        };
        // Only root may change to what it is already.
        let is_same = !geteuid().is_root() && number == geteuid() && group == getegid();
        let identity = (!is_same).then_some(Identity { user: number, group, groups });
        Ok(Self { identity, entry })
    }
}

fn look_up_user(text: &str) -> Result<(Uid, Option<User>), String> {
    let cannot_read = |error| format!("cannot read the users of this machine: {error}");
    if let Some(entry) = User::from_name(text).map_err(cannot_read)? {
        return Ok((entry.uid, Some(entry)));
    }
    let Ok(number) = text.parse() else {
        return Err(format!("there is no user {text} on this machine; create it (useradd)"));
    };
    let number = Uid::from_raw(number);
    Ok((number, User::from_uid(number).map_err(cannot_read)?))
}

fn look_up_group(text: &str) -> Result<Gid, String> {
    let found = Group::from_name(text)
        .map_err(|error| format!("cannot read the groups of this machine: {error}"))?;
    match (found, text.parse()) {
        (Some(entry), _) => Ok(entry.gid),
        (None, Ok(number)) => Ok(Gid::from_raw(number)),
        (None, Err(_)) => {
            Err(format!("there is no group {text} on this machine; create it (groupadd)"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_have_names_or_numbers() {
        let account = Account::look_up(Some("root"), None).expect("every machine has it");
        assert_eq!(account.entry.expect("its entry").name, "root");
        let account = Account::look_up(Some("0"), Some("4242")).expect("numbers");
        assert_eq!(account.entry.expect("its entry").name, "root");
        let identity = account.identity.expect("another group");
        assert_eq!((identity.user, identity.group), (Uid::from_raw(0), Gid::from_raw(4242)));
        assert!(identity.groups.contains(&Gid::from_raw(4242)));
        let account = Account::look_up(Some("3999999"), Some("4242")).expect("numbers");
        let (user, group) = (Uid::from_raw(3_999_999), Gid::from_raw(4242));
        assert_eq!(account.identity, Some(Identity { user, group, groups: vec![group] }));
        assert!(account.entry.is_none());
    }

    #[test]
    fn nothing_asked_for_changes_nothing() {
        let account = Account::look_up(None, None).expect("nothing to look up");
        assert_eq!(account.identity, None);
    }

    #[test]
    fn mistakes_have_a_remedy() {
        let error = |user, group| Account::look_up(user, group).expect_err("a mistake");
        assert_eq!(
            error(Some("no-such-user"), None),
            "there is no user no-such-user on this machine; create it (useradd)"
        );
        assert_eq!(
            error(None, Some("no-such-group")),
            "there is no group no-such-group on this machine; create it (groupadd)"
        );
        assert_eq!(
            error(Some("3999999"), None),
            "the user 3999999 is in no group that this machine knows; give `group`, too"
        );
    }
}
