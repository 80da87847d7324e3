-- Version 1, the same tables as SQLite's. Ids are 16 bytes, times milliseconds; "no project" is 16 zero bytes, so that names
-- are unique outside projects too (NULLs would all differ). Text is compared byte by byte, whatever the database's locale.

CREATE TABLE schema_version (
  version BIGINT NOT NULL PRIMARY KEY,
  applied BIGINT NOT NULL
);

CREATE TABLE counter (
  name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  value BIGINT NOT NULL
);
INSERT INTO counter (name, value) VALUES ('change', 0), ('change_floor', 0), ('audit', 0), ('clock', 0), ('revocation', 0);

CREATE TABLE resource (
  tenant BYTEA NOT NULL,
  kind TEXT COLLATE "C" NOT NULL,
  id BYTEA NOT NULL,
  project BYTEA NOT NULL,
  name_norm TEXT COLLATE "C",
  parent BYTEA,
  link BYTEA,
  state TEXT COLLATE "C",
  until BIGINT,
  revision BIGINT NOT NULL,
  change_seq BIGINT NOT NULL,
  deleted BOOLEAN NOT NULL,
  body TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (tenant, kind, id)
);
CREATE UNIQUE INDEX resource_name ON resource (tenant, kind, project, name_norm) WHERE deleted = FALSE AND name_norm IS NOT NULL;
CREATE INDEX resource_id ON resource (kind, id);
CREATE INDEX resource_parent ON resource (tenant, kind, parent, id) WHERE deleted = FALSE AND parent IS NOT NULL;
CREATE INDEX resource_link ON resource (kind, link, id) WHERE deleted = FALSE AND link IS NOT NULL;
CREATE INDEX resource_state ON resource (kind, state, id) WHERE deleted = FALSE AND state IS NOT NULL;
CREATE INDEX resource_until ON resource (kind, state, until) WHERE deleted = FALSE AND until IS NOT NULL;

CREATE TABLE change (
  seq BIGINT NOT NULL PRIMARY KEY,
  tenant BYTEA NOT NULL,
  kind TEXT COLLATE "C" NOT NULL,
  id BYTEA NOT NULL,
  revision BIGINT NOT NULL,
  deleted BOOLEAN NOT NULL
);

CREATE TABLE stream_position (
  tenant BYTEA NOT NULL,
  kind TEXT COLLATE "C" NOT NULL,
  id BYTEA NOT NULL,
  value BIGINT NOT NULL,
  PRIMARY KEY (tenant, kind, id)
);

CREATE TABLE idempotency (
  tenant BYTEA NOT NULL,
  principal BYTEA NOT NULL,
  key TEXT COLLATE "C" NOT NULL,
  request_hash BYTEA NOT NULL,
  answer BYTEA NOT NULL,
  numbers TEXT COLLATE "C" NOT NULL,
  created BIGINT NOT NULL,
  PRIMARY KEY (tenant, principal, key)
);
CREATE INDEX idempotency_created ON idempotency (created);

CREATE TABLE password (
  person BYTEA NOT NULL PRIMARY KEY,
  hash TEXT COLLATE "C" NOT NULL
);

CREATE TABLE totp (
  person BYTEA NOT NULL PRIMARY KEY,
  key_id BYTEA NOT NULL,
  last_step BIGINT NOT NULL
);

CREATE TABLE recovery_code (
  person BYTEA NOT NULL,
  place BIGINT NOT NULL,
  hash TEXT COLLATE "C" NOT NULL,
  used BOOLEAN NOT NULL,
  PRIMARY KEY (person, place)
);

CREATE TABLE login_delay (
  kind TEXT COLLATE "C" NOT NULL,
  subject TEXT COLLATE "C" NOT NULL,
  failures BIGINT NOT NULL,
  until BIGINT NOT NULL,
  PRIMARY KEY (kind, subject)
);

