use super::*;
use crate::base::ids::{ListenerId, WorkerId};
use crate::base::slab::Key;
use crate::config;
use crate::control::Plan;
use crate::shared::hub::Member;
use crate::shared::order::{Added, Registered, Which};
use crossbeam_channel::Receiver;
use mio::{Poll, Token, Waker};
use std::sync::Mutex;

const FILE: &str = "
    listener = [{ name = 'l', bind = '127.0.0.1:0', protocol = 'tcp', pool = 'p' }]
    pool = [{ name = 'p', backend = [{ id = 'one', address = '127.0.0.1:1' }] }]
";

/// Control without its thread: a desk, a plan, and a worker that looks when it is told to.
struct House {
    desk: Desk,
    plan: Plan,
    hub: Arc<Hub>,
    member: Member,
    post: WorkerPost<PlainStream>,
    mailbox: Receiver<WorkerMail<PlainStream>>,
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
    full: Arc<Mutex<bool>>,
    now: Tick,
    _poll: Poll,
}

impl House {
    fn new() -> House {
        let poll = Poll::new().unwrap();
        let (post, mailbox) = WorkerPost::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (kept, full) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(false)));
        let (keeps, is_full) = (kept.clone(), full.clone());
        let keep = move |what: Keeping<'_>| match what {
            _ if *is_full.lock().unwrap() => Err(io::Error::other("the disk is full")),
            Keeping::Release => Ok(()),
            Keeping::Bytes(bytes) | Keeping::Take(bytes) => {
                keeps.lock().unwrap().push(bytes.to_vec());
                Ok(())
            }
        };
        let sources = Sources::new(config::parse(FILE, "test").unwrap()).with(Overlay::default(), Box::new(keep));
        let mut plan = Plan::new(sources.config().clone(), 1);
        let hub = Hub::new(plan.build(), 1);
        let member = Member::new(hub.clone(), WorkerId(0));
        let desk = Desk::new(sources, plan.edition(), Tick(0));
        House { desk, plan, hub, member, post, mailbox, kept, full, now: Tick(0), _poll: poll }
    }

    /// Session `session` orders `change`.
    fn order(&mut self, session: u32, change: Change) -> bool {
        let order = Order { change, dry_run: false, only_if: None, listener: ListenerId(0) };
        let hub = self.hub.clone();
        let world = World {
            own: &|_, _| None,
            listener: &|_| Some(0),
            leaving: &|config, pool, id| render::leaving(&hub.current(), config, pool, id).is_some(),
        };
        let to = To { worker: WorkerId(0), session: SessionId::new(session, 1) };
        self.desk.take(to, &order, &world, |address| matches!(address, Address::Ip(_)), self.now)
    }

    /// What was ordered is put in force, as far as it can be kept.
    fn publish(&mut self) {
        if let Ok(Some(config)) = self.desk.commit(self.now) {
            self.plan.adopt(config);
            let next = self.plan.build();
            self.hub.publish(next);
        }
        self.desk.published(self.hub.current().generation, self.now);
    }

    /// Who is answered by now: the session, the status and the state that is told.
    fn answered(&mut self) -> Vec<(u32, u16, String)> {
        self.desk.answer(&self.hub, std::slice::from_ref(&self.post), self.now);
        let told = |mail| match mail {
            WorkerMail::Answer { session, answer } => {
                let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
                (session.index(), answer.status, body["state"].as_str().unwrap_or_default().to_owned())
            }
            other => panic!("{other:?}"),
        };
        self.mailbox.try_iter().map(told).collect()
    }
}

fn which() -> Which {
    Which { id: "one".into(), pool: None }
}

fn register(address: &str) -> Change {
    let (address, ttl) = (Address::backend(address).unwrap(), Duration::from_secs(1));
    Change::Register {
        pool: "p".into(),
        id: "s".into(),
        registered: Registered { address, weight: 1, ttl, check: None },
    }
}

fn add(address: &str) -> Change {
    let added = Added { address: Address::backend(address).unwrap(), weight: 1, max_connections: 0, backup: false };
    Change::Add { pool: None, id: "new".into(), added }
}

#[test]
fn an_answer_comes_when_every_worker_has_seen_the_change() {
    let mut house = House::new();
    assert!(house.order(1, Change::Disable(which())));
    house.publish();
    assert_eq!(house.answered(), [], "the worker has not looked");
    assert!(!house.order(2, Change::Disable(which())), "nothing changes");
    house.publish();
    assert_eq!(house.answered(), [], "that is not in force either yet");
    house.member.refresh();
    assert_eq!(house.answered(), [(1, 200, "disabled".into()), (2, 200, "disabled".into())]);
    assert_eq!(house.answered(), [], "once");
    assert_eq!(house.desk.next(), None, "and nobody waits");
}

