//! libFuzzer's way into `bodies::chain`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: countersign_fuzz::begin("chain"), |data: &[u8]| countersign_fuzz::bodies::chain(data));
