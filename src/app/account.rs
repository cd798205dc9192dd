//! The user and group that the process changes to once it has bound its sockets, so that whoever breaks into it is not root.
//!
//! Knows: names of accounts, and what the kernel lets a process give up. Must not touch: files, sockets.
//! Of all that root may do one thing can be kept: to bind ports below 1024, which a reload may need.

use crate::config::{Config, Global, Spot};
use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, initgroups, setgroups, setresgid, setresuid};
use std::ffi::CString;

/// Below this a port needs the right that is kept (`ip_unprivileged_port_start`, ip(7)).
const LOW_PORTS: u16 = 1024;

/// Who to be.
#[derive(Clone, Debug)]
pub struct Account {
    /// Name and number; `None` leaves the user, and changes the group alone.
    user: Option<(String, Uid)>,
    group: Gid,
    /// Where the configuration says so.
    at: String,
}

impl Account {
    /// The account that `global` names; `None` when it names none. Asks the system's databases, which may take its time.
    ///
    /// # Errors
    /// A line for each name that this machine does not know, with its place in the configuration.
    pub fn of(global: &Global) -> Result<Option<Account>, String> {
        let (mut user, mut group, mut wrong) = (None, None, Vec::new());
        if let Some(name) = &global.user {
            match User::from_name(name) {
                Ok(Some(known)) => user = Some(known),
                found => wrong.push(unknown("user", name, &place(global.user_at.as_ref(), "user"), found.err())),
            }
        }
        if let Some(name) = &global.group {
            match Group::from_name(name) {
                Ok(Some(known)) => group = Some(known.gid),
                found => wrong.push(unknown("group", name, &place(global.group_at.as_ref(), "group"), found.err())),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong.join("\n"));
        }
        let at = match user {
            Some(_) => place(global.user_at.as_ref(), "user"),
            None => place(global.group_at.as_ref(), "group"),
        };
        let Some(group) = group.or(user.as_ref().map(|user| user.gid)) else { return Ok(None) };
        Ok(Some(Account { user: user.map(|user| (user.name, user.uid)), group, at }))
    }

    /// What a file that is made for it is to belong to: user, where it changes, and group.
    pub fn owner(&self) -> (Option<u32>, u32) {
        (self.user.as_ref().map(|(_, uid)| uid.as_raw()), self.group.as_raw())
    }

    /// Becomes it, with all threads there are and will be; only root may, unless it is this one already. `low_ports`: the
    /// right to bind ports below 1024 is kept, by the calling thread and by those that it starts from now on.
    ///
    /// # Errors
    /// What the system says, with the place in the configuration and what to do.
    pub fn take_on(&self, low_ports: bool) -> Result<(), String> {
        let is_other = self.user.as_ref().is_some_and(|(_, uid)| *uid != geteuid());
        if !is_other && self.group == getegid() {
            return Ok(());
        }
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            format!(
                "{}: {what}: {error}; start l4lb as root, or leave it out and have it started by that user",
                self.at
            )
        };
        // The C library has every thread do these, which the kernel asks of one at a time (nptl(7)).
        match &self.user {
            Some((name, _)) => {
                let c_name = CString::new(name.as_str()).map_err(|error| failed("the name is none", &error))?;
                initgroups(&c_name, self.group).map_err(|error| failed("its groups cannot be taken on", &error))?;
            }
            None => setgroups(&[self.group]).map_err(|error| failed("it cannot be taken on", &error))?,
        }
        let group = self.group;
        setresgid(group, group, group).map_err(|error| failed("the group cannot be changed", &error))?;
        let Some((_, user)) = self.user.as_ref().filter(|_| is_other) else { return Ok(()) };
        let kept = kept(low_ports).map_err(|error| failed("capabilities cannot be read", &error))?;
        prctl::set_keepcaps(!kept.is_empty()).map_err(|error| failed("capabilities cannot be kept", &error))?;
        setresuid(*user, *user, *user).map_err(|error| failed("the user cannot be changed", &error))?;
        keep(&kept).map_err(|error| failed("capabilities cannot be given up", &error))
    }
}