CREATE TABLE token (
  id BYTEA NOT NULL PRIMARY KEY,
  tenant BYTEA NOT NULL,
  kind TEXT COLLATE "C" NOT NULL,
  principal BYTEA,
  mac BYTEA NOT NULL,
  pepper_version BIGINT NOT NULL,
  scope TEXT COLLATE "C" NOT NULL,
  created BIGINT NOT NULL,
  expires BIGINT NOT NULL,
  acr BIGINT NOT NULL,
  factor_time BIGINT,
  thumbprint BYTEA,
  last_used BIGINT,
  revoked BIGINT,
  consumed BIGINT
);
CREATE INDEX token_principal ON token (tenant, principal, id);

CREATE TABLE step_up (
  tenant BYTEA NOT NULL,
  id BYTEA NOT NULL,
  principal BYTEA NOT NULL,
  login BYTEA NOT NULL,
  action TEXT COLLATE "C" NOT NULL,
  summary TEXT COLLATE "C" NOT NULL,
  request_hash BYTEA NOT NULL,
  challenge BYTEA NOT NULL,
  created BIGINT NOT NULL,
  expires BIGINT NOT NULL,
  verified BOOLEAN NOT NULL,
  acr BIGINT NOT NULL,
  uses_left BIGINT NOT NULL,
  verified_at BIGINT,
  PRIMARY KEY (tenant, id)
);

CREATE TABLE key_version (
  tenant BYTEA NOT NULL,
  id BYTEA NOT NULL,
  version BIGINT NOT NULL,
  purpose TEXT COLLATE "C" NOT NULL,
  kek BYTEA NOT NULL,
  kek_version BIGINT NOT NULL,
  owner_kind TEXT COLLATE "C" NOT NULL,
  owner BYTEA NOT NULL,
  created BIGINT NOT NULL,
  state TEXT COLLATE "C" NOT NULL,
  since BIGINT NOT NULL,
  wrapped BYTEA,
  row_version BIGINT NOT NULL,
  PRIMARY KEY (tenant, id, version)
);
CREATE INDEX key_version_owner ON key_version (tenant, owner_kind, owner, purpose, id, version);
CREATE INDEX key_version_kek ON key_version (tenant, kek, kek_version, id, version);

CREATE TABLE volume_head (
  tenant BYTEA NOT NULL,
  volume BYTEA NOT NULL,
  lineage BYTEA NOT NULL,
  seq BIGINT NOT NULL,
  writer_epoch BIGINT NOT NULL,
  root BYTEA NOT NULL,
  PRIMARY KEY (tenant, volume)
);

CREATE TABLE writer_epoch (
  tenant BYTEA NOT NULL,
  volume BYTEA NOT NULL,
  epoch BIGINT NOT NULL,
  signer BYTEA NOT NULL,
  lease BYTEA NOT NULL,
  entry BYTEA NOT NULL,
  opened BIGINT NOT NULL,
  PRIMARY KEY (tenant, volume, epoch)
);

CREATE TABLE revocation (
  kind TEXT COLLATE "C" NOT NULL,
  subject TEXT COLLATE "C" NOT NULL,
  version BIGINT NOT NULL,
  since BIGINT NOT NULL,
  PRIMARY KEY (kind, subject)
);
CREATE UNIQUE INDEX revocation_version ON revocation (version);

CREATE TABLE audit_entry (
  idx BIGINT NOT NULL PRIMARY KEY,
  id BYTEA NOT NULL,
  tenant BYTEA NOT NULL,
  salt BYTEA NOT NULL,
  body BYTEA NOT NULL,
  leaf BYTEA NOT NULL,
  class_uid BIGINT NOT NULL,
  activity BIGINT NOT NULL,
  kind TEXT COLLATE "C" NOT NULL,
  actor BYTEA,
  action TEXT COLLATE "C" NOT NULL,
  resource_kind TEXT COLLATE "C" NOT NULL,
  resource TEXT COLLATE "C" NOT NULL,
  outcome TEXT COLLATE "C" NOT NULL,
  time BIGINT NOT NULL
);
CREATE INDEX audit_entry_id ON audit_entry (id);
CREATE INDEX audit_entry_tenant ON audit_entry (tenant, idx);
CREATE INDEX audit_entry_resource ON audit_entry (tenant, resource_kind, resource, idx);

