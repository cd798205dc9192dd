//! A gibibyte each way: every byte arrives, and memory does not grow with it.

use std::thread;

use crate::support::http::{Wire, ok, scripted};
use crate::support::{Pattern, Setup, note, proc};

const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// Sends a gibibyte: one mebibyte again and again, made once, so that the test is not slower than what it measures.
fn send(wire: &mut Wire, seed: u64) {
    let piece = Pattern { seed }.bytes(0, MIB);
    for _ in 0..GIB / MIB {
        wire.send(&piece);
    }
}

/// Reads as much, and compares every byte.
fn receive(wire: &mut Wire, seed: u64) {
    let piece = Pattern { seed }.bytes(0, MIB);
    for i in 0..GIB / MIB {
        let found = wire.bytes(MIB);
        assert!(found == piece, "mebibyte {i} came changed");
    }
}

#[test]
fn a_gibibyte_each_way_arrives_whole_in_little_memory() {
    let backend = scripted(|mut wire| {
        while let Some(head) = wire.next_head() {
            if head.method() == "PUT" {
                assert_eq!(head.length(), Some(GIB));
                receive(&mut wire, 1);
                wire.send(ok("received"));
            } else {
                wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {GIB}\r\n\r\n"));
                send(&mut wire, 2);
            }
        }
    });
    let lb = Setup::http(backend.addr).start();
    let addr = lb.addr();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut up = Wire::to(addr);
            up.send(format!("PUT /up HTTP/1.1\r\nHost: a\r\nContent-Length: {GIB}\r\n\r\n"));
            send(&mut up, 1);
            assert_eq!(up.response().text(), "received");
        });
        let mut down = Wire::to(addr);
        down.send("GET /down HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(down.head().length(), Some(GIB));
        receive(&mut down, 2);
    });
    let peak = proc::peak_kib(lb.pid()) / 1024;
    note(&format!("1 GiB up and 1 GiB down by HTTP at once: peak resident memory {peak} MiB"));
    assert!(peak < 60, "peak resident memory {peak} MiB");
}
