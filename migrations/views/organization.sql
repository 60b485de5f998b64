CREATE TABLE organization (
    id         TEXT PRIMARY KEY,
    position   INTEGER NOT NULL UNIQUE,
    name       TEXT NOT NULL,
    created_at TEXT NOT NULL
) WITHOUT ROWID;
