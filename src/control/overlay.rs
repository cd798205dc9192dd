//! What the admin API has changed: single fields over the file's configuration, by pool and id.
//!
//! Knows: configurations. Must not touch: anything that runs, the clock; when a registration is over is known elsewhere, so
//! that renewing one changes nothing here. Read [`Overlay::over`] first.

use crate::config::{Address, Backend, CheckUrl, Config, Pool, Protocol, read_duration};
use crate::shared::order::{Added, HEAVIEST, Registered, TTLS};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

/// The format of [`Overlay::to_bytes`].
const VERSION: u32 = 1;

/// What the API has changed. A field that is as the file has it has no place here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Plain")]
pub struct Overlay {
    version: u32,
    pools: BTreeMap<String, BTreeMap<String, Entry>>,
}

/// As it is written, before it is looked at.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    version: u32,
    #[serde(default)]
    pools: BTreeMap<String, BTreeMap<String, Entry>>,
}

/// What is changed about one backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Entry {
    /// The backend of the file is not used.
    #[serde(skip_serializing_if = "is_false")]
    removed: bool,
    /// An operator has added it.
    #[serde(skip_serializing_if = "Option::is_none")]
    added: Option<AddedText>,
    /// It has registered itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    registered: Option<RegisteredText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled: Option<bool>,
    #[serde(skip_serializing_if = "is_false")]
    draining: bool,
}

/// [`Added`] as it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddedText {
    address: String,
    weight: u16,
    max_connections: u32,
    backup: bool,
}

/// [`Registered`] as it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RegisteredText {
    address: String,
    weight: u16,
    ttl: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default)]
    health_check_url: Option<String>,
}

/// Something of the overlay that has no place over a file any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The pool.
    pub pool: String,
    /// The id.
    pub id: String,
    /// Why.
    pub why: Why,
}

/// Why something of the overlay is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The pool has left the file.
    NoPool,
    /// The backend has left the file.
    NoBackend,
    /// What was added or registered is in the file now; single fields of it stay changed.
    InFile,
    /// Another backend of the pool has that address now.
    Address,
    /// One of our own listeners has that address now.
    OwnListener,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Dropped { pool, id, why } = self;
        let why = match why {
            Why::NoPool => "the file has no such pool any more",
            Why::NoBackend => "the file has no such backend any more",
            Why::InFile => "the file has a backend of that id now, which counts",
            Why::Address => "another backend of the pool has its address now",
            Why::OwnListener => "one of our own listeners has its address now",
        };
        write!(f, "pool {pool}: what the admin API changed about backend {id} is dropped: {why}")
    }
}

/// Where a backend comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The file.
    File,
    /// An operator, by the API.
    Added,
    /// It has registered itself.
    Registered,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Default for Overlay {
    fn default() -> Self {
        Overlay { version: VERSION, pools: BTreeMap::new() }
    }
}

impl TryFrom<Plain> for Overlay {
    type Error = String;

    fn try_from(plain: Plain) -> Result<Overlay, String> {
        if plain.version != VERSION {
            return Err(format!("version {} is not known here; this l4lb reads {VERSION}", plain.version));
        }
        for (pool, entries) in &plain.pools {
            for (id, entry) in entries {
                entry.check(id).map_err(|why| format!("pool {pool}, backend {id}: {why}"))?;
            }
        }
        Ok(Overlay { version: VERSION, pools: plain.pools })
    }
}

impl Overlay {
    /// As it is kept: JSON, readable, a line at the end.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Nothing in it can fail to be written: keys are text, numbers are whole.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads what [`Overlay::to_bytes`] wrote.
    ///
    /// # Errors
    /// What is wrong with it, when it is anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Overlay, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }

    /// True when nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    /// `file` with all that is changed, and what of the overlay has no place over it: to be let go with
    /// [`Overlay::forget`] once that configuration is in force.
    pub fn over(&self, file: &Config) -> (Config, Vec<Dropped>) {
        let mut config = file.clone();
        let mut dropped = Vec::new();
        for (name, entries) in &self.pools {
            let mut lost = Vec::new();
            match file.pools.iter().position(|pool| pool.name == *name) {
                Some(at) => {
                    let own = |address: &Address| own_listener(file, at, address);
                    config.pools[at].backends = backends_over(entries, &file.pools[at], own, &mut lost);
                }
                None => lost.extend(entries.keys().map(|id| (id, Why::NoPool))),
            }
            dropped.extend(lost.into_iter().map(|(id, why)| Dropped { pool: name.clone(), id: id.clone(), why }));
        }
        (config, dropped)
    }

