//! Bounds, each with its reason.

use std::time::Duration;

/// Finished spans that wait: two seconds of a busy control plane, less than a megabyte.
pub const QUEUE_MAX: usize = 4096;
/// Spans of one request to the collector.
pub const BATCH_MAX: usize = 512;
/// How long a span waits for others.
pub const BATCH_WAIT: Duration = Duration::from_secs(1);
/// A collector that takes longer loses the batch.
pub const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// Traces that are begun a second, whatever clients ask for: a thousandth of a busy server's time goes into them.
pub const TRACES_PER_SECOND: u64 = 100;
/// Traces that may begin at once after a quiet while.
pub const TRACES_BURST: u64 = 200;
/// How long the last spans may take to leave when the process ends.
pub const LAST_WAIT: Duration = Duration::from_secs(2);
/// Attributes and links of a span: more says somebody who loops.
pub const PARTS_MAX: usize = 16;
