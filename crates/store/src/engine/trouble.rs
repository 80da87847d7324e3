//! What kind of trouble a database is in, from its error codes.

use sqlx::error::DatabaseError;
use sqlx::sqlite::SqliteError;

/// What kind of trouble the engine is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    Unique,
    Full,
    ReadOnly,
    /// The disk gave an error of its own.
    Broken,
    Corrupt,
    NotADatabase,
    /// The server is not there, or the connection broke.
    Away,
    /// A statement was not done within its deadline.
    Slow,
    /// Two transactions were in each other's way: the same one may succeed when it is run again.
    Again,
    /// A value that no column can hold.
    Unstorable,
    Other,
}

pub(crate) fn trouble(error: &sqlx::Error) -> Trouble {
    use sqlx::Error;
    if let Error::Database(database) = error {
        return if database.is_unique_violation() { Trouble::Unique } else { of_database(database.as_ref()) };
    }
    if matches!(error, Error::Io(_) | Error::Tls(_) | Error::Protocol(_) | Error::PoolTimedOut | Error::BeginFailed) {
        return Trouble::Away;
    }
    if matches!(error, Error::Encode(_)) { Trouble::Unstorable } else { Trouble::Other }
}

fn of_database(database: &dyn DatabaseError) -> Trouble {
    let Some(code) = database.code() else { return Trouble::Other };
    if database.try_downcast_ref::<SqliteError>().is_some() {
        // The low byte is the primary result code of SQLite.
        return match code.parse::<u32>().ok().map(|code| code & 0xff) {
            Some(13) => Trouble::Full,
            Some(8 | 14) => Trouble::ReadOnly,
            Some(10) => Trouble::Broken,
            Some(11) => Trouble::Corrupt,
            Some(26) => Trouble::NotADatabase,
            _ => Trouble::Other,
        };
    }
    // SQLSTATE, appendix A of PostgreSQL's manual.
    match code.as_ref() {
        "53100" => Trouble::Full,
        "25006" => Trouble::ReadOnly,
        "58030" => Trouble::Broken,
        "XX001" | "XX002" => Trouble::Corrupt,
        // Too many connections; shut down, crashed, starting; idle in a transaction for too long.
        "53300" | "57P01" | "57P02" | "57P03" | "57P05" | "25P03" => Trouble::Away,
        // Cancelled by its deadline; a lock that was not free in time.
        "57014" | "55P03" => Trouble::Slow,
        "40001" | "40P01" => Trouble::Again,
        code if code.starts_with("08") => Trouble::Away,
        // A value out of range; more than an index takes.
        code if code.starts_with("22") || code.starts_with("54") => Trouble::Unstorable,
        _ => Trouble::Other,
    }
}

/// A value that no column can hold.
pub(super) fn unstorable() -> sqlx::Error {
    sqlx::Error::Encode("text with a NUL character".into())
}