#[test]
fn a_worker_that_does_not_come_round_is_told_of_in_time() {
    let mut house = House::new();
    house.order(1, Change::Disable(which()));
    house.publish();
    house.now = Tick(4_000);
    assert_eq!(house.answered(), []);
    house.now = Tick(6_000);
    assert_eq!(house.answered(), [(1, 504, String::new())]);
}

#[test]
fn what_is_ordered_at_once_is_kept_once_and_a_renewal_never() {
    let mut house = House::new();
    house.order(1, Change::Disable(which()));
    house.order(2, register("127.0.0.1:2"));
    house.order(3, Change::Drain(which()));
    house.publish();
    house.member.refresh();
    assert_eq!(house.answered().len(), 3);
    assert_eq!(house.kept.lock().unwrap().len(), 1);
    let generation = house.hub.current().generation;
    assert!(!house.order(4, register("127.0.0.1:2")));
    house.publish();
    assert_eq!(house.answered(), [(4, 200, "starting".into())]);
    assert_eq!((house.kept.lock().unwrap().len(), house.hub.current().generation), (1, generation));
    let kept = Overlay::from_bytes(&house.kept.lock().unwrap()[0]).unwrap();
    assert_eq!(kept, *house.desk.state().overlay, "what is kept is what is in force");
}

#[test]
fn what_cannot_be_kept_is_not_changed() {
    let mut house = House::new();
    house.order(1, register("127.0.0.1:2"));
    house.publish();
    house.member.refresh();
    house.answered();
    *house.full.lock().unwrap() = true;
    house.order(2, Change::Disable(which()));
    house.order(3, Change::Weight(which(), 9));
    house.order(4, add("127.0.0.1:1"));
    house.publish();
    assert_eq!(house.answered(), [(2, 500, String::new()), (3, 500, String::new()), (4, 409, String::new())]);
    assert!(!house.desk.state().config.pools[0].backends[0].disabled);
    house.now = Tick(1_100);
    assert!(house.desk.expire(house.now), "a registration is over");
    house.publish();
    assert_eq!(house.desk.state().config.pools[0].backends.len(), 2, "and stays, since that cannot be kept");
    *house.full.lock().unwrap() = false;
    house.now = Tick(2_300);
    assert!(house.desk.expire(house.now), "it is looked at again");
    house.publish();
    assert_eq!(house.desk.state().config.pools[0].backends.len(), 1);
    assert!(house.order(5, Change::Disable(which())), "and changes are made again");
}

#[test]
fn a_name_is_waited_for_but_not_for_long() {
    let mut house = House::new();
    house.order(1, add("name.test:2"));
    house.publish();
    house.member.refresh();
    assert_eq!(house.answered(), [], "nobody knows yet where it is");
    house.desk.resolved("other.test", 2);
    house.desk.published(house.hub.current().generation, house.now);
    assert_eq!(house.answered(), [], "that was another one");
    house.desk.resolved("name.test", 2);
    house.desk.published(house.hub.current().generation, house.now);
    assert_eq!(house.answered(), [(1, 201, "down".into())], "it does not resolve, and that is no error");
    let mut house = House::new();
    house.order(1, add("name.test:2"));
    house.publish();
    house.member.refresh();
    house.now = Tick(2_100);
    assert_eq!(house.answered(), [(1, 201, "down".into())], "it takes too long");
}

#[test]
fn a_backend_is_gone_when_nobody_has_it_any_more() {
    let remove = |wait: Option<u64>| Change::Remove { which: which(), wait: wait.map(Duration::from_millis) };
    let mut house = House::new();
    let state = house.hub.current().pools[0].backends[0].state.clone();
    assert!(state.active.reserve());
    house.order(1, remove(None));
    house.order(2, remove(Some(100)));
    house.order(3, remove(Some(60_000)));
    house.publish();
    house.member.refresh();
    assert_eq!(house.answered(), [(1, 200, "draining".into())]);
    house.now = Tick(200);
    assert_eq!(house.answered(), [(2, 202, "draining".into())]);
    assert_eq!(house.answered(), []);
    state.active.release();
    assert!(house.plan.settle(house.hub.current().generation));
    let next = house.plan.build();
    house.hub.publish(next);
    assert_eq!(house.answered(), [(3, 200, "removed".into())]);
}

