//! swarm
fn main() {}
