//! The whiskraft binary.
fn main() {}
