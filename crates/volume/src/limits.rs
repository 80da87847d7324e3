//! Limits of the format, with their reasons.

/// Plain bytes of one chunk: a random 4 KiB read decrypts 64 KiB, about 10 µs (`volume.md` 4.4).
pub const CHUNK: usize = 1 << 16;
/// Plain bytes of one data segment: one object, bounded memory.
pub const SEGMENT: usize = 16 << 20;
/// Chunks of a segment.
pub const CHUNKS_MAX: usize = 65_535;
/// Bytes of any segment: 64 MiB of data with its chunks' overhead.
pub const SEGMENT_BYTES_MAX: usize = (64 << 20) + (1 << 20);
/// Files of one volume in the first form: one catalogue page of about 100 bytes each.
pub const FILES_MAX: usize = 100_000;
/// Bytes of a file's name inside a volume.
pub const NAME_BYTES_MAX: usize = 1024;
/// Bytes of one part of a name.
pub const NAME_PART_MAX: usize = 255;
/// Parts of a name.
pub const NAME_DEPTH_MAX: usize = 64;
/// Bytes of a root record.
pub const ROOT_BYTES_MAX: usize = 1024;
