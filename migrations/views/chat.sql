-- The assistant's sessions and runs. What people said and were answered stays sealed here.
CREATE TABLE chat_session (
    position     INTEGER PRIMARY KEY,
    id           BLOB NOT NULL UNIQUE,
    organization BLOB NOT NULL,
    product      TEXT NOT NULL,
    owner        TEXT NOT NULL,
    session_id   TEXT NOT NULL,
    title        TEXT NOT NULL,
    -- The sequence of the last event that changed what its owner can change.
    changed      INTEGER NOT NULL,
    created_at   TEXT NOT NULL,
    updated_at   TEXT NOT NULL
);
CREATE INDEX chat_session_of ON chat_session (product, owner, position);
CREATE TABLE chat_run (
    position     INTEGER PRIMARY KEY,
    id           BLOB NOT NULL UNIQUE,
    organization BLOB NOT NULL,
    product      TEXT NOT NULL,
    -- None where the question came with all that was said before.
    session      BLOB,
    owner        TEXT NOT NULL,
    status       TEXT NOT NULL,
    message      TEXT,
    answer       TEXT,
    error_code   TEXT,
    error        TEXT,
    created_at   TEXT NOT NULL,
    ended_at     TEXT
);
CREATE INDEX chat_run_of ON chat_run (session, position) WHERE session IS NOT NULL;
CREATE INDEX chat_run_open ON chat_run (position) WHERE ended_at IS NULL;
