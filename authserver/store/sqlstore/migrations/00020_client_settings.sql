-- What a client is besides: one JSON object, which no query looks into.

-- +goose Up
ALTER TABLE clients ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';
