CREATE TABLE integration (
    id                  TEXT PRIMARY KEY,
    position            INTEGER NOT NULL UNIQUE,
    organization        TEXT NOT NULL,
    -- A global one has none.
    product             TEXT,
    kind                TEXT NOT NULL,
    title               TEXT NOT NULL,
    enabled             INTEGER NOT NULL,
    -- Sealed, as each secret in the object of secrets is.
    config              TEXT NOT NULL,
    secrets             TEXT NOT NULL,
    secrets_version     INTEGER NOT NULL,
    created_at          TEXT NOT NULL,
    created_by          TEXT NOT NULL,
    updated_at          TEXT NOT NULL,
    key_rotated_at      TEXT,
    last_used_at        TEXT,
    last_tested_at      TEXT,
    last_test_succeeded INTEGER,
    last_test_code      TEXT,
    sequence            INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX integration_of ON integration (organization, product, kind);
-- Its data keys are not known to be shredded yet.
CREATE TABLE deleted_integration (
    id      TEXT PRIMARY KEY,
    product TEXT
) WITHOUT ROWID;