    /// Lets go what was dropped over `file`, and what the file says itself by now.
    pub fn forget(&mut self, dropped: &[Dropped], file: &Config) {
        for Dropped { pool, id, why } in dropped {
            let Some(entry) = self.pools.get_mut(pool).and_then(|entries| entries.get_mut(id)) else { continue };
            match why {
                Why::InFile => (entry.added, entry.registered) = (None, None),
                _ => *entry = Entry::default(),
            }
        }
        for (name, entries) in &mut self.pools {
            let in_file = file.pools.iter().find(|pool| pool.name == *name);
            let in_file: HashMap<&str, &Backend> =
                in_file.iter().flat_map(|pool| &pool.backends).map(|backend| (&*backend.id, backend)).collect();
            entries.retain(|id, entry| {
                entry.settle(in_file.get(id.as_str()).copied());
                *entry != Entry::default()
            });
        }
        self.pools.retain(|_, entries| !entries.is_empty());
    }

    /// Where the backend `id` of `pool` comes from, if the overlay says anything about that; else the file.
    pub(super) fn origin(&self, pool: &str, id: &str) -> Origin {
        match self.entry(pool, id) {
            Some(Entry { added: Some(_), .. }) => Origin::Added,
            Some(Entry { registered: Some(_), .. }) => Origin::Registered,
            _ => Origin::File,
        }
    }

    /// What the backend `id` of `pool` has registered.
    pub(super) fn registered(&self, pool: &str, id: &str) -> Option<Registered> {
        self.entry(pool, id)?.registered.as_ref()?.meant()
    }

    /// All that has registered: pool, id and ttl.
    pub(super) fn registrations(&self) -> impl Iterator<Item = (&str, &str, Duration)> {
        let of = |(pool, entries)| {
            let entries: &BTreeMap<String, Entry> = entries;
            let pool: &String = pool;
            entries.iter().filter_map(move |(id, entry)| {
                let ttl = entry.registered.as_ref()?.meant()?.ttl;
                Some((pool.as_str(), id.as_str(), ttl))
            })
        };
        self.pools.iter().flat_map(of)
    }

    /// All entries, for `/lb/config`.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &str, &Entry)> {
        self.pools.iter().flat_map(|(pool, entries)| entries.iter().map(|(id, entry)| (&**pool, &**id, entry)))
    }

    /// Adds a backend, which is nowhere yet.
    pub(super) fn add(&mut self, file: &Config, pool: &str, id: &str, added: &Added) {
        self.edit(file, pool, id, |entry| entry.added = Some(AddedText::of(added)));
    }

    /// Takes note of what a backend registers, which is nowhere yet or has registered already.
    pub(super) fn register(&mut self, file: &Config, pool: &str, id: &str, registered: &Registered) {
        self.edit(file, pool, id, |entry| entry.registered = Some(RegisteredText::of(registered)));
    }

    /// Removes a backend, wherever it comes from.
    pub(super) fn remove(&mut self, file: &Config, pool: &str, id: &str) {
        self.edit(file, pool, id, |entry| *entry = Entry { removed: true, ..Entry::default() });
    }

    /// Gives a backend another weight.
    pub(super) fn set_weight(&mut self, file: &Config, pool: &str, id: &str, weight: u16) {
        self.edit(file, pool, id, |entry| entry.weight = Some(weight));
    }

    /// Disables a backend.
    pub(super) fn disable(&mut self, file: &Config, pool: &str, id: &str) {
        self.edit(file, pool, id, |entry| entry.disabled = Some(true));
    }

    /// Drains a backend.
    pub(super) fn drain(&mut self, file: &Config, pool: &str, id: &str) {
        self.edit(file, pool, id, |entry| entry.draining = true);
    }

    /// Lets a backend take work again, whatever kept it from that.
    pub(super) fn enable(&mut self, file: &Config, pool: &str, id: &str) {
        self.edit(file, pool, id, |entry| (entry.disabled, entry.draining) = (Some(false), false));
    }

    /// Removes backends, each a pool and an id: as [`Overlay::remove`], for many at once.
    pub(super) fn remove_all(&mut self, file: &Config, names: &[(String, String)]) {
        for (pool, id) in names {
            if let Some(entry) = self.pools.get_mut(pool).and_then(|entries| entries.get_mut(id)) {
                *entry = Entry { removed: true, ..Entry::default() };
            }
        }
        self.forget(&[], file);
    }

    /// What is changed about one backend, and nothing else.
    pub(super) fn only(&self, pool: &str, id: &str) -> Overlay {
        let mut only = Overlay::default();
        only.set(pool, id, self.entry(pool, id).cloned());
        only
    }

    /// Lets `entry` be what is changed about a backend.
    pub(super) fn set(&mut self, pool: &str, id: &str, entry: Option<Entry>) {
        match entry {
            Some(entry) => {
                let entries = match self.pools.get_mut(pool) {
                    Some(entries) => entries,
                    None => self.pools.entry(pool.to_owned()).or_default(),
                };
                entries.insert(id.to_owned(), entry);
            }
            None => {
                if let Some(entries) = self.pools.get_mut(pool) {
                    entries.remove(id);
                    if entries.is_empty() {
                        self.pools.remove(pool);
                    }
                }
            }
        }
    }

    /// The backend `id` over the pool `file`, if there is one. What has no place there is not looked for.
    pub(super) fn backend(&self, file: &Pool, id: &str) -> Option<Backend> {
        let in_file = file.backends.iter().find(|backend| backend.id == id);
        match self.entry(&file.name, id) {
            Some(entry) => {
                let in_file = in_file.filter(|_| !entry.removed).cloned();
                let mut backend = entry.more(id).or(in_file)?;
                entry.apply(&mut backend);
                Some(backend)
            }
            None => in_file.cloned(),
        }
    }

    /// Where the backend `id` has its place among `others`, which are all others over the pool `file`: as
    /// [`Overlay::over`] has them.
    pub(super) fn place(&self, file: &Pool, id: &str, others: &[Backend]) -> usize {
        let entries = self.pools.get(&file.name);
        let is_removed = |id: &str| self.entry(&file.name, id).is_some_and(|entry| entry.removed);
        let before = match file.backends.iter().position(|backend| backend.id == id) {
            Some(at) if !is_removed(id) => {
                return file.backends[..at].iter().filter(|backend| !is_removed(&backend.id)).count();
            }
            _ => entries.map_or(0, |entries| entries.values().filter(|entry| entry.removed).count()),
        };
        let first = file.backends.len().saturating_sub(before).min(others.len());
        first + others[first..].partition_point(|other| *other.id < *id)
    }

    /// What is changed about a backend.
    pub(super) fn entry(&self, pool: &str, id: &str) -> Option<&Entry> {
        self.pools.get(pool)?.get(id)
    }

    /// Changes one entry and leaves no more of it than differs from the file.
    fn edit(&mut self, file: &Config, pool: &str, id: &str, change: impl FnOnce(&mut Entry)) {
        let in_file = file.pools.iter().find(|known| known.name == pool);
        let in_file = in_file.and_then(|known| known.backends.iter().find(|backend| backend.id == id));
        let entries = self.pools.entry(pool.to_owned()).or_default();
        let entry = entries.entry(id.to_owned()).or_default();
        change(entry);
        entry.settle(in_file);
        if *entry == Entry::default() {
            entries.remove(id);
        }
        if entries.is_empty() {
            self.pools.remove(pool);
        }
    }
}

