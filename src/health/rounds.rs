//! The loop: who is due is checked, who has answered is judged, who is late is bad.

use super::one::{Ended, One};
use crate::base::ids::BackendSlot;
use crate::base::time::{Clock, Tick};
use crate::base::wheel::Wheel;
use crate::probe::{Change, Health, Outcome, Verdict};
use crate::shared::checks::Target;
use crate::shared::mail::ControlMail;
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use mio::{Events, Poll, Token};
use std::collections::HashMap;
use std::time::Duration;

/// The token of the waker; checks have the numbers below it.
pub(super) const WAKER: usize = usize::MAX;
/// Checks under way at once.
const AT_ONCE: usize = 512;
/// Checks begun in a second at the most: 5,000 backends every two seconds, twice over.
const A_SECOND: f64 = 5_000.0;
/// Checks that may begin at once after a rest.
const BURST: f64 = 250.0;
/// A thread that wakes up later than this after it should have says nothing about backends, in milliseconds.
const LATE: u64 = 50;
/// How soon a check that could not be made for a reason of our own is made again, in milliseconds.
const AGAIN: u64 = 250;

struct Checked {
    target: Target,
    verdict: Verdict,
    /// Which of its entries in the wheel counts.
    due: Tick,
    began: Tick,
    /// The check under way: its number, and the place of the address that is tried.
    running: Option<(usize, usize)>,
    waits: bool,
}

/// See the module.
pub(super) struct Rounds {
    poll: Poll,
    orders: Receiver<Vec<Target>>,
    clock: Clock,
    mail: Sender<ControlMail>,
    checked: HashMap<BackendSlot, Checked>,
    wheel: Wheel<BackendSlot>,
    running: Vec<Option<(BackendSlot, One)>>,
    free: Vec<usize>,
    /// Due, and waiting for their turn.
    waiting: std::collections::VecDeque<BackendSlot>,
    allowance: f64,
    allowed_at: Tick,
    random: fastrand::Rng,
}

impl Rounds {
    pub(super) fn new(poll: Poll, orders: Receiver<Vec<Target>>, clock: Clock, mail: Sender<ControlMail>) -> Rounds {
        let now = clock.now();
        Rounds {
            poll,
            orders,
            clock,
            mail,
            checked: HashMap::new(),
            wheel: Wheel::new(now),
            running: Vec::new(),
            free: Vec::new(),
            waiting: std::collections::VecDeque::new(),
            allowance: BURST,
            allowed_at: now,
            random: fastrand::Rng::new(),
        }
    }

    /// Checks until nobody can give orders any more.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(AT_ONCE);
        let mut fired = Vec::new();
        loop {
            let before = self.clock.now();
            let due = if self.waiting.is_empty() { self.wheel.next() } else { Some(Tick(before.0 + 1)) };
            let wait = due.map(|due| due.since(before).max(Duration::from_millis(1)));
            if let Err(error) = self.poll.poll(&mut events, wait)
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                log::error!("backends are not checked any more: {error}");
                return;
            }
            let now = self.clock.now();
            // Not run for a while: what is over time now may have been answered long ago.
            let late = due.is_some_and(|due| now.0 > due.0.max(before.0) + LATE);
            for event in &events {
                if event.token().0 != WAKER {
                    self.turn(event.token().0, now);
                }
            }
            loop {
                match self.orders.try_recv() {
                    Ok(targets) => self.take(targets, now),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            self.wheel.advance(now, &mut fired);
            for (at, slot) in fired.drain(..) {
                self.expire(slot, at, now, late);
            }
            self.begin_some(now);
        }
    }

    /// Takes the order: who is new is checked soon, who is not in it any more is forgotten.
    fn take(&mut self, targets: Vec<Target>, now: Tick) {
        let mut old = std::mem::take(&mut self.checked);
        let many = targets.len() as u64;
        for (number, target) in targets.into_iter().enumerate() {
            let slot = target.slot;
            let entry = match old.remove(&slot) {
                Some(mut known) => {
                    // An address or a rule that has changed holds from the next check on.
                    if known.target.plan.rules.initially_up != target.plan.rules.initially_up {
                        known.verdict = Verdict::new(target.plan.rules);
                        target.state.set_health(known.verdict.health());
                    }
                    known.target = target;
                    known
                }
                None => {
                    // What it says already is from the process before this one.
                    let verdict = Verdict::resumed(target.state.health(), target.plan.rules);
                    target.state.set_health(verdict.health());
                    // The first ones at once, and a crowd spread over its interval or a second, whichever is shorter.
                    let within = target.plan.rules.interval.as_millis().min(1_000) as u64;
                    let due = Tick(now.0 + 1 + within * number as u64 / many.max(100));
                    self.wheel.insert(due, slot);
                    Checked { target, verdict, due, began: now, running: None, waits: false }
                }
            };
            self.checked.insert(slot, entry);
        }
        for gone in old.into_values() {
            // Nobody says any more that it is down.
            gone.target.state.set_health(Health::Starting);
            if let Some((number, _)) = gone.running {
                self.stop(number);
            }
        }
    }

    fn stop(&mut self, number: usize) {
        if let Some((_, one)) = self.running.get_mut(number).and_then(Option::take) {
            one.close();
            self.free.push(number);
        }
    }

    fn set_due(&mut self, slot: BackendSlot, due: Tick) {
        if let Some(checked) = self.checked.get_mut(&slot) {
            checked.due = due;
            self.wheel.insert(due, slot);
        }
    }

