//! Replays the fuzzer's corpus, findings of the past among it, through the fuzzer's own functions.

#[allow(unreachable_pub)] // a crate of its own for the fuzzer
#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        println!("{}", path.display());
        run(&std::fs::read(&path).expect("a file"));
        files += 1;
    }
    assert!(files > 5, "{} has only {files} files", folder.display());
}

#[test]
fn http1_request_corpus() {
    replay("http1_request", targets::http1_request);
}

#[test]
fn http1_response_corpus() {
    replay("http1_response", targets::http1_response);
}

#[test]
fn http1_chunked_corpus() {
    replay("http1_chunked", targets::http1_chunked);
}