impl Entry {
    /// Whether all in it is in range. What is only wrong in company is found by [`Overlay::over`].
    fn check(&self, id: &str) -> Result<(), String> {
        if let Some(why) = Backend::fault_of_id(id) {
            return Err(format!("this is no id: {why}"));
        }
        if self.added.is_some() && self.registered.is_some() {
            return Err("it is both added and registered".to_owned());
        }
        let address = |text: &str| Address::backend(text).map(drop).map_err(|error| format!("address: {error}"));
        let weights = [
            self.weight,
            self.added.as_ref().map(|added| added.weight),
            self.registered.as_ref().map(|registered| registered.weight),
        ];
        if let Some(weight) = weights.into_iter().flatten().find(|weight| *weight > HEAVIEST) {
            return Err(format!("weight: {weight} is more than {HEAVIEST}"));
        }
        if let Some(added) = &self.added {
            address(&added.address)?;
        }
        if let Some(registered) = &self.registered {
            address(&registered.address)?;
            let ttl = read_duration(&registered.ttl).map_err(|fault| format!("ttl: {fault}"))?;
            if !TTLS.contains(&ttl) {
                return Err("ttl: is out of range".to_owned());
            }
            if let Some(Err(error)) = registered.health_check_url.as_ref().map(|url| url.parse::<CheckUrl>()) {
                return Err(format!("health_check_url: {error}"));
            }
        }
        Ok(())
    }

    /// Lets go of what is as `in_file` has it.
    fn settle(&mut self, in_file: Option<&Backend>) {
        self.removed &= in_file.is_some();
        if let (Some(added), Some(backend), true) = (&self.added, in_file, self.removed)
            && added.meant(&backend.id).as_ref() == Some(backend)
        {
            // Added again as the file has it.
            (self.added, self.removed) = (None, false);
        }
        let base = match (&self.added, &self.registered, in_file.filter(|_| !self.removed)) {
            (Some(added), _, _) => Some((added.weight, false)),
            (_, Some(registered), _) => Some((registered.weight, false)),
            (_, _, Some(backend)) => Some((backend.weight, backend.disabled)),
            _ => None,
        };
        match base {
            Some((weight, disabled)) => {
                self.weight = self.weight.filter(|own| *own != weight);
                self.disabled = self.disabled.filter(|own| *own != disabled);
            }
            None => (self.weight, self.disabled, self.draining) = (None, None, false),
        }
    }

