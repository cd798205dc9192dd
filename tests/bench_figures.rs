//! The pure parts of the load harness (`benches/load/`), held to examples: a bench target has no tests of its own.

#[path = "../benches/load/datagram.rs"]
mod datagram;
#[path = "../benches/load/figures.rs"]
mod figures;
#[path = "../benches/load/http.rs"]
mod http;

use std::io::Read;

use datagram::{Heard, SIZE, Track};
use figures::{
    CpuTicks, Memory, Spread, Table, cpu_ticks, loss, parent_pid, percent, perf_counts, schedstat_ns, short,
};
use http::{Answer, Failure, Incoming, Target};

#[test]
fn a_median_is_in_the_middle_whatever_the_order() {
    let cases = [
        ("nothing has no middle", vec![], None),
        ("one is all three", vec![2.5], Some((2.5, 2.5, 2.5))),
        ("the odd one out moves the ends only", vec![9.0, 1.0, 2.0], Some((2.0, 1.0, 9.0))),
        ("an even count: the mean of the two in the middle", vec![4.0, 1.0, 2.0, 10.0], Some((3.0, 1.0, 10.0))),
    ];
    for (why, figures, expected) in cases {
        let found = Spread::of(figures).map(|spread| (spread.median, spread.min, spread.max));
        assert_eq!(found, expected, "{why}");
    }
}

#[test]
fn proc_is_read_as_the_kernel_prints_it() {
    assert_eq!(schedstat_ns("1283344 40030 17\n"), Some(1_283_344), "running time comes first");
    assert_eq!(schedstat_ns(""), None, "a thread that ends while we read");

    let ticks =
        cpu_ticks("cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 100 20 4 5 7 1 1\ncpu12 1 0 0 50 0 0 0 0 0 0\nctxt 5\n");
    assert_eq!(ticks.keys().copied().collect::<Vec<_>>(), [0, 12], "the whole machine is no processor");
    let expected = CpuTicks { busy: 1 + 2 + 3 + 4 + 5, idle: 120, stolen: 7 };
    assert_eq!(ticks[&0], expected, "iowait is idle, guest time is inside user time");

    let before = CpuTicks { busy: 10, idle: 10, stolen: 0 };
    let after = CpuTicks { busy: 40, idle: 15, stolen: 5 };
    assert_eq!(after.busy_since(before), 0.75, "30 of 40 ticks");
    assert_eq!(before.busy_since(before), 0.0, "no time passed");

    assert_eq!(parent_pid("77 (a) b (c) S 42 77 77 0"), Some(42), "a name may hold blanks and brackets");

    let rollup = "00-ff ---p 00000000 00:00 0 [rollup]\nRss:  800 kB\nPss:  500 kB\nPss_Dirty: 1 kB\nPrivate_Clean: 20 kB\n\
                  Private_Dirty: 300 kB\n";
    let memory = Memory { rss: 800, pss: 500, private: 320 };
    assert_eq!(Memory::parse(rollup), memory, "clean and dirty private pages together; Pss_Dirty is not Pss");
    assert_eq!(memory.plus(memory), Memory { rss: 1600, pss: 1000, private: 640 });
}

#[test]
fn what_perf_could_not_count_is_no_count() {
    let csv = "# started on Mon\n\n40312;;raw_syscalls:sys_enter;995;100.00;;\n<not counted>;;syscalls:sys_enter_read;0;0.00;;\n";
    let counts: Vec<_> = perf_counts(csv).into_iter().collect();
    assert_eq!(counts, [("raw_syscalls:sys_enter".to_owned(), 40_312)]);
}

#[test]
fn figures_are_short_and_tables_line_up() {
    let cases = [(0.967, "0.97"), (38.64, "38.6"), (128_400.4, "128 400"), (999.6, "1 000"), (-2500.0, "-2 500")];
    for (figure, expected) in cases {
        assert_eq!(short(figure), expected);
    }
    assert_eq!(percent(0.996), "100%");
    let cases = [(0.0, "0%"), (0.000_001, "<0.001%"), (0.000_12, "0.012%"), (0.034, "3.4%"), (1.0, "100.0%")];
    for (share, expected) in cases {
        assert_eq!(loss(share), expected, "a little that was lost is not nothing");
    }

    let mut table = Table::new(1, &["party", "never", "us"]);
    table.row(vec!["nginx".to_owned(), String::new(), "7.70".to_owned()]);
    table.row(vec!["l4lb".to_owned()]);
    let expected = "| party |   us |\n|-------|-----:|\n| nginx | 7.70 |\n| l4lb  |      |\n";
    assert_eq!(table.render(), expected, "an empty column is left out; figures stand to the right");
}

