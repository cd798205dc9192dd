use super::*;
use proptest::prelude::*;

const PEER: &str = "198.51.100.1:4";

/// Source and destination.
type Ends = Option<(SocketAddr, SocketAddr)>;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ends(source: &str, destination: &str) -> Ends {
    Some((addr(source), addr(destination)))
}

/// Decodes a header that came byte by byte, and holds that no beginning of it was judged differently.
fn by_bytes(bytes: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    let mut last = Ok(None);
    for end in 0..=bytes.len() {
        let now = decode(&bytes[..end]);
        if last != Ok(None) {
            assert_eq!(now, last, "byte {end} of {:?} changed what was certain", bytes.escape_ascii().to_string());
        }
        last = now;
    }
    last
}

/// How many bytes it takes to know that they are no header.
fn refused_at(bytes: &[u8]) -> Option<usize> {
    (0..=bytes.len()).find(|&end| decode(&bytes[..end]).is_err())
}

fn v2(command: u8, family: u8, length: u16, body: &[u8]) -> Vec<u8> {
    [v2::SIGNATURE, &[command, family], &length.to_be_bytes(), body].concat()
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

const FULL_IPV6: &str = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";

#[test]
fn version_1_follows_section_2_1() {
    let longest = format!("TCP6 {FULL_IPV6} {FULL_IPV6} 65535 65535");
    let full = ends(&format!("[{FULL_IPV6}]:65535"), &format!("[{FULL_IPV6}]:65535"));
    let long_unknown = format!("UNKNOWN {FULL_IPV6} {FULL_IPV6} 65535 65535");
    let cases: [(&str, &str, Ends); 13] = [
        ("IPv4", "TCP4 192.0.2.1 192.0.2.2 56324 443", ends("192.0.2.1:56324", "192.0.2.2:443")),
        ("the longest IPv4", "TCP4 255.255.255.255 255.255.255.255 65535 65535", {
            ends("255.255.255.255:65535", "255.255.255.255:65535")
        }),
        ("the smallest numbers", "TCP4 0.0.0.0 0.0.0.0 0 0", ends("0.0.0.0:0", "0.0.0.0:0")),
        ("IPv6", "TCP6 2001:db8::1 ::1 1 2", ends("[2001:db8::1]:1", "[::1]:2")),
        ("either case", "TCP6 2001:DB8::a ::F 1 2", ends("[2001:db8::a]:1", "[::f]:2")),
        ("four digits a group, zeros leading", "TCP6 2001:0db8::0001 :: 1 2", ends("[2001:db8::1]:1", "[::]:2")),
        ("nothing but zeros", "TCP6 :: 0:0:0:0:0:0:0:0 1 2", ends("[::]:1", "[::]:2")),
        (
            "mapped as HAProxy writes it: IPv4",
            "TCP6 ::ffff:127.0.0.1 ::ffff:7f00:2 1 2",
            ends("127.0.0.1:1", "127.0.0.2:2"),
        ),
        ("the longest IPv6", &longest, full),
        ("UNKNOWN alone", "UNKNOWN", None),
        ("UNKNOWN and addresses, which are ignored: 107 bytes", &long_unknown, None),
        ("UNKNOWN and a space", "UNKNOWN ", None),
        ("UNKNOWN and anything but a line end", "UNKNOWN \0 \u{e9}  PROXY", None),
    ];
    for (why, line, expected) in cases {
        let bytes = format!("PROXY {line}\r\n");
        let header = Header::new(Version::V1, expected);
        assert_eq!(by_bytes(bytes.as_bytes()), Ok(Some((header, bytes.len()))), "{why}");
        let followed = format!("{bytes}\r\nPROXY");
        assert_eq!(decode(followed.as_bytes()), Ok(Some((header, bytes.len()))), "{why}: what follows is not ours");
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes.as_bytes()[..end]), Ok(None), "{why}: {end} bytes can still become it");
        }
        assert_eq!(header.client(addr(PEER)), expected.map_or(addr(PEER), |(source, _)| source), "{why}");
    }
}

