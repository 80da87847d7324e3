//! Every statement of the store, once, with its name. One text for `SQLite` and `PostgreSQL` (`access.md` 4.10).
//!
//! **Invariant:** in a statement that is not exempt, `$1` is the tenant, and no row of another tenant is read, changed or
//! removed by it: a test runs each of them bound with another tenant. The exempt ones are a golden list with reasons.

/// A statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// Its name.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
    /// Why it does not name the tenant.
    pub exempt: Option<&'static str>,
}

macro_rules! exempt {
    () => { None };
    ($reason:expr) => { Some($reason) };
}

macro_rules! statements {
    ($($name:ident $([$reason:expr])? = $text:expr;)*) => {
        $(pub(crate) const $name: Statement =
            Statement { name: stringify!($name), text: $text, exempt: exempt!($($reason)?) };)*
        /// All statements.
        pub const ALL: &[Statement] = &[$($name),*];
    };
}

const PEOPLE: &str = "a person belongs to no tenant: the factors serve all of the person's principals";
const DELAYS: &str = "a person or source that fails to log in has no tenant yet";
const COUNTERS: &str = "one counter for the deployment";
const PLACED: &str = "what is placed on nodes is planned across tenants; each row carries its tenant";
const LOG: &str = "there is one log; only leaves and the checkpoint are read, which are public";
const FEED: &str = "caches and the planner follow all changes; a change carries its tenant and no body";
const TRUST: &str = "the set of revoked nodes and certificates is the deployment's and public to all nodes";
const STRANGERS: &str = "strangers have no tenant";
const UPKEEP: &str = "forgets by age alone, whosever it is";

