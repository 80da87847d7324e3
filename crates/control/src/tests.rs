//! The control plane as it is met from outside: a server in this process, people with tokens, nodes with their own keys.

mod channel;
mod count;
mod golden;
mod jobs;
mod keylife;
mod node_log;
mod nodes;
mod people;
mod rates;
mod renewal;
mod rights;
mod routes;
mod scheduling;
mod seals;
mod shred;
mod support;
mod witness;
