//! Replays the corpus of the fuzz target for PROXY protocol headers.

use std::fs;
use std::path::Path;

use l4lb::wire::proxy::{ProxyError, Version, decode};

#[path = "../fuzz/promises/proxy_header.rs"]
mod promises;

#[test]
fn the_corpus_keeps_its_promises() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/proxy_header");
    let mut seen = Vec::new();
    for entry in fs::read_dir(&folder).expect("the corpus is there") {
        let path = entry.expect("it can be listed").path();
        let bytes = fs::read(&path).expect("it can be read");
        let held = std::panic::catch_unwind(|| promises::hold(&bytes));
        assert!(held.is_ok(), "{}", path.display());
        seen.push(decode(&bytes).map(|found| found.map(|(header, _)| (header.version, header.source.is_some()))));
    }
    // So that it is a corpus: each way to end is in it.
    for version in [Version::V1, Version::V2] {
        for source in [true, false] {
            assert!(seen.contains(&Ok(Some((version, source)))), "no {version:?} with source: {source}");
        }
    }
    assert!(seen.contains(&Ok(None)), "nothing that is only begun");
    let errors = [
        ProxyError::NotProxy,
        ProxyError::Protocol,
        ProxyError::Address,
        ProxyError::Port,
        ProxyError::LineEnd,
        ProxyError::TooLong,
        ProxyError::Version,
        ProxyError::Command,
        ProxyError::Family,
        ProxyError::TooShort,
        ProxyError::Tlv,
        ProxyError::Checksum,
    ];
    for error in errors {
        assert!(seen.contains(&Err(error)), "nothing with {error:?}");
    }
}
