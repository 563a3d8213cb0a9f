//! hybond-hook

fn main() {}
