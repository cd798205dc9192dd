//! What a listener needs for HTTP: its limits, and the routes from requests to pools.

use std::time::Duration;

use super::host::HostMatch;

/// The limits of a listener that speaks HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// From accept, or the first byte of a request, to the end of its head. With `accept_proxy` it bounds the wait for
    /// the PROXY header too, whatever the protocol.
    pub header_timeout: Duration,
    /// How long a request's body may not move.
    pub body_timeout: Duration,
    /// From a request's head to its response's end; `None` means no limit.
    pub request_timeout: Option<Duration>,
    /// How long an upgraded connection may be without a byte either way.
    pub tunnel_timeout: Duration,
    /// The largest head of a request, in bytes; 1 KiB to 48 KiB.
    pub max_header_size: usize,
    /// The largest body of a request, in bytes; `None` means no limit.
    pub max_body_size: Option<u64>,
}

impl Default for Http {
    fn default() -> Self {
        Http {
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            request_timeout: None,
            tunnel_timeout: Duration::from_secs(3600),
            max_header_size: 16 * 1024,
            max_body_size: None,
        }
    }
}

/// `[[listener.route]]`: takes the requests that meet every condition given; one without any takes all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The host asked for.
    pub host: Option<HostMatch>,
    /// The whole path, which begins with `/`; ASCII, as it stands in a request, and without `.` and `..` parts.
    pub path: Option<String>,
    /// Whole parts that the path begins with, in the same form: `/v1` takes `/v1` and `/v1/x`, not `/v1x`; `/v1/` takes
    /// `/v1/x` alone, and `/` every path.
    pub path_prefix: Option<String>,
    /// Tokens, compared letter by letter; each once. None means any method.
    pub methods: Vec<String>,
    /// The name of a header in lower case, and its value where one is asked for, to compare letter by letter.
    pub header: Option<(String, Option<String>)>,
    /// Where the request goes: an index into [`super::Config::pools`].
    pub pool: usize,
}
