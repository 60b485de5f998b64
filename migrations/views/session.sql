CREATE TABLE session (
    id           TEXT PRIMARY KEY,
    position     INTEGER NOT NULL,
    organization TEXT NOT NULL,
    user         TEXT NOT NULL,
    started_at   TEXT NOT NULL,
    expires_at   TEXT NOT NULL,
    ended        TEXT,
    -- Of a session that is a token from outside: whose. It is over when the token is.
    issuer       TEXT
) WITHOUT ROWID;
CREATE INDEX session_of ON session (user) WHERE ended IS NULL;
