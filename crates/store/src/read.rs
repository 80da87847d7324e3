//! Reads. Each sees everything that was committed before it began.

mod credential;
mod key;
mod log;
mod resource;

pub use key::KeyCursor;
pub use log::EntryFilter;

use serde::de::DeserializeOwned;

use crate::engine::{Bind, Malformed, Row};
use crate::error::ReadError;
use crate::limits::PAGE_MAX;
use crate::sql::Statement;
use crate::store::Store;

/// Which part of a list: what comes after a place, at most so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page<C = [u8; 16]> {
    after: Option<C>,
    limit: u32,
}

impl<C: Copy> Page<C> {
    /// From the beginning. The limit is held between 1 and [`PAGE_MAX`]; what is left over shows as `truncated`.
    #[must_use]
    pub fn first(limit: u32) -> Self {
        Self { after: None, limit: limit.clamp(1, PAGE_MAX) }
    }
    /// What comes after this one.
    #[must_use]
    pub fn after(after: C, limit: u32) -> Self {
        Self { after: Some(after), limit: limit.clamp(1, PAGE_MAX) }
    }
    /// One row more than asked for, to know whether there are more.
    const fn fetch(&self) -> u32 {
        self.limit.saturating_add(1)
    }
}

/// An id to begin after: no bytes at all come before every id.
fn begin(after: Option<&[u8; 16]>) -> Bind {
    Bind::from(after.map_or(&[][..], |id| &id[..]))
}

impl Default for Page {
    fn default() -> Self {
        Self::first(PAGE_MAX)
    }
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paged<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Whether more follow: ask again after the last one.
    pub truncated: bool,
}

impl<T> Paged<T> {
    fn cut<C>(mut items: Vec<T>, page: &Page<C>) -> Self {
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let truncated = items.len() > limit;
        items.truncate(limit);
        Self { items, truncated }
    }
}

impl From<Malformed> for ReadError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed.0)
    }
}

impl Store {
    async fn rows(&self, statement: Statement, binds: Vec<Bind>) -> Result<Vec<Row>, ReadError> {
        self.inner.reading.rows(statement, binds).await.map_err(ReadError::Engine)
    }
    pub(crate) async fn all<T>(
        &self,
        statement: Statement,
        binds: Vec<Bind>,
        read: impl Fn(&Row) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, ReadError> {
        let rows = self.rows(statement, binds).await?;
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }
    pub(crate) async fn one<T>(
        &self,
        statement: Statement,
        binds: Vec<Bind>,
        read: impl Fn(&Row) -> Result<T, Malformed>,
    ) -> Result<Option<T>, ReadError> {
        Ok(self.all(statement, binds, read).await?.into_iter().next())
    }
}

/// The bodies of a page as values, each with its resource.
pub fn parse<T: DeserializeOwned>(page: Paged<crate::Resource>) -> Result<Paged<(crate::Resource, T)>, ReadError> {
    let items = page.items.into_iter().map(|resource| resource.parse().map(|value| (resource, value)));
    Ok(Paged { items: items.collect::<Result<_, _>>()?, truncated: page.truncated })
}
