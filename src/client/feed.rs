//! A pool that follows a running l4lb: the backends that its admin API lists.

use crate::client::Error;
use crate::client::backend::Backend;
use crate::client::get::{Answer, Place, get};
use crate::client::pool::{Inner, Pool};
use serde::Deserialize;
use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// How often names are asked for again while the list stays as it is.
const NAMES: Duration = Duration::from_secs(30);

/// Where a running l4lb tells of its backends, and how often it is asked.
///
/// What is taken over: who is there and where, weights, and who was told to take no new work. Who is up is for the pool to
/// find out: by calls, by its own checks and breakers. While l4lb does not answer, what is known holds on. Each question says
/// which list is known already (`If-None-Match`), so one that brings nothing new costs little.
///
/// ```no_run
/// use l4lb::client::{Algorithm, Feed, HealthCheck, Pool};
/// use std::time::Duration;
///
/// let pool = Pool::builder("web").algorithm(Algorithm::IpHash).health_check(HealthCheck::tcp()).build()?;
/// let following = Feed::new("127.0.0.1:8081", "web").interval(Duration::from_secs(5)).follow(&pool)?;
/// following.wait(Duration::from_secs(10));
/// println!("{:?}: {:?}", following.status(), pool.backends());
/// # Ok::<(), l4lb::client::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is asked until `follow` is called"]
pub struct Feed {
    place: Place,
    interval: Duration,
}

/// A pool is fed for as long as this is there. What it has brought stays when it is dropped.
#[derive(Debug)]
#[must_use = "the pool is fed for as long as this is there"]
pub struct Following {
    shared: Arc<Shared>,
}

/// How a [`Feed`] does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedStatus {
    /// Lists that were taken over.
    pub updates: u64,
    /// Answers that there is nothing new.
    pub unchanged: u64,
    /// Questions that had no answer, or none that could be used.
    pub failures: u64,
    /// What was wrong with the last one, if anything was.
    pub error: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stop: bool,
    status: FeedStatus,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feed {
    /// The pool `pool` of the l4lb whose admin API is at `address`: a host and a port, `"127.0.0.1:8081"`, over HTTP/1.1
    /// without TLS.
    pub fn new(address: impl Into<String>, pool: impl Into<String>) -> Feed {
        let address = address.into();
        let address = address.strip_prefix("http://").unwrap_or(&address).trim_end_matches('/').to_owned();
        Feed { place: Place { address, pool: pool.into(), token: None }, interval: Duration::from_secs(2) }
    }

    /// From one question to the next, 10 ms to a day; 2 s by default.
    pub fn interval(mut self, interval: Duration) -> Feed {
        self.interval = interval;
        self
    }

    /// The token that the API asks for.
    pub fn token(mut self, token: impl Into<String>) -> Feed {
        self.place.token = Some(token.into());
        self
    }

    /// From now on `pool` has the backends listed there, beside those that are registered with it, on a thread that ends with
    /// what this returns, or with the pool. Where both have an id, the registered one counts.
    ///
    /// # Errors
    /// Something that was said cannot be, or no thread is to be had. That nobody answers is no error: see
    /// [`Following::status`].
    pub fn follow(self, pool: &Pool) -> Result<Following, Error> {
        let Place { address, token, .. } = &self.place;
        let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain(address) || !address.contains(':') || address.contains('/') {
            return Err(Error::Invalid {
                what: "the address of the feed",
                instead: "a host and a port, 127.0.0.1:8081",
            });
        }
        if token.as_ref().is_some_and(|token| !is_plain(token)) {
            return Err(Error::Invalid { what: "the token of the feed", instead: "ASCII without blanks" });
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(24 * 60 * 60)).contains(&self.interval) {
            return Err(Error::Invalid { what: "the interval of the feed", instead: "10 ms to a day" });
        }
        let shared = Arc::<Shared>::default();
        let run = Run {
            feed: self,
            shared: shared.clone(),
            pool: Arc::downgrade(&pool.inner),
            tag: None,
            lines: Vec::new(),
            known: HashMap::new(),
            resolved: Instant::now(),
        };
        thread::Builder::new().name("l4lb-feed".into()).spawn(move || run.run())?;
        Ok(Following { shared })
    }
}

impl Following {
    /// How it does.
    pub fn status(&self) -> FeedStatus {
        self.shared.lock().status.clone()
    }

