//! What lies in the tables: resources with a body of the caller's, and the rows that have a table of their own.

mod factor;
mod key;
mod log;
mod resource;
mod stepup;
mod token;
mod volume;

pub use factor::{DelaySubject, Hashed, LoginDelay, RecoveryCode, TotpRow};
pub use key::StoredKey;
pub use log::{EntryRow, Leaf, Publisher, RefusalCount, Revoked, RevokedRow};
pub use resource::{BodyError, Put, Resource};
pub use stepup::StepUpRow;
pub use token::{TokenRow, TokenUse};
pub use volume::{StoredWriter, WriterRow};
