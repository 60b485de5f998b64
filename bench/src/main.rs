//! Loads and peers.

fn main() {}