#[test]
fn a_datagram_passes_only_as_it_was_sent_and_where() {
    let mut sent = [0; SIZE];
    datagram::write(&mut sent, 7, 0x0102_0304_0506_0708);
    let with = |at: usize, byte: u8| {
        let mut bytes = sent.to_vec();
        bytes[at] = byte;
        bytes
    };
    let cases = [
        ("as it was sent", sent.to_vec(), Ok(0x0102_0304_0506_0708)),
        ("of another flow", with(11, 8), Err("another flow")),
        ("its first byte of filling altered", with(12, 0), Err("altered")),
        ("its last byte altered", with(SIZE - 1, 0), Err("altered")),
        ("cut by a byte", sent[..SIZE - 1].to_vec(), Err("63 bytes")),
        ("cut to less than a number", sent[..7].to_vec(), Err("7 bytes")),
        ("empty", Vec::new(), Err("0 bytes")),
        ("two in one", [sent, sent].concat(), Err("128 bytes")),
    ];
    for (why, bytes, expected) in cases {
        match (datagram::number(&bytes, 7), expected) {
            (Ok(number), Ok(expected)) => assert_eq!(number, expected, "{why}"),
            (Err(told), Err(expected)) => assert!(told.contains(expected), "{why}: {told}"),
            (found, _) => panic!("{why}: {found:?}"),
        }
    }
}

#[test]
fn a_flow_knows_what_it_waits_for() {
    // Answers in the order they come to a burst of 10 to 12, with what each means: A awaited, L late, X wrong.
    let cases: [(&str, &[u64], &str, bool); 7] = [
        ("all in order", &[10, 11, 12], "AAA", true),
        ("one is missing, and the flow is done all the same", &[10, 12], "AA", true),
        ("the last one is missing: it still waits", &[10, 11], "AA", false),
        ("twice", &[10, 10], "AX", false),
        ("overtaken by a later one", &[11, 10], "AX", false),
        ("never sent", &[13], "X", false),
        ("of a burst before, all of which had come", &[9], "X", false),
    ];
    for (why, answers, expected, done) in cases {
        let mut track = Track::default();
        track.begin(7, 10);
        (7..10).for_each(|number| assert_eq!(track.hear(number), Ok(Heard::Awaited), "{why}"));
        track.begin(10, 13);
        let found: String = answers
            .iter()
            .map(|&number| match track.hear(number) {
                Ok(Heard::Awaited) => 'A',
                Ok(Heard::Late) => 'L',
                Err(_) => 'X',
            })
            .collect();
        assert_eq!((found.as_str(), track.done()), (expected, done), "{why}");
    }

    let mut track = Track::default();
    track.begin(7, 10);
    assert_eq!(track.hear(7), Ok(Heard::Awaited));
    track.begin(10, 11);
    assert_eq!(
        track.hear(9),
        Ok(Heard::Late),
        "given up, and comes after all: no fault, and no answer to the new burst"
    );
    assert!(!track.done());
    assert_eq!(track.hear(10), Ok(Heard::Awaited));
    track.begin(11, 12);
    assert_eq!(track.hear(8), Ok(Heard::Late), "later still");
    assert!(track.hear(10).is_err(), "twice: this one was not given up");

    let mut paced = Track::default();
    for number in [3, 259, 515] {
        paced.extend(number);
    }
    let found = [3, 515, 259, 516].map(|number| paced.hear(number).is_ok());
    assert_eq!(found, [true, true, false, false], "numbers of other flows lie between; order holds");
}

