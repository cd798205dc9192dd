//! Backends that run inside the test.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use socket2::SockRef;

use super::PATIENCE;
use super::client::{Client, bounded};

/// A backend that handles each connection on a thread of its own. `T` is what a handler has to tell at its end.
pub struct Server<T = ()> {
    pub addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    outcomes: Mutex<Receiver<std::thread::Result<T>>>,
    stopping: Arc<AtomicBool>,
    listener: TcpListener,
    acceptor: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Server<T> {
    /// Serves on a free port of 127.0.0.1.
    pub fn new(handle: impl Fn(TcpStream) -> T + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a free port"), handle)
    }

    /// Serves what arrives at `listener`.
    pub fn on(listener: TcpListener, handle: impl Fn(TcpStream) -> T + Send + Sync + 'static) -> Self {
        // std listens with a queue of 128 only; the tests come in thousands
        SockRef::from(&listener).listen(4096).expect("a listening socket may listen again");
        let addr = listener.local_addr().expect("bound");
        let (accepted, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let stopping = Arc::new(AtomicBool::new(false));
        let (tell, outcomes) = channel();
        let acceptor = {
            let listener = listener.try_clone().expect("a descriptor is free");
            let (accepted, open, stopping) = (accepted.clone(), open.clone(), stopping.clone());
            let handle = Arc::new(handle);
            std::thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    if stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    accepted.fetch_add(1, Ordering::SeqCst);
                    open.fetch_add(1, Ordering::SeqCst);
                    bounded(&stream);
                    serve(stream, handle.clone(), tell.clone(), open.clone());
                }
            })
        };
        Server { addr, accepted, open, outcomes: Mutex::new(outcomes), stopping, listener, acceptor: Some(acceptor) }
    }

    /// How many connections it has accepted.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// How many connections are being handled.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Waits until one more handler has come to its end, and returns what it tells. A handler that failed fails the test.
    pub fn outcome(&self) -> T {
        let outcome = self.outcomes.lock().expect("never poisoned").recv_timeout(PATIENCE);
        match outcome.expect("a connection of this backend comes to its end in time") {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn serve<T: Send + 'static>(
    stream: TcpStream,
    handle: Arc<impl Fn(TcpStream) -> T + Send + Sync + 'static>,
    tell: Sender<std::thread::Result<T>>,
    open: Arc<AtomicUsize>,
) {
    let work = move || {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| handle(stream)));
        open.fetch_sub(1, Ordering::SeqCst);
        let _ = tell.send(outcome); // nobody may be asking
    };
    // thousands of them are alive at once in some tests
    std::thread::Builder::new().stack_size(256 * 1024).spawn(work).expect("a thread");
}

impl<T> Drop for Server<T> {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // on Linux this wakes a thread that waits in accept()
        let _ = SockRef::from(&self.listener).shutdown(std::net::Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Server {
    /// Sends back what comes, and ends when the client has finished. A connection that breaks is no failure.
    pub fn echo() -> Self {
        Self::new(echo)
    }

    /// Tells its name and closes when the client has finished, or cuts.
    pub fn named(name: &'static str) -> Self {
        Self::new(say(name))
    }

    /// Accepts and keeps the connection without reading a byte, until the server is dropped and the peer is gone.
    pub fn silent() -> (Self, Kept) {
        let kept = Kept::default();
        let keep = kept.0.clone();
        (Self::new(move |stream| keep.lock().expect("never poisoned").push(stream)), kept)
    }
}

/// Connections that a backend keeps and does not read.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<Vec<TcpStream>>>);

impl Kept {
    pub fn len(&self) -> usize {
        self.0.lock().expect("never poisoned").len()
    }
}

/// A handler that sends back what comes.
pub fn echo(mut stream: TcpStream) {
    let mut buf = vec![0; 64 * 1024];
    let mut run = || -> io::Result<()> {
        loop {
            let n = stream.read(&mut buf)?;
            if n == 0 {
                return Ok(());
            }
            stream.write_all(&buf[..n])?;
        }
    };
    let _ = run();
}

/// A handler that tells `name` at once and then waits for the client's end.
pub fn say(name: &'static str) -> impl Fn(TcpStream) + Send + Sync + 'static {
    move |mut stream| {
        let _ = stream.write_all(name.as_bytes());
        stream.drain(|_| ());
    }
}