#[test]
fn too_many_that_wait_for_long_are_refused() {
    let mut house = House::new();
    house.hub.current().pools[0].backends[0].state.active.reserve();
    let remove = || Change::Remove { which: which(), wait: Some(Duration::from_secs(60)) };
    (0..MOST as u32).for_each(|session| assert_eq!(house.order(session, remove()), session == 0));
    house.publish();
    house.member.refresh();
    assert_eq!(house.answered(), []);
    house.order(9_999, remove());
    assert_eq!(house.answered(), [(9_999, 503, String::new())]);
}

#[test]
fn while_another_process_takes_over_nothing_is_changed() {
    let mut house = House::new();
    house.order(1, register("127.0.0.1:4"));
    house.publish();
    house.member.refresh();
    assert_eq!(house.answered().len(), 1);
    let handed = house.desk.halt(house.now);
    assert_eq!(handed, *house.kept.lock().unwrap().last().unwrap(), "what was changed goes along");
    assert!(!house.order(2, add("127.0.0.1:5")));
    house.now = house.now.after(Duration::from_secs(3600));
    assert!(!house.desk.expire(house.now), "nor does anybody expire: that is for the other process");
    assert_eq!(house.answered(), [(2, 503, String::new())]);
    assert_eq!(house.desk.next(), None, "so there is nothing to wake up for");
    let kept = house.kept.lock().unwrap().len();
    house.desk.resume(house.now);
    assert_eq!(house.kept.lock().unwrap()[kept..], [handed], "it is kept here again");
    assert!(house.order(3, add("127.0.0.1:5")), "it did not take over");
    assert!(!house.desk.expire(house.now), "nobody could renew meanwhile");
    house.now = house.now.after(Duration::from_secs(3600));
    assert!(house.desk.expire(house.now));
}

#[test]
fn registrations_outlive_an_upgrade_that_fails() {
    let mut house = House::new();
    house.order(1, register("127.0.0.1:4"));
    house.publish();
    house.member.refresh();
    house.answered();
    house.now = Tick(400);
    house.desk.halt(house.now);
    assert_eq!(house.desk.next(), None, "nothing is to be looked at meanwhile");
    house.now = Tick(10_400);
    assert!(!house.order(2, register("127.0.0.1:4")), "as it is");
    assert!(!house.order(3, register("127.0.0.1:5")), "elsewhere: that would be a change");
    house.desk.published(house.hub.current().generation, house.now);
    assert_eq!(house.answered(), [(2, 200, "starting".into()), (3, 503, String::new())]);
    house.now = Tick(20_400);
    house.desk.resume(house.now);
    assert!(!house.desk.expire(house.now));
    // It was renewed, so it has all of its second.
    house.now = Tick(21_300);
    assert!(!house.desk.expire(house.now));
    house.now = Tick(21_500);
    assert!(house.desk.expire(house.now), "and no more than that");

    let mut house = House::new();
    house.order(1, register("127.0.0.1:4"));
    house.publish();
    house.now = Tick(400);
    house.desk.halt(house.now);
    house.now = Tick(20_400);
    house.desk.resume(house.now);
    house.now = Tick(20_900);
    assert!(!house.desk.expire(house.now), "one that was not renewed has what it had left");
    house.now = Tick(21_100);
    assert!(house.desk.expire(house.now));
}

#[test]
fn what_cannot_be_let_go_stays_over_a_reload() {
    let mut house = House::new();
    house.order(1, Change::Weight(which(), 9));
    house.publish();
    let file = config::parse(&FILE.replace("127.0.0.1:1", "127.0.0.1:7"), "test").unwrap();
    let weight = |config: &Config| config.pools[0].backends[0].weight;
    assert_eq!(weight(&house.desk.reloaded(&file, true).0), 1, "told, and not done");
    assert_eq!(weight(&house.desk.state().config), 9);
    *house.full.lock().unwrap() = true;
    let Reloaded { config, problem, .. } = house.desk.reload(&file, true, house.now);
    assert!(problem.is_some_and(|problem| problem.starts_with(NOT_KEPT)));
    assert_eq!((weight(&config), config.pools[0].backends[0].address.port()), (9, 7), "the file is in force");
    *house.full.lock().unwrap() = false;
    let edition = house.desk.state().edition;
    let Reloaded { config, problem, .. } = house.desk.reload(&file, true, house.now);
    assert_eq!((weight(&config), problem, house.desk.state().edition), (1, None, edition + 1));
    house.desk.reload(&file, true, house.now);
    assert_eq!(house.desk.state().edition, edition + 1, "the same again is no change");
    assert_eq!(house.kept.lock().unwrap().len(), 2);
}

