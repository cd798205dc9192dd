//! The scripted socket and one of the kernel are put through the same steps, and must tell the same.

use l4lb::base::ids::LinkId;
use l4lb::base::pipes::Pipe;
use l4lb::base::slab::Key;
use l4lb::base::time::Tick;
use l4lb::link::plain::{MioNet, PlainStream, close_dropped, readiness};
use l4lb::link::scripted::{End, ScriptedNet, ScriptedStream, Socket, State, Whims};
use l4lb::link::{Net, Ready, Stream};
use l4lb::sys::unsent;
use mio::net::TcpStream;
use mio::{Events, Poll};
use socket2::SockRef;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// What is done: by the far end, or by us.
#[derive(Clone, Copy, Debug)]
enum Step {
    FarSend(usize),
    FarUrgent,
    FarShutdown,
    FarClose,
    FarReset,
    /// The far end reads until it is told of an end.
    FarReadsOn,
    /// Polls until one event tells all of this.
    Await(Ready),
    /// Reads once, with room for so many bytes.
    Recv(usize),
    /// Into a pipe, so many bytes at the most; and all that it holds out of it.
    SpliceIn(usize),
    SpliceOut,
    Send(usize),
    Shutdown,
    Failure,
    Unsent,
    Close,
    CloseCut,
}
use Step::{
    Await, Close, CloseCut, Failure, FarClose, FarReadsOn, FarReset, FarSend, FarShutdown, FarUrgent, Recv, Send,
    SpliceIn, SpliceOut,
};

/// What a step told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Ready(Ready),
    Bytes(usize),
    Blocks,
    Errno(i32),
    /// So many bytes, and then this.
    Ended(usize, End),
}

const ALL: Ready = Ready::IN.with(Ready::OUT).with(Ready::RDHUP).with(Ready::ERR);
const OVER: Ready = Ready::IN.with(Ready::OUT).with(Ready::RDHUP);
const MARKED: Ready = Ready::IN.with(Ready::OUT).with(Ready::PRI);

trait Far {
    fn step(&mut self, step: Step) -> Told;
    fn poll(&mut self, until: Ready) -> Told;
}

fn ours<S: Stream>(stream: &mut Option<S>, pipe: &mut Pipe, step: Step) -> Told {
    let told = |result: io::Result<usize>| match result {
        Ok(n) => Told::Bytes(n),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Told::Blocks,
        Err(error) => Told::Errno(error.raw_os_error().unwrap_or(0)),
    };
    if let Close | CloseCut = step {
        if let (CloseCut, Some(stream)) = (step, stream.as_mut()) {
            stream.set_cut();
        }
        *stream = None;
        // As a worker does at the end of a turn.
        close_dropped();
        return Told::Nothing;
    }
    let Some(stream) = stream else { panic!("{step:?} after the close") };
    match step {
        Recv(most) => told(stream.recv(&mut vec![0; most])),
        SpliceIn(most) => {
            let result = stream.splice_in(pipe, most);
            pipe.filled(*result.as_ref().unwrap_or(&0));
            told(result)
        }
        SpliceOut => {
            let result = stream.splice_out(pipe);
            pipe.drained(*result.as_ref().unwrap_or(&0));
            told(result)
        }
        Send(count) => told(stream.send(&[IoSlice::new(&vec![7; count])])),
        Step::Shutdown => {
            stream.shutdown();
            Told::Nothing
        }
        Failure => stream.failure().map_or(Told::Nothing, |error| Told::Errno(error.raw_os_error().unwrap_or(0))),
        Step::Unsent => Told::Bytes(stream.unsent()),
        _ => panic!("{step:?} is not ours"),
    }
}

struct Kernel {
    poll: Poll,
    near: Option<PlainStream>,
    far: Option<std::net::TcpStream>,
    pipe: Pipe,
}

impl Kernel {
    fn new() -> Kernel {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        far.set_nodelay(true).unwrap();
        far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let near = listener.accept().unwrap().0;
        near.set_nonblocking(true).unwrap();
        let mut near = PlainStream::from(TcpStream::from_std(near));
        let poll = Poll::new().unwrap();
        let mut net = MioNet { registry: poll.registry().try_clone().unwrap(), pipes: 4 };
        net.watch(&mut near, LinkId::new(0, 1)).unwrap();
        let pipe = (net.pipes().open)().unwrap();
        Kernel { poll, near: Some(near), far: Some(far), pipe }
    }

