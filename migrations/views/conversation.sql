-- What the process managers go on with at a start; what was said is in the log alone.
CREATE TABLE conversation (
    id            TEXT PRIMARY KEY,
    position      INTEGER NOT NULL UNIQUE,
    product       TEXT NOT NULL,
    state         TEXT NOT NULL,
    is_unfinished INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX conversation_unfinished ON conversation (position) WHERE is_unfinished;
