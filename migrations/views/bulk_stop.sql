-- Requests to stop several executions that were not finished.
CREATE TABLE bulk_stop (
    id       TEXT PRIMARY KEY,
    position INTEGER NOT NULL
) WITHOUT ROWID;
