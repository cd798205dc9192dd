//! What a worker does while one process takes the place of another: see `shared::handing`.

use crate::base::ids::SocketId;
use crate::base::time::Tick;
use crate::shared::handing::Handing;
use crate::worker::thread::{Loop, door_token, flows_cx, front_token};
use mio::Interest;

impl Loop {
    /// Does as it is told.
    pub(super) fn hand(&mut self, order: Handing, now: Tick) {
        match order {
            Handing::Freeze { front: (id, slot), from, tell } => {
                let Some(at) = self.flows.place_of(id, slot) else { return };
                let _ = tell.send(self.flows.freeze(at, from, flows_cx(&self.core, &self.common, now)));
            }
            Handing::Thaw => self.flows.thaw(),
            Handing::Leave { doors } => self.leave(&doors, now),
            Handing::Adopt { front: (id, slot), flows, last } => {
                let Some(at) = self.flows.place_of(id, slot) else { return };
                self.flows.adopt(at, flows, flows_cx(&self.core, &self.common, now));
                if let Some(last) = last {
                    self.open_front(at);
                    let _ = last.send(self.flows.len());
                }
            }
            Handing::Open => self.open_all(),
        }
    }

    /// Whoever waits at these doors is the other's.
    fn leave(&mut self, doors: &[SocketId], now: Tick) {
        for door in &mut self.doors {
            if let Some(mut door) = door.take_if(|door| doors.contains(&door.id)) {
                let _ = self.poll.registry().deregister(&mut door.socket);
            }
        }
        let registry = self.poll.registry();
        let cx = flows_cx(&self.core, &self.common, now);
        self.flows.leave(cx, |socket| drop(registry.deregister(socket.inner())));
    }

    /// Serves by what it does not serve by yet.
    fn open_all(&mut self) {
        if std::mem::take(&mut self.shut) {
            for (at, door) in self.doors.iter_mut().enumerate() {
                let Some(door) = door else { continue };
                let watched = self.poll.registry().register(&mut door.socket, door_token(at), Interest::READABLE);
                if let Err(error) = watched {
                    log::error!("listener {}: cannot be watched: {error}", door.name);
                }
            }
        }
        for at in self.flows.places() {
            self.open_front(at);
        }
    }

    fn open_front(&mut self, at: usize) {
        let Some(front) = self.flows.front(at).filter(|front| !front.watched) else { return };
        match self.poll.registry().register(front.socket.inner(), front_token(at), Interest::READABLE) {
            Ok(()) => front.watched = true,
            Err(error) => log::error!("a socket for datagrams cannot be watched: {error}"),
        }
    }
}
