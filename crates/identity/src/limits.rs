//! Every number of this room, with its reason.

/// One hour of milliseconds.
const HOUR_MS: u64 = 3_600_000;
/// One day of milliseconds.
const DAY_MS: u64 = 24 * HOUR_MS;

/// Life of a root certificate: ten years, longer than any receipt is likely to be argued about.
pub const ROOT_LIFE_MS: u64 = 3_650 * DAY_MS;
/// Life of an issuing certificate: its key stays with one process, which makes a new one at half of this.
pub const ISSUING_LIFE_MS: u64 = 365 * DAY_MS;
/// Life of a node's certificate: the longest control-plane outage that mutual TLS survives, and the longest
/// that a stolen key works where the revocation set does not reach.
pub const NODE_LIFE_MS: u64 = HOUR_MS;
/// The shortest life of a node's certificate that may be set: below it, renewals crowd out work.
pub const NODE_LIFE_MIN_MS: u64 = 5 * 60_000;
/// The longest life of a node's certificate that may be set.
pub const NODE_LIFE_MAX_MS: u64 = DAY_MS;
/// Life of a control-plane process' certificate.
pub const CONTROL_LIFE_MS: u64 = 7 * DAY_MS;
/// Life of the certificate of a receipt key: receipts are judged at the time of their entry, so it may be short.
pub const RECEIPT_LIFE_MS: u64 = 90 * DAY_MS;
/// Certificates begin this much before they were issued, for peers whose clock is behind.
pub const BACKDATE_MS: u64 = 5 * 60_000;

/// Bytes of one certificate: ours have about 700.
pub const CERTIFICATE_MAX: usize = 4_096;
/// Certificates of a chain: leaf, issuing authority, root.
pub const CHAIN_MAX: usize = 3;
/// Bytes of a certificate request: ours have about 250.
pub const CSR_MAX: usize = 4_096;
/// Names and addresses of a server certificate: keeps it below [`CERTIFICATE_MAX`].
pub const SERVER_NAMES_MAX: usize = 16;
/// Entries of each list of a revocation set: node certificates end by themselves, so the set stays small.
pub const REVOCATIONS_MAX: usize = 100_000;
/// Bytes of a deployment's public file.
pub const DEPLOYMENT_FILE_MAX: usize = 256 << 10;
/// Log keys and receipt certificates of a deployment's public file, each.
pub const DEPLOYMENT_KEYS_MAX: usize = 64;
/// Characters of one log key of a deployment's public file.
pub const LOG_KEY_MAX: usize = 512;
/// The latest second that a certificate can name: the end of the year 9999.
pub const LAST_SECOND: u64 = 253_402_300_799;

/// Characters of a password at most: hashing it must not be a way to keep us busy.
pub const PASSWORD_MAX: usize = 128;
/// Characters of a password at least.
pub const PASSWORD_MIN: usize = 12;
/// Different characters of a password at least.
pub const PASSWORD_DISTINCT_MIN: usize = 5;
/// argon2id memory in KiB (the minimum that OWASP names; about 23 ms on one core).
pub const ARGON2_MEMORY_KIB: u32 = 19 * 1024;
/// argon2id passes.
pub const ARGON2_PASSES: u32 = 2;
/// argon2id lanes.
pub const ARGON2_LANES: u32 = 1;
/// The most memory in KiB that a stored hash may ask for: a doctored row must not exhaust the machine.
pub const ARGON2_MEMORY_KIB_MAX: u32 = 64 * 1024;
/// The most passes that a stored hash may ask for.
pub const ARGON2_PASSES_MAX: u32 = 4;
/// The most lanes that a stored hash may ask for.
pub const ARGON2_LANES_MAX: u32 = 4;

/// Bytes of a TOTP secret: the length that RFC 4226 recommends.
pub const TOTP_SECRET_LEN: usize = 20;
/// Seconds of a TOTP step.
pub const TOTP_STEP_S: u64 = 30;
/// Digits of a TOTP code.
pub const TOTP_DIGITS: u32 = 6;
/// Steps before and after the present one that are accepted: slow fingers, clocks that differ by half a minute.
pub const TOTP_WINDOW: u64 = 1;
/// Characters of a second factor as it is typed; what is longer is not looked at.
pub const CODE_MAX: usize = 64;
/// Recovery codes of a person.
pub const RECOVERY_CODES: usize = 10;

/// Failures that cost nothing: a person mistypes.
pub const FREE_FAILURES: u32 = 3;
/// The first delay of a person.
pub const PERSON_DELAY_FIRST_MS: u64 = 1_000;
/// The longest delay of a person: about ninety guesses a day; never for good, so nobody can lock another out.
pub const PERSON_DELAY_MAX_MS: u64 = 15 * 60_000;
/// Failures of a source that cost nothing: many people sit behind one address.
pub const SOURCE_FREE_FAILURES: u32 = 20;
/// The first delay of a source.
pub const SOURCE_DELAY_FIRST_MS: u64 = 1_000;
/// The longest delay of a source.
pub const SOURCE_DELAY_MAX_MS: u64 = 5 * 60_000;
/// After this long without a failure the count begins anew.
pub const FAILURES_FORGOTTEN_MS: u64 = DAY_MS;

/// Life of a login token.
pub const SESSION_LIFE_MS: u64 = 8 * HOUR_MS;
/// Life of an enrolment ticket.
pub const TICKET_LIFE_MS: u64 = 15 * 60_000;
/// Longest life of a join token.
pub const JOIN_LIFE_MAX_MS: u64 = HOUR_MS;
/// Life of a pending step-up, and of its proof once it is confirmed.
pub const STEP_UP_LIFE_MS: u64 = 5 * 60_000;
/// Wrong codes after which a pending step-up is void.
pub const STEP_UP_TRIES: u8 = 5;
/// Bytes of the request that a step-up may be bound to.
pub const STEP_UP_REQUEST_MAX: usize = 1 << 20;
/// Nesting of the body of a request that a step-up may be bound to.
pub const JSON_DEPTH_MAX: usize = 32;
