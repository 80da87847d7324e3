//! Every limit of the control plane, with its reason.

use std::time::Duration;

/// Connections at once on one listener: bounds memory at a few hundred MiB even when all of them are full of half-read requests.
pub(crate) const CONNECTIONS_MAX: usize = 4096;
/// A TLS handshake that takes longer belongs to nobody whom we want to serve.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// From the first byte of a request to the end of its headers: slow-loris clients end here.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of all headers of a request.
pub(crate) const HEADERS_MAX: usize = 32 << 10;
/// From the end of the headers to the end of a JSON body.
pub(crate) const JSON_BODY_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two pieces of a streamed body (a sealed object, an image blob).
pub(crate) const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Streams of one HTTP/2 connection.
pub(crate) const STREAMS_MAX: u32 = 128;
/// A login lasts a working day (decision 1.7).
pub(crate) const LOGIN_LIFETIME_MS: u64 = 8 * 3_600_000;
/// An enrolment ticket is used at once or not at all (`access.md` 4.6).
pub(crate) const TICKET_LIFETIME_MS: u64 = 15 * 60_000;
/// A confirmation is for now.
pub(crate) const STEP_UP_LIFETIME_MS: u64 = 5 * 60_000;
/// A key lease of a person: long enough for a large upload between renewals, short enough to matter.
pub(crate) const PERSON_LEASE_MS: u64 = 15 * 60_000;
/// A node that was silent for this long gets no new jobs (decision 3.3).
pub(crate) const NODE_LOST_MS: u64 = 20_000;
/// How far two honest clocks may be apart when a run lease is judged from outside.
pub(crate) const CLOCK_SKEW_MS: u64 = 5_000;
/// Checkpoints are published at most this long after an entry (decision 2.3).
pub(crate) const PUBLISH_INTERVAL: Duration = Duration::from_millis(250);
/// What nodes said of themselves is written this often: a restart knows its nodes as they were a moment ago, and a thousand
/// heartbeats cost one transaction.
pub(crate) const SEEN_FLUSH_MS: u64 = 5_000;
/// The shortest life of a join token in seconds: long enough to type the line.
pub(crate) const JOIN_LIFETIME_MIN_S: u64 = 60;
/// The longest life of a join token in seconds: it is used at once or not at all.
pub(crate) const JOIN_LIFETIME_MAX_S: u64 = 3_600;
/// Labels of a node, or that a job asks for: a screenful.
pub(crate) const LABELS_MAX: usize = 64;
/// Bytes of an image's manifest (`runtime.md` 10).
pub(crate) const MANIFEST_MAX: usize = 4 << 20;
/// Blobs of an image: 128 layers, config, manifest (`runtime.md` 10).
pub(crate) const IMAGE_BLOBS_MAX: usize = 130;
/// Bytes of all blobs of an image: what a node may unpack at most (`runtime.md` 10).
pub(crate) const IMAGE_BYTES_MAX: u64 = 64 << 30;