CREATE TABLE publisher (
  name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  holder BYTEA NOT NULL,
  token BIGINT NOT NULL,
  until BIGINT NOT NULL,
  size BIGINT NOT NULL,
  root BYTEA,
  checkpoint BYTEA NOT NULL
);

CREATE TABLE refusal (
  source TEXT COLLATE "C" NOT NULL,
  minute BIGINT NOT NULL,
  code TEXT COLLATE "C" NOT NULL,
  count BIGINT NOT NULL,
  PRIMARY KEY (minute, source, code)
);

-- The last group of transactions that each writer committed: what became of a commit whose answer was lost is read here.
CREATE TABLE writer_mark (
  writer BYTEA NOT NULL PRIMARY KEY,
  number BIGINT NOT NULL,
  at BIGINT NOT NULL
);

-- The third fence. A transaction says whose rows it is for (`SET LOCAL swarm.tenant`, hexadecimal digits); it sees and writes no
-- others, the owner of the tables included. The few statements that serve the deployment as a whole say `*`. Saying nothing
-- shows nothing.
ALTER TABLE resource ENABLE ROW LEVEL SECURITY;
ALTER TABLE resource FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON resource
  USING (current_setting('swarm.tenant', TRUE) = '*' OR tenant = decode(NULLIF(current_setting('swarm.tenant', TRUE), '*'), 'hex'));
ALTER TABLE change ENABLE ROW LEVEL SECURITY;
ALTER TABLE change FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON change
  USING (current_setting('swarm.tenant', TRUE) = '*' OR tenant = decode(NULLIF(current_setting('swarm.tenant', TRUE), '*'), 'hex'));
ALTER TABLE stream_position ENABLE ROW LEVEL SECURITY;
ALTER TABLE stream_position FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON stream_position
  USING (current_setting('swarm.tenant', TRUE) = '*' OR tenant = decode(NULLIF(current_setting('swarm.tenant', TRUE), '*'), 'hex'));
ALTER TABLE idempotency ENABLE ROW LEVEL SECURITY;
ALTER TABLE idempotency FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON idempotency
  USING (current_setting('swarm.tenant', TRUE) = '*' OR tenant = decode(NULLIF(current_setting('swarm.tenant', TRUE), '*'), 'hex'));
ALTER TABLE token ENABLE ROW LEVEL SECURITY;
ALTER TABLE token FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON token
  USING (current_setting('swarm.tenant', TRUE) = '*' OR tenant = decode(NULLIF(current_setting('swarm.tenant', TRUE), '*'), 'hex'));
ALTER TABLE step_up ENABLE ROW LEVEL SECURITY;
ALTER TABLE step_up FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON step_up
  USING (current_setting('swarm.tenant', TRUE) = '*' OR tenant = decode(NULLIF(current_setting('swarm.tenant', TRUE), '*'), 'hex'));
ALTER TABLE key_version ENABLE ROW LEVEL SECURITY;
ALTER TABLE key_version FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON key_version
  USING (current_setting('swarm.tenant', TRUE) = '*' OR tenant = decode(NULLIF(current_setting('swarm.tenant', TRUE), '*'), 'hex'));
ALTER TABLE volume_head ENABLE ROW LEVEL SECURITY;
ALTER TABLE volume_head FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON volume_head
  USING (current_setting('swarm.tenant', TRUE) = '*' OR tenant = decode(NULLIF(current_setting('swarm.tenant', TRUE), '*'), 'hex'));
ALTER TABLE writer_epoch ENABLE ROW LEVEL SECURITY;
ALTER TABLE writer_epoch FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON writer_epoch
  USING (current_setting('swarm.tenant', TRUE) = '*' OR tenant = decode(NULLIF(current_setting('swarm.tenant', TRUE), '*'), 'hex'));
ALTER TABLE audit_entry ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_entry FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON audit_entry
  USING (current_setting('swarm.tenant', TRUE) = '*' OR tenant = decode(NULLIF(current_setting('swarm.tenant', TRUE), '*'), 'hex'));
