//! Every number of the store, with its reason.

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
/// Connections that read. `SQLite` reads on one thread each; more only cost memory.
pub const READERS: u32 = 4;
/// A time that lies further behind the latest committed one is a clock that went back, and not the skew
/// between a request's arrival and its turn at the writer.
pub const CLOCK_BACK_MS: u64 = 5_000;
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
