//! hybond-agent

fn main() {}
