//! libFuzzer's way into `bodies::jwks`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: countersign_fuzz::begin("jwks"), |data: &[u8]| countersign_fuzz::bodies::jwks(data));
