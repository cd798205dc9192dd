//! What a client or a backend does, and the one who does it.

use crate::pattern::Pattern;
use l4lb::base::time::Tick;
use l4lb::link::scripted::{Dice, End, Pipes, Socket, State};
use std::collections::VecDeque;

/// One act of a script. Reading goes on beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Sends so many bytes.
    Send(u64),
    /// Sends an urgent byte.
    Urgent,
    /// Does nothing for so many milliseconds.
    Pause(u64),
    /// Reads nothing from now on for so many milliseconds; the next act follows at once.
    Hold(u64),
    /// Never reads again beyond so many bytes in all.
    ReadOnly(u64),
    /// Until so many bytes have come, or the end.
    AwaitBytes(u64),
    /// Until the other side has ended.
    AwaitEnd,
    /// Sends as many bytes as come, until the other side has ended.
    Echo,
    /// Ends its side.
    Finish,
    /// Closes, whether or not something is on its way to it.
    Close,
    /// Breaks.
    Reset,
}

/// How long nobody may stop reading and still be owed every byte before a reset, in milliseconds.
pub(crate) const PATIENCE: u64 = 900;

/// After so many acts everything is twice as big: transfers that have shown what tiny buffers show come to an end.
const WIDER: u32 = 200;

/// How big the pieces are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) window: usize,
    pub(crate) room: usize,
    /// Bytes moved at once, at most.
    pub(crate) grain: usize,
}

impl Shape {
    pub(crate) fn socket(self, state: State) -> Socket {
        Socket::new(state, self.window, self.room)
    }
}

/// Bulk from the second byte on, through pipes that are soon full.
pub(crate) const EARLY: Pipes = Pipes { slots: 2, piece: 3, fails: 0, most: 1_024, from: 1, below: 1 };

/// Pipes of any kind, and bulk that begins early: what is moved here is little.
pub(crate) fn pipes(seed: u64) -> Pipes {
    // With dice of its own, so that seeds from before there were pipes still mean the same.
    let dice = &mut Dice::new(seed ^ 0x091_9e5);
    Pipes {
        slots: dice.pick(&[1, 2, 4, 16, 16, 64]),
        piece: dice.pick(&[0, 0, 16, 200, 1_448]),
        fails: dice.pick(&[0, 0, 0, 30, 100]),
        most: dice.pick(&[1, 2, 1_024, 1_024]),
        from: dice.pick(&[1, 10, 100, 1_000, 16 * 1024]),
        below: dice.pick(&[1, 1, 50, 1_000]),
    }
}

/// A client or a backend's end of one connection.
#[derive(Debug)]
pub(crate) struct Peer {
    /// The socket at l4lb.
    pub(crate) socket: usize,
    pub(crate) shape: Shape,
    script: VecDeque<Act>,
    /// Where in a `Send` it is.
    done: u64,
    /// When a `Pause` ends.
    until: Option<Tick>,
    hold_until: Tick,
    read_most: u64,
    pub(crate) sends: Pattern,
    /// The stream it is owed, as soon as that is known.
    pub(crate) expects: Option<Pattern>,
    pub(crate) sent: u64,
    pub(crate) got: u64,
    pub(crate) saw: Option<End>,
    /// It was told of an end in good order, whatever came afterwards.
    pub(crate) saw_fin: bool,
    acts: u32,
    /// It does nothing any more.
    pub(crate) left: bool,
    /// It has closed or reset before the other side ended: nothing is owed to it.
    pub(crate) broke: bool,
    /// It stopped reading for longer than anybody waits.
    pub(crate) stalled: bool,
    pub(crate) acted_at: Tick,
}

impl Peer {
    pub(crate) fn new(socket: usize, shape: Shape, sends: Pattern, script: Vec<Act>, now: Tick) -> Peer {
        Peer {
            socket,
            shape,
            script: script.into(),
            done: 0,
            until: None,
            hold_until: now,
            read_most: u64::MAX,
            sends,
            expects: None,
            sent: 0,
            got: 0,
            saw: None,
            saw_fin: false,
            acts: 0,
            left: false,
            broke: false,
            stalled: false,
            acted_at: now,
        }
    }

    /// What it still does by itself, when nothing comes: at which tick.
    pub(crate) fn wakes_at(&self, now: Tick) -> Option<Tick> {
        if self.left {
            return None;
        }
        let held = (self.hold_until > now).then_some(self.hold_until);
        self.until.into_iter().chain(held).filter(|at| *at > now).min()
    }

