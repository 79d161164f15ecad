//! libFuzzer's way into `bodies::cel`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: countersign_fuzz::begin("cel"), |data: &[u8]| countersign_fuzz::bodies::cel(data));
