//! The bitts binary.
fn main() {}
