//! Every limit of the control plane, with its reason.

use std::time::Duration;

/// When to come back while the database is away, in seconds: a server that restarts needs about as long.
pub(crate) const AWAY_RETRY_S: u64 = 5;
/// Signers of an image policy, and repositories that one of them may sign for: a team, not a directory.
pub(crate) const IMAGE_SIGNERS_MAX: usize = 32;
/// Signatures that are kept of one image.
pub(crate) const IMAGE_SIGNATURES_MAX: usize = 32;
/// Bytes of a repository's name in an image policy.
pub(crate) const IMAGE_REFERENCE_MAX: usize = 512;
/// Upper ends of the classes of a request's time, in seconds: an authorised read takes a third of a millisecond, a mutation a
/// few, a login with its password a tenth of a second.
pub(crate) const REQUEST_SECONDS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];
/// The same for a group of transactions: a disk takes from a tenth of a millisecond to what somebody must look into.
pub(crate) const COMMIT_SECONDS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];
/// Readers of the metrics at once: a few collectors of one machine.
pub(crate) const METRICS_CONNECTIONS_MAX: usize = 8;
/// A reader of the metrics asks and takes within this time, or loses its place.
pub(crate) const METRICS_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a metrics request's headers; a collector sends a few hundred.
pub(crate) const METRICS_HEADERS_MAX: usize = 16 << 10;
/// Connections at once on one listener, where the process may open as many files. One that has shaken hands and does nothing
/// costs about 30 KiB (bench/README.md), so all of them half a GiB; ten thousand clients that keep their connection find a place.
pub(crate) const CONNECTIONS_MAX: usize = 16_384;
/// Files that are left for everything but connections: database, objects in flight, log.
pub(crate) const FILES_RESERVED: u64 = 512;
/// Connections of one source (an IPv4 address, an IPv6 network of 64 bits) on one listener: an office behind one address fits,
/// and nobody alone takes the places of all others.
pub(crate) const CONNECTIONS_PER_SOURCE: usize = 1024;
/// Strangers that ask nothing and are ended together when a place is needed: a look at all connections takes about a
/// millisecond, less than the handshakes of so many cost whoever sends them.
pub(crate) const GIVE_WAY: usize = 64;
/// A connection without a request in flight ends after this long: clients keep theirs for as long (90 s is their usual limit).
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// How long the other side may take to read that its idle connection ends.
pub(crate) const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);
/// A TLS handshake that takes longer belongs to nobody whom we want to serve.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// From the handshake to the first request, and from the first byte of a request to the end of its headers: slow-loris clients end here.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of all headers of a request.
pub(crate) const HEADERS_MAX: usize = 32 << 10;
/// From the end of the headers to the end of a JSON body.
pub(crate) const JSON_BODY_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a body that nobody looked at and that is taken all the same before a refusal is told: every spec of ours fits.
pub(crate) const OVERTAKEN_MAX: u64 = 64 << 10;
/// Between two pieces of a streamed body (a sealed object, an image blob).
pub(crate) const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Streams of one HTTP/2 connection.
pub(crate) const STREAMS_MAX: u32 = 128;
/// Bytes of an HTTP/2 frame that we take: objects of 16 MiB in frames of 16 KiB cost a TLS record more for each.
pub(crate) const FRAME_BYTES: u32 = 256 << 10;
/// Bytes of one HTTP/2 stream that may wait for whoever reads them: a disk's pause at full speed.
pub(crate) const STREAM_WINDOW: u32 = 1 << 20;
/// Bytes of one HTTP/2 connection that may wait: one stream that waits for the disk does not stop another.
pub(crate) const CONNECTION_WINDOW: u32 = 2 << 20;
/// Rows of a page where nothing else is asked for.
pub(crate) const PAGE_DEFAULT: u32 = 200;
/// A login lasts a working day (decision 1.7).
pub(crate) const LOGIN_LIFETIME_MS: u64 = 8 * 3_600_000;
/// An enrolment ticket is used at once or not at all (`access.md` 4.6).
pub(crate) const TICKET_LIFETIME_MS: u64 = 15 * 60_000;
/// A token may be made with a token that was made with a token: each use looks at all of them, so they are few.
pub(crate) const TOKEN_CHAIN_MAX: usize = 8;
/// Tokens that were made with a token and are written as revoked with it, each with an entry. Any beyond are dead all the same.
pub(crate) const TOKENS_REVOKED_MAX: usize = 200;
/// What one principal is refused without a decision (what is not there, a lease or confirmation that is none) stands singly in
/// the log up to this many in a minute. More are counted, as those of strangers are: a loop must not bury the log.
pub(crate) const REACHES_PER_MINUTE: u32 = 60;
/// Principals whose refusals of this minute are counted in memory.
pub(crate) const REACHING_MAX: usize = 10_000;
/// Requests of one principal in a second, for each core of the machine. One core answers about 3,000 authorised reads: a
/// program may have most of a machine to itself, and never all of it.
pub(crate) const PRINCIPAL_REQUESTS_PER_CORE: u64 = 2_000;
/// Requests of all of one tenant's principals in a second, for each core: others are served beside it.
pub(crate) const TENANT_REQUESTS_PER_CORE: u64 = 2_500;
/// Seconds of its rate that somebody may ask for at once: a program that starts, a volume of many small files.
pub(crate) const BURST_SECONDS: u64 = 2;
/// Refused credentials of one source in a second: each is a write. A fleet behind one address whose tokens ended stays below it.
pub(crate) const REFUSED_CREDENTIALS_PER_S: u64 = 20;
/// Refused credentials of one source at once.
pub(crate) const REFUSED_CREDENTIALS_BURST: u64 = 200;
/// Buckets of each kind in memory, of about 150 bytes: 10 MiB. Who comes beyond shares one.
pub(crate) const BUCKETS_MAX: usize = 65_536;
/// Of what is refused as too often, one in this time is counted for each bucket.
pub(crate) const RATE_TOLD_MS: u64 = 60_000;
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
/// The planner looks at least this often: what time alone brings about (silence, ended leases) is seen within a second.
pub(crate) const TICK: Duration = Duration::from_secs(1);
/// After a node reported an end, its statement has this long to arrive, over several tries of the node.
pub(crate) const STATEMENT_GRACE_MS: u64 = 60_000;
/// A run lease is written anew once this part of it has passed: a day's lease costs a write in hours, one of 30 s with each heartbeat.
pub(crate) const RENEW_PARTS: u64 = 10;
/// Attempts of one report: far more than one machine runs, far fewer than would hold up the others.
pub(crate) const REPORT_ATTEMPTS_MAX: usize = 256;
/// The shortest and longest run lease (decision 3.3): short means fast failover, long means patience with an absent control plane.
pub(crate) const RUN_LEASE_MS: std::ops::RangeInclusive<u64> = 30_000..=86_400_000;
/// Memory of a job: below 4 MiB no program of anybody starts; above 64 TiB no machine is.
pub(crate) const JOB_MEMORY_BYTES: std::ops::RangeInclusive<u64> = (4 << 20)..=(64 << 40);
/// CPU of a job in thousandths: the kernel's smallest quota, and four thousand cores.
pub(crate) const JOB_CPU_MILLIS: std::ops::RangeInclusive<u64> = 10..=4_096_000;
/// Processes of a job: one, and what the kernel can number.
pub(crate) const JOB_PIDS: std::ops::RangeInclusive<u64> = 1..=4_194_304;
/// Scratch of a job: a megabyte, and a petabyte.
pub(crate) const JOB_SCRATCH_BYTES: std::ops::RangeInclusive<u64> = (1 << 20)..=(1 << 50);
/// Longest run: a second, and a year.
pub(crate) const JOB_TIME_MS: std::ops::RangeInclusive<u64> = 1_000..=31_536_000_000;
/// Between SIGTERM and SIGKILL: at most ten minutes, so that a node can be drained within a meeting.
pub(crate) const JOB_GRACE_MS: std::ops::RangeInclusive<u64> = 0..=600_000;
/// The latest deadline of a drain: a week, longer than any maintenance is planned ahead.
pub(crate) const DRAIN_DEADLINE_MAX_S: u64 = 7 * 86_400;
/// How often a job may be started again after its machines failed it: a job that ten machines do not bear is the cause itself.
pub(crate) const JOB_RESTARTS: std::ops::RangeInclusive<u64> = 0..=10;
/// The greatest limit of a quota: the greatest whole number that every reader of JSON reads alike (RFC 8785).
pub(crate) const QUOTA_MAX: u64 = (1 << 53) - 1;
/// How long a key lease may outlive its ground where nobody asked for its end by name.
pub(crate) const LEASE_SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Writer epochs of a volume: every lease carries all signers, and stays below 1 MiB.
pub(crate) const SIGNERS_MAX: u64 = 8_192;
/// Live and ended key leases of one attempt: 64 volumes, and an agent that was restarted a few times.
pub(crate) const ATTEMPT_LEASES_MAX: usize = 256;
/// Plain bytes of an attempt's log that are kept, with the cost of its parts: what a person could ever look through.
pub(crate) const LOG_BYTES_MAX: u64 = 128 << 20;
/// What a part of a log costs beside its bytes: its row, its header, its file.
pub(crate) const LOG_PART_COST: u64 = 512;
/// Bytes of one frame: a supervisor cuts longer lines.
pub(crate) const LOG_FRAME_MAX: usize = 16 << 10;
/// Frames of one batch: with the shortest lines a JSON body holds fewer.
pub(crate) const LOG_BATCH_FRAMES_MAX: usize = 16_384;
/// Where nothing wakes the reader of a log (another process wrote), it looks this often.
pub(crate) const LOG_FOLLOW_POLL: Duration = Duration::from_secs(1);
/// A reader of an ended attempt's log waits this long for late frames, unless the node's statement came.
pub(crate) const LOG_TAIL_MS: u64 = 5_000;
/// Streams are decided again this often: a revoked token reads no longer than that.
pub(crate) const STREAM_DECIDE_AGAIN: Duration = Duration::from_secs(2);
/// How often the entries of each tenant are counted in the log: what is left out later than that contradicts a leaf.
pub(crate) const COUNT_EVERY: Duration = Duration::from_secs(600);
/// A node whose log does not grow says so again in an entry after this time: silence shows.
pub(crate) const NODE_LOG_IDLE_MS: u64 = 600_000;
/// Where no checkpoint wakes it, the gatherer of cosignatures looks this often.
pub(crate) const WITNESS_POLL: Duration = Duration::from_secs(1);
/// A witness signs in milliseconds where it is well; one that takes longer is asked again for the next checkpoint.
pub(crate) const WITNESS_DEADLINE: Duration = Duration::from_secs(5);
/// How long a witness is waited for that is slower than the quorum: its line is welcome, and holds nobody up.
pub(crate) const WITNESS_LINGER: Duration = Duration::from_millis(500);
/// How often a witness may name another size within one conversation: once is usual, twice when somebody else asked meanwhile.
pub(crate) const WITNESS_TRIES: u32 = 4;
/// A checkpoint for which no quorum came gives way to a newer one after this time.
pub(crate) const WITNESS_CANDIDATE_MS: u64 = 6_000;
/// An idle log is cosigned again this often, so that the age of the newest cosignature tells a silent log from a dead one.
pub(crate) const WITNESS_REFRESH_MS: u64 = 60_000;
/// Bytes of a witness's answer: its lines, or the checkpoint that it shows.
pub(crate) const WITNESS_ANSWER_MAX: usize = audit::limits::NOTE_MAX;
/// Witnesses of a policy: with the log's own line they stay below the 16 signatures that every verifier accepts.
pub(crate) const WITNESSES_MAX: usize = 14;
/// Where no checkpoint wakes it, the builder of receipts looks for ended jobs this often.
pub(crate) const RECEIPT_POLL: Duration = Duration::from_secs(2);
/// A receipt that could not be built is a defect: it is tried again this seldom, so that the log of errors stays readable.
pub(crate) const RECEIPT_RETRY_MS: u64 = 60_000;
/// Bytes of a job's spec as JSON, escapes included: its row holds it beside the reports of its attempts.
pub(crate) const SPEC_JSON_MAX: usize = 512 << 10;
/// Bytes of all specs of a node's plan. Base64 makes a third more of it, and it must fit into a row of the store (2 MiB)
/// beside the set of revocations (some 12,000 nodes). A job beyond it waits for another node.
pub(crate) const PLAN_SPECS_MAX: usize = 1 << 20;
/// Bytes of an isolation report as JSON: several times what we have layers for.
pub(crate) const ISOLATION_JSON_MAX: usize = 64 << 10;
/// How long new shares wait for their confirmation: long enough to put each in an envelope.
pub(crate) const SHARES_WAIT_MS: u64 = 30 * 60_000;
/// After a wrong passphrase at a sealed server the next one waits this long: with argon2 before it, a guess a second.
pub(crate) const PASSPHRASE_PAUSE: Duration = Duration::from_secs(1);
/// Refused tries to open the seal become entries at most this often: strangers do not fill the log.
pub(crate) const SEAL_REFUSED_ENTRY_MS: u64 = 60_000;
/// How often a sealed server looks whether half-entered shares have lapsed.
pub(crate) const SEAL_TICK: Duration = Duration::from_secs(1);
/// Milliseconds of a day.
pub(crate) const DAY_MS: u64 = 86_400_000;
/// How often limits of keys are looked at where nothing wakes the rounds: they are days, a minute is soon enough.
pub(crate) const KEY_TICK: Duration = Duration::from_secs(60);
/// Rotations of one round: a thousand tenants that were born together are spread over rounds.
pub(crate) const ROTATIONS_PER_ROUND: usize = 64;
/// Keys of one transaction of a rewrap: a commit of a few hundred rows holds up nobody.
pub(crate) const REWRAP_BATCH: u32 = 200;
/// Keys that one round moves at most, to the next full batch.
pub(crate) const REWRAPS_PER_ROUND: usize = 2_000;
/// Destructions of one round.
pub(crate) const DESTRUCTIONS_PER_ROUND: u32 = 100;
/// An old root epoch stays this long after its successor came: a request that read it first is over by then, or is refused
/// by the store for its old time.
pub(crate) const EPOCH_GRACE_MS: u64 = 3_600_000;
/// Days between the order to destroy a key and its destruction (`access.md` 4.8).
pub(crate) const DESTRUCTION_WAIT_DAYS: std::ops::RangeInclusive<u32> = 7..=30;
/// The same where nothing else is asked for.
pub(crate) const DESTRUCTION_WAIT_DEFAULT_DAYS: u32 = 30;
/// Days that backups are kept where no operator has said otherwise: what many keep.
pub(crate) const BACKUP_RETENTION_DAYS: u32 = 30;
/// The longest that can be said: ten years.
pub(crate) const BACKUP_RETENTION_DAYS_MAX: u32 = 3_650;

/// How often certificates are looked at: their lives are days, and another control plane's renewal is followed within it.
pub(crate) const RENEWAL_TICK: Duration = Duration::from_secs(60);

/// For how long a new receipt key stands in the public file before anything is signed with it: every control plane has followed
/// by then, and serves the file that names it.
pub(crate) const RECEIPT_KEY_ANNOUNCED_MS: u64 = 60 * 60_000;