/// Whether some listener of `config` has a port that not everybody may bind.
pub(super) fn needs_low_ports(config: &Config) -> bool {
    let binds = config.listeners.iter().flat_map(|listener| &listener.binds);
    binds.map(|bind| bind.port()).any(|port| (1..LOW_PORTS).contains(&port))
}

fn kept(low_ports: bool) -> Result<CapsHashSet, caps::errors::CapsError> {
    let right = Capability::CAP_NET_BIND_SERVICE;
    let has = low_ports && caps::has_cap(None, CapSet::Permitted, right)?;
    Ok(has.then_some(right).into_iter().collect())
}

/// Leaves the calling thread `kept` alone, and passes it on to a program that it starts: an upgrade.
fn keep(kept: &CapsHashSet) -> Result<(), Box<dyn std::error::Error>> {
    caps::set(None, CapSet::Effective, kept)?;
    caps::set(None, CapSet::Permitted, kept)?;
    caps::set(None, CapSet::Inheritable, kept)?;
    for right in kept {
        // A sandbox may forbid that; then only an upgraded process cannot bind low ports, and says so.
        let _ = caps::raise(None, CapSet::Ambient, *right);
    }
    prctl::set_keepcaps(false)?;
    Ok(())
}

fn place(at: Option<&Spot>, key: &str) -> String {
    at.map_or_else(|| format!("l4lb: global.{key}"), Spot::to_string)
}

fn unknown(what: &str, name: &str, at: &str, error: Option<Errno>) -> String {
    match error {
        None => format!(
            "{at}: there is no {what} {name:?} on this machine; add it ({what}add --system {name}), or name another"
        ),
        Some(error) => format!("{at}: the {what} {name:?} cannot be looked up: {error}; try again, or name another"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(user: Option<&str>, group: Option<&str>) -> Result<Option<Account>, String> {
        Account::of(&Global { user: user.map(str::to_owned), group: group.map(str::to_owned), ..Global::default() })
    }

    #[test]
    fn names_are_looked_up_and_those_that_are_not_there_are_told() {
        assert!(of(None, None).unwrap().is_none());
        let root = of(Some("root"), None).unwrap().unwrap();
        assert_eq!(root.owner(), (Some(0), 0), "with the group of the user");
        assert_eq!(of(None, Some("root")).unwrap().unwrap().owner(), (None, 0));
        let told = of(Some("nobody-of-this-name"), Some("none-of-this-name")).unwrap_err();
        let lines: Vec<&str> = told.lines().collect();
        let [user, group] = lines[..] else { panic!("{told}") };
        assert!(user.starts_with("l4lb: global.user: there is no user \"nobody-of-this-name\""), "{user}");
        assert!(group.starts_with("l4lb: global.group: there is no group \"none-of-this-name\""), "{group}");
    }

    #[test]
    fn the_account_that_it_is_already_takes_nothing() {
        let own = User::from_uid(geteuid()).unwrap().map(|user| user.name);
        let Some(own) = own else { return };
        let Some(account) = of(Some(&own), None).unwrap().filter(|account| account.group == getegid()) else { return };
        let before = caps::read(None, CapSet::Effective).unwrap();
        account.take_on(false).unwrap();
        assert_eq!(caps::read(None, CapSet::Effective).unwrap(), before);
    }

    #[test]
    fn a_low_port_is_one_below_1024_of_any_listener() {
        let with = |bind: &str| {
            let listener = |name: &str, bind: &str| {
                format!("[[listener]]\nname = '{name}'\nbind = {bind}\nprotocol = 'tcp'\npool = 'p'\n")
            };
            let text = format!("{}{}[[pool]]\nname = 'p'\n", listener("a", "'127.0.0.1:8080'"), listener("b", bind));
            needs_low_ports(&crate::config::parse(&text, "test").unwrap())
        };
        for (bind, expected) in [
            ("'127.0.0.1:0'", false),
            ("'127.0.0.1:1'", true),
            ("['127.0.0.1:9000', 'localhost:1023']", true),
            ("'127.0.0.1:1024'", false),
        ] {
            assert_eq!(with(bind), expected, "{bind}");
        }
    }
}
