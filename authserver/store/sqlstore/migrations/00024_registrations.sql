-- Dynamic client registration (RFC 7591, RFC 7592).

-- +goose Up
-- What lets somebody register a client, so many times and until then.
CREATE TABLE initial_tokens (
    id      TEXT PRIMARY KEY,
    hash    BYTEA NOT NULL UNIQUE,
    name    TEXT NOT NULL,
    scopes  TEXT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    uses    BIGINT NOT NULL
);

-- What a registered client may change itself with, and what it said about
-- itself besides.
CREATE TABLE registrations (
    client_id TEXT PRIMARY KEY,
    hash      BYTEA NOT NULL,
    metadata  TEXT NOT NULL
);
