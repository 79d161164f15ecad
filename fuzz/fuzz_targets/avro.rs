//! libFuzzer's way into `bodies::avro`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| countersign_fuzz::bodies::avro(data));
