CREATE TABLE agent (
    id            TEXT PRIMARY KEY,
    position      INTEGER NOT NULL UNIQUE,
    organization  TEXT NOT NULL,
    product       TEXT NOT NULL,
    title         TEXT NOT NULL,
    name          TEXT NOT NULL,
    -- The active version, and what its manifest says.
    version_id    TEXT NOT NULL,
    version       TEXT NOT NULL,
    config        TEXT,
    bindings      TEXT NOT NULL,
    enabled       INTEGER NOT NULL,
    created_at    TEXT NOT NULL,
    updated_at    TEXT NOT NULL,
    -- History is kept: an uninstalled agent is no longer listed, its versions and executions still are.
    uninstalled_at TEXT,
    sequence      INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX agent_of ON agent (product, position) WHERE uninstalled_at IS NULL;
CREATE TABLE agent_version (
    -- Of the event that brought it; its place in lists.
    position      INTEGER PRIMARY KEY,
    id            TEXT NOT NULL UNIQUE,
    agent         TEXT NOT NULL,
    version       TEXT NOT NULL,
    digest        TEXT NOT NULL,
    manifest      TEXT NOT NULL,
    -- JSON pointers into the configuration, to what this version calls secret.
    secrets       TEXT NOT NULL,
    triggers      TEXT NOT NULL,
    created_by    TEXT NOT NULL,
    created_at    TEXT NOT NULL
);
CREATE INDEX agent_version_of ON agent_version (agent, position);
