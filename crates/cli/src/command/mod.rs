//! One file per noun.

pub(crate) mod access;
pub(crate) mod audit;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod image;
pub(crate) mod job;
pub(crate) mod key;
pub(crate) mod local;
pub(crate) mod login;
pub(crate) mod node;
pub(crate) mod policy;
pub(crate) mod tenant;
pub(crate) mod token;
pub(crate) mod verify;
pub(crate) mod volume;

use crate::error::CliError;

/// Splits `KEY=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), CliError> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| CliError::usage(format!("`{}` is not KEY=VALUE", crate::output::visible(text))))
}
