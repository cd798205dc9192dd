//! Real HTTP clients and servers find nothing wrong with the road between them.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::http::{Wire, chunked, get};
use crate::support::programs::{Program, aiohttp, nginx, run};
use crate::support::{L4lb, Pattern, Setup, note};

const FILE: Pattern = Pattern { seed: 61 };
const FILE_SIZE: usize = 3_000_000;

fn curl(args: &[&str], url: String) -> String {
    run(Command::new("curl").args(["--silent", "--show-error", "--fail"]).args(args).arg(url)).0
}

fn behind(program: &Program) -> L4lb {
    Setup::http(program.addr).start()
}

/// What `sha256sum` says.
fn sha256(file: &Path) -> String {
    let (out, _) = run(Command::new("sha256sum").arg(file));
    out.split(' ').next().expect("the sum").to_owned()
}

#[test]
fn curl_downloads_uploads_and_asks_for_ranges_of_nginx() {
    let content = FILE.bytes(0, FILE_SIZE);
    let nginx = nginx(&content);
    let lb = behind(&nginx);
    let dir = tempfile::tempdir().expect("a directory");
    let (got, sent) = (dir.path().join("got"), dir.path().join("sent"));
    let path = |path: &Path| path.to_str().expect("text").to_owned();
    let url = |path: &str| format!("http://{}{path}", lb.addr());
    for version in ["--http1.1", "--http1.0"] {
        curl(&[version, "-o", &path(&got)], url("/file"));
        assert!(std::fs::read(&got).expect("curl wrote it") == content, "{version}");
    }
    curl(&["-r", "1000000-1999999", "-o", &path(&got)], url("/file"));
    assert!(std::fs::read(&got).expect("curl wrote it") == content[1_000_000..2_000_000], "a range");
    let ranges = curl(&["-r", "0-9,20-29", "-D", "-", "-o", "/dev/null"], url("/file"));
    assert!(ranges.contains("206 Partial Content") && ranges.contains("multipart/byteranges"), "{ranges}");
    let head = curl(&["--head"], url("/file"));
    assert!(head.contains("Content-Length: 3000000") && head.contains("Via: 1.1 l4lb"), "{head}");
    std::fs::write(&sent, &content).expect("the directory is ours");
    // curl expects 100-continue with large bodies by itself; with -T - it sends chunks
    for (how, args) in
        [("a length", vec!["-T", "sent"]), ("chunks", vec!["-T", "-", "-H", "Transfer-Encoding: chunked"])]
    {
        let target = url(&format!("/up/{}", how.replace(' ', "-")));
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--fail"]).args(args).arg(&target).current_dir(&dir);
        crate::support::programs::run_with_input(&mut command, &content);
        curl(&["-o", &path(&got)], target);
        assert!(std::fs::read(&got).expect("curl wrote it") == content, "with {how}");
    }
    // nginx answers before it has read what is too large for it
    let (out, _) = run(Command::new("curl")
        .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-T", &path(&sent)])
        .arg(url("/big")));
    assert_eq!(out, "413");
    // many on one connection, and many at once
    let (out, _) = run(Command::new("curl").args(["-sS", "--fail", "-w", "%{num_connects}"]).arg(url("/?[1-100]")));
    assert_eq!(out, format!("hello1{}", "hello0".repeat(99)));
    let (out, _) = run(Command::new("curl").args(["-sS", "--fail", "--parallel"]).arg(url("/?[1-200]")));
    assert_eq!(out.replace('\n', ""), "hello".repeat(200));
}

#[test]
fn wrk_by_http_has_no_error() {
    let nginx = nginx(b"");
    let lb = behind(&nginx);
    for connection in ["keep-alive", "close"] {
        let mut command = Command::new("wrk");
        command.args(["-t", "2", "-c", "64", "-d", "2s", "-H", &format!("Connection: {connection}")]);
        let (out, err) = run(command.arg(format!("http://{}/", lb.addr())));
        assert!(!out.contains("Socket errors") && !out.contains("Non-2xx"), "{connection}: {out}{err}");
        let rate = out.lines().find_map(|line| line.strip_prefix("Requests/sec:")).expect("wrk tells a rate");
        let rate: f64 = rate.trim().parse().expect("a number");
        assert!(rate > 0.0);
        note(&format!("wrk by HTTP, 64 connections to nginx, {connection}: {rate:.0} requests/s"));
    }
}

#[test]
fn ab_has_no_error() {
    let nginx = nginx(&FILE.bytes(0, 100_000));
    let lb = behind(&nginx);
    for args in [&["-k"][..], &[], &["-k", "-i"]] {
        let mut command = Command::new("ab");
        command.args(["-q", "-n", "2000", "-c", "20"]).args(args).arg(format!("http://{}/file", lb.addr()));
        let (out, err) = run(&mut command);
        let told = |name: &str| out.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or("");
        assert_eq!(told("Complete requests:"), "2000", "{args:?}: {out}{err}");
        assert_eq!(told("Failed requests:"), "0", "{args:?}: {out}{err}");
        assert!(!out.contains("Non-2xx") && !out.contains("Write errors"), "{args:?}: {out}{err}");
    }
}

