//! The control plane as it is met from outside: a server in this process, people with tokens, nodes with their own keys.

mod channel;
mod count;
mod jobs;
mod nodes;
mod routes;
mod scheduling;
mod support;
mod witness;
