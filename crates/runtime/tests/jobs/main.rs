//! Jobs in real sandboxes: what a job gets, what ends it, who finds it again, and what it cannot do.
//!
//! These tests need root and the kernel features that `swarm doctor` lists. Here the sandboxes are made by the embedded
//! backend; `runc` and `crun` beside this file run the same functions by those.
#![cfg(test)]

#[macro_use]
mod list;
mod support;

mod escape;
mod limit;
mod outcome;
mod probe;
mod scratch;
mod supervision;
mod unified;

const RUNTIME: vocabulary::runtime::Runtime = vocabulary::runtime::Runtime::Youki;

mod suite {
    whole!(tests);
}
