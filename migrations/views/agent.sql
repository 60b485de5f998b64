CREATE TABLE agent (
    id            TEXT PRIMARY KEY,
    position      INTEGER NOT NULL UNIQUE,
    organization  TEXT NOT NULL,
    product       TEXT NOT NULL,
    title         TEXT NOT NULL,
    name          TEXT NOT NULL,
    version       TEXT NOT NULL,
    version_id    TEXT NOT NULL,
    digest        TEXT NOT NULL,
    manifest      TEXT NOT NULL,
    config        TEXT,
    bindings      TEXT NOT NULL,
    triggers      TEXT NOT NULL,
    enabled       INTEGER NOT NULL,
    created_at    TEXT NOT NULL,
    updated_at    TEXT NOT NULL,
    -- History is kept: an uninstalled agent is no longer listed, its executions still are.
    uninstalled_at TEXT,
    sequence      INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX agent_of ON agent (product, position) WHERE uninstalled_at IS NULL;
CREATE INDEX agent_by_version ON agent (version_id);
