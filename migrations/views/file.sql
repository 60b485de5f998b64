CREATE TABLE file (
    id             TEXT PRIMARY KEY,
    position       INTEGER NOT NULL UNIQUE,
    organization   TEXT NOT NULL,
    product        TEXT NOT NULL,
    knowledge_base TEXT NOT NULL,
    name           TEXT NOT NULL,
    media_type     TEXT NOT NULL,
    size           INTEGER NOT NULL,
    blob           TEXT NOT NULL,
    source         TEXT,
    subject        TEXT,
    language       TEXT,
    tags           TEXT NOT NULL,
    status         TEXT NOT NULL,
    progress       INTEGER NOT NULL,
    chunks         INTEGER NOT NULL DEFAULT 0,
    characters     INTEGER NOT NULL DEFAULT 0,
    tokens         INTEGER NOT NULL DEFAULT 0,
    model_revision TEXT,
    artifact       TEXT,
    error_code     TEXT,
    error_message  TEXT,
    created_at     TEXT NOT NULL,
    created_by     TEXT NOT NULL,
    processed_at   TEXT,
    -- The event that made it ready: searchable where the index has taken that in.
    ready_position INTEGER
) WITHOUT ROWID;
-- Every artifact that was made of a product's files, until the product is erased.
CREATE TABLE artifact (
    product TEXT NOT NULL,
    name    TEXT NOT NULL,
    PRIMARY KEY (product, name)
) WITHOUT ROWID;
CREATE INDEX file_of ON file (knowledge_base, position);
CREATE INDEX file_by_status ON file (knowledge_base, status, position);
CREATE INDEX file_ready ON file (status, id);
