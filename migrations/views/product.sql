CREATE TABLE product (
    id             TEXT PRIMARY KEY,
    position       INTEGER NOT NULL UNIQUE,
    organization   TEXT NOT NULL,
    name           TEXT NOT NULL,
    -- Sealed, behind the event that it is bound to; or behind a | alone, where the log has it in the clear.
    description    TEXT,
    knowledge_base TEXT NOT NULL,
    created_at     TEXT NOT NULL,
    updated_at     TEXT NOT NULL,
    sequence       INTEGER NOT NULL,
    -- So many days after it was deleted, a file is erased.
    deleted_files_days INTEGER
) WITHOUT ROWID;
-- Deleted products of which something is left to be erased.
CREATE TABLE deleted_product (
    id TEXT PRIMARY KEY
) WITHOUT ROWID;
CREATE INDEX product_of ON product (organization, position);
CREATE INDEX product_with_rule ON product (position) WHERE deleted_files_days IS NOT NULL;