/// `^` stands before the byte that makes it certain.
#[test]
fn version_1_is_refused_at_the_first_wrong_byte() {
    let long_zeros = format!("PROXY UNKNOWN {}^x", "0".repeat(91));
    let no_room_for_lf = format!("PROXY UNKNOWN {}^x\r\n", "0".repeat(91));
    let dotted = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255";
    let too_long = format!("PROXY TCP6 {dotted} {dotted} 12^ 1\r\n");
    let cases = [
        ("a request instead", "^GET / HTTP/1.1\r\n", ProxyError::NotProxy),
        ("a request that begins alike", "P^OST / HTTP/1.1\r\n", ProxyError::NotProxy),
        ("lower case", "^proxy TCP4", ProxyError::NotProxy),
        ("TLS", "^\x16\x03\x01", ProxyError::NotProxy),
        ("a tab", "PROXY^\tTCP4", ProxyError::NotProxy),
        ("two spaces before the protocol", "PROXY ^ TCP4", ProxyError::Protocol),
        ("lower case protocol", "PROXY ^tcp4", ProxyError::Protocol),
        ("UDP is not in version 1", "PROXY U^DP4", ProxyError::Protocol),
        ("TCP5", "PROXY TCP^5", ProxyError::Protocol),
        ("TCP46", "PROXY TCP4^6", ProxyError::Protocol),
        ("UNKNOWNS", "PROXY UNKNOWN^S", ProxyError::Protocol),
        ("nothing named", "PROXY ^\r\n", ProxyError::Protocol),
        ("part of a name", "PROXY TCP^\r\n", ProxyError::Protocol),
        ("no addresses", "PROXY TCP4^\r\n", ProxyError::Address),
        ("two spaces before an address", "PROXY TCP4 ^ 1.2.3.4", ProxyError::Address),
        ("IPv6 where IPv4 belongs", "PROXY TCP4 ^::1", ProxyError::Address),
        ("IPv6 with digits where IPv4 belongs", "PROXY TCP4 1^:", ProxyError::Address),
        ("IPv4 where IPv6 belongs", "PROXY TCP6 1^.2.3.4", ProxyError::Address),
        ("a leading zero", "PROXY TCP4 0^1.2.3.4", ProxyError::Address),
        ("a leading zero later", "PROXY TCP4 1.2.3.0^0", ProxyError::Address),
        ("256", "PROXY TCP4 1.25^6", ProxyError::Address),
        ("four digits", "PROXY TCP4 100^0", ProxyError::Address),
        ("a sign", "PROXY TCP4 ^-1", ProxyError::Address),
        ("three numbers", "PROXY TCP4 1.2.3^ ", ProxyError::Address),
        ("five numbers", "PROXY TCP4 1.2.3.4^.", ProxyError::Address),
        ("an empty number", "PROXY TCP4 1.^.", ProxyError::Address),
        ("a port behind it", "PROXY TCP4 1.2.3.4^:80", ProxyError::Address),
        ("hexadecimal", "PROXY TCP4 0^x1", ProxyError::Address),
        ("a name", "PROXY TCP4 ^localhost", ProxyError::Address),
        ("five digits in a group", "PROXY TCP6 0000^0", ProxyError::Address),
        ("a digit too many", "PROXY TCP6 1234^5", ProxyError::Address),
        ("nine groups", "PROXY TCP6 1:2:3:4:5:6:7:8^:", ProxyError::Address),
        ("seven groups", "PROXY TCP6 1:2:3:4:5:6:7^ ", ProxyError::Address),
        ("two gaps", "PROXY TCP6 1::2:^:", ProxyError::Address),
        ("a gap for nothing", "PROXY TCP6 1:2:3:4::5:6:7^:8", ProxyError::Address),
        ("three colons", "PROXY TCP6 ::^:", ProxyError::Address),
        ("one colon first", "PROXY TCP6 :^1", ProxyError::Address),
        ("a zone", "PROXY TCP6 fe80::1^%eth0", ProxyError::Address),
        ("brackets", "PROXY TCP6 ^[::1]", ProxyError::Address),
        ("IPv4 inside, with a leading zero", "PROXY TCP6 ::ffff:1.0^1", ProxyError::Address),
        ("IPv4 in the middle", "PROXY TCP6 ::1.2.3.4^:", ProxyError::Address),
        ("no letter of ours", "PROXY TCP6 ^g", ProxyError::Address),
        ("one address", "PROXY TCP4 1.2.3.4^\r\n", ProxyError::Address),
        ("no ports", "PROXY TCP4 1.2.3.4 1.2.3.4^\r\n", ProxyError::Port),
        ("no ports, but a space", "PROXY TCP4 1.2.3.4 1.2.3.4 ^\r\n", ProxyError::Port),
        ("one port", "PROXY TCP4 1.2.3.4 1.2.3.4 1^\r\n", ProxyError::Port),
        ("two spaces before a port", "PROXY TCP4 1.2.3.4 1.2.3.4 ^ 1", ProxyError::Port),
        ("65536", "PROXY TCP4 1.2.3.4 1.2.3.4 6553^6", ProxyError::Port),
        ("a port with a leading zero", "PROXY TCP4 1.2.3.4 1.2.3.4 0^8", ProxyError::Port),
        ("a port with a plus", "PROXY TCP4 1.2.3.4 1.2.3.4 ^+8", ProxyError::Port),
        ("a port with a minus", "PROXY TCP4 1.2.3.4 1.2.3.4 1 ^-1", ProxyError::Port),
        ("a line feed alone", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2^\n", ProxyError::Port),
        ("a line feed before its time", "PROXY TCP4^\n", ProxyError::Protocol),
        ("a space at the end", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2^ \r\n", ProxyError::LineEnd),
        ("a carriage return alone", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r^\r\n", ProxyError::LineEnd),
        ("UNKNOWN with a carriage return alone", "PROXY UNKNOWN\r^GET", ProxyError::LineEnd),
        ("UNKNOWN with a line feed alone", "PROXY UNKNOWN x^\nGET", ProxyError::LineEnd),
        ("106 bytes and no carriage return", &long_zeros, ProxyError::TooLong),
        ("a line of 108 bytes", &no_room_for_lf, ProxyError::TooLong),
        ("longer with good addresses", &too_long, ProxyError::TooLong),
    ];
    for (why, marked, expected) in cases {
        let at = marked.find('^').expect("a mark");
        let bytes = marked.replacen('^', "", 1).into_bytes();
        assert_eq!(by_bytes(&bytes), Err(expected), "{why}");
        assert_eq!(refused_at(&bytes), Some(at + 1), "{why}");
    }
}

#[test]
fn version_2_follows_section_2_2() {
    let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 4, 1, 0xbb];
    let v4_ends = ends("192.0.2.1:56324", "192.0.2.2:443");
    let v6 = [&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &[1], &[0; 15], &[2], &[0, 1, 0, 2]].concat();
    let v6_ends = ends("[2001:db8::1]:1", "[::2]:2");
    let mapped = [&[0; 10][..], &[255, 255, 10, 0, 0, 1], &[0; 10], &[255, 255, 10, 0, 0, 2], &[0, 1, 0, 2]].concat();
    let with_tlvs = [&v4[..], &[1, 0, 2, b'h', b'2'], &[4, 0, 0], &[0xea, 0, 1, 9]].concat();
    let full = [&v4[..], &[4, 0xf, 0xf1], &vec![0; 4096 - 12 - 3]].concat();
    let cases: [(&str, u8, u8, &[u8], Ends); 17] = [
        ("TCP over IPv4", 0x21, 0x11, &v4, v4_ends),
        ("UDP over IPv4", 0x21, 0x12, &v4, v4_ends),
        ("TCP over IPv6", 0x21, 0x21, &v6, v6_ends),
        ("UDP over IPv6", 0x21, 0x22, &v6, v6_ends),
        ("mapped is IPv4", 0x21, 0x21, &mapped, ends("10.0.0.1:1", "10.0.0.2:2")),
        ("TLVs are passed over, of whatever type", 0x21, 0x11, &with_tlvs, v4_ends),
        ("as long as can be", 0x21, 0x11, &full, v4_ends),
        ("Unix has no IP address", 0x21, 0x31, &[0; 216], None),
        ("Unix datagrams", 0x21, 0x32, &[0; 216], None),
        ("unspecified", 0x21, 0x00, &[], None),
        ("unspecified with who knows what", 0x21, 0x00, &[9; 5], None),
        ("an unspecified transport", 0x21, 0x10, &v4, None),
        ("an unspecified family", 0x21, 0x01, &v4, None),
        ("LOCAL", 0x20, 0x00, &[], None),
        ("LOCAL with addresses, to be ignored", 0x20, 0x11, &v4, None),
        ("LOCAL with less than addresses", 0x20, 0x11, &[1], None),
        ("LOCAL with a family that is ignored", 0x20, 0xff, &[], None),
    ];
    for (why, command, family, body, expected) in cases {
        let bytes = v2(command, family, body.len() as u16, body);
        let header = Header::new(Version::V2, expected);
        assert_eq!(by_bytes(&bytes), Ok(Some((header, bytes.len()))), "{why}");
        let followed = [&bytes[..], b"\r\n\r\n\0"].concat();
        assert_eq!(decode(&followed), Ok(Some((header, bytes.len()))), "{why}: what follows is not ours");
        assert_eq!(decode(&bytes[..bytes.len() - 1]), Ok(None), "{why}: a byte is missing");
        assert!(bytes.len() <= MAX_LENGTH, "{why}");
    }
}

#[test]
fn version_2_is_refused_at_the_first_wrong_byte() {
    let tlv = |bytes: &[u8]| [&[0; 12][..], bytes].concat();
    // The number is of bytes it takes to know.
    let cases: [(&str, Vec<u8>, usize, ProxyError); 22] = [
        ("two line ends and a request", b"\r\n\r\nGET / HTTP/1.1".to_vec(), 5, ProxyError::NotProxy),
        ("a signature with its last byte wrong", b"\r\n\r\n\0\r\nQUIT\r".to_vec(), 12, ProxyError::NotProxy),
        ("version 1 in the binary form", v2(0x11, 0x11, 12, &[0; 12]), 13, ProxyError::Version),
        ("version 3", v2(0x31, 0x11, 12, &[0; 12]), 13, ProxyError::Version),
        ("a third command", v2(0x22, 0x11, 12, &[0; 12]), 13, ProxyError::Command),
        ("a fifth family", v2(0x21, 0x41, 12, &[0; 12]), 14, ProxyError::Family),
        ("a fourth transport", v2(0x21, 0x13, 12, &[0; 12]), 14, ProxyError::Family),
        ("a fourth transport of no family", v2(0x21, 0x0f, 12, &[0; 12]), 14, ProxyError::Family),
        ("no room for IPv4", v2(0x21, 0x11, 11, &[0; 11]), 16, ProxyError::TooShort),
        ("no room for IPv6", v2(0x21, 0x21, 35, &[0; 35]), 16, ProxyError::TooShort),
        ("no room for Unix, plain from the first byte on", v2(0x21, 0x31, 215, &[0; 215]), 16, ProxyError::TooShort),
        ("a byte too long", v2(0x21, 0x11, 4097, &[0; 4097]), 16, ProxyError::TooLong),
        ("far too long", v2(0x21, 0x11, 0x1100, &[]), 15, ProxyError::TooLong),
        ("too long to skip", v2(0x20, 0x00, 0xffff, &[]), 15, ProxyError::TooLong),
        ("a TLV of one byte", v2(0x21, 0x11, 13, &tlv(&[4])), 16, ProxyError::Tlv),
        ("a TLV of two bytes", v2(0x21, 0x11, 14, &tlv(&[4, 0])), 16, ProxyError::Tlv),
        ("a TLV past the end", v2(0x21, 0x11, 16, &tlv(&[4, 0, 2, 0])), 31, ProxyError::Tlv),
        ("a second TLV past the end", v2(0x21, 0x11, 18, &tlv(&[4, 0, 0, 9, 1, 0])), 34, ProxyError::Tlv),
        ("a TLV and half of one", v2(0x21, 0x11, 17, &tlv(&[4, 0, 0, 4, 0])), 31, ProxyError::Tlv),
        ("a checksum of three bytes", v2(0x21, 0x11, 18, &tlv(&[3, 0, 3, 0, 0, 0])), 31, ProxyError::Tlv),
        ("two checksums", v2(0x21, 0x11, 26, &tlv(&[3, 0, 4, 0, 0, 0, 0, 3, 0, 4, 0, 0, 0, 0])), 38, ProxyError::Tlv),
        ("a wrong checksum", v2(0x21, 0x11, 19, &tlv(&[3, 0, 4, 0, 0, 0, 0])), 35, ProxyError::Checksum),
    ];
    for (why, bytes, at, expected) in cases {
        assert_eq!(by_bytes(&bytes), Err(expected), "{why}");
        assert_eq!(refused_at(&bytes), Some(at), "{why}");
    }
}

/// Sent by HAProxy 3: send-proxy, send-proxy-v2, and that with crc32c and unique-id.
#[test]
fn what_haproxy_sends_is_understood() {
    let local = |source, destination| ends(&format!("127.0.0.1:{source}"), &format!("127.0.0.1:{destination}"));
    let checked = hex("0d0a0d0a000d0a515549540a211100167f0000017f000001e43ce849030004dfbce9cc050000");
    let cases = [
        ("a line", b"PROXY TCP4 127.0.0.1 127.0.0.1 36150 50887\r\n".to_vec(), local(36150, 50887)),
        (
            "a line from a dual-stack socket",
            b"PROXY TCP6 ::ffff:127.0.0.1 ::ffff:127.0.0.1 35864 48191\r\n".to_vec(),
            { local(35864, 48191) },
        ),
        ("binary", hex("0d0a0d0a000d0a515549540a2111000c7f0000017f000001c60e8b23"), local(50702, 35619)),
        ("with a checksum and an empty id", checked.clone(), local(58428, 59465)),
        (
            "IPv6 with a checksum",
            hex("0d0a0d0a000d0a515549540a2121002b00000000000000000000000000000001\
                 00000000000000000000000000000001d60ce5a70300045a271670"),
            ends("[::1]:54796", "[::1]:58791"),
        ),
    ];
    for (why, bytes, expected) in cases {
        let header = decode(&bytes).unwrap_or_else(|e| panic!("{why}: {e}"));
        let (header, length) = header.unwrap_or_else(|| panic!("{why}: it is whole"));
        assert_eq!((header.source.zip(header.destination), length), (expected, bytes.len()), "{why}");
    }
    let kind = v2::FIXED + 12; // changed, it says that there is no checksum
    for bit in (v2::FIXED * 8..checked.len() * 8).filter(|bit| bit / 8 != kind) {
        let mut bytes = checked.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(
            !matches!(decode(&bytes), Ok(Some((header, _))) if header.source.is_some()),
            "bit {bit} is not noticed"
        );
    }
}

#[test]
fn families_are_mixed_by_mapping() {
    let cases = [
        ("192.0.2.1:1", "192.0.2.2:2", "TCP4 192.0.2.1 192.0.2.2 1 2", 0x11, 28),
        ("[::ffff:192.0.2.1]:1", "192.0.2.2:2", "TCP4 192.0.2.1 192.0.2.2 1 2", 0x11, 28),
        ("[2001:db8::1]:1", "[::1]:2", "TCP6 2001:db8::1 ::1 1 2", 0x21, 52),
        ("192.0.2.1:1", "[::1]:2", "TCP6 ::ffff:c000:201 ::1 1 2", 0x21, 52),
        ("[fe80::1%3]:1", "192.0.2.2:2", "TCP6 fe80::1 ::ffff:c000:202 1 2", 0x21, 52),
    ];
    for (source, destination, line, family, length) in cases {
        let (source, destination) = (addr(source), addr(destination));
        let mut out = b"before".to_vec();
        encode(Version::V1, source, destination, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("beforePROXY {line}\r\n"));
        let mut out = b"before".to_vec();
        encode(Version::V2, source, destination, &mut out);
        assert_eq!((out[6 + 13], out.len()), (family, 6 + length), "{line}");
    }
    let mut out = Vec::new();
    encode_local(&mut out);
    assert_eq!(decode(&out), Ok(Some((Header::new(Version::V2, None), 16))));
}

/// Addresses in which zeros, mapped ones and long ones are as likely as others.
fn any_addr() -> impl Strategy<Value = SocketAddr> {
    let segment = || prop_oneof![Just(0u16), Just(0xffff), any::<u16>()];
    let v6 = prop::array::uniform8(segment()).prop_map(|it| IpAddr::V6(it.into()));
    let mapped = any::<[u8; 4]>().prop_map(|it| IpAddr::V6(Ipv4Addr::from(it).to_ipv6_mapped()));
    let v4 = any::<[u8; 4]>().prop_map(|it| IpAddr::V4(it.into()));
    (prop_oneof![v4, v6, mapped], segment()).prop_map(SocketAddr::from)
}

/// Headers, good ones and such with some bytes changed, and what looks like them.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let good = (any_addr(), any_addr(), any::<bool>()).prop_map(|(source, destination, text)| {
        let mut out = Vec::new();
        encode(if text { Version::V1 } else { Version::V2 }, source, destination, &mut out);
        out
    });
    let binary = (0x20u8..0x23, prop_oneof![0x00u8..0x34, any::<u8>()], prop::collection::vec(any::<u8>(), 0..80))
        .prop_map(|(command, family, body)| v2(command, family, body.len() as u16, &body));
    let line = "PROXY (TCP4|TCP6|UNKNOWN)( [0-9a-f:.]{1,9}){0,2}( [0-9]{1,5}){0,3}\r\n".prop_map(String::into_bytes);
    let short =
        "PROXY (TCP4 1\\.2\\.3\\.[0-9]{1,3} 1|TCP6 :(:[0-9a-f]{1,4}){1,7} )[0-9. ]{0,9}".prop_map(String::into_bytes);
    let base = prop_oneof![4 => good, 2 => binary, 1 => line, 1 => short];
    (base, prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3)).prop_map(|(mut bytes, changes)| {
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_written_is_read(source in any_addr(), destination in any_addr(), tail in prop::collection::vec(any::<u8>(), 0..9)) {
        for version in [Version::V1, Version::V2] {
            let mut out = Vec::new();
            encode(version, source, destination, &mut out);
            let length = out.len();
            prop_assert!(length <= v1::MAX);
            out.extend(&tail);
            let header = Header::new(version, Some((source, destination)));
            prop_assert_eq!(by_bytes(&out), Ok(Some((header, length))));
            prop_assert_eq!(header.source, Some(canonical(source)));
        }
    }

    #[test]
    fn what_is_certain_stays_so(bytes in any_bytes()) {
        if let Ok(Some((_, length))) = by_bytes(&bytes) {
            prop_assert!(length <= bytes.len());
        }
    }

    /// Against another implementation: proxy-header, which is laxer here and there, so only what both take is compared.
    #[test]
    fn another_decoder_reads_the_same(bytes in any_bytes()) {
        let theirs = proxy_header::ProxyHeader::parse(&bytes, proxy_header::ParseConfig::default());
        if let (Ok(Some((ours, length))), Ok((theirs, their_length))) = (decode(&bytes), &theirs) {
            let ends = theirs.proxied_address().map(|it| (canonical(it.source), canonical(it.destination)));
            prop_assert_eq!((ours.source.zip(ours.destination), length), (ends, *their_length));
        }
    }

    #[test]
    fn another_decoder_reads_what_we_write(source in any_addr(), destination in any_addr()) {
        for version in [Version::V1, Version::V2] {
            let mut out = Vec::new();
            encode(version, source, destination, &mut out);
            let (header, length) = proxy_header::ProxyHeader::parse(&out, proxy_header::ParseConfig::default()).unwrap();
            let ends = header.proxied_address().map(|it| (canonical(it.source), canonical(it.destination)));
            prop_assert_eq!((ends, length), (Some((canonical(source), canonical(destination))), out.len()));
        }
    }
}
