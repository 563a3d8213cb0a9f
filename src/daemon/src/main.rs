//! hybond-daemon

fn main() {}
