//! libFuzzer's way into `bodies::bundle`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: countersign_fuzz::begin("bundle"), |data: &[u8]| countersign_fuzz::bodies::bundle(data));
