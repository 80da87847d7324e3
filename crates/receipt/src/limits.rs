//! Every number of this crate, with its reason.

/// Bytes of a receipt: 32 volumes in and out with three entries of at most 64 KiB each stay far below.
pub const RECEIPT_MAX: usize = 16 << 20;
/// Bytes of a deployment's public file: a certificate and a few keys.
pub const DEPLOYMENT_MAX: usize = 256 << 10;
/// Bytes of one payload inside an envelope.
pub const PAYLOAD_MAX: usize = 12 << 20;
/// Log entries in a receipt: four for each of 64 volumes, and the job's own.
pub const ENTRIES_MAX: usize = 512;
/// Certificates of a chain, without the root.
pub const CHAIN_MAX: usize = 4;
/// Bytes of one certificate.
pub const CERTIFICATE_MAX: usize = 16 << 10;
/// Keys of each kind in a deployment's file: rotation needs two, witnesses a committee of fourteen.
pub const KEYS_MAX: usize = 64;
/// Bytes of a signed root record of a volume: its CBOR has at most 180 bytes.
pub const ROOT_RECORD_MAX: usize = 1024;
/// Labels of a receipt.
pub const LABELS_MAX: usize = 32;
/// How far a receipt may lie in the future of the verifier's clock, in milliseconds.
pub const CLOCK_SKEW_MS: u64 = 300_000;

/// Bytes of a release's list: [`RELEASE_FILES_MAX`] lines of a digest and a long name.
pub const RELEASE_LIST_MAX: usize = 64 << 10;
/// Files of a release: packages, inventories and sources of a few architectures.
pub const RELEASE_FILES_MAX: usize = 256;
