//! libFuzzer's way into `bodies::bundle`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| countersign_fuzz::bodies::bundle(data));
