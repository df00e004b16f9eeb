-- +goose Up
ALTER TABLE users ADD COLUMN roles TEXT NOT NULL DEFAULT '[]';

-- Who a user is at another provider, with what that said at the last sign-in.
CREATE TABLE identities (
    provider    TEXT NOT NULL,
    external_id TEXT NOT NULL,
    subject     TEXT NOT NULL,
    linked      BIGINT NOT NULL,
    roles       TEXT NOT NULL,
    member_of   TEXT NOT NULL,
    created     BIGINT NOT NULL,
    seen        BIGINT NOT NULL,
    PRIMARY KEY (provider, external_id)
);
CREATE INDEX identities_subject ON identities (subject);