#[test]
fn an_application_gets_uploads_and_its_streams_and_ranges_arrive() {
    let app = aiohttp();
    let lb = behind(&app);
    let content = FILE.bytes(0, FILE_SIZE);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    std::fs::write(&file, &content).expect("the directory is ours");
    let expected = format!("{FILE_SIZE} {}", sha256(&file));
    let at = |name: &str| format!("@{}", file.to_str().expect(name));
    let url = |path: &str| format!("http://{}{path}", lb.addr());
    assert_eq!(curl(&["--data-binary", &at("a path")], url("/upload")), expected, "with a length");
    let chunks = ["--data-binary", &at("a path"), "-H", "Transfer-Encoding: chunked"];
    assert_eq!(curl(&chunks, url("/upload")), expected, "in chunks");
    let form = ["-F", &format!("file={}", at("a path")), "-F", "word=gr\u{fc}n"];
    assert_eq!(curl(&form, url("/form")), format!("gr\u{fc}n {expected}"), "as a form");
    let mut client = Wire::to(lb.addr());
    let streamed = client.ask(get("/stream"));
    let pieces: Vec<u8> = (0..100).flat_map(|i| [i; 5000]).collect();
    assert!(streamed.head.is_chunked() && streamed.body == pieces, "the stream");
    client.send("GET /file HTTP/1.1\r\nHost: a\r\nRange: bytes=5-104\r\n\r\n");
    let range = client.response();
    assert_eq!((range.status(), range.head.get("content-range")), (206, Some("bytes 5-104/3000000")));
    assert!(range.body == content[5..105]);
    // both bodies at once: the answer begins long before the request ends
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("5\r\nfirst\r\n");
    let head = client.head();
    assert!(head.is_chunked());
    assert_eq!(client.chunk(), b"first");
    client.send("6\r\nsecond\r\n");
    assert_eq!(client.chunk(), b"second");
    client.send(chunked(b"", 1, ""));
    assert_eq!(client.chunks().0, b"");
}

#[test]
fn an_event_of_a_stream_arrives_at_once() {
    let app = aiohttp();
    let lb = behind(&app);
    let measure = |addr| {
        let mut client = Wire::to(addr);
        client.send(get("/events?n=100"));
        let head = client.head();
        assert_eq!(head.get("content-type"), Some("text/event-stream"));
        let mut delays: Vec<Duration> = (0..100)
            .map(|_| {
                let event = client.chunk();
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
                let text = std::str::from_utf8(&event).expect("text");
                let sent = text.strip_prefix("data: ").and_then(|rest| rest.strip_suffix("\n\n")).expect("one event");
                now.saturating_sub(Duration::from_nanos(sent.parse().expect("nanoseconds")))
            })
            .collect();
        delays.sort();
        (delays[50], delays[99])
    };
    let (direct, through) = (measure(app.addr), measure(lb.addr()));
    note(&format!("server-sent events, delay in the middle: {:?} through l4lb, {:?} direct", through.0, direct.0));
    // far below the 40 ms of a delayed acknowledgement and any buffer that waits to be full
    assert!(through.0 < direct.0 + Duration::from_millis(20), "{through:?}, and {direct:?} direct");
}

#[test]
fn a_browser_uploads_streams_and_submits_a_form() {
    let app = aiohttp();
    let lb = behind(&app);
    let profile = tempfile::tempdir().expect("a directory");
    let mut command = Command::new("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    let (page, err) = run(command.arg("--dump-dom").arg(format!("http://{}/", lb.addr())));
    let (_, rest) = page.split_once("<pre id=\"out\">").unwrap_or_else(|| panic!("no result in {page}\n{err}"));
    let told = rest.split("</pre>").next().expect("one");
    let file = profile.path().join("sent");
    let bytes: Vec<u8> = (0..1u32 << 20).map(|i| (i * 7 + (i >> 8)) as u8).collect();
    std::fs::write(&file, bytes).expect("the directory is ours");
    let sum = format!("1048576 {}", sha256(&file));
    let expected = format!("upload {sum}|stream 500000 true|events 3|socket 1048576|form gr\u{fc}n {sum}");
    assert_eq!(told, expected, "{err}");
}

#[test]
fn a_client_of_http_1_0_that_names_no_host_is_served_by_nginx() {
    let nginx = nginx(b"");
    let lb = behind(&nginx);
    let mut client = Wire::to(lb.addr());
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().text(), "hello");
}
