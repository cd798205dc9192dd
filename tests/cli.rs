//! The command line from outside: the real binary, its exit codes, and what it prints.

mod program;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use program::{Running, root, run, shell};

#[test]
fn the_end_of_the_program_is_told_by_its_code() {
    let cases: &[(&str, &[&str], i32, &str)] = &[
        ("nothing to do", &[], 2, "l4lb -c config/lb.toml"),
        ("only a level", &["--debug"], 2, "nothing to run"),
        ("no backend", &["--port", "0", "--protocol", "tcp"], 2, "--backend HOST:PORT"),
        ("a word for a port", &["--port", "http"], 2, "'http'"),
        ("no algorithm", &["--port", "0", "--backend", "a:1", "--algorithm", "maglef"], 2, "'maglev'"),
        ("a file and flags", &["-c", "config/lb.toml", "--port", "1"], 2, "cannot be used with"),
        ("an option that does not exist", &["--listen", "1"], 2, "--listen"),
        ("the administration is not due", &["ctl", "stats"], 2, "ctl"),
        ("no file to check", &["check"], 2, "--config"),
        ("no room for the next two ports", &["demo", "--port", "65534"], 2, "65533"),
        ("run: no such file", &["-c", "tests/none.toml"], 1, "tests/none.toml"),
        ("check: no such file", &["check", "-c", "tests/none.toml"], 1, "tests/none.toml"),
        ("run: a broken file", &["-c", "tests/broken/loops.toml"], 1, "tests/broken/loops.toml:28:11: pool.api"),
        ("an address that is not ours", &["backend", "--port", "0", "--host", "192.0.2.1"], 3, "192.0.2.1"),
    ];
    for (why, args, code, part) in cases {
        let (got, out, err) = run(args);
        assert_eq!(got, *code, "{why}: {err}");
        assert!(err.contains(part), "{why}: {part:?} is not in: {err}");
        assert_eq!(out, "", "{why}: what goes wrong is no output");
    }
}

#[test]
fn help_and_version_are_answers() {
    let cases: &[(&str, &[&str], &str)] = &[
        ("the whole", &["--help"], "l4lb demo"),
        ("short", &["-h"], "--backend"),
        ("of a command", &["backend", "--help"], "--error-rate"),
        ("the version", &["--version"], env!("CARGO_PKG_VERSION")),
    ];
    for (why, args, part) in cases {
        let (code, out, err) = run(args);
        assert_eq!((code, err.as_str()), (0, ""), "{why}");
        assert!(out.contains(part), "{why}: {out}");
    }
}

#[test]
fn check_sums_a_good_file_up_in_a_line() {
    let expected = "config/lb.toml: ok: 1 listener, 1 pool, 3 backends\n";
    assert_eq!(run(&["check", "-c", "config/lb.toml"]), (0, expected.to_owned(), String::new()));
}

#[test]
fn check_tells_every_error_of_a_broken_file() {
    let mut seen = 0;
    for entry in std::fs::read_dir(root().join("tests/broken")).unwrap() {
        let expected = entry.unwrap().path();
        if expected.extension().is_none_or(|end| end != "expected") {
            continue;
        }
        seen += 1;
        let file = format!("tests/broken/{}.toml", expected.file_stem().unwrap().to_str().unwrap());
        let (code, out, err) = run(&["check", "-c", &file]);
        assert_eq!((code, out.as_str()), (1, ""), "{file}");
        let told: Vec<&str> = err.lines().map(|line| line.strip_prefix("tests/broken/").expect(line)).collect();
        let expected = std::fs::read_to_string(&expected).unwrap();
        assert_eq!(told, expected.lines().collect::<Vec<_>>(), "{file}");
    }
    assert!(seen >= 10, "only {seen} broken files: is it the right folder?");
}

