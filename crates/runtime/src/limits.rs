//! Every bound of this crate, by name and with its reason.

/// Ids of one job's user namespace: the usual block, so that every id an image may name is mapped.
pub const ID_BLOCK: u32 = 65_536;
/// Bytes of one log frame's data: a line longer than this is cut.
pub const LOG_FRAME_BYTES: usize = 16 * 1024;
/// Bytes of one file of the log's ring.
pub const LOG_FILE_BYTES: u64 = 4 << 20;
/// Files of the log's ring: with [`LOG_FILE_BYTES`] 128 MiB per job, oldest dropped and counted.
pub const LOG_FILES: usize = 32;
/// Bytes of one line on the control socket.
pub const CONTROL_LINE_BYTES: usize = 64 * 1024;
/// Connections to one shim at the same time.
pub const CONTROL_CONNECTIONS: usize = 16;
/// Bytes of a plan or an exit record.
pub const RECORD_BYTES: u64 = 4 << 20;
/// Bytes of all regular files of an image together: a bomb ends here.
pub const IMAGE_BYTES: u64 = 64 << 30;
/// Entries of all layers together.
pub const IMAGE_ENTRIES: u64 = 2_000_000;
/// Components of one path.
pub const IMAGE_DEPTH: usize = 512;
/// Bytes of one name and of one path: the kernel's own limits.
pub const NAME_BYTES: usize = 255;
/// Bytes of one path.
pub const PATH_BYTES: usize = 4096;
/// Bytes of extended headers and long names of one entry.
pub const HEADER_BYTES: u64 = 1 << 20;
/// Layers of one image.
pub const IMAGE_LAYERS: usize = 128;
/// Bytes of an index, manifest or config.
pub const MANIFEST_BYTES: u64 = 4 << 20;
/// Bytes of all extended attributes of one file.
pub const XATTR_BYTES: usize = 64 * 1024;
/// Log2 of the largest window of a zstd layer: 128 MiB.
pub const ZSTD_WINDOW_LOG: u32 = 27;
