-- One schema for SQLite and PostgreSQL. Times are microseconds since 1970, 0
-- for none; lists are JSON arrays; secrets are SHA-256 digests.

-- +goose Up
-- A head counts the entries of an ordered log. Its row lock makes commit order
-- the order of the numbers, which a sequence would not.
CREATE TABLE heads (
    name TEXT PRIMARY KEY,
    seq  BIGINT NOT NULL
);
INSERT INTO heads (name, seq) VALUES ('revocation', 0), ('audit', 0), ('ping', 0);

CREATE TABLE revocations (
    seq        BIGINT PRIMARY KEY,
    level      TEXT NOT NULL,
    id         TEXT NOT NULL,
    not_before BIGINT NOT NULL,
    expires    BIGINT NOT NULL
);
CREATE INDEX revocations_id ON revocations (id, level);
CREATE INDEX revocations_expires ON revocations (expires);

CREATE TABLE codes (
    hash         BYTEA PRIMARY KEY,
    client_id    TEXT NOT NULL,
    redirect_uri TEXT NOT NULL,
    challenge    TEXT NOT NULL,
    nonce        TEXT NOT NULL,
    scopes       TEXT NOT NULL,
    resources    TEXT NOT NULL,
    subject      TEXT NOT NULL,
    session      TEXT NOT NULL,
    grant_id     TEXT NOT NULL,
    acr          TEXT NOT NULL,
    auth_time    BIGINT NOT NULL,
    expires      BIGINT NOT NULL,
    attempts     BIGINT NOT NULL,
    used         BIGINT NOT NULL,
    keep_until   BIGINT NOT NULL
);
CREATE INDEX codes_keep_until ON codes (keep_until);
-- A revocation spends the codes that wait for redemption, and only those.
CREATE INDEX codes_client ON codes (client_id) WHERE used = 0;
CREATE INDEX codes_subject ON codes (subject) WHERE used = 0;
CREATE INDEX codes_session ON codes (session) WHERE used = 0;

-- No column that a rotation changes is indexed: PostgreSQL then updates the
-- row in its page and touches no index.
CREATE TABLE families (
    grant_id   TEXT PRIMARY KEY,
    client_id  TEXT NOT NULL,
    subject    TEXT NOT NULL,
    session    TEXT NOT NULL,
    scopes     TEXT NOT NULL,
    resources  TEXT NOT NULL,
    acr        TEXT NOT NULL,
    nonce      TEXT NOT NULL,
    auth_time  BIGINT NOT NULL,
    created    BIGINT NOT NULL,
    expires    BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    hash       BYTEA NOT NULL,
    previous   BYTEA NOT NULL,
    rotated    BIGINT NOT NULL,
    idle_until BIGINT NOT NULL,
    revoked    BIGINT NOT NULL
);
CREATE INDEX families_client ON families (client_id);
CREATE INDEX families_subject ON families (subject);
CREATE INDEX families_session ON families (session);
CREATE INDEX families_expires ON families (expires);

CREATE TABLE sessions (
    id        TEXT PRIMARY KEY,
    cookie    BYTEA NOT NULL UNIQUE,
    subject   TEXT NOT NULL,
    acr       TEXT NOT NULL,
    auth_time BIGINT NOT NULL,
    created   BIGINT NOT NULL,
    expires   BIGINT NOT NULL,
    ended     BIGINT NOT NULL,
    agent     TEXT NOT NULL
);
CREATE INDEX sessions_subject ON sessions (subject);
CREATE INDEX sessions_expires ON sessions (expires);

CREATE TABLE consents (
    subject   TEXT NOT NULL,
    client_id TEXT NOT NULL,
    scopes    TEXT NOT NULL,
    granted   BIGINT NOT NULL,
    PRIMARY KEY (subject, client_id)
);
CREATE INDEX consents_client ON consents (client_id);

CREATE TABLE clients (
    id                        TEXT PRIMARY KEY,
    name                      TEXT NOT NULL,
    secret_hashes             TEXT NOT NULL,
    grants                    TEXT NOT NULL,
    scopes                    TEXT NOT NULL,
    redirect_uris             TEXT NOT NULL,
    post_logout_redirect_uris TEXT NOT NULL,
    skip_consent              BIGINT NOT NULL,
    disabled                  BIGINT NOT NULL,
    created                   BIGINT NOT NULL
);

CREATE TABLE users (
    subject       TEXT PRIMARY KEY,
    name          TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    email         TEXT NOT NULL,
    display_name  TEXT NOT NULL,
    declared      BIGINT NOT NULL,
    disabled      BIGINT NOT NULL,
    created       BIGINT NOT NULL
);

-- Every subject that was ever given out, so that none is given out twice.
CREATE TABLE subjects (
    subject TEXT PRIMARY KEY
);

CREATE TABLE signing_keys (
    id         TEXT PRIMARY KEY,
    key_use    TEXT NOT NULL,
    algorithm  TEXT NOT NULL,
    public     BYTEA NOT NULL,
    sealed     BYTEA NOT NULL,
    state      TEXT NOT NULL,
    created    BIGINT NOT NULL,
    activates  BIGINT NOT NULL,
    retired    BIGINT NOT NULL,
    gone       BIGINT NOT NULL
);

CREATE TABLE envelopes (
    name  TEXT PRIMARY KEY,
    value BYTEA NOT NULL
);

CREATE TABLE once (
    name    TEXT PRIMARY KEY,
    expires BIGINT NOT NULL
);
CREATE INDEX once_expires ON once (expires);

CREATE TABLE audit (
    seq     BIGINT PRIMARY KEY,
    at      BIGINT NOT NULL,
    action  TEXT NOT NULL,
    outcome TEXT NOT NULL,
    actor   TEXT NOT NULL,
    client  TEXT NOT NULL,
    subject TEXT NOT NULL,
    grant_id TEXT NOT NULL,
    session TEXT NOT NULL,
    ip      TEXT NOT NULL,
    reason  TEXT NOT NULL
);