#[test]
fn completions_are_scripts_that_know_the_commands() {
    for name in ["bash", "zsh", "fish"] {
        let (code, script, err) = run(&["completions", name]);
        assert_eq!((code, err.as_str()), (0, ""), "{name}");
        for word in ["check", "demo", "backend", "completions", "algorithm"] {
            assert!(script.contains(word), "{name}: {word} is missing");
        }
    }
    let (_, script, _) = run(&["completions", "bash"]);
    let complete = "COMP_WORDS=(l4lb de) COMP_CWORD=1; _l4lb l4lb de l4lb; echo \"${COMPREPLY[@]}\"";
    let (code, out, err) = shell(&format!("{script}\n{complete}"));
    assert_eq!((code, out.as_str(), err.as_str()), (0, "demo\n", ""), "bash completes a command");
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    // The reader has ended before the first byte is written.
    let (code, _, err) = shell("exec 3> >(true); wait $!; \"$L4LB\" completions bash >&3");
    assert_eq!((code, err.as_str()), (0, ""));
}

#[test]
fn output_that_is_lost_is_told() {
    let (_, _, err) = shell("\"$L4LB\" completions bash >/dev/full");
    assert!(err.contains("cannot write to standard output"), "{err}");
}

/// A port that somebody else has, for as long as the socket lives.
fn taken(shared: bool) -> (socket2::Socket, u16) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_port(shared).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(1).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

#[test]
fn a_taken_port_is_named() {
    for shared in [false, true] {
        let (_socket, port) = taken(shared);
        let port = port.to_string();
        let cases: &[(&str, &[&str])] = &[
            ("backend", &["backend", "--port", &port]),
            ("demo", &["demo", "--port", &port]),
            ("run", &["--host", "127.0.0.1", "--port", &port, "--protocol", "tcp", "--backend", "127.0.0.1:1"]),
        ];
        for (why, args) in cases {
            let (code, out, err) = run(args);
            assert_eq!((code, out.as_str()), (3, ""), "{why}, shared {shared}: {err}");
            assert!(err.contains(&format!("127.0.0.1:{port}")), "{why}, shared {shared}: {err}");
            let advice = err.contains("port") && !err.contains("change bind");
            assert!(advice, "{why}, shared {shared}: told to change what was not typed: {err}");
        }
    }
}

#[test]
fn a_signal_ends_what_serves_with_code_0() {
    let cases: &[(&str, &[&str])] = &[
        ("backend", &["backend", "--port", "0"]),
        ("demo", &["demo", "--port", "0"]),
        ("run", &["--port", "0", "--protocol", "tcp", "--backend", "127.0.0.1:1"]),
    ];
    for (why, args) in cases {
        for signal in ["TERM", "INT"] {
            let mut running = Running::start(args);
            running.line();
            assert_eq!(running.end(signal), 0, "{why}: {signal}");
        }
    }
}

/// Sends all, ends the sending side, and reads until the other end does the same.
fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(program::LIMIT)).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

const ASK: &[u8] = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn the_http_backend_names_itself() {
    let (named, address) = Running::listening(&["backend", "--port", "0", "--id", "backend1"]);
    let answer = exchange(address, ASK);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("{\"id\":\"backend1\",\"method\":\"GET\",\"path\":\"/x\""), "{answer}");
    drop(named);
    let (_unnamed, address) = Running::listening(&["backend", "--port", "0"]);
    let answer = exchange(address, b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    let expected = format!("{{\"status\":\"healthy\",\"id\":\"backend-{}\"}}\n", address.port());
    assert!(answer.ends_with(&expected), "{answer}");
}

#[test]
fn the_http_backend_is_understood_by_curl() {
    let (_backend, address) = Running::listening(&["backend", "--port", "0", "--id", "b"]);
    let curl = format!("curl -sS --noproxy '*' --max-time 20 http://{address}");
    let status = "-o /dev/null -w '%{http_code}'";
    let cases = [
        ("a body", format!("{curl}/ -d hello"), "\"body\":\"hello\",\"body_length\":5}\n"),
        (
            "chunks",
            format!("{curl}/ -H 'Transfer-Encoding: chunked' -d hello"),
            "\"body\":\"hello\",\"body_length\":5}\n",
        ),
        ("a head", format!("{curl}/ -I {status}"), "200"),
        ("waiting to be asked", format!("{curl}/ -H 'Expect: 100-continue' -d a {status}"), "200"),
        ("two on one connection", format!("{curl}/ {curl}/ -w '%{{num_connects}}'").replace(" curl", " "), "0"),
        ("too large", format!("head -c 9000000 /dev/zero | {curl}/ --data-binary @- {status}"), "413"),
        (
            "too large, sent without asking",
            format!("head -c 9000000 /dev/zero | {curl}/ -H Expect: --data-binary @- {status}"),
            "413",
        ),
        ("an old client", format!("{curl}/ --http1.0 {status}"), "200"),
    ];
    for (why, command, end) in cases {
        let (code, out, err) = shell(&command);
        assert!(code == 0 && out.ends_with(end), "{why}: {command}: code {code}, {out}{err}");
    }
}

