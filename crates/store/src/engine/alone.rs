//! Doing something that no other process does at the same time, where rows alone cannot fence it: an object that is replaced.

use sqlx::{PgPool, Postgres, Transaction};

use super::postgres::named_lock;
use crate::error::ReadError;

/// What hands out locks that count in all processes.
#[derive(Debug, Clone)]
pub(crate) enum Locks {
    /// One process owns the database: its own locks are enough.
    Own,
    /// The server's advisory locks, each held by a transaction of its own.
    Server(PgPool),
}

/// Held: no other process holds the same lock. Dropped, it is free again.
///
/// The server gives it back only when this process lets go or its connection breaks, not when it is paused: a paused holder
/// makes the others wait, rather than wake up beside one that took over.
pub struct Alone {
    held: Option<Transaction<'static, Postgres>>,
}

impl std::fmt::Debug for Alone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Alone").field("everywhere", &self.held.is_some()).finish()
    }
}

impl Locks {
    pub(crate) async fn take(&self, name: i64) -> Result<Alone, ReadError> {
        let held = match self {
            Self::Own => None,
            Self::Server(pool) => Some(named_lock(pool, name).await.map_err(ReadError::Engine)?),
        };
        Ok(Alone { held })
    }
    pub(crate) async fn close(&self) {
        match self {
            Self::Own => {}
            Self::Server(pool) => pool.close().await,
        }
    }
}

impl Alone {
    /// Whether it is still held: asked of the server right before what must not be done twice. A connection that broke
    /// meanwhile lost it.
    pub async fn still(&mut self) -> Result<(), ReadError> {
        match &mut self.held {
            None => Ok(()),
            Some(transaction) => sqlx::raw_sql("SELECT 1").execute(&mut **transaction).await.map(|_| ()).map_err(ReadError::Engine),
        }
    }
}
