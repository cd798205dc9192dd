//! What holds for any input: heads go through write and parse unchanged, bodies through encode and decode.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A field that is nobody's business but the two ends'.
fn field() -> impl Strategy<Value = (String, Vec<u8>)> {
    let value = vec(prop_oneof![8 => 0x21..=0x7eu8, 1 => Just(b' '), 1 => Just(b'\t'), 1 => 0x80..=0xffu8], 0..20);
    ("X-[a-zA-Z0-9!#$%&'*+.^`|~-]{1,12}", value).prop_filter("a name of its own", |(name, _)| {
        !name.to_ascii_lowercase().starts_with("x-forwarded") && !name.eq_ignore_ascii_case("x-real-ip")
    })
}

fn trimmed(fields: &[(String, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
    fields.iter().map(|(name, value)| (name.clone(), super::super::fields::trim(value).to_vec())).collect()
}

fn text(start: &str, fields: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut text = start.as_bytes().to_vec();
    for (name, value) in fields {
        text.extend_from_slice(&[name.as_bytes(), b":", value, b"\r\n"].concat());
    }
    text.extend_from_slice(b"\r\n");
    text
}

fn own(fields: &Fields<'_>) -> Vec<(String, Vec<u8>)> {
    let own = fields
        .iter()
        .filter(|(name, _)| name.starts_with("X-") && !name.to_ascii_lowercase().starts_with("x-forwarded"));
    own.map(|(name, value)| (name.to_owned(), value.to_vec())).collect()
}

fn encoded(content: &[u8], sizes: &[usize], trailers: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = content;
    for size in sizes.iter().cycle() {
        let Some(size) = NonZeroUsize::new((*size).min(rest.len())) else { break };
        out.extend_from_slice(ChunkHead::new(size).as_bytes());
        out.extend_from_slice(&rest[..size.get()]);
        out.extend_from_slice(CHUNK_END);
        rest = &rest[size.get()..];
    }
    write_last_chunk(&mut out, trailers);
    out
}

proptest! {
    #[test]
    fn a_request_goes_through_as_it_is(
        method in "[A-Z]{1,12}",
        path in "/[!-\"$->@-~]{0,30}",
        query in proptest::option::of("[!-\"$-~]{0,20}"),
        body in prop_oneof![Just(Body::None), any::<u64>().prop_map(Body::Length), Just(Body::Chunked)],
        fields in vec(field(), 0..12),
    ) {
        prop_assume!(method != "CONNECT");
        let target = query.as_ref().map_or(path.clone(), |query| format!("{path}?{query}"));
        let framing = match body {
            Body::Length(length) => format!("Content-Length: {length}\r\n"),
            Body::Chunked => "Transfer-Encoding: chunked\r\n".into(),
            _ => String::new(),
        };
        let sent = text(&format!("{method} {target} HTTP/1.1\r\nHost: a.example\r\n{framing}"), &fields);
        let mut storage = Storage::new();
        let parsed = parse_request(&sent, &mut HeadScan::default(), &Limits::default(), &mut storage);
        let (request, length) = parsed.expect("good").expect("whole");
        prop_assert_eq!(length, sent.len());
        let forward = Forward {
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST), proto: "http", trusted: false, default_host: "", close: false,
            upgrade: false,
        };
        let mut out = Vec::new();
        write_request(&mut out, &request, &forward);
        let mut storage = Storage::new();
        let parsed = parse_request(&out, &mut HeadScan::default(), &Limits::default(), &mut storage);
        let (again, length) = parsed.expect("we speak well").expect("whole");
        prop_assert_eq!(length, out.len());
        prop_assert_eq!(again.method, &method);
        prop_assert_eq!((again.target.path, again.target.query), (&*path, query.as_deref()));
        prop_assert_eq!((again.host, again.body), ("a.example", body));
        prop_assert_eq!(own(&again.fields), trimmed(&fields));
        prop_assert_eq!(via_count(&again.fields, NAME), 1);
    }

    #[test]
    fn a_response_goes_through_as_it_is(
        status in (200u16..=999).prop_filter("with a body", |status| !matches!(status, 204 | 304)),
        reason in "[ -~]{0,20}",
        body in prop_oneof![any::<u64>().prop_map(Body::Length), Just(Body::Chunked), Just(Body::ToClose)],
        fields in vec(field(), 0..12),
        to in prop_oneof![Just(Version::Http10), Just(Version::Http11)],
    ) {
        let framing = match body {
            Body::Length(length) => format!("Content-Length: {length}\r\n"),
            Body::Chunked => "Transfer-Encoding: chunked\r\n".into(),
            _ => String::new(),
        };
        let sent = text(&format!("HTTP/1.1 {status} {reason}\r\n{framing}"), &fields);
        let mut storage = Storage::new();
        let asked = Asked::default();
        let parsed = parse_response(&sent, &asked, &mut HeadScan::default(), &Limits::default(), &mut storage);
        let (response, _) = parsed.expect("good").expect("whole");
        prop_assert_eq!(response.body, body);
        let mut out = Vec::new();
        let follows = write_response(&mut out, &response, &Answer { to, close: false });
        let mut storage = Storage::new();
        let parsed = parse_response(&out, &asked, &mut HeadScan::default(), &Limits::default(), &mut storage);
        let (again, _) = parsed.expect("we speak well").expect("whole");
        prop_assert_eq!((again.status, again.reason, again.body), (status, reason.as_bytes(), follows));
        prop_assert_eq!(again.keep_alive, to == Version::Http11);
        prop_assert_eq!(own(&again.fields), trimmed(&fields));
    }

    #[test]
    fn decoding_undoes_encoding(
        content in vec(any::<u8>(), 0..300),
        sizes in vec(1usize..40, 1..5),
        cuts in vec(any::<prop::sample::Index>(), 0..6),
        trailers in prop_oneof![Just(""), Just("X-Sum: 1\r\n"), Just("A: \r\nB: c\r\n")],
        rest in vec(any::<u8>(), 0..10),
    ) {
        let mut bytes = encoded(&content, &sizes, trailers.as_bytes());
        let length = bytes.len();
        bytes.extend_from_slice(&rest);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(length)).chain([0, bytes.len()]).collect();
        cuts.sort_unstable();
        let mut decoder = BodyDecoder::new(Body::Chunked, 0, &Limits::default());
        let mut got = Vec::new();
        let mut used = 0;
        'all: for piece in cuts.windows(2) {
            let mut bytes = &bytes[piece[0]..piece[1]];
            loop {
                match decoder.next(&mut bytes).expect("we speak well") {
                    Piece::Data(data) => got.extend_from_slice(data),
                    Piece::More => break,
                    Piece::End => {
                        used = piece[1] - bytes.len();
                        break 'all;
                    }
                }
            }
        }
        prop_assert_eq!((got, used), (content, length));
        prop_assert_eq!(decoder.trailers(), trailers.as_bytes());
    }

    #[test]
    fn a_normal_path_is_normal(path in "/([a-c./%25;\\\\]|%2[eEfF]|%5c|//|/\\.|/\\.\\.){0,12}") {
        let mut scratch = String::new();
        if let Ok(normal) = normalise_path(&path, &mut scratch) {
            prop_assert!(normal.starts_with('/') && !normal.contains("//"));
            prop_assert!(!normal.split('/').any(|segment| matches!(segment, "." | "..")));
            let mut scratch = String::new();
            prop_assert_eq!(normalise_path(normal, &mut scratch), Ok(normal));
        }
    }

    #[test]
    fn anything_at_all_is_an_answer_and_not_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        let limits = Limits { head: 100, fields: 5 };
        let mut storage = Storage::new();
        let _ = parse_request(&bytes, &mut HeadScan::default(), &limits, &mut storage);
        let _ = parse_response(&bytes, &Asked::default(), &mut HeadScan::default(), &limits, &mut storage);
        let _ = decoded(Body::Chunked, &bytes);
    }
}
