-- Version 1. Ids are 16 bytes, times milliseconds, booleans 0 or 1; "no project" is 16 zero bytes, so that names are
-- unique outside projects too (NULLs would all differ).

CREATE TABLE schema_version (
  version INTEGER NOT NULL PRIMARY KEY,
  applied INTEGER NOT NULL
) STRICT;

CREATE TABLE counter (
  name TEXT NOT NULL PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT;
INSERT INTO counter (name, value) VALUES ('change', 0), ('change_floor', 0), ('audit', 0), ('clock', 0), ('revocation', 0);

CREATE TABLE resource (
  tenant BLOB NOT NULL,
  kind TEXT NOT NULL,
  id BLOB NOT NULL,
  project BLOB NOT NULL,
  name_norm TEXT,
  parent BLOB,
  link BLOB,
  state TEXT,
  until INTEGER,
  revision INTEGER NOT NULL,
  change_seq INTEGER NOT NULL,
  deleted INTEGER NOT NULL CHECK (deleted IN (0, 1)),
  body TEXT NOT NULL,
  PRIMARY KEY (tenant, kind, id)
) STRICT;
CREATE UNIQUE INDEX resource_name ON resource (tenant, kind, project, name_norm) WHERE deleted = FALSE AND name_norm IS NOT NULL;
CREATE INDEX resource_id ON resource (kind, id);
CREATE INDEX resource_parent ON resource (tenant, kind, parent, id) WHERE deleted = FALSE AND parent IS NOT NULL;
CREATE INDEX resource_link ON resource (kind, link, id) WHERE deleted = FALSE AND link IS NOT NULL;
CREATE INDEX resource_state ON resource (kind, state, id) WHERE deleted = FALSE AND state IS NOT NULL;
CREATE INDEX resource_until ON resource (kind, state, until) WHERE deleted = FALSE AND until IS NOT NULL;

CREATE TABLE change (
  seq INTEGER NOT NULL PRIMARY KEY,
  tenant BLOB NOT NULL,
  kind TEXT NOT NULL,
  id BLOB NOT NULL,
  revision INTEGER NOT NULL,
  deleted INTEGER NOT NULL CHECK (deleted IN (0, 1))
) STRICT;

CREATE TABLE stream_position (
  tenant BLOB NOT NULL,
  kind TEXT NOT NULL,
  id BLOB NOT NULL,
  value INTEGER NOT NULL,
  PRIMARY KEY (tenant, kind, id)
) STRICT;

CREATE TABLE idempotency (
  tenant BLOB NOT NULL,
  principal BLOB NOT NULL,
  key TEXT NOT NULL,
  request_hash BLOB NOT NULL,
  answer BLOB NOT NULL,
  numbers TEXT NOT NULL,
  created INTEGER NOT NULL,
  PRIMARY KEY (tenant, principal, key)
) STRICT;
CREATE INDEX idempotency_created ON idempotency (created);

CREATE TABLE password (
  person BLOB NOT NULL PRIMARY KEY,
  hash TEXT NOT NULL
) STRICT;

CREATE TABLE totp (
  person BLOB NOT NULL PRIMARY KEY,
  key_id BLOB NOT NULL,
  last_step INTEGER NOT NULL
) STRICT;

CREATE TABLE recovery_code (
  person BLOB NOT NULL,
  place INTEGER NOT NULL,
  hash TEXT NOT NULL,
  used INTEGER NOT NULL CHECK (used IN (0, 1)),
  PRIMARY KEY (person, place)
) STRICT;

CREATE TABLE login_delay (
  kind TEXT NOT NULL,
  subject TEXT NOT NULL,
  failures INTEGER NOT NULL,
  until INTEGER NOT NULL,
  PRIMARY KEY (kind, subject)
) STRICT;

CREATE TABLE token (
  id BLOB NOT NULL PRIMARY KEY,
  tenant BLOB NOT NULL,
  kind TEXT NOT NULL,
  principal BLOB,
  mac BLOB NOT NULL,
  pepper_version INTEGER NOT NULL,
  scope TEXT NOT NULL,
  created INTEGER NOT NULL,
  expires INTEGER NOT NULL,
  acr INTEGER NOT NULL,
  factor_time INTEGER,
  thumbprint BLOB,
  last_used INTEGER,
  revoked INTEGER,
  consumed INTEGER
) STRICT;
CREATE INDEX token_principal ON token (tenant, principal, id);

CREATE TABLE step_up (
  tenant BLOB NOT NULL,
  id BLOB NOT NULL,
  principal BLOB NOT NULL,
  login BLOB NOT NULL,
  action TEXT NOT NULL,
  summary TEXT NOT NULL,
  request_hash BLOB NOT NULL,
  challenge BLOB NOT NULL,
  created INTEGER NOT NULL,
  expires INTEGER NOT NULL,
  verified INTEGER NOT NULL CHECK (verified IN (0, 1)),
  acr INTEGER NOT NULL,
  uses_left INTEGER NOT NULL,
  verified_at INTEGER,
  PRIMARY KEY (tenant, id)
) STRICT;

CREATE TABLE key_version (
  tenant BLOB NOT NULL,
  id BLOB NOT NULL,
  version INTEGER NOT NULL,
  purpose TEXT NOT NULL,
  kek BLOB NOT NULL,
  kek_version INTEGER NOT NULL,
  owner_kind TEXT NOT NULL,
  owner BLOB NOT NULL,
  created INTEGER NOT NULL,
  state TEXT NOT NULL,
  since INTEGER NOT NULL,
  wrapped BLOB,
  row_version INTEGER NOT NULL,
  PRIMARY KEY (tenant, id, version)
) STRICT;
CREATE INDEX key_version_owner ON key_version (tenant, owner_kind, owner, purpose, id, version);
CREATE INDEX key_version_kek ON key_version (tenant, kek, kek_version, id, version);

CREATE TABLE volume_head (
  tenant BLOB NOT NULL,
  volume BLOB NOT NULL,
  lineage BLOB NOT NULL,
  seq INTEGER NOT NULL,
  writer_epoch INTEGER NOT NULL,
  root BLOB NOT NULL,
  PRIMARY KEY (tenant, volume)
) STRICT;

CREATE TABLE writer_epoch (
  tenant BLOB NOT NULL,
  volume BLOB NOT NULL,
  epoch INTEGER NOT NULL,
  signer BLOB NOT NULL,
  lease BLOB NOT NULL,
  entry BLOB NOT NULL,
  opened INTEGER NOT NULL,
  PRIMARY KEY (tenant, volume, epoch)
) STRICT;

CREATE TABLE revocation (
  kind TEXT NOT NULL,
  subject TEXT NOT NULL,
  version INTEGER NOT NULL,
  since INTEGER NOT NULL,
  PRIMARY KEY (kind, subject)
) STRICT;
CREATE UNIQUE INDEX revocation_version ON revocation (version);

CREATE TABLE audit_entry (
  idx INTEGER NOT NULL PRIMARY KEY,
  id BLOB NOT NULL,
  tenant BLOB NOT NULL,
  salt BLOB NOT NULL,
  body BLOB NOT NULL,
  leaf BLOB NOT NULL,
  class_uid INTEGER NOT NULL,
  activity INTEGER NOT NULL,
  kind TEXT NOT NULL,
  actor BLOB,
  action TEXT NOT NULL,
  resource_kind TEXT NOT NULL,
  resource TEXT NOT NULL,
  outcome TEXT NOT NULL,
  time INTEGER NOT NULL
) STRICT;
CREATE INDEX audit_entry_id ON audit_entry (id);
CREATE INDEX audit_entry_tenant ON audit_entry (tenant, idx);
CREATE INDEX audit_entry_resource ON audit_entry (tenant, resource_kind, resource, idx);

CREATE TABLE publisher (
  name TEXT NOT NULL PRIMARY KEY,
  holder BLOB NOT NULL,
  token INTEGER NOT NULL,
  until INTEGER NOT NULL,
  size INTEGER NOT NULL,
  root BLOB,
  checkpoint BLOB NOT NULL
) STRICT;

CREATE TABLE refusal (
  source TEXT NOT NULL,
  minute INTEGER NOT NULL,
  code TEXT NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (minute, source, code)
) STRICT;
