-- Back-channel logout (OpenID Connect Back-Channel Logout 1.0).

-- +goose Up
-- The clients that took part in a session and want to know of its end.
CREATE TABLE session_clients (
    session   TEXT NOT NULL,
    client_id TEXT NOT NULL,
    PRIMARY KEY (session, client_id)
);

-- What is still to be told, and when it is tried next.
CREATE TABLE logouts (
    session   TEXT NOT NULL,
    client_id TEXT NOT NULL,
    subject   TEXT NOT NULL,
    created   BIGINT NOT NULL,
    due       BIGINT NOT NULL,
    attempts  BIGINT NOT NULL,
    PRIMARY KEY (session, client_id)
);
CREATE INDEX logouts_due ON logouts (due);
