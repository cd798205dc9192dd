//! Addresses as tables: what is typed, and what comes of it.

use super::*;

fn name(host: &str, port: u16) -> Address {
    Address::Name { host: host.to_owned(), port }
}

#[test]
fn addresses_are_read_as_typed() {
    let ip = |text: &str| Address::Ip(text.parse().expect("a literal"));
    let cases = [
        ("IPv4", "127.0.0.1:80", ip("127.0.0.1:80")),
        ("IPv6 in brackets", "[::1]:80", ip("[::1]:80")),
        ("an interface by its number", "[fe80::1%2]:80", ip("[fe80::1%2]:80")),
        ("the system chooses the port", "127.0.0.1:0", ip("127.0.0.1:0")),
        ("zeros before a port change nothing", "127.0.0.1:00080", ip("127.0.0.1:80")),
        ("a name", "localhost:80", name("localhost", 80)),
        ("the root's dot is kept as typed", "db.example.:5432", name("db.example.", 5432)),
        ("containers have such names", "my_db-1:5432", name("my_db-1", 5432)),
        ("digits in a name", "4you.example:65535", name("4you.example", 65535)),
    ];
    for (why, text, expected) in cases {
        assert_eq!(text.parse(), Ok(expected), "{why}: {text}");
    }
}

#[test]
fn what_is_no_address_says_what_to_write() {
    let cases = [
        ("no port", "127.0.0.1", "has no port; write \"127.0.0.1:80\""),
        ("a name without a port", "example.com", "has no port; write \"example.com:80\""),
        ("a port alone, as nginx takes it", "8080", "has no host; write \"0.0.0.0:8080\""),
        ("an empty host, as haproxy takes it", ":8080", "has no host; write \"0.0.0.0:8080\""),
        ("a star", "*:8080", "has no host; write \"0.0.0.0:8080\""),
        ("a port too large", "127.0.0.1:65536", "no number from 0 to 65535"),
        ("a port with a sign", "127.0.0.1:+80", "no number from 0 to 65535"),
        ("an empty port", "127.0.0.1:", "no number from 0 to 65535"),
        ("an empty port behind brackets", "[::1]:", "no number from 0 to 65535"),
        ("IPv6 that could hide a port", "::1:80", "without brackets"),
        ("IPv6 and no port", "2001:db8::1", "without brackets"),
        ("brackets and no port", "[::1]", "has no port; write \"[::1]:80\""),
        ("a bracket that does not close", "[::1:80", "no IPv6 address in its brackets"),
        ("IPv4 in brackets", "[127.0.0.1]:80", "no IPv6 address in its brackets"),
        ("an interface by its name", "[fe80::1%eth0]:80", "no IPv6 address in its brackets"),
        ("a number too large", "256.0.0.1:80", "no IPv4 address"),
        ("three numbers", "127.0.1:80", "no IPv4 address"),
        ("a leading zero, octal to some", "127.0.0.010:80", "no IPv4 address"),
        ("a URL", "http://example.com:80", "a URL or a path"),
        ("a socket's path", "/run/db.sock", "a URL or a path"),
        ("a blank before", " 127.0.0.1:80", "no host name"),
        ("a label that ends in a hyphen", "a-.example:80", "begins or ends with \"-\""),
        ("two dots", "a..b:80", "between dots is empty"),
        ("only a dot", ".:80", "it is empty"),
        ("not ASCII", "größe.example:80", "xn--"),
        ("nothing", "", "it is empty"),
    ];
    for (why, text, expected) in cases {
        let told = text.parse::<Address>().map_err(|error| error.to_string());
        assert!(told.as_ref().is_err_and(|told| told.contains(expected)), "{why}: {told:?}");
    }
    let long = format!("{}:80", vec!["a".repeat(60); 5].join("."));
    assert!(matches!(long.parse::<Address>(), Err(AddressError::BadName { .. })));
}

#[test]
fn a_backend_is_a_place_to_connect_to() {
    assert!(matches!(Address::backend("a:0"), Err(AddressError::PortZero { .. })));
    for every in ["0.0.0.0:80", "[::]:80", "[::ffff:0.0.0.0]:80"] {
        let told = Address::backend(every);
        assert!(matches!(told, Err(AddressError::Unspecified { .. })), "{every}: {told:?}");
    }
    assert!(Address::backend("127.0.0.1:1").is_ok());
}

#[test]
fn two_binds_clash_when_one_socket_would_take_what_the_other_wants() {
    let cases = [
        ("the same", "127.0.0.1:80", "127.0.0.1:80", true),
        ("another port", "127.0.0.1:80", "127.0.0.1:81", false),
        ("another address", "127.0.0.1:80", "127.0.0.2:80", false),
        ("every IPv4 address", "0.0.0.0:80", "192.0.2.1:80", true),
        ("every IPv6 address", "[::]:80", "[::1]:80", true),
        ("the usual pair", "0.0.0.0:80", "[::]:80", false),
        ("mapped is IPv4", "0.0.0.0:80", "[::ffff:192.0.2.1]:80", true),
        ("the system chooses twice", "127.0.0.1:0", "127.0.0.1:0", false),
        ("names are the same in any case", "a.example:80", "A.example.:80", true),
        ("other names are not known", "a.example:80", "b.example:80", false),
        ("localhost is the loopback", "localhost:80", "127.0.0.1:80", true),
        ("localhost and every address", "localhost:80", "[::]:80", true),
        ("another loopback address", "localhost:80", "127.0.0.2:80", false),
    ];
    for (why, a, b, expected) in cases {
        let [a, b]: [Address; 2] = [a, b].map(|text| text.parse().expect("an address"));
        assert_eq!(a.clashes(&b), expected, "{why}");
        assert_eq!(b.clashes(&a), expected, "{why}, the other way");
    }
}

#[test]
fn a_backend_reaches_our_listener_when_the_text_says_so() {
    let cases = [
        ("the same", "192.0.2.1:80", "192.0.2.1:80", true),
        ("every address, over the loopback", "127.0.0.1:80", "0.0.0.0:80", true),
        ("all of 127.0.0.0/8 is loopback", "127.9.9.9:80", "0.0.0.0:80", true),
        ("IPv6 does not reach IPv4", "[::1]:80", "0.0.0.0:80", false),
        ("[::] takes IPv4 too", "127.0.0.1:80", "[::]:80", true),
        ("[::] over ::1", "[::1]:80", "[::]:80", true),
        ("mapped is IPv4", "[::ffff:127.0.0.1]:80", "127.0.0.1:80", true),
        ("of this machine", "192.0.2.7:80", "0.0.0.0:80", true),
        ("of this machine, another port", "192.0.2.7:80", "0.0.0.0:81", false),
        ("another machine's", "192.0.2.1:80", "0.0.0.0:80", false),
        ("localhost over every address", "localhost:80", "0.0.0.0:80", true),
        ("localhost over ::1", "localhost:80", "[::1]:80", true),
        ("a bind by name", "127.0.0.1:80", "localhost:80", true),
        ("the same name", "LB.example:80", "lb.example.:80", true),
        ("another port", "127.0.0.1:80", "127.0.0.1:81", false),
        ("a port that the system chooses", "127.0.0.1:80", "127.0.0.1:0", false),
    ];
    let own = ["192.0.2.7".parse().expect("an address")];
    for (why, backend, bind, expected) in cases {
        let [backend, bind]: [Address; 2] = [backend, bind].map(|text| text.parse().expect("an address"));
        assert_eq!(backend.reaches(&bind, false, &own), expected, "{why}");
    }
}
