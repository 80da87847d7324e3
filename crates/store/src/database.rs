//! Where the state lies: a file, or a server by its URL.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use zeroize::Zeroizing;

use crate::limits::{CONNECT, IDLE_IN_TRANSACTION, RECONNECT, STATEMENT, STATEMENT_ANSWER, URL_MAX};

/// Where the state lies.
#[derive(Debug, Clone)]
pub enum Database {
    /// A file, owned by one process.
    Sqlite(SqliteFile),
    /// A server, shared by several.
    Postgres(PostgresUrl),
}

/// A file of `SQLite`.
#[derive(Debug, Clone)]
pub struct SqliteFile {
    /// The file. Its folder must exist; the file is made with mode 0600.
    pub path: PathBuf,
    /// Whether the whole file is checked before it is used (`PRAGMA quick_check`).
    pub check: bool,
    /// The most pages of 4 KiB that the file may have; beyond it the disk counts as full.
    pub pages_max: Option<u32>,
}

impl SqliteFile {
    /// The usual for this file.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path, check: true, pages_max: None }
    }
}

/// How long a server is waited for, in each of the ways that it can be away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// A statement that takes longer is given up by the server.
    pub statement: Duration,
    /// An answer that takes longer is given up by us: beyond `statement`, for the server answers then.
    pub answer: Duration,
    /// A process that stops in the middle of a transaction loses it after this time.
    pub idle: Duration,
    /// The time to connect.
    pub connect: Duration,
    /// How long a commit waits for a server that went away.
    pub reconnect: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { statement: STATEMENT, answer: STATEMENT_ANSWER, idle: IDLE_IN_TRANSACTION, connect: CONNECT, reconnect: RECONNECT }
    }
}

/// A database on a server of `PostgreSQL`: `postgres://USER@HOST[:PORT]/DATABASE`, or with a socket
/// `postgres:///DATABASE?host=/FOLDER&user=USER[&port=PORT]`. It holds no password: that comes from a file.
///
/// A link over a network is TLS 1.3 with AES-256-GCM to a server whose certificate `sslrootcert=FILE` vouches for.
#[derive(Clone)]
pub struct PostgresUrl {
    user: String,
    database: String,
    port: u16,
    place: Place,
    password: Option<Zeroizing<String>>,
    deadlines: Deadlines,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// The folder of a Unix socket.
    Socket(PathBuf),
    /// An address of this machine, without TLS because the URL says so.
    Loopback(String),
    /// Anywhere, with TLS.
    Tls(TlsPlace),
}

/// A server behind TLS 1.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsPlace {
    /// Its name or address, which its certificate must bear.
    pub(crate) host: String,
    /// The file with the certificates of its authority, PEM. The machine's own authorities count for nothing.
    pub(crate) authority: PathBuf,
}

/// Why a URL of a database is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It is no URL, or not of this kind.
    #[error("`database` is no URL of the form postgres://USER@HOST/DATABASE or postgres:///DATABASE?host=/FOLDER&user=USER: {0}")]
    Form(String),
    /// It carries a password.
    #[error("`database` carries a password, which arguments show to everybody on this machine; put it into a file of mode 0600 and name that")]
    Password,
    /// A part is missing.
    #[error("`database` names no {0}")]
    Missing(&'static str),
    /// A parameter is not known.
    #[error("`database` has the parameter `{0}`, which is not known; known are host, port, user, sslmode and sslrootcert")]
    Parameter(String),
    /// The link would be in clear.
    #[error("`database` asks for `sslmode={0}`: verify-full will do everywhere, disable only for a Unix socket and this machine's own address")]
    Clear(String),
}

impl PostgresUrl {
    /// Says the password.
    #[must_use]
    pub fn with_password(mut self, password: Zeroizing<String>) -> Self {
        self.password = Some(password);
        self
    }
    /// Waits shorter or longer than usual.
    #[must_use]
    pub const fn with_deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }
    pub(crate) const fn deadlines(&self) -> Deadlines {
        self.deadlines
    }
    /// The user.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }
    /// The database's name.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }
    /// Where the server is, for people.
    #[must_use]
    pub fn server(&self) -> String {
        match &self.place {
            Place::Socket(folder) => format!("{}/.s.PGSQL.{}", folder.display(), self.port),
            Place::Loopback(host) | Place::Tls(TlsPlace { host, .. }) => format!("{host}:{}", self.port),
        }
    }

    /// Where TLS leads, if the link has it.
    pub(crate) const fn tls(&self) -> Option<&TlsPlace> {
        match &self.place {
            Place::Tls(place) => Some(place),
            Place::Socket(_) | Place::Loopback(_) => None,
        }
    }
    /// The port.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// What the driver wants to know, with the socket of the tunnel where there is one; the environment has no say.
    pub(crate) fn options(&self, tunnel: Option<&Path>) -> PgConnectOptions {
        let options = PgConnectOptions::new_without_pgpass()
            .username(&self.user)
            .database(&self.database)
            .port(self.port)
            .password(self.password.as_ref().map_or("", |password| password.as_str()))
            .ssl_mode(PgSslMode::Disable);
        match (&self.place, tunnel) {
            (_, Some(folder)) => options.socket(folder),
            (Place::Socket(folder), None) => options.socket(folder),
            (Place::Loopback(host), None) => options.host(host),
            // Nobody listens in that folder: what should be in TLS is never said in clear.
            (Place::Tls(_), None) => options.socket("/nonexistent"),
        }
    }
}

