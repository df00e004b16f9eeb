-- Device authorization requests (RFC 8628).

-- +goose Up
CREATE TABLE devices (
    hash      BYTEA PRIMARY KEY,
    user_hash BYTEA NOT NULL UNIQUE,
    client_id TEXT NOT NULL,
    scopes    TEXT NOT NULL,
    resources TEXT NOT NULL,
    expires   BIGINT NOT NULL,
    pause     BIGINT NOT NULL,
    polled    BIGINT NOT NULL,
    soon      BIGINT NOT NULL,
    decided   BIGINT NOT NULL,
    denied    BIGINT NOT NULL,
    subject   TEXT NOT NULL,
    session   TEXT NOT NULL,
    grant_id  TEXT NOT NULL,
    acr       TEXT NOT NULL,
    auth_time BIGINT NOT NULL,
    used      BIGINT NOT NULL
);
CREATE INDEX devices_expires ON devices (expires);
CREATE INDEX devices_client ON devices (client_id) WHERE used = 0;
CREATE INDEX devices_subject ON devices (subject) WHERE used = 0;
CREATE INDEX devices_session ON devices (session) WHERE used = 0;
