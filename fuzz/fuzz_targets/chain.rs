//! libFuzzer's way into `bodies::chain`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| countersign_fuzz::bodies::chain(data));
