//! One thread that checks backends and says who is up.
//!
//! Knows: what to check where, and the live state of backends. Must not touch: workers, sessions, the configuration file.
//! Read `rounds::Rounds::run` first.

mod one;
mod rounds;
#[cfg(test)]
mod tests;

use crate::base::time::Clock;
use crate::shared::checks::Target;
use crate::shared::mail::ControlMail;
use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::{Poll, Token, Waker};
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// The thread that checks. It ends when this is dropped.
#[derive(Debug)]
pub struct Checker {
    orders: Option<Sender<Vec<Target>>>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Checker {
    /// Starts the thread, which tells of changes in the state of each backend and by `mail`.
    ///
    /// # Errors
    /// No descriptor or no thread is to be had.
    pub fn start(clock: Clock, mail: Sender<ControlMail>) -> io::Result<Checker> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), Token(rounds::WAKER))?);
        // Unbounded, but only control sends, and one order replaces all before it.
        let (orders, taken): (Sender<Vec<Target>>, Receiver<Vec<Target>>) = unbounded();
        let rounds = rounds::Rounds::new(poll, taken, clock, mail);
        let thread = thread::Builder::new().name("health".into()).spawn(move || rounds.run())?;
        Ok(Checker { orders: Some(orders), waker, thread: Some(thread) })
    }

    /// From now on these are checked, and no others.
    pub fn check(&self, targets: Vec<Target>) {
        if let Some(orders) = &self.orders {
            // It ends only after this.
            let _ = orders.send(targets);
        }
        self.wake();
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("the health thread cannot be woken: {error}");
        }
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        drop(self.orders.take());
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