    /// Waits until a list was taken over, at most so long; whether one was.
    pub fn wait(&self, most: Duration) -> bool {
        let state = self.shared.lock();
        let waited = self.shared.moved.wait_timeout_while(state, most, |state| state.status.updates == 0);
        waited.unwrap_or_else(PoisonError::into_inner).0.status.updates > 0
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // The thread is not waited for: it may be in the middle of a question. It changes nothing any more.
        self.shared.lock().stop = true;
        self.shared.moved.notify_all();
    }
}

/// A backend, as the API tells of it. What else it tells is passed over.
#[derive(Debug, Deserialize)]
struct Line {
    id: String,
    address: String,
    weight: u16,
    state: String,
}

/// The thread.
struct Run {
    feed: Feed,
    shared: Arc<Shared>,
    pool: Weak<Inner>,
    /// Of the list that is known.
    tag: Option<String>,
    lines: Vec<Line>,
    /// Where names were, for when the resolver does not answer.
    known: HashMap<String, Arc<[SocketAddr]>>,
    resolved: Instant,
}

impl Run {
    fn run(mut self) {
        loop {
            let began = Instant::now();
            let done = self.ask();
            let Some(pool) = self.pool.upgrade() else { return };
            let backends = done.as_ref().is_ok_and(|is_new| *is_new).then(|| self.backends());
            let mut state = self.shared.lock();
            if state.stop {
                return;
            }
            let status = &mut state.status;
            match (done, backends) {
                (Err(why), _) => {
                    if status.error.as_ref() != Some(&why) {
                        log::warn!("pool {}: {} tells nothing: {why}", pool.name, self.feed.place.address);
                    }
                    status.failures += 1;
                    status.error = Some(why);
                }
                (Ok(_), Some(backends)) => {
                    // Under the lock: nothing is taken over once the other end is dropped.
                    pool.feed(backends);
                    status.updates += 1;
                    status.error = None;
                }
                (Ok(_), None) => {
                    status.unchanged += 1;
                    status.error = None;
                }
            }
            drop(state);
            drop(pool);
            self.shared.moved.notify_all();
            let rest = self.feed.interval.saturating_sub(began.elapsed()).max(Duration::from_millis(1));
            let state = self.shared.lock();
            let waited = self.shared.moved.wait_timeout_while(state, rest, |state| !state.stop);
            if waited.unwrap_or_else(PoisonError::into_inner).0.stop {
                return;
            }
        }
    }

    /// Asks once: whether there is something new.
    fn ask(&mut self) -> Result<bool, String> {
        match get(&self.feed.place, self.tag.as_deref())? {
            Answer::Unchanged => {
                let has_names = self.lines.iter().any(|line| line.address.parse::<SocketAddr>().is_err());
                Ok(has_names && self.resolved.elapsed() > NAMES)
            }
            Answer::List { body, tag } => {
                let lines = serde_json::from_slice::<Vec<Line>>(&body);
                self.lines = lines.map_err(|error| format!("its list cannot be read: {error}"))?;
                self.tag = tag;
                Ok(true)
            }
        }
    }

    /// The backends of the list, as far as their names are known.
    fn backends(&mut self) -> Vec<Backend> {
        self.resolved = Instant::now();
        let mut known = HashMap::new();
        let mut backends = Vec::new();
        // One that was moved, or added again, may still be leaving under the same id: the one that stays comes first.
        self.lines.sort_by_key(|line| line.state == "draining");
        for Line { id, address, weight, state } in &self.lines {
            if backends.iter().any(|backend: &Backend| backend.id() == id) {
                continue;
            }
            let found: Option<Arc<[SocketAddr]>> = match address.parse::<SocketAddr>() {
                Ok(address) => Some(Arc::new([address])),
                Err(_) => address.to_socket_addrs().ok().map(Iterator::collect),
            };
            let found = found.filter(|found| !found.is_empty()).or_else(|| self.known.get(address).cloned());
            let Some(addresses) = found else { continue };
            known.insert(address.clone(), addresses.clone());
            let backend = Backend::at(id.as_str().into(), addresses).weight(*weight);
            let backend = backend.disabled(matches!(&**state, "disabled" | "draining"));
            backends.extend(backend.validated());
        }
        self.known = known;
        backends
    }
}
