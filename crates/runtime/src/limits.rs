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
/// Bytes of all layers together after decompression: all files, and a kibibyte or two of headers for every entry.
pub const IMAGE_STREAM_BYTES: u64 = IMAGE_BYTES + (4 << 30);
/// Entries of all layers together, directories included that are made because a name needs them.
pub const IMAGE_ENTRIES: u64 = 2_000_000;
/// Components of one path, and directories above any file of the tree.
pub const IMAGE_DEPTH: usize = 512;
/// Bytes of one name: the kernel's own limit.
pub const NAME_BYTES: usize = 255;
/// Bytes of one path with its final NUL: the kernel's own limit.
pub const PATH_BYTES: usize = 4096;
/// Bytes of all headers of one entry, extended ones and long names included.
pub const HEADER_BYTES: u64 = 1 << 20;
/// Layers of one image.
pub const IMAGE_LAYERS: usize = 128;
/// Bytes of an index, manifest or config.
pub const MANIFEST_BYTES: u64 = 4 << 20;
/// Descriptors of one index: real ones have one for each platform.
pub const INDEX_ENTRIES: usize = 1000;
/// Files of an OCI archive: layers of many images and some documents, never this many.
pub const ARCHIVE_MEMBERS: usize = 100_000;
/// Bytes of all extended attributes of one file, names included.
pub const XATTR_BYTES: usize = 64 * 1024;
/// Log2 of the largest window of a zstd layer: 128 MiB.
pub const ZSTD_WINDOW_LOG: u32 = 27;
/// How many times larger than its blob a layer may become. gzip ends at 1,032; what lies far above real layers is
/// only there to cost time.
pub const LAYER_RATIO: u64 = 1_000;
/// Bytes up to which a layer's ratio does not matter: small layers of zeros are harmless.
pub const LAYER_RATIO_FREE: u64 = 1 << 30;
/// Bytes of an image's `/etc/passwd` or `/etc/group`.
pub const ACCOUNTS_BYTES: u64 = 1 << 20;
