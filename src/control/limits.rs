//! The limits by rate of listeners and pools: made by the configuration, and kept while that does not change them.

use crate::config::{LimitAlgorithm, LimitKey, RateLimit};
use crate::guard::{self, RateRule};
use crate::shared::limit::{Limit, LimitBy};
use crate::stats::Gates;
use std::sync::Arc;

/// What outlives snapshots of the limit of a listener or pool.
#[derive(Clone, Debug)]
pub(super) struct Limited {
    made: Option<(RateLimit, Limit)>,
    gates: Arc<Gates>,
}

impl Limited {
    /// Nothing is limited yet, in so many workers.
    pub(super) fn new(workers: usize) -> Limited {
        Limited { made: None, gates: Arc::new(Gates::new(workers)) }
    }

    /// The limit by `wanted`: the same as before where that says the same, with all that was used up of it; else one that
    /// begins anew. What was counted stays.
    pub(super) fn by(&mut self, wanted: Option<&RateLimit>) -> Option<Limit> {
        let Some(wanted) = wanted else {
            self.made = None;
            return None;
        };
        if let Some((made, limit)) = &self.made
            && made == wanted
        {
            return Some(limit.clone());
        }
        let by = match &wanted.key {
            LimitKey::All => LimitBy::All,
            LimitKey::ClientIp => LimitBy::Client,
            LimitKey::Header(name) => LimitBy::Header(name.as_str().into()),
        };
        let rule = match wanted.algorithm {
            LimitAlgorithm::TokenBucket { capacity, refill_rate } => {
                RateRule::TokenBucket { capacity, refill: refill_rate }
            }
            LimitAlgorithm::SlidingWindow { max_requests, window } => {
                RateRule::SlidingWindow { max: max_requests, window }
            }
            LimitAlgorithm::LeakyBucket { capacity, leak_rate } => RateRule::LeakyBucket { capacity, leak: leak_rate },
        };
        let rate = guard::RateLimit::new(rule, by != LimitBy::All);
        let limit = Limit { rate, by, gates: self.gates.clone() };
        self.made = Some((wanted.clone(), limit.clone()));
        Some(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(capacity: u32) -> RateLimit {
        RateLimit { algorithm: LimitAlgorithm::TokenBucket { capacity, refill_rate: 1.0 }, key: LimitKey::All }
    }

    #[test]
    fn what_was_used_up_stays_until_the_limit_is_changed() {
        let mut limited = Limited::new(1);
        let take = |limit: &Option<Limit>| {
            let limit = limit.as_ref().unwrap();
            limit
                .take(limit.key(|_| None, || unreachable!("all share it")), crate::base::ids::WorkerId(0), || 0)
                .is_ok()
        };
        assert!(take(&limited.by(Some(&wanted(1)))));
        assert!(!take(&limited.by(Some(&wanted(1)))), "the same one");
        assert!(take(&limited.by(Some(&wanted(2)))), "another begins anew");
        assert!(limited.by(None).is_none());
        let again = limited.by(Some(&wanted(2)));
        assert!(take(&again) && take(&again) && !take(&again), "it was gone in between");
        assert_eq!(again.unwrap().gates.totals(), (4, 2), "what was counted stays");
    }
}
