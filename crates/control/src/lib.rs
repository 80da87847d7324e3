//! The control plane: the API over identity, policy, keys, audit, store and volumes.
//!
//! **Invariant:** a route names its action by type and can obtain a permit for no other; every operation spends a permit.
//! **Invariant:** no mutation without an entry in the same transaction, no entry without its mutation; refusals are recorded.
//! **Invariant:** the tenant comes from the credential, never from a path, header or body; absent and foreign are one answer.
//! **Invariant:** an entry of a released key is on disk before the key leaves; people's data is sealed and opened where the person is.
//!
//! **Invariant:** a node acts for an attempt only where it is placed, newest, without a recorded end, and its run lease lives.
//!
//! **Invariant:** several processes may serve one deployment over one database and one folder of objects: what must happen once
//! is fenced by rows, and what a process remembers is brought up to date by the change sequence.
#![forbid(unsafe_code)]

mod admission;
mod api;
pub mod backup;
mod bootstrap;
mod caller;
mod clock;
mod count;
mod deployment;
mod descriptors;
mod destruction;
mod driver;
mod face;
mod fleet;
mod gate;
mod job;
mod job_log;
mod key_use;
mod keylife;
mod lease;
mod limits;
mod logins;
mod metrics;
mod operation;
#[expect(missing_docs, reason = "fields are the vocabulary's words; the types say what they are")]
pub mod planner;
mod policies;
mod published;
mod publisher;
mod quota;
mod rate;
mod receipts;
mod renewal;
mod row;
mod seal;
mod sealed;
mod server;
mod shared;
mod state;
pub mod shred;
mod spans;
mod subject;
pub mod support;
mod vault;
mod witness;
#[cfg(test)]
mod tests;

pub use api::table::{Access, Answered, Header, Payload, Route};
pub use bootstrap::StartError;
pub use sealed::SealedServer;
pub use store::{PostgresUrl, UrlError};
pub use server::{LocalNode, Needs, Prepared, Server, ServerConfig, Unseal, node_routes, openapi, routes};
