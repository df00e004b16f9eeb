-- +goose Up
-- What people sign in with besides passwords, what they are sent by e-mail, and
-- the counters that slow guessing down.
ALTER TABLE users ADD COLUMN email_verified BIGINT NOT NULL DEFAULT 0;
-- email_key is the address in lower case, for look-ups.
ALTER TABLE users ADD COLUMN email_key TEXT NOT NULL DEFAULT '';
UPDATE users SET email_key = lower(email);
CREATE INDEX users_email_key ON users (email_key);

-- sealed is encrypted under a key that the key encryption key protects.
CREATE TABLE totp (
    subject   TEXT PRIMARY KEY,
    sealed    BYTEA NOT NULL,
    last_step BIGINT NOT NULL,
    created   BIGINT NOT NULL
);

CREATE TABLE recovery_codes (
    subject TEXT NOT NULL,
    hash    BYTEA NOT NULL,
    PRIMARY KEY (subject, hash)
);

CREATE TABLE passkeys (
    id         BYTEA PRIMARY KEY,
    subject    TEXT NOT NULL,
    name       TEXT NOT NULL,
    credential BYTEA NOT NULL,
    counter    BIGINT NOT NULL,
    created    BIGINT NOT NULL,
    used       BIGINT NOT NULL
);
CREATE INDEX passkeys_subject ON passkeys (subject);

CREATE TABLE tickets (
    hash    BYTEA PRIMARY KEY,
    kind    TEXT NOT NULL,
    subject TEXT NOT NULL,
    email   TEXT NOT NULL,
    expires BIGINT NOT NULL
);
CREATE INDEX tickets_subject ON tickets (subject);
CREATE INDEX tickets_expires ON tickets (expires);

CREATE TABLE counters (
    name    TEXT PRIMARY KEY,
    counted BIGINT NOT NULL,
    open    BIGINT NOT NULL,
    at      BIGINT NOT NULL,
    expires BIGINT NOT NULL
);
CREATE INDEX counters_expires ON counters (expires);

CREATE INDEX codes_grants ON codes (subject, client_id);
