//! Prints the heads that go on, built from the parsed form: no field that frames a message, or is meant for one hop
//! only, passes through (RFC 9110, section 7.6).

use std::net::IpAddr;

use super::encode::{append, field, number, number_field, status};
use super::fields::{Fields, Kind};
use super::{Body, NAME, Request, Response, Version};

/// What a backend is told about the way a request came, and about the connection it comes on.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// Who sent us the request; behind `accept_proxy` the address that the header tells.
    pub peer: IpAddr,
    /// How: `http` or `https`.
    pub proto: &'a str,
    /// Whether the peer is one of `trusted_proxies`: what it says about the way before it is kept and added to.
    pub trusted: bool,
    /// For `Host` when an HTTP/1.0 client told none: the backend's address, say.
    pub default_host: &'a str,
    /// Whether the backend's connection is to end after the response.
    pub close: bool,
    /// Whether the protocol the client wants to change to is asked for.
    pub upgrade: bool,
}

/// Appends the head of `request` as it goes to a backend, in HTTP/1.1. The body follows as [`Request::body`] says.
pub fn write_request(out: &mut Vec<u8>, request: &Request<'_>, forward: &Forward<'_>) {
    request_line(out, request);
    let host = if request.host.is_empty() { forward.default_host } else { request.host };
    field(out, "Host", host.as_bytes());
    let mut proto_told = false;
    let mut host_told = false;
    for (kind, name, value) in request.fields.kinds() {
        match kind {
            Kind::XForwardedProto if forward.trusted => proto_told = true,
            Kind::XForwardedHost if forward.trusted => host_told = true,
            Kind::XForwardedRest | Kind::XRealIp if forward.trusted => {}
            Kind::Trailer if request.body == Body::Chunked => {}
            Kind::Other | Kind::Authorization | Kind::Cookie => {}
            _ => continue,
        }
        if !(request.nominates && request.fields.nominated(kind, name)) {
            field(out, name, value);
        }
    }
    framing(out, request.body);
    if request.expects_continue {
        field(out, "Expect", b"100-continue");
    }
    forwarded(out, request, forward, proto_told, host_told);
    via(out, &request.fields, request.version);
    let upgrade = request.upgrade.filter(|_| forward.upgrade);
    connection(out, forward.close, request.te_trailers, upgrade);
    out.extend_from_slice(b"\r\n");
}

fn request_line(out: &mut Vec<u8>, request: &Request<'_>) {
    out.extend_from_slice(request.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(request.target.path.as_bytes());
    if let Some(query) = request.target.query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

fn forwarded(out: &mut Vec<u8>, request: &Request<'_>, forward: &Forward<'_>, proto_told: bool, host_told: bool) {
    let peer = forward.peer.to_canonical();
    out.extend_from_slice(b"X-Forwarded-For: ");
    if forward.trusted {
        before(out, &request.fields, Kind::XForwardedFor);
    }
    address(out, peer);
    out.extend_from_slice(b"\r\n");
    if !proto_told {
        field(out, "X-Forwarded-Proto", forward.proto.as_bytes());
    }
    if !host_told && !request.host.is_empty() {
        field(out, "X-Forwarded-Host", request.host.as_bytes());
    }
    // Not begun by us, but one that a trusted proxy began would be wrong without our hop (RFC 7239, section 4).
    if forward.trusted && request.fields.has(Kind::Forwarded) {
        out.extend_from_slice(b"Forwarded: ");
        before(out, &request.fields, Kind::Forwarded);
        match peer {
            IpAddr::V4(peer) => append(out, format_args!("for={peer};proto={}", forward.proto)),
            IpAddr::V6(peer) => append(out, format_args!("for=\"[{peer}]\";proto={}", forward.proto)),
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        // Every request has one, and `fmt` takes its time.
        IpAddr::V4(address) => {
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                number(out, octet.into());
            }
        }
        IpAddr::V6(address) => append(out, address),
    }
}

fn via(out: &mut Vec<u8>, fields: &Fields<'_>, received: Version) {
    out.extend_from_slice(b"Via: ");
    before(out, fields, Kind::Via);
    out.extend_from_slice(if received == Version::Http10 { b"1.0 " } else { b"1.1 " });
    out.extend_from_slice(NAME.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The values that are there already, as the beginning of one list: some readers look at the first line only.
fn before(out: &mut Vec<u8>, fields: &Fields<'_>, kind: Kind) {
    for value in fields.of(kind).filter(|value| !value.is_empty()) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
}

fn framing(out: &mut Vec<u8>, body: Body) {
    match body {
        Body::None | Body::ToClose => {}
        Body::Length(length) => number_field(out, "Content-Length", length),
        Body::Chunked => field(out, "Transfer-Encoding", b"chunked"),
    }
}

fn connection(out: &mut Vec<u8>, close: bool, te_trailers: bool, upgrade: Option<&str>) {
    if te_trailers {
        field(out, "TE", b"trailers");
    }
    if let Some(protocol) = upgrade {
        field(out, "Upgrade", protocol.as_bytes());
    }
    let options: &[u8] = match (close, upgrade.is_some(), te_trailers) {
        (_, true, true) => b"upgrade, TE",
        (_, true, false) => b"upgrade",
        (true, false, true) => b"close, TE",
        (true, false, false) => b"close",
        (false, false, true) => b"TE",
        (false, false, false) => return,
    };
    field(out, "Connection", options);
}

/// How a response goes to a client.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// What the client speaks.
    pub to: Version,
    /// Whether the client's connection ends after this response. With an HTTP/1.0 client it does in any case.
    pub close: bool,
}

/// Appends the head of `response` as it goes to a client, in HTTP/1.1 (RFC 9110, section 2.5), and says how the body
/// has to follow: `ToClose` means that the client's connection ends the body.
///
/// An interim response must not go to an HTTP/1.0 client at all.
pub fn write_response(out: &mut Vec<u8>, response: &Response<'_>, answer: &Answer) -> Body {
    let body = match (response.body, answer.to) {
        (Body::Chunked | Body::ToClose, Version::Http11) => Body::Chunked,
        (Body::Chunked | Body::ToClose, Version::Http10) => Body::ToClose,
        (body, _) => body,
    };
    status(out, response.status);
    out.extend_from_slice(response.reason);
    out.extend_from_slice(b"\r\n");
    for (kind, name, value) in response.fields.kinds() {
        let passes = match kind {
            Kind::Connection
            | Kind::ContentLength
            | Kind::KeepAlive
            | Kind::ProxyConnection
            | Kind::Te
            | Kind::TransferEncoding
            | Kind::Upgrade
            | Kind::Via => false,
            Kind::Trailer => response.body == Body::Chunked && body == Body::Chunked,
            _ => true,
        };
        if passes && !(response.nominates && response.fields.nominated(kind, name)) {
            field(out, name, value);
        }
    }
    match response.length {
        Some(length) => number_field(out, "Content-Length", length),
        None => framing(out, body),
    }
    via(out, &response.fields, response.version);
    if response.upgrade.is_some() {
        connection(out, false, false, response.upgrade);
    } else if response.status >= 200 {
        connection(out, answer.close || answer.to == Version::Http10, false, None);
    }
    out.extend_from_slice(b"\r\n");
    body
}
