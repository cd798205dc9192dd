use super::*;

type Expected = Result<(&'static [u8], &'static [u8], usize), u16>;

/// Bodies in chunks: (why, bytes, content, trailers and how many bytes are left; or the status; 0 when cut short).
#[rustfmt::skip]
pub(super) const CHUNKED: &[(&str, &[u8], Expected)] = &[
    ("nothing", b"0\r\n\r\n", Ok((b"", b"", 0))),
    ("one chunk, and the next message", b"5\r\nhello\r\n0\r\n\r\nGET", Ok((b"hello", b"", 3))),
    ("two chunks, digits in any case, leading zeros", b"000A\r\n0123456789\r\na\r\n0123456789\r\n00\r\n\r\n", Ok((b"01234567890123456789", b"", 0))),
    ("CRLF in the data is data", b"4\r\n\r\n\r\n\r\n0\r\n\r\n", Ok((b"\r\n\r\n", b"", 0))),
    ("the end is missing", b"5\r\nhello\r\n", Err(0)),
    ("the end of the end is missing", b"0\r\n\r", Err(0)),
    ("12: no size", b"\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("12: no size, but an extension", b";a\r\n0\r\n\r\n", Err(400)),
    ("12: 0x", b"0x5\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("12: a plus", b"+5\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("12: a minus", b"-5\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("12: an underscore", b"1_0\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("12: a leading space", b" 5\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("12: a trailing space", b"5 \r\nhello\r\n0\r\n\r\n", Err(400)),
    ("12: a trailing tab", b"5\t\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("12: a space before the extension", b"5 ;a\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("12: no hexadecimal digit", b"g\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("12: the largest chunk", b"10000000000000\r\n", Err(0)),
    ("12: one byte more", b"10000000000001\r\n", Err(400)),
    ("12: one that wraps in 64 bits", b"10000000000000005\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("12: zeros without end", b"00000000000000005\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("13: LF behind the size", b"5\nhello\r\n0\r\n\r\n", Err(400)),
    ("13: CR and something behind the size", b"5\rXhello\r\n0\r\n\r\n", Err(400)),
    ("13: two CR behind the size", b"5\r\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("13: LF behind an extension", b"5;a\nhello\r\n0\r\n\r\n", Err(400)),
    ("13: CR in an extension", b"5;a\rb\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("13: CR in a quoted value", b"5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("13: LF in a quoted value", b"5;a=\"\n\"\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("13: the last line is an LF", b"0\r\n\n", Err(400)),
    ("13: the last line is CR and something", b"0\r\n\rX", Err(400)),
    ("14: extensions of every form", b"5;a;b=c ; d = \"e;\\\"f\\\\\x80\";\tg=h\r\nhello\r\n0;z\r\n\r\n", Ok((b"hello", b"", 0))),
    ("14: a bare semicolon", b"5;\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("14: two semicolons", b"5;;a\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("14: a semicolon behind", b"5;a;\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("14: no value behind =", b"5;a=\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("14: no name before =", b"5;=a\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("14: two values", b"5;a=b=c\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("14: quotes that do not end", b"5;a=\"b\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("14: something behind the quotes", b"5;a=\"b\"c\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("14: a quote in a token", b"5;a=b\"c\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("14: a NUL", b"5;a\0\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("14: a NUL in quotes", b"5;a=\"\0\"\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("14: an escaped control", b"5;a=\"\\\x01\"\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("14: white space at the end", b"5;a \r\nhello\r\n0\r\n\r\n", Err(400)),
    ("15: more data than it says", b"5\r\nhello!\r\n0\r\n\r\n", Err(400)),
    ("15: LF behind the data", b"5\r\nhello\n0\r\n\r\n", Err(400)),
    ("15: CR and something behind the data", b"5\r\nhello\rX0\r\n\r\n", Err(400)),
    ("15: nothing between two chunks", b"5\r\nhello5\r\nhello\r\n0\r\n\r\n", Err(400)),
    ("41: a trailer", b"0\r\nX-Sum: 1 \r\n\r\n", Ok((b"", b"X-Sum: 1\r\n", 0))),
    ("41: trailers that would change the message are dropped", b"0\r\nContent-Length: 5\r\ntransfer-encoding: chunked\r\nHost: b\r\nAuthorization: x\r\nConnection: close\r\nA: b\r\nCookie: c\r\nX-Forwarded-For: 1\r\nX_Forwarded_For: 1\r\nIf-Match: x\r\nSet-Cookie: y\r\nVia: 1.1 x\r\n\r\nrest", Ok((b"", b"A: b\r\n", 4))),
    ("41: an empty value", b"0\r\nA:\r\nB: \t\r\n\r\n", Ok((b"", b"A: \r\nB: \r\n", 0))),
    ("41: a trailer without a colon", b"0\r\nA\r\n\r\n", Err(400)),
    ("41: a trailer with a space before the colon", b"0\r\nA : b\r\n\r\n", Err(400)),
    ("41: a folded trailer", b"0\r\nA: b\r\n c\r\n\r\n", Err(400)),
    ("41: a folded line that could be a field", b"0\r\nA: b\r\n C: d\r\n\r\n", Err(400)),
    ("41: a trailer that ends in LF", b"0\r\nA: b\n\r\n", Err(400)),
    ("41: a NUL in a trailer", b"0\r\nA: \0\r\n\r\n", Err(400)),
    ("41: a CR in a trailer", b"0\r\nA: b\rc\r\n\r\n", Err(400)),
];

#[test]
fn chunks_are_read_strictly() {
    for (why, bytes, expected) in CHUNKED {
        let expected = expected.map(|(content, trailers, left)| (content.to_vec(), trailers.to_vec(), left));
        assert_eq!(decoded(Body::Chunked, bytes), expected, "{why}");
    }
}

#[test]
fn other_bodies_end_where_they_say() {
    assert_eq!(decoded(Body::None, b"GET"), Ok((b"".to_vec(), vec![], 3)));
    assert_eq!(decoded(Body::Length(0), b"GET"), Ok((b"".to_vec(), vec![], 3)));
    assert_eq!(decoded(Body::Length(5), b"helloGET"), Ok((b"hello".to_vec(), vec![], 3)), "42: so many bytes");
    assert_eq!(decoded(Body::Length(5), b"hell"), Err(0), "42: one byte short");
    assert_eq!(decoded(Body::ToClose, b"hello"), Ok((b"hello".to_vec(), vec![], 0)));
}

#[test]
fn extensions_and_trailers_are_bounded() {
    let extension = |bytes: usize| format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(bytes - 1));
    assert!(decoded(Body::Chunked, extension(1024).as_bytes()).is_ok(), "14: 1 KiB in all");
    assert_eq!(decoded(Body::Chunked, extension(1025).as_bytes()), Err(413), "14: and no byte more");
    let spread = "1;a\r\nx\r\n".repeat(513) + "0\r\n\r\n";
    assert_eq!(decoded(Body::Chunked, spread.as_bytes()), Err(413), "14: over all chunks");
    let trailers = |count: usize| format!("0\r\n{}\r\n", "A: b\r\n".repeat(count));
    assert!(decoded(Body::Chunked, trailers(100).as_bytes()).is_ok(), "41: as many as a head may have");
    assert_eq!(decoded(Body::Chunked, trailers(101).as_bytes()), Err(431), "41: and no more");
    let long = [b"0\r\nA: ".as_slice(), &vec![b'b'; 16 * 1024]].concat();
    assert_eq!(decoded(Body::Chunked, &long), Err(431), "41: nor longer, even before it ends");
}

#[test]
fn content_is_bounded() {
    let status = |body, bytes: &[u8]| {
        let mut decoder = BodyDecoder::new(body, 5, &Limits::default());
        let mut rest = bytes;
        loop {
            match decoder.next(&mut rest) {
                Ok(Piece::Data(_)) => {}
                Ok(_) => return 200,
                Err(bad) => return bad.status,
            }
        }
    };
    let cases: [(&str, Body, &[u8], u16); 6] = [
        ("a length that just fits", Body::Length(5), b"hello", 200),
        ("a length that does not, before a byte of it", Body::Length(6), b"", 413),
        ("chunks that just fit", Body::Chunked, b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", 200),
        ("a chunk that would not, before a byte of it", Body::Chunked, b"2\r\nhe\r\n4\r\n", 413),
        ("to the close, fitting", Body::ToClose, b"hello", 200),
        ("to the close, not fitting", Body::ToClose, b"hello!", 413),
    ];
    for (why, body, bytes, expected) in cases {
        assert_eq!(status(body, bytes), expected, "31: {why}");
    }
}

#[test]
fn content_that_went_another_way_counts() {
    let mut decoder = BodyDecoder::new(Body::Length(5), 0, &Limits::default());
    assert_eq!(decoder.run(), 5);
    decoder.advance(3);
    assert_eq!(decoder.next(&mut b"lo!".as_slice()), Ok(Piece::Data(b"lo")));
    assert!(decoder.is_end() && decoder.run() == 0);

    let mut decoder = BodyDecoder::new(Body::Chunked, 0, &Limits::default());
    assert_eq!(decoder.run(), 0, "a size comes first");
    assert_eq!(decoder.next(&mut b"5\r\n".as_slice()), Ok(Piece::More));
    assert_eq!(decoder.run(), 5);
    decoder.advance(5);
    assert_eq!(decoder.run(), 0, "the end of a chunk comes next");
    assert_eq!(decoder.next(&mut b"\r\n0\r\n\r\n".as_slice()), Ok(Piece::End));
    assert!(decoder.is_end() && decoder.ended().is_ok());

    let mut decoder = BodyDecoder::new(Body::ToClose, 0, &Limits::default());
    assert_eq!(decoder.run(), u64::MAX);
    decoder.advance(7);
    assert!(!decoder.is_end());
    assert_eq!(decoder.ended(), Ok(()));
    assert_eq!(decoder.next(&mut b"".as_slice()), Ok(Piece::End));
}
