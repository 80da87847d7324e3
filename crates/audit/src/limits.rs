//! Every number of this crate, with its reason.

/// Hashes of a full tile (C2SP tlog-tiles).
pub const TILE_WIDTH: u16 = 256;
/// Bytes of a full tile of hashes.
pub const TILE_BYTES: usize = 256 * 32;
/// Highest tile level: 256^8 leaves are more than a `u64` counts.
pub const TILE_LEVEL_MAX: u8 = 63;
/// Bytes of one leaf in an entry bundle: its length is a big-endian `u16`.
pub const LEAF_MAX: usize = 65_535;
/// Bytes of an entry bundle: 256 leaves, each behind two bytes of length.
pub const BUNDLE_BYTES: usize = 256 * (LEAF_MAX + 2);
/// Hashes of a proof: the height of a tree of 2^63 leaves, and one more for consistency.
pub const PROOF_MAX: usize = 64;
/// Bytes of a signed note: far above a checkpoint with sixteen ML-DSA-44 signatures (53 KiB).
pub const NOTE_MAX: usize = 128 << 10;
/// Signatures on a note that we read. The format obliges a verifier to accept 16 and lets it refuse more than 100.
pub const SIGNATURES_READ_MAX: usize = 100;
/// Signatures on a note that we write: what every verifier must accept.
pub const SIGNATURES_WRITE_MAX: usize = 16;
/// Bytes of a key's name or a log's origin.
pub const KEY_NAME_MAX: usize = 255;
/// Bytes of the `extra` line of a proof, decoded.
pub const EXTRA_MAX: usize = 64 << 10;
/// Bytes of a proof file: a note, 64 hashes of 45 bytes and an `extra` line.
pub const PROOF_FILE_MAX: usize = NOTE_MAX + 64 * 45 + EXTRA_MAX * 2;
/// Bytes of an entry's body: the largest event (a refusal with its rules) is near 4 KiB.
pub const BODY_MAX: usize = 64 << 10;
/// Bytes of any text inside an entry, before it is cut by whoever records it.
pub const TEXT_MAX: usize = 1024;
/// Bytes of a personal value that is sealed into an entry.
pub const SEALED_VALUE_MAX: usize = 512;
/// Personal values in one entry.
pub const SEALED_FIELDS_MAX: usize = 16;
/// Largest integer that canonical JSON (RFC 8785) carries without rounding.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;
/// Times before 2001-09-09 in milliseconds are times in seconds by mistake.
pub const TIME_MIN_MS: u64 = 1_000_000_000_000;
/// Times after the year 2286 are microseconds or nanoseconds by mistake.
pub const TIME_MAX_MS: u64 = 9_999_999_999_999;
/// Bytes of the origin of a foreign log: C2SP sets none; a line of a screen or two is generous.
pub const ORIGIN_MAX: usize = 512;
/// Lines of a consistency proof in a request to a witness (C2SP tlog-witness).
pub const WITNESS_PROOF_MAX: usize = 63;
/// Bytes of a request to a witness: a note, 63 hashes of 45 bytes, the old size.
pub const WITNESS_REQUEST_MAX: usize = NOTE_MAX + 64 * 45;
/// Logs that one witness signs for: a swarm has one, a public witness some dozens.
pub const LOGS_MAX: usize = 256;
/// Seconds that a witness's clock may lie behind the time that it signed last: what a correction of a good clock needs.
pub const CLOCK_BACK_MAX_S: u64 = 300;
/// Bytes of a policy file: 32 logs, 32 witnesses and 32 groups with long names and addresses stay below.
pub const POLICY_MAX: usize = 64 << 10;
/// Logs, witnesses and groups of a policy file, each: C2SP tlog-policy asks for 32 at least.
pub const POLICY_ITEMS_MAX: usize = 64;
