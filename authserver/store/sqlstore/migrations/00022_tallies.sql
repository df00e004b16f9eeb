-- Counters that start anew when their time is over.

-- +goose Up
CREATE TABLE tallies (
    name    TEXT PRIMARY KEY,
    n       BIGINT NOT NULL,
    expires BIGINT NOT NULL
);
CREATE INDEX tallies_expires ON tallies (expires);
