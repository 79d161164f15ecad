//! libFuzzer's way into `bodies::headers`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: countersign_fuzz::begin("headers"), |data: &[u8]| countersign_fuzz::bodies::headers(data));