#[test]
fn addresses_are_taken_apart() {
    let target = |host: &str, port, authority: &str, path: &str| {
        Some(Target { host: host.into(), port, authority: authority.into(), path: path.into() })
    };
    let cases = [
        ("the usual", "http://localhost:8080", target("localhost", 8080, "localhost:8080", "/")),
        ("port 80 when none is given", "HTTP://a.example/x?y=1", target("a.example", 80, "a.example", "/x?y=1")),
        ("a query without a path", "http://a?y", target("a", 80, "a", "/?y")),
        ("a fragment stays at home", "http://a/x#part", target("a", 80, "a", "/x")),
        ("IPv6 in brackets", "http://[::1]:81/", target("::1", 81, "[::1]:81", "/")),
        ("IPv6 without port", "http://[::1]", target("::1", 80, "[::1]", "/")),
        ("IPv6 without brackets", "http://::1/", None),
        ("no host", "http:///x", None),
        ("no scheme", "localhost:8080", None),
        ("no plain http", "https://a/", None),
        ("a port out of range", "http://a:65536/", None),
        ("user names", "http://me@a/", None),
        ("a line end would be a second field", "http://a/x\r\nX: y", None),
    ];
    for (why, url, expected) in cases {
        assert_eq!(Target::parse(url).ok(), expected, "{why}");
    }
    let request = Target::parse("http://[::1]:81/x").unwrap().request();
    assert!(request.starts_with(b"GET /x HTTP/1.1\r\nHost: [::1]:81\r\n") && request.ends_with(b"\r\n\r\n"));
}

/// Gives `step` bytes a read.
struct Dribble<'a> {
    left: &'a [u8],
    step: usize,
}

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.step.min(self.left.len()).min(buffer.len());
        let (now, later) = self.left.split_at(count);
        buffer[..count].copy_from_slice(now);
        self.left = later;
        Ok(count)
    }
}

#[test]
fn a_response_ends_where_rfc9112_section_6_says() {
    let answer = |status, body_bytes, keep| Some(Answer { status, body_bytes, keep });
    let cases = [
        ("a length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", answer(200, 5, true)),
        ("an error has a body too", "HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno", answer(503, 2, true)),
        ("204 has none", "HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", answer(204, 0, true)),
        ("304 has none", "HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n", answer(304, 0, true)),
        (
            "chunks, an extension, a trailer",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=1\r\nhello\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\n",
            answer(200, 15, true),
        ),
        (
            "interim responses come before the real one",
            "HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
            answer(200, 1, true),
        ),
        ("until the close", "HTTP/1.1 200 OK\r\n\r\nhello", answer(200, 5, false)),
        (
            "the server says close",
            "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 0\r\n\r\n",
            answer(200, 0, false),
        ),
        ("HTTP/1.0 closes unless it says", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", answer(200, 0, false)),
        (
            "HTTP/1.0 that stays",
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
            answer(200, 0, true),
        ),
        ("cut within the body", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", None),
        ("cut within the head", "HTTP/1.1 200 OK\r\nContent-Le", None),
        ("cut before the last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", None),
        (
            "a chunk longer than it says",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n",
            None,
        ),
        ("not HTTP", "SSH-2.0-OpenSSH\r\n\r\n", None),
        ("a length that is none", "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello", None),
    ];
    for (why, text, expected) in cases {
        for step in [1, 7, text.len()] {
            let mut from = Dribble { left: text.as_bytes(), step };
            let mut incoming = Incoming::new();
            let found = incoming.answer(&mut from);
            assert_eq!(found.as_ref().ok().copied(), expected, "{why}, {step} bytes a read: {found:?}");
            assert!(found.is_err() || incoming.is_empty(), "{why}, {step} bytes a read: bytes left over");
        }
    }
}

/// Fails at once.
struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::ConnectionReset.into())
    }
}

#[test]
fn a_failure_says_whether_it_was_the_connection_or_the_bytes() {
    let of = |text: &str| Incoming::new().answer(&mut text.as_bytes()).unwrap_err();
    assert!(matches!(of(""), Failure::ClosedEarly));
    assert!(matches!(of("nonsense\r\n\r\n"), Failure::NotHttp(what) if what.contains("head")));
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(70_000));
    assert!(matches!(of(&endless), Failure::NotHttp(what) if what.contains("64 KiB")), "not read for ever");
    let broken = Incoming::new().answer(&mut Broken).unwrap_err();
    assert!(matches!(broken, Failure::Io(err) if err.kind() == std::io::ErrorKind::ConnectionReset));
}
