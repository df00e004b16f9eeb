-- +goose Up
-- What is still to be written and sent. What it says is sealed under a key that
-- the key encryption key protects.
CREATE TABLE mails (
    id       TEXT PRIMARY KEY,
    sealed   BYTEA NOT NULL,
    created  BIGINT NOT NULL,
    expires  BIGINT NOT NULL,
    due      BIGINT NOT NULL,
    attempts BIGINT NOT NULL
);
CREATE INDEX mails_due ON mails (due);
