//! Clients that are served all the while, and fail the test when one of them is not, once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::http::{Wire, get};
use super::udp::{Datagrams, dial};
use super::{Client, Ending, connect, wait_until};

/// Clients that go on until they are told to stop; each tells how often it was served, and fails if it was not once.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<OneOf>,
}

/// A client, what it does and how often it has.
struct OneOf {
    what: &'static str,
    served: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Load {
    pub fn new() -> Load {
        Load { stop: Arc::default(), clients: Vec::new() }
    }

    /// A client that does `one` again and again.
    pub fn add(&mut self, what: &'static str, mut one: impl FnMut() + Send + 'static) {
        let (stop, served) = (self.stop.clone(), Arc::<AtomicU64>::default());
        let count = served.clone();
        let body = move || {
            while !stop.load(Ordering::SeqCst) {
                one();
                count.fetch_add(1, Ordering::SeqCst);
            }
        };
        self.clients.push(OneOf { what, served, thread: thread::spawn(body) });
    }

    /// Waits until everybody has been served some more times.
    pub fn goes_on(&self) {
        for OneOf { what, served, .. } in &self.clients {
            let enough = served.load(Ordering::SeqCst) + 3;
            wait_until(what, || served.load(Ordering::SeqCst) >= enough);
        }
    }

    /// How often each kind was served.
    pub fn end(self) -> Vec<(&'static str, u64)> {
        self.stop.store(true, Ordering::SeqCst);
        let mut counts: Vec<(&'static str, u64)> = Vec::new();
        for OneOf { what, served, thread } in self.clients {
            thread.join().unwrap_or_else(|_| panic!("{what}: one was not served"));
            let served = served.load(Ordering::SeqCst);
            match counts.iter_mut().find(|(known, _)| *known == what) {
                Some((_, count)) => *count += served,
                None => counts.push((what, served)),
            }
        }
        counts
    }
}

/// Requests on one connection until it is told that this ends.
pub fn keep_alive(addr: SocketAddr) -> impl FnMut() + Send {
    let mut wire = Wire::to(addr);
    let mut number = 0;
    move || {
        number += 1;
        let path = format!("/{number}");
        let answer = wire.ask(get(&path));
        assert_eq!((answer.status(), answer.text()), (200, &*path));
        if answer.head.closes() {
            wire = Wire::to(addr);
        }
    }
}

/// A connection that is used for a second, then ended.
pub fn for_a_second(addr: SocketAddr) -> impl FnMut() + Send {
    move || {
        let stream = connect(addr);
        for n in 0..40_u32 {
            stream.echo(&n.to_be_bytes());
            thread::sleep(Duration::from_millis(25));
        }
        stream.finish();
        assert_eq!(stream.read_all(), (Vec::new(), Ending::Clean));
    }
}

/// A session of datagrams that is one all the time: the same backend, and every answer.
pub fn session(addr: SocketAddr) -> impl FnMut() + Send {
    let socket = dial(addr);
    let (mut number, mut backend) = (0_u32, None);
    move || {
        number += 1;
        let question = number.to_be_bytes();
        let answer = socket.ask(&question);
        assert_eq!(&answer[1..], question, "question {number}");
        assert_eq!(*backend.get_or_insert(answer[0]), answer[0], "question {number} went to another backend");
    }
}

/// Datagrams that do not wait for their answers: bursts, of which each must come back, by the same session.
pub fn bursts(addr: SocketAddr) -> impl FnMut() + Send {
    const BURST: u32 = 8;
    let socket = dial(addr);
    let mut number = 0_u32;
    move || {
        let first = number;
        for _ in 0..BURST {
            number += 1;
            socket.say(&number.to_be_bytes());
        }
        let mut came: Vec<u32> =
            (0..BURST).map(|_| u32::from_be_bytes(socket.take()[1..].try_into().expect("a number"))).collect();
        came.sort_unstable();
        assert!(came.iter().copied().eq(first + 1..=number), "{came:?} came for {first}..");
        thread::sleep(Duration::from_millis(2));
    }
}
