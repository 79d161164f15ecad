//! libFuzzer's way into `bodies::configuration`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: countersign_fuzz::begin("configuration"), |data: &[u8]| countersign_fuzz::bodies::configuration(data));
