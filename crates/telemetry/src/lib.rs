//! Traces for those who run Swarm: spans of requests, operations, commits and steps of jobs, sent as OTLP to a collector that
//! the operator names.
//!
//! A [`Tracer`] that is off costs a look at an `Option`. One that is on puts finished spans into a bounded queue; a task sends
//! them. Whoever is slow, the queue is full before anybody waits: what does not fit is counted and dropped.
//!
//! **Invariant:** a span says nothing of anybody: its name and its words are `&'static str`, its values numbers and yes or no.
//! **Invariant:** what a client sends decides which trace a span belongs to, never whether or how many are recorded.
//! **Invariant:** nothing here waits for the collector, but the task that sends.
#![forbid(unsafe_code)]

mod collector;
mod context;
pub mod limits;
mod otlp;
mod span;
mod tracer;

pub use collector::{Collector, CollectorError};
pub use context::Context;
pub use otlp::encode;
pub use span::{Finished, Kind, Name, Value};
pub use tracer::{Counts, Open, Sender, Tracer, attempt, current, part, within};
