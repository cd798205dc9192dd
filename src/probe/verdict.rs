//! From outcomes to up or down, and when to look again.

use crate::base::time::Tick;
use std::time::Duration;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As expected.
    Good,
    /// Refused, broken, too late, or not what was expected.
    Bad,
    /// It says nothing: the one who checks was late, or had no descriptor.
    Void,
}

/// What is known of a backend's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Taken for up, and nothing has been seen yet.
    Starting,
    /// Up.
    Up,
    /// Down.
    Down,
}

/// When a verdict changes, and how often to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Good outcomes in a row that bring one up that is down; at least 1.
    pub rise: u32,
    /// Bad outcomes in a row that bring one down that is up; at least 1.
    pub fall: u32,
    /// From one check to the next.
    pub interval: Duration,
    /// Whether one that nothing is known of is taken for up.
    pub initially_up: bool,
}

/// A change of health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is up from now on.
    Up,
    /// It is down from now on.
    Down,
}

/// The verdict on one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    health: Health,
    /// Outcomes in a row that speak against `health`.
    against: u32,
}

impl Verdict {
    /// Nothing has been seen.
    pub fn new(rules: Rules) -> Verdict {
        Verdict { health: if rules.initially_up { Health::Starting } else { Health::Down }, against: 0 }
    }

    /// Goes on from what is `known` already; where that is nothing, as [`Verdict::new`].
    pub fn resumed(known: Health, rules: Rules) -> Verdict {
        match known {
            Health::Starting => Verdict::new(rules),
            health => Verdict { health, against: 0 },
        }
    }

    /// What is known.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Takes note of an outcome. One that is taken for up at the start still needs `fall` bad ones to be down: clients are
    /// served from the start, and one lost packet puts nobody out of work.
    pub fn note(&mut self, outcome: Outcome, rules: Rules) -> Option<Change> {
        let (speaks_for, needed) = match (self.health, outcome) {
            (_, Outcome::Void) => return None,
            (Health::Starting | Health::Up, Outcome::Bad) => (false, rules.fall),
            (Health::Down, Outcome::Good) => (false, rules.rise),
            (Health::Starting | Health::Up, Outcome::Good) | (Health::Down, Outcome::Bad) => (true, 0),
        };
        if speaks_for {
            self.against = 0;
            let first = self.health == Health::Starting;
            if first {
                self.health = Health::Up;
            }
            return first.then_some(Change::Up);
        }
        self.against += 1;
        if self.against < needed {
            return None;
        }
        self.against = 0;
        let (health, change) = match self.health {
            Health::Down => (Health::Up, Change::Up),
            Health::Starting | Health::Up => (Health::Down, Change::Down),
        };
        self.health = health;
        Some(change)
    }

    /// When to look again after a check that began at `began`: an interval later, and a quarter of that while the outcomes
    /// speak against the verdict, so that a change is known soon. `chance`, from 0 to 1, spreads checks by a tenth of the
    /// interval either way, so that those of many backends do not fall on one moment.
    pub fn next(&self, began: Tick, rules: Rules, chance: f64) -> Tick {
        let wait = if self.against > 0 { rules.interval / 4 } else { rules.interval };
        began.after(wait.mul_f64(0.9 + 0.2 * chance.clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { rise: 2, fall: 3, interval: Duration::from_millis(2_000), initially_up: true };

    #[test]
    fn outcomes_become_verdicts() {
        use Change::{Down, Up};
        use Outcome::{Bad, Good, Void};
        type Row = (&'static str, Rules, &'static [(Outcome, Option<Change>)]);
        let rows: &[Row] = &[
            ("the first good one", RULES, &[(Good, Some(Up)), (Good, None)]),
            ("taken for up until it has failed often enough", RULES, &[(Bad, None), (Bad, None), (Bad, Some(Down))]),
            (
                "a good one in between forgets them",
                RULES,
                &[
                    (Good, Some(Up)),
                    (Bad, None),
                    (Bad, None),
                    (Good, None),
                    (Bad, None),
                    (Bad, None),
                    (Bad, Some(Down)),
                ],
            ),
            (
                "what says nothing forgets nothing",
                RULES,
                &[(Bad, None), (Void, None), (Bad, None), (Void, None), (Bad, Some(Down))],
            ),
            (
                "up again after enough good ones",
                RULES,
                &[
                    (Bad, None),
                    (Bad, None),
                    (Bad, Some(Down)),
                    (Good, None),
                    (Bad, None),
                    (Good, None),
                    (Good, Some(Up)),
                ],
            ),
            (
                "taken for down until it has risen",
                Rules { initially_up: false, ..RULES },
                &[(Bad, None), (Good, None), (Good, Some(Up))],
            ),
            (
                "one of each",
                Rules { rise: 1, fall: 1, ..RULES },
                &[(Bad, Some(Down)), (Good, Some(Up)), (Bad, Some(Down))],
            ),
        ];
        for (why, rules, outcomes) in rows {
            let mut verdict = Verdict::new(*rules);
            for (number, (outcome, expected)) in outcomes.iter().enumerate() {
                assert_eq!(verdict.note(*outcome, *rules), *expected, "{why}: outcome {number}");
            }
        }
    }

    #[test]
    fn a_verdict_goes_on_from_what_another_process_knew() {
        let down_at_first = Rules { initially_up: false, ..RULES };
        assert_eq!(Verdict::resumed(Health::Starting, down_at_first).health(), Health::Down);
        assert_eq!(Verdict::resumed(Health::Up, down_at_first).health(), Health::Up);
        let mut down = Verdict::resumed(Health::Down, RULES);
        assert_eq!(down.note(Outcome::Good, RULES), None, "it rises as it would have there");
        assert_eq!(down.note(Outcome::Good, RULES), Some(Change::Up));
    }

    #[test]
    fn checks_are_spread_and_hurry_while_a_change_is_in_the_air() {
        let mut verdict = Verdict::new(RULES);
        verdict.note(Outcome::Good, RULES);
        let next = |verdict: &Verdict, chance| verdict.next(Tick(1_000), RULES, chance).0 - 1_001;
        assert_eq!([next(&verdict, 0.0), next(&verdict, 0.5), next(&verdict, 1.0)], [1_800, 2_000, 2_200]);
        verdict.note(Outcome::Bad, RULES);
        assert_eq!(next(&verdict, 0.5), 500, "one bad outcome");
        verdict.note(Outcome::Good, RULES);
        assert_eq!(next(&verdict, 0.5), 2_000, "it was nothing");
    }
}
