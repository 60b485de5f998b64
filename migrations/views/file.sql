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
    -- Whether it could be found once.
    is_indexed     INTEGER NOT NULL DEFAULT 0,
    -- From here on: as the active generation has it.
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
-- Files that are gone, and how much of them.
CREATE TABLE deleted_file (
    id      TEXT PRIMARY KEY,
    product TEXT NOT NULL,
    -- 'deleted', 'erasing' or 'erased'
    state   TEXT NOT NULL,
    -- When it was deleted.
    at      TEXT NOT NULL
) WITHOUT ROWID;
-- What models made of files. Without an artifact: why one could make nothing of it.
CREATE TABLE embedding (
    file           TEXT NOT NULL,
    model_revision TEXT NOT NULL,
    artifact       TEXT,
    chunks         INTEGER NOT NULL DEFAULT 0,
    characters     INTEGER NOT NULL DEFAULT 0,
    tokens         INTEGER NOT NULL DEFAULT 0,
    error_code     TEXT,
    error_message  TEXT,
    at             TEXT NOT NULL,
    position       INTEGER NOT NULL,
    PRIMARY KEY (file, model_revision)
) WITHOUT ROWID;
-- The models that embed files. The active one is that which was activated last.
CREATE TABLE generation (
    model_revision     TEXT PRIMARY KEY,
    stream             TEXT NOT NULL UNIQUE,
    position           INTEGER NOT NULL UNIQUE,
    model              TEXT,
    is_complete        INTEGER NOT NULL,
    begun_at           TEXT NOT NULL,
    completed_at       TEXT,
    activated_at       TEXT,
    activated_position INTEGER
) WITHOUT ROWID;
-- Generations that are gone, while something that they made is stored.
CREATE TABLE removed_generation (
    model_revision TEXT PRIMARY KEY,
    stream         TEXT NOT NULL UNIQUE
) WITHOUT ROWID;
-- Every artifact that was made of a product's files, until the product is erased or the generation cleared.
CREATE TABLE artifact (
    product TEXT NOT NULL,
    name    TEXT NOT NULL,
    PRIMARY KEY (product, name)
) WITHOUT ROWID;
CREATE INDEX file_of ON file (knowledge_base, position);
CREATE INDEX file_by_blob ON file (blob);
CREATE INDEX file_by_status ON file (knowledge_base, status, position);
CREATE INDEX embedding_by_model ON embedding (model_revision, position);
CREATE INDEX deleted_file_of ON deleted_file (product, at) WHERE state = 'deleted';
CREATE INDEX erasing_file ON deleted_file (id) WHERE state = 'erasing';
