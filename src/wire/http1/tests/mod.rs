//! The list that the codec is built by, row by row: the number at the head of a sentence is the row.

mod bodies;
mod paths;
mod properties;
mod requests;
mod responses;
mod splits;
mod writes;

use super::*;

/// A request as far as a table wants to see it.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    method: String,
    path: String,
    query: Option<String>,
    host: String,
    body: Body,
    keep_alive: bool,
    expects_continue: bool,
    upgrade: Option<String>,
    te_trailers: bool,
    length: usize,
}

fn seen(bytes: &[u8], limits: &Limits, scan: &mut HeadScan) -> Result<Option<Seen>, Bad> {
    let mut storage = Storage::new();
    let parsed = parse_request(bytes, scan, limits, &mut storage)?;
    Ok(parsed.map(|(request, length)| Seen {
        method: request.method.into(),
        path: request.target.path.into(),
        query: request.target.query.map(Into::into),
        host: request.host.into(),
        body: request.body,
        keep_alive: request.keep_alive,
        expects_continue: request.expects_continue,
        upgrade: request.upgrade.map(Into::into),
        te_trailers: request.te_trailers,
        length,
    }))
}

/// The whole head at once. A head that is not complete is a mistake in the table.
fn parsed(bytes: impl AsRef<[u8]>) -> Result<Seen, u16> {
    let seen = seen(bytes.as_ref(), &Limits::default(), &mut HeadScan::default());
    seen.map(|seen| seen.expect("a whole head")).map_err(|bad| bad.status)
}

/// Content and trailers of a whole body, and what is left behind it.
fn decoded(body: Body, bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>, usize), u16> {
    let mut decoder = BodyDecoder::new(body, 0, &Limits::default());
    let mut rest = bytes;
    let mut content = Vec::new();
    loop {
        match decoder.next(&mut rest).map_err(|bad| bad.status)? {
            Piece::Data(data) => content.extend_from_slice(data),
            Piece::End => return Ok((content, decoder.trailers().to_vec(), rest.len())),
            Piece::More => {
                decoder.ended().map_err(|_| 0u16)?;
                return Ok((content, Vec::new(), 0));
            }
        }
    }
}