#[test]
fn what_is_ordered_with_a_reload_is_in_force_with_it() {
    let mut house = House::new();
    house.order(1, Change::Weight(which(), 9));
    let file = config::parse(FILE, "test").unwrap();
    let Reloaded { config, .. } = house.desk.reload(&file, false, house.now);
    assert_eq!(config.pools[0].backends[0].weight, 9);
    assert_eq!(house.kept.lock().unwrap().len(), 1);
}

#[test]
fn what_was_dropped_or_came_from_elsewhere_is_kept_once_everything_runs() {
    let rows = [
        ("nothing to tell", FILE.to_owned(), false, 0),
        ("dropped: the backend has left the file", FILE.replace("'one'", "'other'"), false, 1),
        ("from another process", FILE.to_owned(), true, 1),
    ];
    let overlay = {
        let mut house = House::new();
        house.order(1, Change::Disable(which()));
        house.publish();
        Overlay::from_bytes(&house.kept.lock().unwrap()[0]).unwrap()
    };
    for (why, file, handed, expected) in rows {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keeps = kept.clone();
        let keep = move |what: Keeping<'_>| {
            if let Keeping::Bytes(bytes) | Keeping::Take(bytes) = what {
                keeps.lock().unwrap().push(bytes.to_vec());
            }
            Ok(())
        };
        let sources = Sources::new(config::parse(&file, "test").unwrap()).with(overlay.clone(), Box::new(keep));
        let mut desk = Desk::new(sources.waiting(handed), 1, Tick(0));
        assert_eq!(kept.lock().unwrap().len(), 0, "{why}: not before everything runs");
        if handed {
            desk.resume(Tick(0));
        }
        desk.started(Tick(0));
        desk.started(Tick(0));
        let kept = kept.lock().unwrap();
        assert_eq!(kept.len(), expected, "{why}");
        assert!(kept.iter().all(|bytes| *bytes == desk.state().overlay.to_bytes()), "{why}");
    }
}

#[test]
fn who_has_registered_has_all_of_its_time_from_the_end_of_the_start() {
    let mut house = House::new();
    house.order(1, register("127.0.0.1:4"));
    house.publish();
    house.desk.started(Tick(900));
    assert!(!house.desk.expire(Tick(1_800)));
    assert!(house.desk.expire(Tick(1_950)));
}

#[test]
fn what_is_to_be_let_go_is_let_go_where_it_is_kept_before_anything_else() {
    let mut house = House::new();
    house.order(1, Change::Weight(which(), 9));
    house.publish();
    let file = || config::parse(FILE, "test").unwrap();
    *house.full.lock().unwrap() = true;
    assert!(house.desk.discard(file()).is_err_and(|why| why.starts_with(NOT_KEPT)));
    assert_eq!(house.desk.state().config.pools[0].backends[0].weight, 9, "nothing is changed");
    *house.full.lock().unwrap() = false;
    assert_eq!(house.desk.discard(file()), Ok(()));
    let last = |house: &House| Overlay::from_bytes(house.kept.lock().unwrap().last().unwrap()).unwrap();
    assert!(last(&house).is_empty());
    house.desk.keep_again();
    assert_eq!(last(&house), *house.desk.state().overlay, "it was not reloaded");
}

#[test]
fn those_that_are_over_at_once_leave_in_one_step() {
    let mut house = House::new();
    for at in 0..2_000_u32 {
        let address = Address::backend(&format!("127.0.{}.{}:9", at / 200, at % 200 + 1)).unwrap();
        let registered = Registered { address, weight: 1, ttl: Duration::from_secs(1), check: None };
        house.order(at, Change::Register { pool: "p".into(), id: format!("s{at}"), registered });
    }
    house.publish();
    assert_eq!((house.desk.state().config.pools[0].backends.len(), house.kept.lock().unwrap().len()), (2_001, 1));
    let edition = house.desk.state().edition;
    assert!(house.desk.expire(Tick(2_000)));
    house.publish();
    assert_eq!(house.desk.state().config.pools[0].backends.len(), 1);
    assert_eq!(house.desk.state().edition, edition + 1);
}
