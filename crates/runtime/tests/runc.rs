//! The whole suite of jobs, escapes included, with sandboxes that runc makes.
#![cfg(test)]

#[macro_use]
#[path = "jobs/list.rs"]
mod list;
#[path = "jobs/support.rs"]
mod support;

#[path = "jobs/escape.rs"]
mod escape;
#[path = "jobs/limit.rs"]
mod limit;
#[path = "jobs/outcome.rs"]
mod outcome;
#[path = "jobs/probe.rs"]
mod probe;
#[path = "jobs/scratch.rs"]
mod scratch;
#[path = "jobs/supervision.rs"]
mod supervision;

const RUNTIME: vocabulary::runtime::Runtime = vocabulary::runtime::Runtime::Runc;

mod suite {
    whole!(tests);
}
