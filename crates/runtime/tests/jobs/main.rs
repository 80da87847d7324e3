//! Jobs in real sandboxes: what a job gets, what ends it, who finds it again, and what it cannot do.
//!
//! These tests need root and the kernel features that `swarm doctor` lists.
#![cfg(test)]

mod support;

mod escape;
mod limit;
mod outcome;
mod probe;
mod scratch;
mod supervision;
