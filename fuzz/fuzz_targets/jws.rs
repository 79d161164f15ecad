//! libFuzzer's way into `bodies::jws`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: countersign_fuzz::begin("jws"), |data: &[u8]| countersign_fuzz::bodies::jws(data));
