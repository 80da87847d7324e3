//! Limits of this crate, with their reasons.

/// Bytes of every key.
pub const KEY_BYTES: usize = 32;
/// A seal file is a few hundred bytes per epoch; this bounds a hostile one.
pub const SEAL_FILE_MAX: usize = 256 << 10;
/// Epochs in one seal file: monthly ones for twenty years.
pub const EPOCHS_MAX: usize = 240;
/// Memory that argon2id may ask for, in KiB: a hostile file cannot demand more than 1 GiB.
pub const ARGON2_MEMORY_MAX_KIB: u32 = 1 << 20;
/// Passes that argon2id may ask for.
pub const ARGON2_PASSES_MAX: u32 = 16;
/// Lanes that argon2id may ask for.
pub const ARGON2_LANES_MAX: u32 = 16;
/// Bytes of a passphrase.
pub const PASSPHRASE_MAX: usize = 1024;
/// Bytes of a secret sealed by HPKE.
pub const HPKE_SECRET_MAX: usize = 4096;
/// The fewest shares that open a seal: one that opens alone is a password, and no seal of several people.
pub const THRESHOLD_MIN: u8 = 2;
/// Shares of one seal: custodians of one deployment who can still be called together.
pub const SHARES_MAX: u8 = 32;
/// How long half-entered shares wait for the next one: long enough to call a custodian, too short to be forgotten.
pub const GATHER_MS: u64 = 15 * 60_000;
/// Characters that are read of a typed share: its 128, its name, and room for blanks and dashes.
pub const SHARE_TEXT_MAX: usize = 512;
