//! Control-plane state: resources, credentials, wrapped keys, heads of volumes, the log's entries; and blobs.
//!
//! A change is a value, a [`Transaction`]: ordered mutations together with the audit entries that record them, and
//! optionally an idempotency key. [`Store::commit`] applies it whole or not at all and answers only when it is on disk.
//! The state lies in a file of `SQLite`, for one process, or on a server of `PostgreSQL`, for several: one text of each
//! statement serves both, and one suite of tests judges both.
//! One writer task groups what waits into one commit; a transaction that conflicts aborts no other.
//! The change sequence and the audit index are taken last, so both are contiguous in the order of commits.
//!
//! **Invariant:** no plain key enters here: [`keys`]' wrapped form is the only one that a mutation takes.
//! **Invariant:** every statement names the tenant as `$1`, but for those in [`sql`] that give a reason.
//! **Invariant:** time is passed in; what compares times never goes behind the latest time that was committed.
//! **Invariant:** only `engine` and `open` know which database it is.
#![forbid(unsafe_code)]

mod apply;
pub mod backup;
pub mod blobs;
mod convert;
pub mod database;
mod engine;
pub mod error;
pub mod kind;
pub mod limits;
pub mod observe;
mod open;
pub mod read;
pub mod record;
pub mod sql;
pub mod store;
pub mod transaction;
pub mod watch;
pub mod statistics;
mod writer;

#[cfg(test)]
mod tests;

pub use blobs::{BlobError, BlobPath, Blobs, Placed};
pub use database::{Database, Deadlines, PostgresUrl, SqliteFile, UrlError};
pub use engine::Alone;
pub use error::{CommitError, Conflict, OpenError, ReadError};
pub use kind::{Id16, Kind};
pub use observe::{Fate, Observer};
pub use read::{Page, Paged};
pub use record::*;
pub use store::{Store, StoreConfig};
pub use transaction::{Committed, Expect, IdempotencyKey, Mutation, Transaction};
pub use watch::{Change, WatchError};