    /// A timer: time to check, or time for an answer is over.
    fn expire(&mut self, slot: BackendSlot, at: Tick, now: Tick, late: bool) {
        let Some(checked) = self.checked.get_mut(&slot) else { return };
        if at != checked.due {
            return;
        }
        let Some((number, _)) = checked.running else {
            if !checked.waits {
                checked.waits = true;
                self.waiting.push_back(slot);
            }
            return;
        };
        // One last look: the answer may have come while others were served.
        if self.turn(number, now) {
            return;
        }
        let Some(checked) = self.checked.get(&slot) else { return };
        let Some(Some((_, one))) = self.running.get(number) else { return };
        let ended = one.late(&checked.target.plan.check);
        let outcome = if late && ended.is_err() { Outcome::Void } else { outcome_of(&ended) };
        self.stop(number);
        self.note(slot, outcome, ended, now);
    }

    /// Begins those that wait, as many as may be begun now.
    fn begin_some(&mut self, now: Tick) {
        let gained = (now.0.saturating_sub(self.allowed_at.0)) as f64 * A_SECOND / 1_000.0;
        self.allowance = (self.allowance + gained).min(BURST);
        self.allowed_at = now;
        while self.allowance >= 1.0 && self.running.len() - self.free.len() < AT_ONCE {
            let Some(slot) = self.waiting.pop_front() else { break };
            self.allowance -= 1.0;
            if let Some(checked) = self.checked.get_mut(&slot) {
                checked.waits = false;
                checked.began = now;
                self.begin(slot, 0, now.after(Duration::ZERO), now);
            }
        }
    }

    /// Begins a check at the address number `at`. `due`: when its time is over; for the first address it is made here.
    fn begin(&mut self, slot: BackendSlot, at: usize, due: Tick, now: Tick) {
        let Some(checked) = self.checked.get(&slot) else { return };
        let plan = checked.target.plan.clone();
        let due = if at == 0 { now.after(plan.timeout) } else { due };
        let Some(address) = checked.target.addresses.get(at).copied() else {
            self.note(slot, Outcome::Bad, Err("its name does not resolve".into()), now);
            return;
        };
        let number = self.free.pop().unwrap_or_else(|| {
            self.running.push(None);
            self.running.len() - 1
        });
        match One::begin(&plan.check, address, due, self.poll.registry(), Token(number)) {
            Ok(one) => {
                self.running[number] = Some((slot, one));
                if let Some(checked) = self.checked.get_mut(&slot) {
                    checked.running = Some((number, at));
                }
                self.set_due(slot, due);
            }
            Err(error) => {
                self.free.push(number);
                self.failed_at(slot, at, due, error.to_string(), crate::link::is_local(&error), now);
            }
        }
    }

    /// The address number `at` is no good: on to the next, or that was the check.
    fn failed_at(&mut self, slot: BackendSlot, at: usize, due: Tick, why: String, local: bool, now: Tick) {
        let Some(checked) = self.checked.get_mut(&slot) else { return };
        checked.running = None;
        if local {
            self.note(slot, Outcome::Void, Err(why), now);
        } else if at + 1 < checked.target.addresses.len() && now < due {
            self.begin(slot, at + 1, due, now);
        } else {
            self.note(slot, Outcome::Bad, Err(why), now);
        }
    }

    /// Its socket is ready. True when the check has ended.
    fn turn(&mut self, number: usize, now: Tick) -> bool {
        let Some(Some((slot, one))) = self.running.get_mut(number) else { return false };
        let slot = *slot;
        let Some(checked) = self.checked.get(&slot) else { return false };
        let Some(ended) = one.turn(&checked.target.plan.check) else { return false };
        let (at, due) = (checked.running.map_or(0, |(_, at)| at), one.due);
        self.stop(number);
        match ended {
            Ok(()) => self.note(slot, Outcome::Good, Ok(()), now),
            Err(why) => self.failed_at(slot, at, due, why, false, now),
        }
        true
    }

    /// Takes note of how a check ended, and when the next one is due.
    fn note(&mut self, slot: BackendSlot, outcome: Outcome, ended: Ended, now: Tick) {
        let chance = self.random.f64();
        let Some(checked) = self.checked.get_mut(&slot) else { return };
        checked.running = None;
        let Target { pool, id, plan, state, .. } = &checked.target;
        let rules = plan.rules;
        let was_starting = checked.verdict.health() == Health::Starting;
        let change = checked.verdict.note(outcome, rules);
        if outcome == Outcome::Good {
            state.answered();
        }
        match change {
            Some(Change::Up) if was_starting => log::debug!("pool {pool}: backend {id} is up"),
            Some(Change::Up) => {
                state.starts(now);
                log::info!("pool {pool}: backend {id} is up again");
            }
            Some(Change::Down) => {
                let why = ended.err().unwrap_or_default();
                log::warn!("pool {pool}: backend {id} is down: {why}");
            }
            None => {
                if let Err(why) = &ended {
                    log::debug!("pool {pool}: backend {id} failed a check: {why}");
                }
            }
        }
        if change.is_some() {
            state.set_health(checked.verdict.health());
            // Full, or gone: the state says the same, and the next snapshot will know.
            let _ = self.mail.try_send(ControlMail::Health);
        }
        let due = match outcome {
            Outcome::Void => Tick(now.0 + AGAIN),
            _ => checked.verdict.next(checked.began, rules, chance).max(Tick(now.0 + 1)),
        };
        self.set_due(slot, due);
    }
}

fn outcome_of(ended: &Ended) -> Outcome {
    if ended.is_ok() { Outcome::Good } else { Outcome::Bad }
}
