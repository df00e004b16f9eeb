-- Keys that codes and grants are bound to, and pushed requests.

-- +goose Up
ALTER TABLE codes ADD COLUMN jkt TEXT NOT NULL DEFAULT '';
ALTER TABLE families ADD COLUMN jkt TEXT NOT NULL DEFAULT '';
ALTER TABLE families ADD COLUMN x5t TEXT NOT NULL DEFAULT '';

CREATE TABLE pushed (
    hash      BYTEA PRIMARY KEY,
    client_id TEXT NOT NULL,
    query     TEXT NOT NULL,
    signed    BIGINT NOT NULL,
    expires   BIGINT NOT NULL
);
CREATE INDEX pushed_expires ON pushed (expires);
