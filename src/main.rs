//! `ringgeard`: parse, build, run, exit code.

fn main() {}