    /// The backend that this brings along, before its single fields are changed.
    fn more(&self, id: &str) -> Option<Backend> {
        match (&self.added, &self.registered) {
            (Some(added), _) => added.meant(id),
            (_, Some(registered)) => registered.meant().map(|registered| {
                let Registered { address, weight, ttl: _, check } = registered;
                Backend { weight, check, ..Backend::new(id, address) }
            }),
            _ => None,
        }
    }

    /// Changes the single fields of `backend`.
    fn apply(&self, backend: &mut Backend) {
        backend.weight = self.weight.unwrap_or(backend.weight);
        backend.disabled = self.disabled.unwrap_or(backend.disabled);
        backend.draining |= self.draining;
    }
}

impl AddedText {
    fn of(added: &Added) -> AddedText {
        let Added { address, weight, max_connections, backup } = added;
        let (weight, max_connections, backup) = (*weight, *max_connections, *backup);
        AddedText { address: address.to_string(), weight, max_connections, backup }
    }

    fn meant(&self, id: &str) -> Option<Backend> {
        let AddedText { address, weight, max_connections, backup } = self;
        let (weight, max_connections, backup) = (*weight, *max_connections, *backup);
        Some(Backend { weight, max_connections, backup, ..Backend::new(id, Address::backend(address).ok()?) })
    }
}

impl RegisteredText {
    fn of(registered: &Registered) -> RegisteredText {
        let Registered { address, weight, ttl, check } = registered;
        RegisteredText {
            address: address.to_string(),
            weight: *weight,
            ttl: humantime::format_duration(*ttl).to_string(),
            health_check_url: check.as_ref().map(CheckUrl::to_string),
        }
    }

    fn meant(&self) -> Option<Registered> {
        Some(Registered {
            address: Address::backend(&self.address).ok()?,
            weight: self.weight,
            ttl: read_duration(&self.ttl).ok()?,
            check: self.health_check_url.as_ref().and_then(|url| url.parse().ok()),
        })
    }
}

/// The backends of `pool` with what `entries` change: those of the file in their order, then the others by id.
fn backends_over<'o>(
    entries: &'o BTreeMap<String, Entry>,
    pool: &Pool,
    own: impl Fn(&Address) -> bool,
    dropped: &mut Vec<(&'o String, Why)>,
) -> Vec<Backend> {
    let mut backends = Vec::with_capacity(pool.backends.len() + entries.len());
    let mut of_file = HashSet::new();
    for backend in &pool.backends {
        let entry = entries.get(&backend.id);
        of_file.insert(backend.id.as_str());
        if entry.is_some_and(|entry| entry.removed) {
            continue;
        }
        let mut backend = backend.clone();
        if let Some(entry) = entry {
            entry.apply(&mut backend);
        }
        backends.push(backend);
    }
    let mut taken: HashSet<Address> = backends.iter().map(|backend| backend.address.canonical()).collect();
    for (id, entry) in entries {
        let in_file = of_file.contains(id.as_str());
        match entry.more(id) {
            None if in_file => {}
            None => dropped.push((id, Why::NoBackend)),
            Some(_) if in_file && !entry.removed => dropped.push((id, Why::InFile)),
            Some(more) if own(&more.address) => dropped.push((id, Why::OwnListener)),
            Some(more) if !taken.insert(more.address.canonical()) => dropped.push((id, Why::Address)),
            Some(mut more) => {
                entry.apply(&mut more);
                backends.push(more);
            }
        }
    }
    backends
}

/// Whether what pool `pool` of `config` sends to `address` would come back to a listener, as far as the file tells.
fn own_listener(config: &Config, pool: usize, address: &Address) -> bool {
    let leads = |listener: &crate::config::Listener| {
        listener.pool == Some(pool) || listener.routes.iter().any(|route| route.pool == pool)
    };
    let users = || config.listeners.iter().filter(|listener| leads(listener));
    // A pool that nobody uses yet may be used over either.
    let carried =
        |by: Protocol| users().next().is_none() || users().any(|user| user.protocol.transport() == by.transport());
    let binds = || {
        let of = config.listeners.iter().filter(|listener| carried(listener.protocol));
        of.flat_map(|listener| &listener.binds).filter(|bind| bind.port() == address.port())
    };
    let only_v6 = binds().any(|bind| matches!(bind, Address::Ip(ip) if ip.is_ipv4()));
    binds().any(|bind| address.reaches(bind, only_v6, &[]))
}

#[cfg(test)]
mod tests;
