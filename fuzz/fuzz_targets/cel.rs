//! libFuzzer's way into `bodies::cel`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| countersign_fuzz::bodies::cel(data));
