//! Target `table` for libFuzzer.

#![no_main]

#[expect(dead_code, reason = "the other targets")]
#[path = "../../tests/fuzz/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::table(input));