impl std::fmt::Display for PostgresUrl {
    /// The URL, without a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let encoded = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        let (user, database, port) = (encoded(&self.user), encoded(&self.database), self.port);
        match &self.place {
            Place::Socket(folder) => {
                write!(f, "postgres:///{database}?host={}&user={user}&port={port}", encoded(&folder.to_string_lossy()))
            }
            Place::Loopback(host) => write!(f, "postgres://{user}@{host}:{port}/{database}?sslmode=disable"),
            Place::Tls(TlsPlace { host, authority }) => {
                write!(f, "postgres://{user}@{host}:{port}/{database}?sslmode=verify-full&sslrootcert={}", encoded(&authority.to_string_lossy()))
            }
        }
    }
}

impl std::fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresUrl")
            .field("server", &self.server())
            .field("user", &self.user)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

impl FromStr for PostgresUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.len() > URL_MAX {
            return Err(UrlError::Form(format!("longer than {URL_MAX} bytes")));
        }
        let url = url::Url::parse(text).map_err(|error| UrlError::Form(error.to_string()))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(UrlError::Form("another scheme".to_owned()));
        }
        if url.password().is_some() {
            return Err(UrlError::Password);
        }
        if url.fragment().is_some() {
            return Err(UrlError::Form("it has a fragment".to_owned()));
        }
        let (mut host, mut port) = (url.host_str().filter(|host| !host.is_empty()).map(decoded).transpose()?, url.port());
        let (mut mode, mut authority, mut user) = (None, None, decoded(url.username())?);
        for (name, value) in url.query_pairs() {
            let value = clean(value.into_owned())?;
            match name.as_ref() {
                "host" if host.is_none() => host = Some(value),
                "port" if port.is_none() => {
                    port = Some(value.parse().map_err(|_| UrlError::Form("a port is a number up to 65535".to_owned()))?);
                }
                "user" if user.is_empty() => user = value,
                "sslrootcert" if authority.is_none() => authority = Some(value),
                "sslmode" if mode.is_none() => mode = Some(value),
                "password" => return Err(UrlError::Password),
                other => return Err(UrlError::Parameter(other.chars().filter(|c| !c.is_control()).take(64).collect())),
            }
        }
        let database = decoded(url.path().trim_start_matches('/'))?;
        if user.is_empty() {
            return Err(UrlError::Missing("user"));
        }
        if database.is_empty() {
            return Err(UrlError::Missing("database"));
        }
        let host = host.unwrap_or_default();
        let place = match (host.as_str(), mode.as_deref()) {
            ("", _) => return Err(UrlError::Missing("host: an address, or the folder of a Unix socket")),
            (folder, None | Some("disable")) if folder.starts_with('/') => Place::Socket(PathBuf::from(folder)),
            (address, Some("disable")) if loopback(address) => Place::Loopback(address.to_owned()),
            (host, None | Some("verify-full")) => match authority.take() {
                Some(authority) => Place::Tls(TlsPlace { host: host.to_owned(), authority: PathBuf::from(authority) }),
                None => return Err(UrlError::Missing("sslrootcert: the file with the certificate of the server's authority")),
            },
            (_, Some(other)) => return Err(UrlError::Clear(other.chars().filter(|c| !c.is_control()).take(64).collect())),
        };
        if authority.is_some() {
            return Err(UrlError::Parameter("sslrootcert, where there is no TLS".to_owned()));
        }
        Ok(Self { user, database, port: port.unwrap_or(5432), place, password: None, deadlines: Deadlines::default() })
    }
}

fn decoded(text: &str) -> Result<String, UrlError> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| UrlError::Form("it is not UTF-8".to_owned()))?;
    clean(text.into_owned())
}

fn clean(text: String) -> Result<String, UrlError> {
    if text.chars().any(char::is_control) { Err(UrlError::Form("it has control characters".to_owned())) } else { Ok(text) }
}

/// Whether it is an address of this machine: not the name `localhost`, which a resolver may send anywhere.
fn loopback(host: &str) -> bool {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
