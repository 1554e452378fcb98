//! Paths of volumes, and links on the way.
#![no_main]

#[expect(dead_code, reason = "each target checks one thing of it")]
#[path = "../../crates/mount/tests/hostile/oracle.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::resolver(input));
