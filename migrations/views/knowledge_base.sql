CREATE TABLE knowledge_base (
    id           TEXT PRIMARY KEY,
    position     INTEGER NOT NULL UNIQUE,
    organization TEXT NOT NULL,
    product      TEXT NOT NULL,
    name         TEXT NOT NULL,
    -- Sealed, behind the event that it is bound to; or behind a | alone, where the log has it in the clear.
    description  TEXT,
    is_default   INTEGER NOT NULL,
    created_at   TEXT NOT NULL,
    updated_at   TEXT NOT NULL,
    sequence     INTEGER NOT NULL,
    files        INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX knowledge_base_of ON knowledge_base (product, position);
CREATE TABLE knowledge_base_file (
    file           TEXT PRIMARY KEY,
    knowledge_base TEXT NOT NULL
) WITHOUT ROWID;
