//! One file per noun.

pub(crate) mod access;
pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod deployment;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod explain;
pub(crate) mod image;
pub(crate) mod job;
pub(crate) mod key;
pub(crate) mod login;
pub(crate) mod node;
pub(crate) mod node_log;
pub(crate) mod policy;
pub(crate) mod quota;
pub(crate) mod seal;
pub(crate) mod secret;
pub(crate) mod server;
pub(crate) mod support;
pub(crate) mod tenant;
pub(crate) mod token;
pub(crate) mod up;
pub(crate) mod verify;
pub(crate) mod volume;
pub(crate) mod witness;
pub(crate) mod witnesses;
