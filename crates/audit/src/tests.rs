//! Tests of the room: against published vectors, against implementations that are not ours, and under attack.

mod foreign;
mod fuzz;
mod golden;
mod notes;
mod personal;
mod rules;
mod samples;
mod support;
mod tampered;
mod tree;
mod vectors;
mod witness;
mod witness_policy;
