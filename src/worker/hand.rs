//! What a worker does while one process takes the place of another: see `shared::handing`.

use crate::base::time::Tick;
use crate::shared::handing::{Handing, Lent};
use crate::worker::thread::{Loop, WAKER, flows_cx};
use mio::{Interest, Token};
use std::os::fd::AsFd;

/// Listening sockets that nobody watches yet, since another process still serves by them.
pub(super) struct Shut {
    /// Those for TCP.
    pub(super) doors: bool,
    /// Those for datagrams, by place.
    pub(super) fronts: Vec<bool>,
}

impl Loop {
    /// Does as it is told.
    pub(super) fn hand(&mut self, order: Handing, now: Tick) {
        match order {
            Handing::Lend(tell) => drop(tell.send(self.lend())),
            Handing::Freeze { front, from, tell } => {
                let cx = flows_cx(&self.core, &self.common, now);
                let _ = tell.send(self.flows.freeze(front, from, cx));
            }
            Handing::Thaw => self.flows.thaw(),
            Handing::Leave { doors } => self.leave(&doors, now),
            Handing::Adopt { front, flows, last } => {
                let cx = flows_cx(&self.core, &self.common, now);
                self.flows.adopt(front, flows, cx);
                if let Some(last) = last {
                    self.open_front(front);
                    let _ = last.send(self.flows.len());
                }
            }
            Handing::Open => self.open(),
        }
    }

    fn lend(&mut self) -> Vec<Lent> {
        let doors = self.doors.iter().enumerate().filter_map(|(place, door)| {
            let door = door.as_ref()?;
            let socket = door.socket.as_fd().try_clone_to_owned();
            Some((false, place, door.listener, socket))
        });
        let fronts = self.flows.fronts().iter().enumerate();
        let fronts = fronts.map(|(place, front)| (true, place, front.listener, front.socket.try_clone()));
        let lent = doors.chain(fronts).filter_map(|(is_udp, place, listener, socket)| match socket {
            Ok(socket) => Some(Lent { is_udp, place, listener, socket }),
            Err(error) => {
                log::error!("a listening socket cannot be passed on: {error}");
                None
            }
        });
        lent.collect()
    }

    /// Whoever waits at these doors is the other's.
    fn leave(&mut self, doors: &[usize], now: Tick) {
        for at in doors {
            if let Some(mut door) = self.doors.get_mut(*at).and_then(Option::take) {
                let _ = self.poll.registry().deregister(&mut door.socket);
            }
        }
        let registry = self.poll.registry();
        self.flows.leave(flows_cx(&self.core, &self.common, now), |socket| drop(registry.deregister(socket.inner())));
    }

    /// Serves by what it does not serve by yet.
    fn open(&mut self) {
        if std::mem::take(&mut self.shut.doors) {
            for (at, door) in self.doors.iter_mut().enumerate() {
                let Some(door) = door else { continue };
                let token = Token(WAKER + 1 + at);
                if let Err(error) = self.poll.registry().register(&mut door.socket, token, Interest::READABLE) {
                    log::error!("listener {}: cannot be watched: {error}", door.name);
                }
            }
        }
        for at in 0..self.shut.fronts.len() {
            self.open_front(at);
        }
    }

    fn open_front(&mut self, at: usize) {
        let Some(shut) = self.shut.fronts.get_mut(at) else { return };
        if !std::mem::take(shut) {
            return;
        }
        let token = Token(WAKER + 1 + self.doors.len() + at);
        let Some(front) = self.flows.front(at) else { return };
        if let Err(error) = self.poll.registry().register(front.socket.inner(), token, Interest::READABLE) {
            log::error!("a socket for datagrams cannot be watched: {error}");
        }
    }
}
