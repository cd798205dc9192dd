//! Bulk on scripted links: the far ends are held by the test, which also says when the poll is looked at.

use super::*;
use crate::base::ids::{LinkId, SessionId};
use crate::base::slab::Key;
use crate::base::time::Tick;
use crate::link::scripted::{End, PAGE, Pipes, ScriptedNet, ScriptedStream, Socket, State, Whims};
use crate::link::{Fill, Net, Write};

const NOW: Tick = Tick(0);
const WIDE: usize = 1 << 20;
/// Four pages, bulk from 1,000 bytes on.
const SMALL: Pipes = Pipes { slots: 4, piece: 0, fails: 0, most: 9, from: 1_000, below: 100 };

/// A relay between two sockets: the client's is the first.
struct Bench {
    net: ScriptedNet,
    links: [Link<ScriptedStream>; 2],
    relay: Relay,
    pool: Pool,
    scratch: Vec<u8>,
    got: Vec<u8>,
}

impl Bench {
    /// The backend's socket takes `room` bytes until they are read.
    fn new(pipes: Pipes, room: usize) -> Bench {
        let whims = Whims { pipes, ..Whims::default() };
        let mut net = ScriptedNet::new(1, whims, NOW, |_| Err(libc::ECONNREFUSED));
        let links = [(0, WIDE), (1, room)].map(|(number, room)| {
            let (mut stream, _) = net.accepted(Socket::new(State::Open, WIDE, room));
            net.watch(&mut stream, LinkId::new(number, 1)).unwrap();
            Link::accepted(stream, SessionId::new(0, 1))
        });
        let mut pool = Pool::new(64 * CHAIN_BYTES);
        pool.supply(net.pipes());
        Bench { net, links, relay: Relay::default(), pool, scratch: vec![0; SCRATCH], got: Vec::new() }
    }

    /// The client sends: so many bytes, each known by its place.
    fn send(&mut self, from: usize, count: usize) {
        let bytes: Vec<u8> = (from..from + count).map(byte).collect();
        self.far(0, |socket| assert_eq!(socket.far_send(&bytes), count));
    }

    /// Does something with a far end, and lets it all arrive.
    fn far<T>(&mut self, number: usize, act: impl FnOnce(&mut Socket) -> T) -> T {
        let mut sockets = self.net.sockets();
        let done = act(sockets.get(number));
        while sockets.get(number).flow(usize::MAX, NOW) {}
        done
    }

    /// The backend reads so much.
    fn read(&mut self, most: usize) {
        let bytes = self.net.sockets().get(1).far_read(most);
        for found in bytes {
            assert_eq!(found, byte(self.got.len()), "at {}", self.got.len());
            self.got.push(found);
        }
    }

    fn look(&mut self) {
        let events = self.net.sockets().events(9);
        for (link, ready) in events {
            self.links[link.token() as u32 as usize].latch(ready);
        }
    }

    /// Turns without a look at the poll, as long as there is more.
    fn turn(&mut self) -> Turn {
        let [client, backend] = &mut self.links;
        loop {
            let turn = self.relay.turn(client, backend, &mut self.scratch, &mut self.pool);
            assert!(self.relay.held() > 0 || self.pool.out() == 0, "a pipe is lent for nothing");
            if turn != Turn::Again {
                return turn;
            }
        }
    }

    fn go(&mut self) -> Turn {
        self.look();
        self.turn()
    }

    fn spliced(&self) -> u64 {
        self.net.sockets().get(0).record().spliced
    }

    fn taken(&self) -> u64 {
        self.net.sockets().get(0).record().taken
    }

    /// The backend reads it all.
    fn finish(&mut self) -> Turn {
        for _ in 0..100_000 {
            self.read(WIDE);
            let turn = self.go();
            if self.relay.held() == 0 && self.net.sockets().get(1).unacknowledged() == 0 {
                return turn;
            }
        }
        panic!("{} bytes are held, and nothing moves", self.relay.held());
    }
}

fn byte(at: usize) -> u8 {
    (at % 251) as u8
}

