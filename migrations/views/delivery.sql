CREATE TABLE delivery (
    id            TEXT PRIMARY KEY,
    position      INTEGER NOT NULL UNIQUE,
    organization  TEXT NOT NULL,
    product       TEXT NOT NULL,
    trigger_id    TEXT NOT NULL,
    verify        TEXT NOT NULL,
    size          INTEGER NOT NULL,
    -- received, started, filtered or failed.
    status        TEXT NOT NULL,
    execution     TEXT,
    code          TEXT,
    error         TEXT,
    content       TEXT NOT NULL,
    received_at   TEXT NOT NULL,
    settled_at    TEXT
) WITHOUT ROWID;
CREATE INDEX delivery_of_trigger ON delivery (trigger_id, position);
CREATE INDEX delivery_unsettled ON delivery (position) WHERE status = 'received';
