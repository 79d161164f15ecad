//! libFuzzer's way into `bodies::avro`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: countersign_fuzz::begin("avro"), |data: &[u8]| countersign_fuzz::bodies::avro(data));