macro_rules! resource_columns {
    () => { "tenant, kind, id, project, name_norm, parent, link, state, until, revision, change_seq, body" };
}
/// Volumes with their heads; one without a head is none.
macro_rules! volumes {
    () => {
        concat!("SELECT ", resource_columns!(), ", lineage, seq, writer_epoch, root FROM resource JOIN
         (SELECT tenant AS of_tenant, volume, lineage, seq, writer_epoch, root FROM volume_head) AS head ON of_tenant = tenant AND volume = id
         WHERE tenant = $1 AND kind = 'volume' AND deleted = FALSE")
    };
}
macro_rules! resource_insert {
    () => {
        "INSERT INTO resource (tenant, kind, id, project, name_norm, parent, link, state, until, body, revision, change_seq, deleted)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 1, 0, FALSE) ON CONFLICT (tenant, kind, id) "
    };
}
macro_rules! token_columns {
    () => {
        "tenant, id, kind, principal, mac, pepper_version, scope, created, expires, acr, factor_time, thumbprint, last_used, revoked, consumed"
    };
}
macro_rules! key_columns {
    () => { "tenant, purpose, id, version, kek, kek_version, owner_kind, owner, created, state, since, wrapped, row_version" };
}
macro_rules! entry_columns {
    () => { "idx, id, tenant, salt, body, leaf, class_uid, activity, kind, actor, action, resource_kind, resource, outcome, time" };
}
macro_rules! entry_filter {
    () => {
        " AND ($4 = FALSE OR actor = $5) AND ($6 = FALSE OR action = $7) AND ($8 = FALSE OR resource_kind = $9)
          AND ($10 = FALSE OR resource = $11) AND ($12 = FALSE OR outcome = $13) AND time >= $14 AND time < $15"
    };
}

statements! {
    // resources
    RESOURCE_INSERT = concat!(resource_insert!(), "DO NOTHING RETURNING revision");
    RESOURCE_UPSERT = concat!(resource_insert!(),
        "DO UPDATE SET project = excluded.project, name_norm = excluded.name_norm, parent = excluded.parent, link = excluded.link,
         state = excluded.state, until = excluded.until, body = excluded.body, revision = resource.revision + 1
         WHERE resource.deleted = FALSE RETURNING revision");
    RESOURCE_UPDATE =
        "UPDATE resource SET project = $4, name_norm = $5, parent = $6, link = $7, state = $8, until = $9, body = $10, revision = revision + 1
         WHERE tenant = $1 AND kind = $2 AND id = $3 AND revision = $11 AND deleted = FALSE RETURNING revision";
    RESOURCE_DELETE =
        "UPDATE resource SET deleted = TRUE, name_norm = NULL, parent = NULL, link = NULL, state = NULL, until = NULL, body = '',
         revision = revision + 1 WHERE tenant = $1 AND kind = $2 AND id = $3 AND deleted = FALSE
         AND (CAST($4 AS BIGINT) = 0 OR revision = CAST($4 AS BIGINT)) RETURNING revision";
    RESOURCE_STEP =
        "UPDATE resource SET state = $5, revision = revision + 1
         WHERE tenant = $1 AND kind = $2 AND id = $3 AND state = $4 AND deleted = FALSE RETURNING revision";
    RESOURCE_EXTEND =
        "UPDATE resource SET until = $5, revision = revision + 1
         WHERE tenant = $1 AND kind = $2 AND id = $3 AND state = $4 AND until > $6 AND deleted = FALSE RETURNING revision";
    // A write that changes nothing, so that no other writer passes between it and the commit.
    RESOURCE_HOLD =
        "UPDATE resource SET revision = revision
         WHERE tenant = $1 AND kind = $2 AND id = $3 AND revision = $4 AND deleted = FALSE RETURNING revision";
    RESOURCE_SEQUENCE = "UPDATE resource SET change_seq = $4 WHERE tenant = $1 AND kind = $2 AND id = $3";
    RESOURCE_PROBE = "SELECT revision, state, deleted FROM resource WHERE tenant = $1 AND kind = $2 AND id = $3";
    RESOURCE_GET = concat!("SELECT ", resource_columns!(), " FROM resource WHERE tenant = $1 AND kind = $2 AND id = $3 AND deleted = FALSE");
    RESOURCE_FIND = concat!("SELECT ", resource_columns!(),
        " FROM resource WHERE tenant = $1 AND kind = $2 AND project = $3 AND name_norm = $4 AND deleted = FALSE");
    RESOURCE_LIST = concat!("SELECT ", resource_columns!(),
        " FROM resource WHERE tenant = $1 AND kind = $2 AND id > $3 AND deleted = FALSE ORDER BY id LIMIT $4");
    RESOURCE_LIST_PROJECT = concat!("SELECT ", resource_columns!(),
        " FROM resource WHERE tenant = $1 AND kind = $2 AND project = $5 AND id > $3 AND deleted = FALSE ORDER BY id LIMIT $4");
    RESOURCE_LIST_PARENT = concat!("SELECT ", resource_columns!(),
        " FROM resource WHERE tenant = $1 AND kind = $2 AND parent = $5 AND id > $3 AND deleted = FALSE ORDER BY id LIMIT $4");
    RESOURCE_LIST_LINK = concat!("SELECT ", resource_columns!(),
        " FROM resource WHERE tenant = $1 AND kind = $2 AND link = $5 AND id > $3 AND deleted = FALSE ORDER BY id LIMIT $4");
    RESOURCE_LIST_STATE = concat!("SELECT ", resource_columns!(),
        " FROM resource WHERE tenant = $1 AND kind = $2 AND state = $5 AND id > $3 AND deleted = FALSE ORDER BY id LIMIT $4");
    RESOURCE_LOCATE ["a node names a job, attempt or lease by id; the tenant comes out of the stored row, never from the request"] =
        concat!("SELECT ", resource_columns!(), " FROM resource WHERE kind = $1 AND id = $2 AND deleted = FALSE LIMIT 2");
    RESOURCE_KIND_ANYWHERE [PLACED] = concat!("SELECT ", resource_columns!(),
        " FROM resource WHERE kind = $1 AND id > $2 AND deleted = FALSE ORDER BY id LIMIT $3");
    RESOURCE_LINK_ANYWHERE ["what is placed on a node, or which principals a person holds, is read across tenants; each row carries its tenant"] =
        concat!("SELECT ", resource_columns!(), " FROM resource WHERE kind = $1 AND link = $4 AND id > $2 AND deleted = FALSE ORDER BY id LIMIT $3");
    RESOURCE_STATE_ANYWHERE [PLACED] = concat!("SELECT ", resource_columns!(),
        " FROM resource WHERE kind = $1 AND state = $4 AND id > $2 AND deleted = FALSE ORDER BY id LIMIT $3");
    RESOURCE_ENDED_ANYWHERE ["leases and certificates end by time alone, whosever they are; each row carries its tenant"] =
        concat!("SELECT ", resource_columns!(),
            " FROM resource WHERE kind = $1 AND state = $2 AND until <= $3 AND deleted = FALSE ORDER BY until, id LIMIT $4");

    // the change sequence, counters, positions, idempotency
    CHANGE_INSERT = "INSERT INTO change (tenant, seq, kind, id, revision, deleted) VALUES ($1, $2, $3, $4, $5, $6)";
    CHANGES [FEED] = "SELECT seq, tenant, kind, id, revision, deleted FROM change WHERE seq > $1 ORDER BY seq LIMIT $2";
    CHANGE_LAST [FEED] = "SELECT CAST(COALESCE(MAX(seq), 0) AS BIGINT) FROM change";
    CHANGE_PRUNE [UPKEEP] = "DELETE FROM change WHERE seq <= $1";
    COUNTER_ADD [COUNTERS] = "UPDATE counter SET value = value + $2 WHERE name = $1 RETURNING value";
    COUNTER_RAISE [COUNTERS] = "UPDATE counter SET value = $2 WHERE name = $1 AND value < $2";
    COUNTER_SET [COUNTERS] = "UPDATE counter SET value = $2 WHERE name = $1";
    COUNTER_READ [COUNTERS] = "SELECT value FROM counter WHERE name = $1";
    POSITION_BEGIN =
        "INSERT INTO stream_position (tenant, kind, id, value) VALUES ($1, $2, $3, $4) ON CONFLICT (tenant, kind, id) DO NOTHING";
    POSITION_ADVANCE = "UPDATE stream_position SET value = $5 WHERE tenant = $1 AND kind = $2 AND id = $3 AND value = $4";
    POSITION_READ = "SELECT value FROM stream_position WHERE tenant = $1 AND kind = $2 AND id = $3";
    IDEMPOTENCY_READ = "SELECT request_hash, answer, numbers FROM idempotency WHERE tenant = $1 AND principal = $2 AND key = $3";
    IDEMPOTENCY_INSERT =
        "INSERT INTO idempotency (tenant, principal, key, request_hash, answer, numbers, created) VALUES ($1, $2, $3, $4, $5, '', $6)";
    IDEMPOTENCY_NUMBERS = "UPDATE idempotency SET numbers = $4 WHERE tenant = $1 AND principal = $2 AND key = $3";
    IDEMPOTENCY_PRUNE [UPKEEP] = "DELETE FROM idempotency WHERE created < $1";

    // people's factors and delays
    PASSWORD_SET [PEOPLE] = "INSERT INTO password (person, hash) VALUES ($1, $2) ON CONFLICT (person) DO UPDATE SET hash = excluded.hash";
    PASSWORD_READ [PEOPLE] = "SELECT hash FROM password WHERE person = $1";
    PASSWORD_REMOVE [PEOPLE] = "DELETE FROM password WHERE person = $1";
    TOTP_SET [PEOPLE] =
        "INSERT INTO totp (person, key_id, last_step) VALUES ($1, $2, $3)
         ON CONFLICT (person) DO UPDATE SET key_id = excluded.key_id, last_step = excluded.last_step";
    TOTP_USE [PEOPLE] = "UPDATE totp SET last_step = $2 WHERE person = $1 AND last_step < $2";
    TOTP_READ [PEOPLE] = "SELECT key_id, last_step FROM totp WHERE person = $1";
    TOTP_REMOVE [PEOPLE] = "DELETE FROM totp WHERE person = $1";
    RECOVERY_CLEAR [PEOPLE] = "DELETE FROM recovery_code WHERE person = $1";
    RECOVERY_INSERT [PEOPLE] = "INSERT INTO recovery_code (person, place, hash, used) VALUES ($1, $2, $3, FALSE)";
    RECOVERY_USE [PEOPLE] = "UPDATE recovery_code SET used = TRUE WHERE person = $1 AND place = $2 AND used = FALSE";
    RECOVERY_READ [PEOPLE] = "SELECT place, hash, used FROM recovery_code WHERE person = $1 ORDER BY place";
    DELAY_READ [DELAYS] = "SELECT failures, until FROM login_delay WHERE kind = $1 AND subject = $2";
    DELAY_TAKE [DELAYS] =
        "INSERT INTO login_delay (kind, subject, failures, until) VALUES ($1, $2, 1, $3)
         ON CONFLICT (kind, subject) DO UPDATE SET failures = login_delay.failures + 1, until = excluded.until
         WHERE login_delay.until <= $4 AND login_delay.failures = $5 RETURNING failures";
    DELAY_CLEAR [DELAYS] = "DELETE FROM login_delay WHERE kind = $1 AND subject = $2";

    // tokens and step-ups
    TOKEN_INSERT =
        "INSERT INTO token (tenant, id, kind, principal, mac, pepper_version, scope, created, expires, acr, factor_time, thumbprint)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (id) DO NOTHING";
    TOKEN_REVOKE = "UPDATE token SET revoked = $3 WHERE tenant = $1 AND id = $2 AND revoked IS NULL";
    TOKEN_REVOKE_ALL = "UPDATE token SET revoked = $3 WHERE tenant = $1 AND principal = $2 AND revoked IS NULL RETURNING id";
    TOKEN_CONSUME =
        "UPDATE token SET consumed = $3 WHERE tenant = $1 AND id = $2 AND consumed IS NULL AND revoked IS NULL AND expires > $3";
    TOKEN_TOUCH = "UPDATE token SET last_used = $3 WHERE tenant = $1 AND id = $2 AND (last_used IS NULL OR last_used < $3)";
    TOKEN_PROBE = "SELECT id FROM token WHERE tenant = $1 AND id = $2";
    TOKEN_LIST = concat!("SELECT ", token_columns!(), " FROM token WHERE tenant = $1 AND principal = $2 AND id > $3 ORDER BY id LIMIT $4");
    TOKEN_BY_ID ["the credential comes first: the tenant comes out of the row, and its secret is checked before anything else is read"] =
        concat!("SELECT ", token_columns!(), " FROM token WHERE id = $1");
    STEP_UP_INSERT =
        "INSERT INTO step_up (tenant, id, principal, login, action, summary, request_hash, challenge, created, expires, verified, acr, uses_left)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, FALSE, 0, 1) ON CONFLICT (tenant, id) DO NOTHING";
    STEP_UP_VERIFY =
        "UPDATE step_up SET verified = TRUE, acr = $4, verified_at = $5
         WHERE tenant = $1 AND id = $2 AND principal = $3 AND verified = FALSE AND uses_left = 1 AND expires > $5";
    STEP_UP_CONSUME =
        "UPDATE step_up SET uses_left = 0 WHERE tenant = $1 AND id = $2 AND request_hash = $3 AND principal = $4
         AND verified = TRUE AND uses_left = 1 AND expires > $5";
    STEP_UP_READ =
        "SELECT tenant, id, principal, login, action, summary, request_hash, challenge, created, expires, verified, acr, uses_left, verified_at
         FROM step_up WHERE tenant = $1 AND id = $2";
    STEP_UP_PRUNE [UPKEEP] = "DELETE FROM step_up WHERE expires < $1";

    // keys
    KEY_INSERT =
        "INSERT INTO key_version (tenant, purpose, id, version, kek, kek_version, owner_kind, owner, created, state, since, wrapped, row_version)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 1) ON CONFLICT (tenant, id, version) DO NOTHING";
    KEY_STEP =
        "UPDATE key_version SET state = $5, since = $6, row_version = row_version + 1
         WHERE tenant = $1 AND id = $2 AND version = $3 AND state = $4 RETURNING row_version";
    KEY_ERASE = "UPDATE key_version SET wrapped = NULL WHERE tenant = $1 AND id = $2 AND version = $3 AND state = 'destroyed'";
    KEY_REWRAP =
        "UPDATE key_version SET wrapped = $5, kek = $6, kek_version = $7, row_version = row_version + 1
         WHERE tenant = $1 AND id = $2 AND version = $3 AND row_version = $4 AND state <> 'destroyed'
         AND purpose = $8 AND owner_kind = $9 AND owner = $10 AND created = $11 RETURNING row_version";
    KEY_READ = concat!("SELECT ", key_columns!(), " FROM key_version WHERE tenant = $1 AND id = $2 AND version = $3");
    KEY_VERSIONS = concat!("SELECT ", key_columns!(),
        " FROM key_version WHERE tenant = $1 AND id = $2 AND version > $3 ORDER BY version LIMIT $4");
    KEYS_OF_OWNER = concat!("SELECT ", key_columns!(),
        " FROM key_version WHERE tenant = $1 AND owner_kind = $2 AND owner = $3 AND purpose = $4 AND (id, version) > ($5, $6)
         ORDER BY id, version LIMIT $7");
    KEYS_UNDER = concat!("SELECT ", key_columns!(),
        " FROM key_version WHERE tenant = $1 AND kek = $2 AND kek_version = $3 AND (id, version) > ($4, $5)
         ORDER BY id, version LIMIT $6");
    KEY_LIST = concat!("SELECT ", key_columns!(),
        " FROM key_version WHERE tenant = $1 AND (id, version) > ($2, $3) ORDER BY id, version LIMIT $4");

    // volumes
    HEAD_INSERT =
        "INSERT INTO volume_head (tenant, volume, lineage, seq, writer_epoch, root) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (tenant, volume) DO NOTHING";
    HEAD_SET =
        "UPDATE volume_head SET seq = $7, writer_epoch = $8, root = $9
         WHERE tenant = $1 AND volume = $2 AND lineage = $3 AND seq = $4 AND writer_epoch = $5 AND root = $6";
    VOLUME_GET = concat!(volumes!(), " AND id = $2");
    VOLUME_LIST = concat!(volumes!(), " AND id > $2 ORDER BY id LIMIT $3");
    HEAD_READ = "SELECT lineage, seq, writer_epoch, root FROM volume_head WHERE tenant = $1 AND volume = $2";
    WRITER_NEWEST = "SELECT CAST(COALESCE(MAX(epoch), 0) AS BIGINT) FROM writer_epoch WHERE tenant = $1 AND volume = $2";
    WRITER_INSERT =
        "INSERT INTO writer_epoch (tenant, volume, epoch, signer, lease, entry, opened) VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (tenant, volume, epoch) DO NOTHING";
    WRITERS =
        "SELECT w.tenant, w.volume, w.epoch, w.signer, w.lease, w.entry, w.opened, a.idx
         FROM writer_epoch w JOIN audit_entry a ON a.id = w.entry AND a.tenant = w.tenant
         WHERE w.tenant = $1 AND w.volume = $2 AND w.epoch > $3 ORDER BY w.epoch LIMIT $4";

    // trust
    REVOCATION_READ [TRUST] = "SELECT version FROM revocation WHERE kind = $1 AND subject = $2";
    REVOCATION_INSERT [TRUST] = "INSERT INTO revocation (kind, subject, version, since) VALUES ($1, $2, $3, $4)";
    REVOCATIONS [TRUST] = "SELECT kind, subject, version, since FROM revocation WHERE version > $1 ORDER BY version LIMIT $2";

    // the log
    ENTRY_INSERT =
        "INSERT INTO audit_entry (tenant, idx, id, salt, body, leaf, class_uid, activity, kind, actor, action, resource_kind, resource, outcome, time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";
    ENTRY_GET = concat!("SELECT ", entry_columns!(), " FROM audit_entry WHERE tenant = $1 AND idx = $2");
    ENTRY_BY_ID = concat!("SELECT ", entry_columns!(), " FROM audit_entry WHERE tenant = $1 AND id = $2 ORDER BY idx LIMIT 1");
    ENTRIES_AFTER = concat!("SELECT ", entry_columns!(),
        " FROM audit_entry WHERE tenant = $1 AND idx > $2", entry_filter!(), " ORDER BY idx LIMIT $3");
    ENTRIES_BEFORE = concat!("SELECT ", entry_columns!(),
        " FROM audit_entry WHERE tenant = $1 AND idx < $2", entry_filter!(), " ORDER BY idx DESC LIMIT $3");
    LEAVES [LOG] = "SELECT idx, leaf, time FROM audit_entry WHERE idx >= $1 ORDER BY idx LIMIT $2";
    ENTRY_COUNT [LOG] = "SELECT CAST(COALESCE(MAX(idx) + 1, 0) AS BIGINT) FROM audit_entry";
    PUBLISHER_INSERT [LOG] =
        "INSERT INTO publisher (name, holder, token, until, size, root, checkpoint) VALUES ('log', $1, 1, $2, 0, NULL, $3)
         ON CONFLICT (name) DO NOTHING RETURNING token";
    PUBLISHER_TAKE [LOG] =
        "UPDATE publisher SET token = token + CASE WHEN holder = $1 THEN 0 ELSE 1 END, holder = $1, until = $2
         WHERE name = 'log' AND (holder = $1 OR until <= $3) RETURNING token";
    PUBLISHER_PUBLISH [LOG] =
        "UPDATE publisher SET size = $2, root = $3, checkpoint = $4
         WHERE name = 'log' AND token = $1 AND until > $5 AND (size < $2 OR (size = $2 AND (root IS NULL OR root = $3)))";
    PUBLISHER_READ [LOG] = "SELECT holder, token, until, size, root, checkpoint FROM publisher WHERE name = 'log'";

    // refusals of strangers
    REFUSAL_COUNT [STRANGERS] =
        "INSERT INTO refusal (source, minute, code, count) VALUES ($1, $2, $3, 1)
         ON CONFLICT (minute, source, code) DO UPDATE SET count = refusal.count + 1 RETURNING count";
    REFUSAL_TAKE [STRANGERS] = "DELETE FROM refusal WHERE source = $1 AND minute = $2 AND code = $3 AND count = $4";
    REFUSALS [STRANGERS] = "SELECT source, minute, code, count FROM refusal WHERE minute < $1 ORDER BY minute, source, code LIMIT $2";
}
