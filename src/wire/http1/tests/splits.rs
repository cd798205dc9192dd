//! However the bytes are split over reads, the outcome is one and the same.

use super::*;

/// Feeds `head` in pieces that end at `cuts` and says what came of it, and after how many bytes.
fn in_pieces(head: &[u8], cuts: impl Iterator<Item = usize>) -> Result<Option<Seen>, Bad> {
    let mut scan = HeadScan::default();
    for cut in cuts.chain([head.len()]) {
        match seen(&head[..cut], &Limits::default(), &mut scan) {
            Ok(None) => {}
            done => return done,
        }
    }
    Ok(None)
}

#[test]
fn a_request_may_be_cut_anywhere() {
    for (why, head, expected) in requests::accepted() {
        for cut in 0..head.len() {
            assert_eq!(in_pieces(head, [cut].into_iter()), Ok(Some(expected.clone())), "{why}, cut at {cut}");
            assert_eq!(seen(&head[..cut], &Limits::default(), &mut HeadScan::default()), Ok(None), "{why}, only {cut}");
        }
        assert_eq!(in_pieces(head, 0..head.len()), Ok(Some(expected.clone())), "{why}, byte by byte");
        let followed = [head, b"GET / HTTP/1.1\r\n\n\0"].concat();
        let seen = seen(&followed, &Limits::default(), &mut HeadScan::default());
        assert_eq!(seen, Ok(Some(expected)), "{why}: what follows has no say");
    }
}

#[test]
fn a_refusal_may_be_cut_anywhere() {
    for (why, head, status) in requests::REFUSED {
        let whole = in_pieces(head, std::iter::empty());
        assert_eq!(whole.as_ref().map_err(|bad| bad.status), Err(*status), "{why}");
        for cut in 0..head.len() {
            assert_eq!(in_pieces(head, [cut].into_iter()), whole, "{why}, cut at {cut}");
        }
        assert_eq!(in_pieces(head, 0..head.len()), whole, "{why}, byte by byte");
    }
}

#[test]
fn bounds_do_not_depend_on_cuts() {
    let limits = Limits { head: 60, fields: 2 };
    let outcome = |head: &[u8], cuts: &mut dyn Iterator<Item = usize>| {
        let mut scan = HeadScan::default();
        for cut in cuts.chain([head.len()]) {
            match scan.request(&head[..cut], &limits) {
                Ok(None) => {}
                done => return done,
            }
        }
        Ok(None)
    };
    for length in 50..70 {
        for base in ["GET / HTTP/1.1\r\nHost: a\r\nX: ", "GET /", "GET / HTTP/1.1\r\nA:\r\nB:\r\nC: "] {
            let mut head = base.as_bytes().to_vec();
            head.resize(length - 4, b'x');
            head.extend_from_slice(b"\r\n\r\n");
            let whole = outcome(&head, &mut std::iter::empty());
            assert_eq!(outcome(&head, &mut (0..head.len())), whole, "{base:?} of {length}, byte by byte");
            for cut in 0..head.len() {
                assert_eq!(outcome(&head, &mut [cut].into_iter()), whole, "{base:?} of {length}, cut at {cut}");
            }
        }
    }
}

#[test]
fn a_response_may_be_cut_anywhere() {
    let told = |head: &[u8], asked: &Asked<'_>, scan: &mut HeadScan| {
        let mut storage = Storage::new();
        let parsed = parse_response(head, asked, scan, &Limits::default(), &mut storage)?;
        Ok(parsed.map(|(response, length)| {
            (
                response.status,
                response.reason.to_vec(),
                response.body,
                response.keep_alive,
                response.fields.len(),
                length,
            )
        }))
    };
    let accepted = responses::ACCEPTED.iter().map(|(why, asked, head, _)| (why, asked, head));
    let refused = responses::REFUSED.iter().map(|(why, asked, head)| (why, asked, head));
    for (why, asked, head) in accepted.chain(refused) {
        let whole: Result<_, BadResponse> = told(head, asked, &mut HeadScan::default());
        let mut scan = HeadScan::default();
        let bytewise = (0..=head.len()).map(|cut| told(&head[..cut], asked, &mut scan)).find(|told| *told != Ok(None));
        assert_eq!(bytewise, Some(whole.clone()), "{why}, byte by byte");
        for cut in 0..head.len() {
            let mut scan = HeadScan::default();
            let first = told(&head[..cut], asked, &mut scan);
            let then = if first == Ok(None) { told(head, asked, &mut scan) } else { first };
            assert_eq!(then, whole, "{why}, cut at {cut}");
        }
    }
}

/// What comes of a body that arrives in these pieces: content, trailers and the bytes left, or the status.
fn body_in_pieces(body: Body, pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>, usize), u16> {
    let mut decoder = BodyDecoder::new(body, 0, &Limits::default());
    let mut content = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let mut rest = *piece;
        loop {
            match decoder.next(&mut rest).map_err(|bad| bad.status)? {
                Piece::Data(data) => content.extend_from_slice(data),
                Piece::More => break,
                Piece::End => {
                    let left = rest.len() + pieces[at + 1..].iter().map(|piece| piece.len()).sum::<usize>();
                    return Ok((content, decoder.trailers().to_vec(), left));
                }
            }
        }
        assert!(rest.is_empty(), "More means that all is used up");
    }
    decoder.ended().map_err(|_| 0u16)?;
    Ok((content, decoder.trailers().to_vec(), 0))
}

#[test]
fn a_body_may_be_cut_anywhere() {
    let chunked = bodies::CHUNKED.iter().map(|(why, bytes, _)| (*why, Body::Chunked, *bytes));
    let others = [("a length", Body::Length(5), b"helloGET".as_slice()), ("to the close", Body::ToClose, b"hello")];
    for (why, body, bytes) in chunked.chain(others) {
        let whole = body_in_pieces(body, &[bytes]);
        assert_eq!(decoded(body, bytes), whole, "{why}");
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(body_in_pieces(body, &single), whole, "{why}, byte by byte");
        for first in 0..bytes.len() {
            for second in first..bytes.len() {
                let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(body_in_pieces(body, &pieces), whole, "{why}, cut at {first} and {second}");
            }
        }
    }
}

#[test]
fn a_slow_head_costs_no_more_than_a_fast_one() {
    // The search goes on where it ended: what was looked at may be anything by now.
    let mut scan = HeadScan::default();
    assert_eq!(scan.request(b"GET / HTTP/1.1\r\nHost: a", &Limits::default()), Ok(None));
    assert_eq!(scan.request(b"######################b\r\n\r\n", &Limits::default()), Ok(Some(27)));
}
