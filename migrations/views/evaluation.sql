CREATE TABLE evaluation (
    id             TEXT PRIMARY KEY,
    position       INTEGER NOT NULL UNIQUE,
    organization   TEXT NOT NULL,
    product        TEXT NOT NULL,
    knowledge_base TEXT NOT NULL,
    mode           TEXT NOT NULL,
    -- The summary of its event.
    summary        TEXT NOT NULL,
    content        TEXT NOT NULL,
    requested_by   TEXT NOT NULL,
    created_at     TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX evaluation_of_knowledge_base ON evaluation (knowledge_base, position);
