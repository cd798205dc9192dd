//! Prints the answers that l4lb makes itself.

use super::encode::{field, number_field, status};

/// The head of an answer of our own, and no more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Own<'a> {
    /// 100 to 999.
    pub status: u16,
    /// Whether the connection ends after it.
    pub close: bool,
    /// `Date` as RFC 9110, section 5.6.7, has it; whoever has a clock sends one.
    pub date: Option<&'a str>,
    /// `Content-Type`.
    pub content_type: Option<&'a str>,
    /// `Content-Length`; without one the caller says in `fields` how the body ends.
    pub length: Option<u64>,
    /// Any more, in this order.
    pub fields: &'a [(&'a str, &'a str)],
}

/// Appends the head of an answer of our own.
pub fn write_own(out: &mut Vec<u8>, own: &Own<'_>) {
    status(out, own.status);
    out.extend_from_slice(phrase(own.status).as_bytes());
    out.extend_from_slice(b"\r\n");
    if let Some(date) = own.date {
        field(out, "Date", date.as_bytes());
    }
    if let Some(content_type) = own.content_type {
        field(out, "Content-Type", content_type.as_bytes());
    }
    if let Some(length) = own.length {
        number_field(out, "Content-Length", length);
    }
    for (name, value) in own.fields {
        field(out, name, value.as_bytes());
    }
    if own.close {
        field(out, "Connection", b"close");
    }
    out.extend_from_slice(b"\r\n");
}

/// An error that l4lb itself answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Failure<'a> {
    /// 400 to 599.
    pub status: u16,
    /// One clause that says what is wrong, without naming a backend; may be empty.
    pub why: &'a str,
    /// Whether the connection ends after it.
    pub close: bool,
    /// Whether the request was `HEAD`: then the body is described and not sent.
    pub head: bool,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
    /// As `application/problem+json` (RFC 9457) in place of `text/plain`.
    pub json: bool,
    /// As [`Own::date`].
    pub date: Option<&'a str>,
}

/// Appends a whole error answer.
pub fn write_error(out: &mut Vec<u8>, failure: &Failure<'_>) {
    let (status, title) = (failure.status, phrase(failure.status));
    let body = if failure.json {
        let detail = if failure.why.is_empty() { title } else { failure.why };
        serde_json::json!({ "type": "about:blank", "title": title, "status": status, "detail": detail }).to_string()
    } else if failure.why.is_empty() {
        format!("{status} {title}\n")
    } else {
        format!("{status} {title}: {}\n", failure.why)
    };
    let retry_after = failure.retry_after.map(|seconds| seconds.to_string());
    let fields = retry_after.as_deref().map(|seconds| ("Retry-After", seconds));
    let own = Own {
        status,
        close: failure.close,
        date: failure.date,
        content_type: Some(if failure.json { "application/problem+json" } else { "text/plain; charset=utf-8" }),
        length: Some(body.len() as u64),
        fields: fields.as_slice(),
    };
    write_own(out, &own);
    if !failure.head {
        out.extend_from_slice(body.as_bytes());
    }
}

/// The reason phrase of a status that l4lb sends (RFC 9110, section 15); of another, its class.
pub fn phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => class(status),
    }
}

fn class(status: u16) -> &'static str {
    match status {
        0..=199 => "Informational",
        200..=299 => "Success",
        300..=399 => "Redirection",
        400..=499 => "Client Error",
        _ => "Server Error",
    }
}
