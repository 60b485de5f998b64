-- Where each read model stands. Commits together with the rows that it covers.
CREATE TABLE IF NOT EXISTS checkpoint (
    model    TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    stopped  TEXT
) WITHOUT ROWID;