#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    let (_backend, address) = Running::listening(&["backend", "--port", "0"]);
    let mut request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n".to_vec();
    request.resize(request.len() + 9_000_000, 0);
    let answer = exchange(address, &request);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[test]
fn the_tcp_backend_sends_everything_back_behind_its_name() {
    let (_backend, address) = Running::listening(&["backend", "--port", "0", "--id", "b", "--protocol", "tcp"]);
    assert_eq!(exchange(address, b"hello\nworld"), "b: hello\nb: world");
    // More than any socket buffer holds, so it can only pass while both ways move.
    let large = "x".repeat(8 << 20);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(program::LIMIT)).unwrap();
    let answer = std::thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(large.as_bytes()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        let mut answer = String::new();
        (&stream).read_to_string(&mut answer).unwrap();
        answer
    });
    assert!(answer == format!("b: {large}"), "{} bytes came back", answer.len());
    stream.flush().unwrap();
}

/// Sends one datagram and waits for an answer, for as long as `patience`.
fn ask_udp(client: &UdpSocket, datagram: &[u8], patience: Duration) -> Option<Vec<u8>> {
    client.set_read_timeout(Some(patience)).unwrap();
    client.send(datagram).unwrap();
    let mut answer = vec![0; 65_536];
    let read = client.recv(&mut answer).ok()?;
    answer.truncate(read);
    Some(answer)
}

fn udp_client(server: SocketAddr) -> UdpSocket {
    let client = UdpSocket::bind((server.ip(), 0)).unwrap();
    client.connect(server).unwrap();
    client
}

#[test]
fn the_udp_backend_sends_each_datagram_back_behind_its_name() {
    let (_backend, address) = Running::listening(&["backend", "--port", "0", "--id", "b", "--protocol", "udp"]);
    let client = udp_client(address);
    let large = vec![7; 65_507];
    let cases: &[(&str, &[u8], &[u8])] = &[
        ("a line", b"hello\n", b"b: hello\n"),
        ("nothing", b"", b"b: "),
        ("the largest there is", &large, &large),
        ("bytes that are no text", b"\xff\0", b"b: \xff\0"),
    ];
    for (why, datagram, expected) in cases {
        assert!(ask_udp(&client, datagram, program::LIMIT).unwrap() == *expected, "{why}");
    }
}

#[test]
fn the_udp_backend_delays_beside_each_other_and_leaves_a_share_unanswered() {
    let args = ["backend", "--port", "0", "--protocol", "udp", "--id", "b", "--delay", "200ms", "--error-rate", "0.5"];
    let (_backend, address) = Running::listening(&args);
    let client = udp_client(address);
    client.set_read_timeout(Some(program::LIMIT)).unwrap();
    let start = Instant::now();
    (0..40_u8).for_each(|n| assert_eq!(client.send(&[n]).unwrap(), 1));
    for n in (0..40_u8).step_by(2) {
        let mut answer = [0; 8];
        assert_eq!(client.recv(&mut answer).unwrap(), 4);
        assert_eq!(answer[..4], [b'b', b':', b' ', n], "every second one is not answered");
        assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    }
    assert!(start.elapsed() < Duration::from_secs(3), "they waited in turn: {:?}", start.elapsed());
}

/// The backend under a limit of descriptors, as bash's `ulimit` sets it.
fn limited(limit: &str) -> (Running, SocketAddr) {
    let line = format!("ulimit {limit} && exec \"$L4LB\" backend --port 0 --protocol tcp --id b");
    let running = Running::bash(&line);
    let address = program::address(&running.line());
    (running, address)
}

