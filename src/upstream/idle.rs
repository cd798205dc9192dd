//! Connections to backends that nobody uses just now.
//!
//! A worker keeps its own; one total cap a backend bounds those of all workers together. The most recent one goes out
//! first, so that those beyond what the load needs grow old and are closed. A backend that closes one is noticed by its
//! event: then the link is gone from the slab, and its entry here is skipped.

use crate::base::ids::{BackendSlot, LinkId};
use crate::base::slab::Slab;
use crate::base::time::Tick;
use crate::guard::Permit;
use crate::link::{Link, Owner};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::time::Duration;

/// The idle links of one worker.
#[derive(Default)]
pub struct Idle {
    by_backend: FxHashMap<BackendSlot, VecDeque<Entry>>,
    /// No entry is due before this tick.
    next_due: Option<Tick>,
}

struct Entry {
    link: LinkId,
    due: Tick,
    _permit: Permit,
}

impl Idle {
    /// Keeps `link` for `keep`, under a place of the backend's cap.
    pub fn put<S>(
        &mut self,
        backend: BackendSlot,
        link: LinkId,
        permit: Permit,
        keep: Duration,
        now: Tick,
        links: &mut Slab<LinkId, Link<S>>,
    ) {
        let Some(slot) = links.get_mut(link) else { return };
        slot.owner = Owner::Idle(backend);
        let due = now.after(keep);
        self.by_backend.entry(backend).or_default().push_back(Entry { link, due, _permit: permit });
        self.next_due = Some(self.next_due.map_or(due, |next| next.min(due)));
    }

    /// The link that was used last, if one is still open.
    pub fn take<S>(&mut self, backend: BackendSlot, now: Tick, links: &mut Slab<LinkId, Link<S>>) -> Option<LinkId> {
        let entries = self.by_backend.get_mut(&backend)?;
        while let Some(entry) = entries.pop_back() {
            if links.get(entry.link).is_none() {
                continue;
            }
            if now >= entry.due {
                links.remove(entry.link);
                continue;
            }
            return Some(entry.link);
        }
        None
    }

    /// The idle link of `backend` is no longer to be had: the backend closed it, or sent what nobody asked for.
    pub fn forget(&mut self, backend: BackendSlot, link: LinkId) {
        if let Some(entries) = self.by_backend.get_mut(&backend)
            && let Some(at) = entries.iter().position(|entry| entry.link == link)
        {
            entries.remove(at);
        }
    }

    /// Closes those to `backend`, of which none comes back.
    pub fn drop_all<S>(&mut self, backend: BackendSlot, links: &mut Slab<LinkId, Link<S>>) {
        for entry in self.by_backend.remove(&backend).into_iter().flatten() {
            links.remove(entry.link);
        }
    }

    /// When the next one has been idle for long enough.
    pub fn next_due(&self) -> Option<Tick> {
        self.next_due
    }

    /// Closes those that have been idle for long enough.
    pub fn expire<S>(&mut self, now: Tick, links: &mut Slab<LinkId, Link<S>>) {
        if self.next_due.is_none_or(|next| now < next) {
            return;
        }
        let mut next = None::<Tick>;
        self.by_backend.retain(|_, entries| {
            while let Some(oldest) = entries.front() {
                if now < oldest.due {
                    next = Some(next.map_or(oldest.due, |next| next.min(oldest.due)));
                    break;
                }
                if let Some(entry) = entries.pop_front() {
                    links.remove(entry.link);
                }
            }
            // An empty queue stays while its backend is in use: it holds no memory worth a new allocation each time.
            !entries.is_empty() || entries.capacity() <= 64
        });
        self.next_due = next;
    }

    /// Closes all of them.
    pub fn clear<S>(&mut self, links: &mut Slab<LinkId, Link<S>>) {
        for entry in self.by_backend.drain().flat_map(|(_, entries)| entries) {
            links.remove(entry.link);
        }
        self.next_due = None;
    }

    /// How many are kept, those that have closed meanwhile included.
    pub fn len(&self) -> usize {
        self.by_backend.values().map(VecDeque::len).sum()
    }

    /// True when none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
