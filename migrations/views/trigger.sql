CREATE TABLE agent_trigger (
    id            TEXT PRIMARY KEY,
    position      INTEGER NOT NULL UNIQUE,
    organization  TEXT NOT NULL,
    product       TEXT NOT NULL,
    agent         TEXT NOT NULL,
    version_id    TEXT NOT NULL,
    -- A manifest names it: it belongs to that version, and not to the agent.
    of_version    INTEGER NOT NULL,
    key           TEXT NOT NULL,
    type          TEXT NOT NULL,
    enabled       INTEGER NOT NULL,
    configuration TEXT NOT NULL,
    -- Of a webhook: by what deliveries are verified, sealed.
    secret        TEXT,
    last_firing_at TEXT,
    -- Of a schedule: which of its instants are settled, up to this sequence of its own stream; and what
    -- became of the newest one. Of an event trigger: what became of the newest event that it matched.
    firings       TEXT NOT NULL DEFAULT '{"settled":null,"waiting":[],"last":null}',
    firings_sequence INTEGER NOT NULL DEFAULT 0,
    last_outcome  TEXT,
    created_at    TEXT NOT NULL,
    updated_at    TEXT NOT NULL,
    deleted_at    TEXT,
    sequence      INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX trigger_of_version ON agent_trigger (version_id, position);
CREATE INDEX trigger_of_agent ON agent_trigger (agent, position);