fn ask(mut stream: &TcpStream) -> std::io::Result<String> {
    stream.set_read_timeout(Some(program::LIMIT))?;
    stream.write_all(b"a\n")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn a_soft_limit_of_descriptors_is_raised() {
    let (_backend, address) = limited("-S -n 32");
    let streams: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
    for stream in &streams {
        assert_eq!(ask(stream).unwrap(), "b: a\n");
    }
}

#[test]
fn without_descriptors_clients_wait_for_others_to_leave() {
    let (_backend, address) = limited("-n 32");
    let mut streams: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(ask(&streams[0]).unwrap(), "b: a\n", "the first has a place");
    let last = streams.pop().unwrap();
    drop(streams);
    assert_eq!(ask(&last).unwrap(), "b: a\n", "it is served once the others have left");
}

#[test]
fn a_delay_is_kept_and_a_share_fails() {
    let (_http, address) = Running::listening(&["backend", "--port", "0", "--delay", "50ms", "--error-rate", "0.5"]);
    let start = Instant::now();
    assert!(exchange(address, ASK).starts_with("HTTP/1.1 200 "));
    assert!(start.elapsed() >= Duration::from_millis(50), "{:?}", start.elapsed());
    assert!(exchange(address, ASK).starts_with("HTTP/1.1 500 "));
    let tcp = ["backend", "--port", "0", "--protocol", "tcp", "--id", "b", "--delay", "50ms", "--error-rate", "0.5"];
    let (_tcp, address) = Running::listening(&tcp);
    let start = Instant::now();
    assert_eq!(exchange(address, b"a\nb\nc\n"), "b: a\n", "the second line is not answered, but cut");
    assert!(start.elapsed() >= Duration::from_millis(100), "two lines, two delays: {:?}", start.elapsed());
}

/// Which of the three answered, in order; "?" for anything else.
fn names(answers: &str) -> Vec<&str> {
    let name = |line| ["backend1", "backend2", "backend3"].into_iter().find(|name| str::contains(line, name));
    answers.lines().map(|line: &str| name(line).unwrap_or("?")).collect()
}

#[test]
fn every_command_that_the_demo_prints_works() {
    let mut demo = Running::start(&["demo", "--port", "0"]);
    let mut text = String::new();
    while !text.contains("Ctrl-C ends it") {
        text += &(demo.line() + "\n");
    }
    let commands: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    assert!(commands.len() >= 8, "{text}");
    let mut balanced = 0;
    for command in commands {
        let (code, out, err) = shell(command);
        assert_eq!((code, err.as_str()), (0, ""), "{command}");
        let mut names = names(&out);
        names.sort_unstable();
        assert!(!names.is_empty() && !names.contains(&"?"), "{command}: {out}");
        if command.contains("for i in 1 2 3") {
            balanced += 1;
            assert_eq!(names, ["backend1", "backend2", "backend3"], "{command}: {out}");
        }
    }
    assert_eq!(balanced, 3, "one loop each for HTTP, TCP and UDP: {text}");
    assert_eq!(demo.end("INT"), 0);
}

#[test]
fn a_demo_ends_when_its_time_is_over() {
    let (code, out, err) = run(&["demo", "--port", "0", "--duration", "100ms"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("It ends in 100ms"), "{out}");
}

/// Writes a configuration under a name that no other test has: its path.
fn file(name: &str, text: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn flags_and_a_file_balance_alike() {
    let backends: Vec<(Running, SocketAddr)> = ["backend1", "backend2", "backend3"]
        .iter()
        .map(|id| Running::listening(&["backend", "--port", "0", "--protocol", "tcp", "--id", id]))
        .collect();
    let mut flags: Vec<String> = "--host 127.0.0.1 --port 0 --protocol tcp".split(' ').map(str::to_owned).collect();
    let mut config = "listener = [{ name = \"web\", bind = \"127.0.0.1:0\", protocol = \"tcp\", pool = \"p\" }]\n\
                    [[pool]]\nname = \"p\"\n"
        .to_owned();
    for (_, address) in &backends {
        flags.push(format!("--backend={address}"));
        config += &format!("[[pool.backend]]\naddress = \"{address}\"\n");
    }
    let path = file("balance.toml", &config);
    let from_file = vec!["-c".to_owned(), path];
    for (why, args) in [("flags", flags), ("a file", from_file)] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (mut balancer, address) = Running::listening(&args);
        let mut answers: Vec<String> = (0..6).map(|_| exchange(address, b"hello\n")).collect();
        answers.sort_unstable();
        assert_eq!(
            names(&answers.concat()).join(" "),
            "backend1 backend1 backend2 backend2 backend3 backend3",
            "{why}"
        );
        assert_eq!(balancer.end("TERM"), 0, "{why}");
    }
}

#[test]
fn a_log_that_cannot_be_opened_is_told_with_its_place() {
    let path = file(
        "log.toml",
        "[global]\n  log_file = \"/proc/none/of/this.log\"\n\
        [[listener]]\nname = \"main\"\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\npool = \"p\"\n[[pool]]\nname = \"p\"\n",
    );
    let (code, out, err) = run(&["-c", &path]);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    let place = format!("{path}:2:14: global.log_file: /proc/none/of/this.log cannot be opened");
    assert!(err.starts_with(&place), "{err}");
}

#[test]
fn debug_is_heeded_with_and_without_a_file() {
    let path = file(
        "debug.toml",
        "global = { log_level = \"error\" }\n\
        listener = [{ name = \"main\", bind = \"127.0.0.1:0\", protocol = \"tcp\", pool = \"p\" }]\n\
        pool = [{ name = \"p\" }]\n",
    );
    let forms = ["--host 127.0.0.1 --port 0 --protocol tcp --backend 127.0.0.1:1".to_owned(), format!("-c {path}")];
    for form in forms {
        // The log goes where the addresses go, so that both can be waited for.
        let running = Running::bash(&format!("exec \"$L4LB\" {form} --debug 2>&1"));
        let until = |part: &str| std::iter::repeat_with(|| running.line()).find(|line| line.contains(part)).unwrap();
        let address = program::address(&until("main listening on"));
        assert_eq!(exchange(address, b""), "", "{form}: there is no backend, so it is closed");
        until("[DEBUG]");
    }
}

#[test]
fn the_scripts_start_backends_and_a_balancer() {
    let mut backends = Running::script("start_backends.sh", &["--ports", "0 0 0"]);
    let mut lines: Vec<String> = (0..3).map(|_| backends.line()).collect();
    lines.sort_unstable();
    let addresses: Vec<SocketAddr> = lines.iter().map(|line| program::address(line)).collect();
    assert_eq!(names(&lines.join("\n")), ["backend1", "backend2", "backend3"]);
    let mut args = vec!["--host", "127.0.0.1", "--port", "0", "--algorithm", "weighted_round_robin"];
    let each: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    each.iter().for_each(|address| args.extend(["--backend", address]));
    let mut balancer = Running::script("start_loadbalancer.sh", &args);
    let address = program::address(&balancer.line());
    assert!(address.ip().is_loopback(), "{address}: not where --host says");
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut answers: Vec<String> = (0..3).map(|_| exchange(address, request)).collect();
    answers.sort_by_key(|answer| answer.find("\"id\"").map(|at| answer[at..].to_owned()));
    for (answer, name) in answers.iter().zip(["backend1", "backend2", "backend3"]) {
        assert!(answer.contains(&format!("\"id\":\"{name}\"")), "{name} did not answer: {answers:?}");
    }
    assert_eq!(balancer.end("TERM"), 0);
    assert_eq!(backends.end("TERM"), 0);
    backends.rest(); // every backend has ended, since nobody has its output any more
}

#[test]
fn a_backend_that_cannot_start_ends_its_script() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = format!("0 {}", taken.local_addr().unwrap().port());
    let mut script = Running::script("start_backends.sh", &["--ports", &ports]);
    assert_eq!(script.wait(), 3, "the code of the one that could not start");
    // Its output ends only when every process that writes to it has ended.
    script.rest();
}

#[test]
fn scripts_tell_how_to_use_them() {
    for script in ["start_backends.sh", "start_loadbalancer.sh"] {
        let path = format!("scripts/{script}");
        let cases = [("", "bash -n"), (" --help", ""), (" -h", "")];
        for (args, before) in cases {
            let (code, _, err) = shell(&format!("{before} {path}{args}"));
            assert_eq!((code, err.as_str()), (0, ""), "{before} {path}{args}");
        }
        for args in ["--prots 1", "8001", "--port"] {
            let (code, out, err) = shell(&format!("{path} {args}"));
            assert_eq!((code, out.as_str()), (2, ""), "{path} {args}");
            assert!(err.contains("--help"), "{path} {args}: {err}");
        }
    }
}
