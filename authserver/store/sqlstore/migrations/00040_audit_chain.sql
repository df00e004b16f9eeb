-- +goose Up
-- Each event's hash covers the event before it. The base is what the first
-- chained event follows: events up to there were pruned, or are from before
-- there was a chain and have no hash.
ALTER TABLE audit ADD COLUMN hash BYTEA;
ALTER TABLE heads ADD COLUMN hash BYTEA;
INSERT INTO heads (name, seq) SELECT 'audit_base', seq FROM heads WHERE name = 'audit';