#[test]
fn bulk_arrives_whole_whatever_fills_the_pipe() {
    let quota = Pipes { fails: 100, ..SMALL };
    let none = Pipes { most: 0, ..SMALL };
    let huge = Pipes { slots: 100_000, ..SMALL };
    let rows: [(&str, Pipes, usize, bool); 8] = [
        ("whole pages", SMALL, WIDE, true),
        ("16 bytes a slot: a pipe is full with 64", Pipes { piece: 16, below: 1, ..SMALL }, WIDE, true),
        ("the same into a sink that takes less", Pipes { piece: 16, below: 1, ..SMALL }, 50, true),
        ("16 bytes a slot, not worth it", Pipes { piece: 16, ..SMALL }, WIDE, true),
        ("a narrow sink", SMALL, 3_000, true),
        ("a quota that is used up: copied", quota, 3_000, false),
        ("as many pipes as there may be: copied", none, 3_000, false),
        ("a pipe larger than the worker's memory: copied", huge, 3_000, false),
    ];
    for (why, pipes, room, spliced) in rows {
        let mut bench = Bench::new(pipes, room);
        for round in 0..3 {
            bench.send(round * 200_000, 200_000);
            bench.go();
            bench.finish();
            assert_eq!(bench.got.len(), (round + 1) * 200_000, "{why}");
        }
        assert_eq!(bench.relay.up(), 600_000, "{why}");
        assert_eq!(bench.spliced() > 0, spliced, "{why}: {} bytes were spliced", bench.spliced());
        assert_eq!(bench.pool.out(), 0, "{why}: nothing is held by who is idle");
    }
}

#[test]
fn a_full_pipe_does_not_make_its_source_empty() {
    let mut bench = Bench::new(Pipes { piece: 16, ..SMALL }, WIDE);
    bench.send(0, 1_000);
    bench.look();
    let mut pipe = bench.pool.take_pipe().unwrap();
    let client = &mut bench.links[0];
    let Fill::Bytes(first) = client.splice_in(&mut pipe, 10_000) else { panic!("there is something") };
    assert!(first <= 64, "{first} bytes in four slots of 16");
    assert_eq!(client.splice_in(&mut pipe, 10_000), Fill::Full);
    assert!(client.readable(), "a full pipe says nothing of the source");
    let mut total = first;
    while total < 1_000 {
        let held = pipe.len();
        assert_eq!(bench.links[1].splice_out(&mut pipe), Write::Taken(held));
        let Fill::Bytes(n) = bench.links[0].splice_in(&mut pipe, 10_000) else { panic!("{total} bytes, and no more") };
        total += n;
    }
    bench.links[1].splice_out(&mut pipe);
    assert_eq!(bench.links[0].splice_in(&mut pipe, 10_000), Fill::Empty, "an empty pipe tells");
    assert!(!bench.links[0].readable());
}

#[test]
fn an_end_waits_for_the_pipe() {
    let mut bench = Bench::new(SMALL, 2_000);
    bench.send(0, 200_000);
    bench.far(0, Socket::far_shutdown);
    bench.go();
    for _ in 0..1_000 {
        bench.read(700);
        bench.go();
        let (held, left) = (bench.relay.held(), 200_000 - bench.got.len());
        let shut = bench.net.sockets().get(1).is_shut();
        assert_eq!(shut, held == 0 && bench.taken() == 200_000, "{held} bytes are held, {left} to come");
        if left == 0 {
            break;
        }
    }
    assert!(bench.spliced() > 100_000, "only {} bytes were spliced", bench.spliced());
    assert_eq!((bench.got.len(), bench.far(1, Socket::far_end)), (200_000, Some(End::Fin)));
}

