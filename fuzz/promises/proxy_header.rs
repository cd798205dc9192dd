//! What the PROXY protocol's decoder promises for all bytes; the fuzz target and the replay of its corpus both hold it.

use l4lb::wire::proxy::{MAX_LENGTH, Version, decode, encode};

/// Panics if a promise is broken for `bytes`.
pub(crate) fn hold(bytes: &[u8]) {
    let whole = decode(bytes);
    // Long input is cut less often, or a run would be quadratic in it.
    let step = 1 + bytes.len() / 512;
    let cuts = (0..bytes.len()).step_by(step);
    let mut last = Ok(None);
    for now in cuts.map(|end| decode(&bytes[..end])).chain([whole]) {
        assert!(last == Ok(None) || now == last, "more bytes changed {last:?} into {now:?}");
        last = now;
    }
    match whole {
        Ok(Some((header, length))) => {
            assert!(length <= bytes.len() && length <= MAX_LENGTH, "{length} bytes of {}", bytes.len());
            assert_eq!(decode(&bytes[..length]), whole, "what follows a header is not looked at");
            assert_eq!(decode(&bytes[..length - 1]), Ok(None), "a header is no longer than it must be");
            assert_eq!(header.source.is_some(), header.destination.is_some());
            if let (Some(source), Some(destination)) = (header.source, header.destination) {
                for version in [Version::V1, Version::V2] {
                    let mut out = Vec::new();
                    encode(version, source, destination, &mut out);
                    let (again, length) = decode(&out).expect("it is a header").expect("it is whole");
                    assert_eq!((again.version, length), (version, out.len()));
                    assert_eq!((again.source, again.destination), (header.source, header.destination));
                }
            }
        }
        Ok(None) => assert!(bytes.len() < MAX_LENGTH, "more than {MAX_LENGTH} bytes are asked for"),
        Err(_) => {}
    }
}
