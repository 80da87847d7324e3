//! Every number of the store, with its reason.

use std::time::Duration;

/// Bytes of a resource's body: one API body (1 MiB) and what we add to it.
pub const BODY_MAX: usize = 2 << 20;
/// Rows of one page (`access.md` 4.1).
pub const PAGE_MAX: u32 = 1000;
/// Mutations of one transaction: a rewrap of a page of keys fits, a mistake in a loop does not.
pub const MUTATIONS_MAX: usize = 2048;
/// Entries of one transaction: an operation has a handful, a node's report a few dozen.
pub const ENTRIES_MAX: usize = 256;
/// Transactions of one commit: above this a longer group only adds latency.
pub const GROUP_MAX: usize = 256;
/// Transactions that wait for the writer before `commit` itself waits: four groups.
pub const QUEUE_MAX: usize = 1024;
/// Changes fetched at once by a watcher.
pub const WATCH_BATCH: u32 = 256;
/// A watcher looks by itself after this time, for changes made by other processes.
pub const WATCH_POLL_MS: u64 = 1000;
/// What other processes committed is looked for this often: revocations reach all within 5 s.
pub const FOLLOW_MS: u64 = 500;
/// Connections that read. `SQLite` reads on one thread each; more only cost memory.
pub const READERS: u32 = 4;
/// A time that lies further behind the latest committed one is a clock that went back, and not the skew
/// between a request's arrival and its turn at the writer.
pub const CLOCK_BACK_MS: u64 = 5_000;
/// A key that is put or wrapped anew by a transaction whose time lies further behind was made by a request that slept, from
/// keys above it that may be gone: an old root epoch is kept for longer than this after its successor came.
pub const KEY_STALE_MS: u64 = 600_000;
/// Steps of a login delay's schedule.
pub const DELAYS_MAX: usize = 64;
/// Characters of an idempotency key.
pub const IDEMPOTENCY_KEY_MAX: usize = 128;
/// Bytes of a stored answer.
pub const ANSWER_MAX: usize = 1 << 20;
/// Bytes of a published checkpoint with its signatures: about a hundred witnesses.
pub const CHECKPOINT_MAX: usize = 64 << 10;
/// Characters of a blob's path: below what file systems and object stores take.
pub const BLOB_PATH_MAX: usize = 512;
/// Bytes of a blob that is put or read in one piece: a segment of a volume (16 MiB) and its framing.
pub const BLOB_MAX: usize = 32 << 20;
/// Bytes of a blob that is uploaded as a stream: the largest image layer that we take.
pub const UPLOAD_MAX: u64 = 64 << 30;
/// Bytes that an upload holds before it hands them to the store: the smallest part that buckets take.
pub const UPLOAD_PART: usize = 5 << 20;
/// Bytes of a piece of a blob that is read: large enough that the way to the disk and back costs little beside it.
pub const READ_PIECE: usize = 1 << 20;
/// Objects of one listing.
pub const BLOB_LIST_MAX: usize = 1000;
/// Connections that read from `PostgreSQL`: a request reads two or three times, and each process of the server costs 10 MiB.
pub const READERS_SERVER: u32 = 8;
/// Connections that hold locks across processes.
pub const LOCKS: u32 = 4;
/// A statement that takes longer is given up by the server: a page of a thousand rows takes milliseconds.
pub const STATEMENT: Duration = Duration::from_secs(10);
/// An answer that takes longer is given up by us: the server would have given up before, so the connection is dead.
pub const STATEMENT_ANSWER: Duration = Duration::from_secs(13);
/// A process that stops in the middle of a transaction loses it, and its locks, after this time.
pub const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(5);
/// The time to connect, the handshake included.
pub const CONNECT: Duration = Duration::from_secs(5);
/// How long a commit waits for a server that went away: a restart with a crash behind it fits.
pub const RECONNECT: Duration = Duration::from_secs(20);
/// How long a read is asked again when its connection broke: a restart fits.
pub const READ_PATIENCE: Duration = Duration::from_secs(10);
/// Marks of writers that are gone are kept this long: far longer than anybody looks up a lost commit.
pub const MARK_KEPT_MS: i64 = 24 * 60 * 60 * 1000;
/// The oldest `PostgreSQL` that we test with, as its `server_version_num`.
pub const SERVER_VERSION_MIN: i64 = 150_000;
/// Bytes of a database's URL and of the file with its password.
pub const URL_MAX: usize = 2048;
/// Bytes of what an entry is about, which lies in an index: `PostgreSQL` takes 2704 there, with all other columns.
pub const ENTRY_NAME_MAX: usize = 2048;
/// What an interrupted upload left in a folder that several processes share is removed when it is this old: longer than any
/// upload lasts.
pub const UPLOAD_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