#[test]
fn a_reset_waits_for_the_pipe() {
    // Told by the poll, or found by the splice itself.
    for looks in [true, false] {
        let mut bench = Bench::new(SMALL, 2_000);
        bench.send(0, 80_000);
        bench.go();
        // What is read first is copied; then the pipe is filled.
        while bench.spliced() == 0 {
            bench.read(700);
            assert_eq!(bench.go(), Turn::Wait);
        }
        assert!(bench.relay.held() > 0 && bench.relay.holds_blocks());
        bench.far(0, |socket| socket.far_reset(WIDE, libc::ECONNRESET));
        while bench.relay.held() > 0 {
            let turn = if looks { bench.go() } else { bench.turn() };
            assert!(turn == Turn::Wait || bench.relay.held() == 0, "{turn:?} with {} bytes held", bench.relay.held());
            bench.read(700);
            bench.look();
        }
        assert_eq!(bench.finish(), Turn::Lame(Side::Backend));
        assert_eq!(bench.got.len(), 80_000, "what came before the reset");
        assert!(!bench.net.sockets().get(1).is_shut(), "a break is no end");
    }
}

#[test]
fn a_source_is_not_read_while_the_pipe_is_behind() {
    let mut bench = Bench::new(SMALL, 2_000);
    bench.send(0, 500_000);
    bench.go();
    while bench.spliced() == 0 {
        bench.read(700);
        bench.go();
    }
    let taken = bench.taken();
    for _ in 0..10 {
        bench.send(500_000, 0);
        bench.links[0].latch(crate::link::Ready::IN);
        assert_eq!(bench.go(), Turn::Wait);
        assert_eq!(bench.taken(), taken, "nobody reads, and the source is read");
    }
    assert!(bench.relay.held() <= SMALL.slots * PAGE);
    bench.finish();
    assert_eq!(bench.got.len(), 500_000);
}

#[test]
fn a_sink_that_breaks_closes_the_pipe() {
    let mut bench = Bench::new(SMALL, 2_000);
    bench.send(0, 500_000);
    bench.go();
    while bench.spliced() == 0 {
        bench.read(700);
        bench.go();
    }
    assert!(bench.pool.pipes() > 0 && bench.pool.out() > 0);
    bench.far(1, |socket| socket.far_reset(0, libc::ECONNRESET));
    assert_eq!(bench.go(), Turn::Lame(Side::Client));
    assert_eq!((bench.pool.pipes(), bench.pool.out(), bench.relay.held()), (0, 0, 0));
}

#[test]
fn clearing_closes_the_pipe() {
    let mut bench = Bench::new(SMALL, 2_000);
    bench.send(0, 500_000);
    bench.go();
    while bench.spliced() == 0 {
        bench.read(700);
        bench.go();
    }
    bench.relay.clear(&mut bench.pool);
    assert_eq!((bench.pool.pipes(), bench.pool.out(), bench.relay.held()), (0, 0, 0));
}

#[test]
fn urgent_data_in_the_midst_of_bulk_stops_nothing() {
    // A splice stops at its place for good, and behind it even the end looks as if it had come.
    for (why, ends, looks) in [
        ("the poll has told", false, true),
        ("the poll has told, and the end is behind it", true, true),
        ("it came since the poll was looked at", false, false),
        ("so did the end", true, false),
    ] {
        let mut bench = Bench::new(SMALL, WIDE);
        bench.send(0, 50_000);
        bench.go();
        let before = bench.spliced();
        bench.send(50_000, 5_000);
        if !looks {
            bench.look();
        }
        bench.far(0, Socket::far_urgent);
        bench.send(55_000, 5_000);
        if ends {
            bench.far(0, Socket::far_shutdown);
        }
        if looks {
            bench.look();
        }
        bench.turn();
        bench.go();
        bench.finish();
        assert_eq!(bench.got.len(), 60_000, "{why}");
        assert_eq!(bench.spliced() > before, !looks, "{why}: {}", bench.spliced());
        assert_eq!(bench.net.sockets().get(1).is_shut(), ends, "{why}");
    }
}

#[test]
fn small_messages_never_see_a_pipe() {
    let mut bench = Bench::new(SMALL, WIDE);
    for round in 0..100 {
        bench.send(round * 999, 999);
        bench.go();
    }
    assert_eq!((bench.spliced(), bench.pool.pipes()), (0, 0));
    let record = *bench.net.sockets().get(0).record();
    assert_eq!((record.calls, record.empty), (100, 0), "a read a message");
}
