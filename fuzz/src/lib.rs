//! What is tried on any bytes, by the fuzzer and, for the corpus, by an ordinary test. Each panics when a promise of
//! the codec is broken.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;

use l4lb::wire::http1::*;

const LIMITS: Limits = Limits { head: 4096, fields: 20 };

/// A request head gives one outcome however it is cut; what is accepted is clean, and is written as something that is
/// read again as the same.
pub fn http1_request(bytes: &[u8]) {
    let mut storage = Storage::new();
    let whole = parse_request(bytes, &mut HeadScan::default(), &LIMITS, &mut storage);
    let whole_scan = HeadScan::default().request(bytes, &LIMITS);
    assert_eq!(slowly(bytes, HeadScan::request), whole_scan, "cuts change where the head ends");
    let Ok(Some((request, length))) = whole else { return };
    clean(&bytes[..length], |line| line.is_empty());
    let mut scratch = String::new();
    if let Ok(path) = normalise_path(request.target.path, &mut scratch) {
        assert!(path == "*" || path.starts_with('/') && !path.split('/').any(|segment| matches!(segment, "." | "..")));
    }
    for trusted in [false, true] {
        let forward = Forward {
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            proto: "http",
            trusted,
            default_host: "backend",
            close: false,
            upgrade: true,
        };
        let mut out = Vec::new();
        write_request(&mut out, &request, &forward);
        clean(&out, |_| false);
        let mut storage = Storage::new();
        // Ours may be a little larger than the limits that it came by.
        let read = parse_request(&out, &mut HeadScan::default(), &wide(), &mut storage);
        let (again, length) = read.expect("we write what we read").expect("all of it");
        assert_eq!(length, out.len());
        assert_eq!((again.method, again.target.path, again.target.query), {
            (request.method, request.target.path, request.target.query)
        });
        assert_eq!(again.host, if request.host.is_empty() { "backend" } else { request.host });
        assert_eq!((again.body, again.upgrade), (request.body, request.upgrade));
        assert_eq!(again.expects_continue, request.expects_continue);
        assert_eq!(again.te_trailers, request.te_trailers);
        assert!(via_count(&again.fields, NAME) > 0);
    }
}

/// The same for a response, whatever was asked and whatever the client speaks.
pub fn http1_response(bytes: &[u8]) {
    let whole_scan = HeadScan::default().response(bytes, &LIMITS);
    assert_eq!(slowly(bytes, HeadScan::response), whole_scan, "cuts change where the head ends");
    for asked in
        [Asked::default(), Asked { head: true, upgrade: None }, Asked { head: false, upgrade: Some("websocket") }]
    {
        let mut storage = Storage::new();
        let whole = parse_response(bytes, &asked, &mut HeadScan::default(), &LIMITS, &mut storage);
        let Ok(Some((response, length))) = whole else { continue };
        clean(&bytes[..length], |_| false);
        for to in [Version::Http10, Version::Http11] {
            let mut out = Vec::new();
            let body = write_response(&mut out, &response, &Answer { to, close: false });
            clean(&out, |_| false);
            assert!(to == Version::Http11 || body != Body::Chunked, "an old client gets no chunks");
            assert!(to == Version::Http10 || body != Body::ToClose, "a new client sees the end");
            let mut storage = Storage::new();
            let read = parse_response(&out, &asked, &mut HeadScan::default(), &wide(), &mut storage);
            let (again, length) = read.expect("we write what we read").expect("all of it");
            assert_eq!(length, out.len());
            assert_eq!((again.status, again.reason, again.body), (response.status, response.reason, body));
            assert_eq!((again.length, again.upgrade), (response.length, response.upgrade));
            assert!(to == Version::Http10 || again.keep_alive, "nothing of the backend's connection is told");
        }
    }
}

/// A chunked body gives one outcome however it is cut, and what is accepted is the same when it is encoded again.
pub fn http1_chunked(bytes: &[u8]) {
    let whole = decode([bytes].into_iter());
    assert_eq!(decode(bytes.chunks(1)), whole, "byte by byte");
    assert_eq!(decode(bytes.chunks(7)), whole, "in sevens");
    let Ok((content, trailers, Some(_))) = whole else { return };
    clean(&trailers, |_| false);
    let mut out = Vec::new();
    for data in content.chunks(11) {
        let size = NonZeroUsize::new(data.len()).expect("chunks are not empty");
        out.extend_from_slice(ChunkHead::new(size).as_bytes());
        out.extend_from_slice(data);
        out.extend_from_slice(CHUNK_END);
    }
    write_last_chunk(&mut out, &trailers);
    let length = out.len();
    assert_eq!(decode([out.as_slice()].into_iter()), Ok((content, trailers, Some(length))), "encoded again");
}

fn wide() -> Limits {
    Limits { head: 4 * LIMITS.head, fields: LIMITS.fields + 10 }
}

type Find = fn(&mut HeadScan, &[u8], &Limits) -> Result<Option<usize>, Bad>;

/// The outcome when the bytes come one by one.
fn slowly(bytes: &[u8], find: Find) -> Result<Option<usize>, Bad> {
    let mut scan = HeadScan::default();
    for end in 0..bytes.len() {
        match find(&mut scan, &bytes[..end], &LIMITS) {
            Ok(None) => {}
            done => return done,
        }
    }
    find(&mut scan, bytes, &LIMITS)
}

/// Looks at the lines of a head, or of trailers, with other eyes than the parser's: all end in CRLF and have no other
/// control than HTAB, and nothing that frames a message is there twice. Empty lines before the first may be `skipped`.
fn clean(head: &[u8], skipped: fn(&str) -> bool) {
    let text: String = head.iter().map(|byte| char::from(*byte)).collect();
    assert!(text.is_empty() || text.ends_with("\r\n"));
    let lines: Vec<&str> = text.split_terminator("\r\n").skip_while(|line| skipped(line)).collect();
    assert!(!text.replace("\r\n", "").contains(|c: char| c.is_ascii_control() && c != '\t'));
    let named = |name: &str| {
        let is = |line: &&&str| line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name));
        lines.iter().filter(is).count()
    };
    assert!(named("content-length") < 2 && named("transfer-encoding") < 2 && named("host") < 2);
    assert!(!lines.iter().any(|line| line.starts_with([' ', '\t'])), "nothing is folded");
}

/// Content, trailers, and how many bytes the body had if it ended; or the status.
type Decoded = Result<(Vec<u8>, Vec<u8>, Option<usize>), u16>;

fn decode<'b>(pieces: impl Iterator<Item = &'b [u8]>) -> Decoded {
    let mut decoder = BodyDecoder::new(Body::Chunked, 1 << 20, &LIMITS);
    let mut content = Vec::new();
    let mut used = 0;
    for piece in pieces {
        let mut rest = piece;
        loop {
            match decoder.next(&mut rest).map_err(|bad| bad.status)? {
                Piece::Data(data) => content.extend_from_slice(data),
                Piece::More => break,
                Piece::End => {
                    used += piece.len() - rest.len();
                    return Ok((content, decoder.trailers().to_vec(), Some(used)));
                }
            }
        }
        assert!(rest.is_empty(), "More means that all is used up");
        used += piece.len();
    }
    Ok((content, Vec::new(), None))
}
