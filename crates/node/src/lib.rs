//! The node agent: one loop that makes a machine match its plan.
#![forbid(unsafe_code)]