    /// Waits until all that the far end sent is acknowledged. What comes from one that has closed is awaited by event.
    fn arrive(&self) {
        let patience = Instant::now() + Duration::from_secs(10);
        while let Some(far) = &self.far
            && unsent(far.as_fd()).unwrap() > 0
        {
            assert!(Instant::now() < patience, "nothing arrives");
            std::thread::yield_now();
        }
    }
}

impl Far for Kernel {
    fn step(&mut self, step: Step) -> Told {
        let Some(far) = &mut self.far else { return ours(&mut self.near, &mut self.pipe, step) };
        match step {
            FarSend(count) => far.write_all(&vec![1; count]).unwrap(),
            FarUrgent => drop(SockRef::from(&*far).send_out_of_band(&[2]).unwrap()),
            FarShutdown => far.shutdown(Shutdown::Write).unwrap(),
            FarClose => self.far = None,
            FarReset => {
                SockRef::from(&*far).set_linger(Some(Duration::ZERO)).unwrap();
                self.far = None;
            }
            FarReadsOn => {
                let (mut bytes, mut count) = ([0; 100], 0);
                loop {
                    match far.read(&mut bytes) {
                        Ok(0) => return Told::Ended(count, End::Fin),
                        Ok(n) => count += n,
                        Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                            return Told::Ended(count, End::Reset);
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            _ => return ours(&mut self.near, &mut self.pipe, step),
        }
        self.arrive();
        Told::Nothing
    }

    fn poll(&mut self, until: Ready) -> Told {
        let (mut events, patience) = (Events::with_capacity(4), Instant::now() + Duration::from_secs(10));
        let mut last = Ready::default();
        while Instant::now() < patience {
            self.poll.poll(&mut events, Some(Duration::from_millis(100))).unwrap();
            if let Some(event) = events.iter().last() {
                last = readiness(event);
            }
            if holds_all(last, until) {
                return Told::Ready(last);
            }
        }
        panic!("the kernel told {last:?}, never {until:?}");
    }
}

struct Scripted {
    net: ScriptedNet,
    near: Option<ScriptedStream>,
    number: usize,
    pipe: Pipe,
}

impl Scripted {
    fn new() -> Scripted {
        let mut net = ScriptedNet::new(1, Whims::default(), Tick(0), |_| Err(libc::ECONNREFUSED));
        let (mut near, number) = net.accepted(Socket::new(State::Open, 100_000, 100_000));
        net.watch(&mut near, LinkId::new(0, 1)).unwrap();
        let pipe = (net.pipes().open)().unwrap();
        Scripted { net, near: Some(near), number, pipe }
    }
}

impl Far for Scripted {
    fn step(&mut self, step: Step) -> Told {
        let mut told = Told::Nothing;
        {
            let mut sockets = self.net.sockets();
            let socket = sockets.get(self.number);
            match step {
                FarSend(count) => assert_eq!(socket.far_send(&vec![1; count]), count),
                FarUrgent => socket.far_urgent(),
                FarShutdown => socket.far_shutdown(),
                FarClose => socket.far_close(),
                FarReset => socket.far_reset(usize::MAX, libc::ECONNRESET),
                FarReadsOn => {
                    let count = socket.far_read(usize::MAX).len();
                    told = Told::Ended(count, socket.far_end().expect("an end"));
                }
                _ => {
                    drop(sockets);
                    told = ours(&mut self.near, &mut self.pipe, step);
                }
            }
        }
        // A loopback is fast: everything has arrived by now.
        while self.net.sockets().get(self.number).flow(usize::MAX, Tick(0)) {}
        told
    }

    fn poll(&mut self, until: Ready) -> Told {
        let events = self.net.sockets().events(9);
        let told = events.last().expect("an event").1;
        assert!(holds_all(told, until), "told {told:?}, not {until:?}");
        Told::Ready(told)
    }
}

fn holds_all(ready: Ready, wanted: Ready) -> bool {
    ready.with(wanted) == ready
}

#[test]
fn the_scripted_socket_tells_what_the_kernel_tells() {
    let rows: &[(&str, &[Step])] = &[
        ("a new stream has room", &[Await(Ready::OUT), Recv(9), Recv(9), Step::Unsent, Failure]),
        ("bytes", &[FarSend(3), Await(Ready::IN), Recv(2), Recv(2), Recv(2)]),
        ("bytes and the end come as one event", &[FarSend(3), FarShutdown, Await(OVER), Recv(9), Recv(9), Recv(9)]),
        (
            "bytes before a reset stay readable, and it is told once",
            &[FarSend(3), FarReset, Await(ALL), Recv(2), Recv(9), Recv(9), Recv(9)],
        ),
        ("a send takes the error away", &[FarSend(3), FarReset, Await(ALL), Send(1), Recv(9), Recv(9), Send(1)]),
        ("so does SO_ERROR", &[FarReset, Await(ALL), Failure, Failure, Recv(9), Send(1)]),
        (
            "a reset after the end: the end is told for ever, and the error is EPIPE",
            &[FarSend(2), FarClose, Await(OVER), Send(1), Await(ALL), Recv(9), Recv(9), Recv(9), Send(1), Send(1)],
        ),
        (
            "a read stops at the urgent mark, and passes the urgent byte over",
            &[FarSend(2), FarUrgent, FarSend(3), Await(MARKED), Recv(9), Recv(9), Recv(9)],
        ),
        ("an urgent byte with nothing behind it", &[FarSend(2), FarUrgent, Await(MARKED), Recv(9), Recv(9), Recv(9)]),
        (
            "bytes through a pipe, no more than asked for",
            &[FarSend(3), Await(Ready::IN), SpliceIn(2), SpliceIn(2), SpliceIn(2), SpliceOut, SpliceOut],
        ),
        (
            "a splice is told of the end",
            &[FarSend(3), FarShutdown, Await(OVER), SpliceIn(9), SpliceIn(9), Recv(9), SpliceOut],
        ),
        (
            "a splice gets what came before a reset, and takes the error away",
            &[FarSend(3), FarReset, Await(ALL), SpliceIn(2), SpliceIn(9), SpliceIn(9), SpliceIn(9), Recv(9)],
        ),
        (
            "so does one out of a pipe",
            &[
                FarSend(3),
                Await(Ready::IN),
                SpliceIn(2),
                FarReset,
                Await(ALL),
                SpliceOut,
                SpliceOut,
                SpliceIn(9),
                Recv(9),
            ],
        ),
        (
            "a splice does not pass the urgent mark",
            &[
                FarSend(2),
                FarUrgent,
                FarSend(3),
                Await(MARKED),
                SpliceIn(9),
                SpliceIn(9),
                Recv(9),
                FarSend(1),
                SpliceIn(9),
            ],
        ),
        (
            "before the mark, an end behind it looks as if it were here",
            &[
                FarSend(2),
                FarUrgent,
                FarSend(3),
                FarShutdown,
                Await(OVER),
                SpliceIn(9),
                SpliceIn(9),
                Recv(9),
                SpliceIn(9),
            ],
        ),
        (
            "before the mark, so does a reset",
            &[FarUrgent, FarSend(3), FarReset, Await(ALL), SpliceIn(9), SpliceIn(9), Recv(9), Recv(9)],
        ),
        ("both ended", &[Step::Shutdown, FarShutdown, Await(OVER), Recv(9), Send(1)]),
        ("an end after bytes", &[Send(5), Step::Shutdown, FarReadsOn, FarSend(2), Await(Ready::IN), Recv(9), Recv(9)]),
        ("a plain close", &[Send(5), Close, FarReadsOn]),
        ("a close with bytes that nobody has read", &[FarSend(1), Await(Ready::IN), Close, FarReadsOn]),
        ("a cut", &[CloseCut, FarReadsOn]),
        ("a cut when both have ended is none", &[FarShutdown, Await(OVER), Step::Shutdown, CloseCut, FarReadsOn]),
    ];
    for (why, steps) in rows {
        let (mut kernel, mut scripted) = (Kernel::new(), Scripted::new());
        for (at, step) in steps.iter().enumerate() {
            let (real, played) = match step {
                Await(until) => (kernel.poll(*until), scripted.poll(*until)),
                step => (kernel.step(*step), scripted.step(*step)),
            };
            assert_eq!(real, played, "{why}: step {at}, {step:?}, the kernel on the left");
        }
    }
}