    /// Reads, and goes on with its script. True when it did anything.
    pub(crate) fn act(&mut self, socket: &mut Socket, now: Tick, dice: &mut Dice) -> Result<bool, String> {
        if self.left {
            return Ok(false);
        }
        if socket.state() == State::Connecting {
            self.left = socket.record().closed_at.is_some();
            return Ok(false);
        }
        let mut busy = self.read(socket, now, dice)?;
        // One act at a time, so that others come between.
        busy |= self.go_on(socket, now, dice);
        if busy {
            self.acted_at = now;
            self.acts += 1;
            if self.acts.is_multiple_of(WIDER) {
                self.shape.grain *= 2;
                socket.widen();
            }
        }
        Ok(busy)
    }

    /// From now on it reads whatever comes, and does nothing else.
    pub(crate) fn retire(&mut self) {
        self.script.clear();
        self.script.push_back(Act::AwaitEnd);
        self.until = None;
        self.hold_until = Tick(0);
        self.read_most = u64::MAX;
    }

    fn read(&mut self, socket: &mut Socket, now: Tick, dice: &mut Dice) -> Result<bool, String> {
        if now < self.hold_until {
            return Ok(false);
        }
        let most = dice.from_to(1, self.shape.grain).min((self.read_most - self.got.min(self.read_most)) as usize);
        let bytes = socket.far_read(most);
        if !bytes.is_empty() {
            let Some(expects) = self.expects else {
                return Err(format!("socket {} was sent {} bytes from nobody", self.socket, bytes.len()));
            };
            if !expects.holds(self.got, &bytes) {
                return Err(format!(
                    "socket {}: byte {} and on are not those that were sent: lost, added, moved or another's",
                    self.socket, self.got
                ));
            }
            self.got += bytes.len() as u64;
        }
        let saw = socket.far_end();
        let news = saw != self.saw && self.saw != Some(End::Reset);
        self.saw_fin |= saw == Some(End::Fin);
        if self.saw.is_none() || saw == Some(End::Reset) {
            self.saw = saw;
        }
        Ok(news || !bytes.is_empty())
    }

    fn go_on(&mut self, socket: &mut Socket, now: Tick, dice: &mut Dice) -> bool {
        if self.saw == Some(End::Reset) || socket.state() == State::Dead {
            self.script.clear();
            self.until = None;
            return false;
        }
        let Some(act) = self.script.front() else {
            // Whoever has nothing left to do waits for the end, and leaves.
            if self.saw.is_some() {
                self.left = true;
                socket.far_close();
                return true;
            }
            return false;
        };
        let over = match *act {
            Act::Send(count) => {
                let most = (count - self.done).min(dice.from_to(1, self.shape.grain) as u64);
                let n = self.send(socket, most);
                self.done += n;
                if n == 0 && count > self.done {
                    return false;
                }
                self.done == count
            }
            Act::Echo => {
                let n = self.send(socket, (self.got - self.done).min(self.shape.grain as u64));
                self.done += n;
                let over = self.saw.is_some() && self.done == self.got;
                if n == 0 && !over {
                    return false;
                }
                over
            }
            Act::Urgent => {
                socket.far_urgent();
                true
            }
            Act::Pause(wait) => match self.until {
                None => {
                    self.until = Some(Tick(now.0 + wait));
                    return true;
                }
                Some(until) if now < until => return false,
                Some(_) => true,
            },
            Act::Hold(wait) => {
                self.hold_until = Tick(now.0 + wait);
                self.stalled |= wait > PATIENCE;
                true
            }
            Act::ReadOnly(most) => {
                self.read_most = most;
                self.stalled = true;
                true
            }
            Act::AwaitBytes(count) if self.got < count && self.saw.is_none() => return false,
            Act::AwaitEnd if self.saw.is_none() => return false,
            Act::AwaitBytes(_) | Act::AwaitEnd => true,
            Act::Finish => {
                socket.far_shutdown();
                true
            }
            Act::Close => {
                match dice.percent(50) && socket.unacknowledged() > 0 {
                    // It had not read what its kernel has: a reset.
                    true => socket.far_reset(usize::MAX, libc::ECONNRESET),
                    false => socket.far_close(),
                }
                self.left = true;
                self.broke = true;
                true
            }
            Act::Reset => {
                socket
                    .far_reset(dice.below(1 << 20), dice.pick(&[libc::ECONNRESET, libc::ECONNRESET, libc::ETIMEDOUT]));
                self.left = true;
                self.broke = true;
                true
            }
        };
        if over {
            self.script.pop_front();
            self.done = 0;
            self.until = None;
        }
        true
    }

    fn send(&mut self, socket: &mut Socket, most: u64) -> u64 {
        if most == 0 {
            return 0;
        }
        let n = socket.far_send(&self.sends.bytes(self.sent, most as usize)) as u64;
        self.sent += n;
        n
    }
}
