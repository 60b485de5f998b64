//! The `prodgy` binary.

fn main() {}
