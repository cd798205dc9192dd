#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::http1_request(bytes));
