//! Every bound of the node agent, by name and with its reason.

use std::time::Duration;

/// The first wait before a try is repeated (decision 3.1).
pub const BACKOFF_FIRST: Duration = Duration::from_millis(200);
/// The longest wait before a try is repeated (decision 3.1).
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Between two tries of a node that is told to be revoked: it is for good, but nobody proves it to the node.
pub const REVOKED_PAUSE: Duration = Duration::from_secs(60);
/// A connection that is not there by then will not come: the next try may reach another process.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A small request and its answer; longer than a control plane's failover, shorter than any run lease.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Silence in the middle of a body: three keep-alives of the plan's stream.
pub const SILENCE: Duration = Duration::from_millis(vocabulary::channel::PLAN_KEEPALIVE_MS * 3);
/// Bytes of an HTTP/2 frame that we take: sealed objects in frames of 16 KiB cost a TLS record more for each.
pub const FRAME_BYTES: u32 = 256 << 10;
/// Bytes of one signed plan: a full set of revocations (`identity`) and thousands of jobs stay below.
pub const PLAN_BYTES_MAX: usize = 32 << 20;
/// Bytes of an answer that is JSON, a lease with all its signers included.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Bytes of a problem document that is read; ours have a few hundred.
pub const PROBLEM_BYTES_MAX: usize = 64 << 10;
/// Bytes of one file of the agent's own directory: the largest is the plan.
pub const FILE_BYTES_MAX: u64 = 48 << 20;
/// Bytes of one attempt's record: spec, isolation report, statement.
pub const RECORD_BYTES_MAX: u64 = 16 << 20;
/// Frames of one log batch: 32 frames of 16 KiB in base64 stay below `vocabulary::limits::JSON_BODY_MAX`.
pub const LOG_BATCH_FRAMES: usize = 32;
/// How often a living attempt is looked at: its end is told within this time.
pub const WATCH_EVERY: Duration = Duration::from_millis(200);
/// How often new log frames are looked for.
pub const LOGS_EVERY: Duration = Duration::from_millis(300);
/// The longest time between two looks at a deadline: the boot-time clock runs on through a sleep of the machine, the
/// timer does not.
pub const DEADLINE_CHECK: Duration = Duration::from_secs(1);
/// Blobs of one image that are fetched at once.
pub const BLOBS_AT_ONCE: usize = 4;
/// Bytes of one blob of an image: the largest tree that `runtime` unpacks.
pub const BLOB_BYTES_MAX: u64 = 64 << 30;
/// Blobs of an image: layers, manifest, config.
pub const BLOBS_MAX: usize = 130;
/// How often sealing begins again because somebody else wrote meanwhile, or a lease was gone.
pub const SEAL_TRIES: u32 = 5;
/// How often removing scratch is tried before the failure is told.
pub const SCRUB_TRIES: u32 = 10;
/// Between two tries to remove something that the kernel still holds.
pub const SCRUB_PAUSE: Duration = Duration::from_millis(200);
/// Memory that jobs do not get: the agent, the shims and the kernel live in it.
pub const RESERVED_MEMORY: u64 = 256 << 20;
/// Bytes of a sentence that tells why: the control plane takes 1,024, and refuses a whole report for one that is longer.
pub const DETAIL_MAX: usize = 1000;
/// Bytes of what was read back of one layer of isolation, as the control plane takes it.
pub const OBSERVED_MAX: usize = 1000;
/// How long a drained agent waits for its jobs beyond their own grace time.
pub const DRAIN_EXTRA: Duration = Duration::from_secs(20);
/// The longest time between two looks at the wall clock for the certificate's renewal.
pub const RENEW_CHECK: Duration = Duration::from_secs(60);
/// How long an agent waits at its start for the death of what nobody knows.
pub const STRANGER_PATIENCE: Duration = Duration::from_secs(60);
/// How long an agent waits for the lock of one that was killed.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How often the node's own log is signed and brought to the control plane: what is younger, the node could still drop.
pub const ANCHOR_EVERY: Duration = Duration::from_secs(30);
/// Bytes of entries that wait to be made tiles: those of [`ANCHOR_EVERY`] need a small part of it.
pub const JOURNAL_PENDING_MAX: u64 = 64 << 20;
/// Requests that a witness keeps as evidence against logs: each is below `audit::limits::WITNESS_REQUEST_MAX` (131 KiB).
pub const EVIDENCE_MAX: usize = 64;
