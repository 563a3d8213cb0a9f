//! hybond-cli

fn main() {}
