//! The backends of a pool as picks see them: immutable, made anew when they change.

use crate::balance::{self, Picker, Place};
use crate::client::backend::Backend;
use crate::probe::Health;
use crate::shared::backend::BackendState;
use crate::shared::choose::Member;
use std::collections::HashMap;
use std::sync::Arc;

/// A backend and what is known of it.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) backend: Backend,
    pub(super) state: Arc<BackendState>,
}

impl Member for Seat {
    fn state(&self) -> &Arc<BackendState> {
        &self.state
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Members {
    /// The name of the pool, for the log.
    pub(super) pool: Arc<str>,
    pub(super) seats: Vec<Seat>,
    /// Where each id is in `seats`.
    places: HashMap<Arc<str>, usize>,
    pub(super) primaries: Picker,
    pub(super) backups: Picker,
    /// So few are healthy that health is not heeded.
    pub(super) panics: bool,
}

impl Members {
    /// The pickers over `seats`, as the program builds them: hashes keep those that are down, since their keys come back to
    /// them, and turns leave them out, so that their shares go to all others alike.
    pub(super) fn build(
        pool: Arc<str>,
        seats: Vec<Seat>,
        algorithm: balance::Algorithm,
        panic_threshold: f64,
    ) -> Members {
        let is_up = |seat: &Seat| seat.state.health() != Health::Down;
        let working = seats.iter().filter(|seat| seat.backend.works()).count();
        let healthy = seats.iter().filter(|seat| seat.backend.works() && is_up(seat)).count();
        let panics = (healthy as f64) < panic_threshold * working as f64;
        let mut tiers = [Vec::new(), Vec::new()];
        for (place, seat) in seats.iter().enumerate() {
            let Backend { id, weight, backup, .. } = &seat.backend;
            if seat.backend.works() && (is_up(seat) || panics || algorithm.hashes()) {
                let place = Place { place: place as u32, id: id.to_string(), weight: *weight };
                tiers[usize::from(*backup)].push(place);
            }
        }
        let [primaries, backups] = tiers.map(|places| Picker::build(algorithm, &places));
        let places = seats.iter().enumerate().map(|(place, seat)| (seat.backend.id.clone(), place)).collect();
        Members { pool, seats, places, primaries, backups, panics }
    }

    /// The backend of that id.
    pub(super) fn of(&self, id: &str) -> Option<&Seat> {
        self.places.get(id).map(|place| &self.seats[*place])
    }
}
