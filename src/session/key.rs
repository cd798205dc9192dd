//! What hashing goes by: the key of a client, or of a request.

use crate::balance::{Key, key_of};
use crate::shared::snapshot::{HashKey, Pool};
use crate::wire::http1::Request;
use std::net::IpAddr;

/// The key of a client's address.
pub(super) fn of_client(address: IpAddr) -> Key {
    match address.to_canonical() {
        IpAddr::V4(ip) => key_of(&ip.octets()),
        IpAddr::V6(ip) => key_of(&ip.octets()),
    }
}

/// The key of a request in `pool`: what the pool hashes by, and the client's address where the request has no such thing,
/// so that those clients are spread, too. `path` is the normal form of the request's path.
pub(super) fn of_request(pool: &Pool, request: &Request<'_>, path: &str, client: impl FnOnce() -> IpAddr) -> Key {
    let found = match &pool.hash_key {
        HashKey::ClientIp => None,
        HashKey::Path => Some(key_of(path.as_bytes())),
        HashKey::Uri => Some(match request.target.query {
            None => key_of(path.as_bytes()),
            // Two keys in one: no copy of the two strings behind each other.
            Some(query) => Key(key_of(path.as_bytes()).0.rotate_left(1) ^ key_of(query.as_bytes()).0),
        }),
        HashKey::Header(name) => {
            request.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| key_of(value))
        }
        HashKey::Cookie(name) => {
            let cookies = request.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case("cookie"));
            cookies.flat_map(|(_, value)| value.split(|byte| *byte == b';')).find_map(|pair| {
                let pair = pair.trim_ascii();
                let at = pair.iter().position(|byte| *byte == b'=')?;
                (&pair[..at] == name.as_bytes()).then(|| key_of(&pair[at + 1..]))
            })
        }
    };
    found.unwrap_or_else(|| of_client(client()))
}
