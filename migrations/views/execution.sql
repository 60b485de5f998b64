-- `input`, `output` and `error` stay sealed here.
CREATE TABLE execution (
    id           TEXT PRIMARY KEY,
    position     INTEGER NOT NULL UNIQUE,
    organization TEXT NOT NULL,
    product      TEXT NOT NULL,
    agent        TEXT NOT NULL,
    version_id   TEXT NOT NULL,
    digest       TEXT NOT NULL,
    trigger_id   TEXT,
    requested_by TEXT NOT NULL,
    status       TEXT NOT NULL,
    input        TEXT NOT NULL,
    output       TEXT,
    error_code   TEXT,
    error_step   TEXT,
    error        TEXT,
    created_at   TEXT NOT NULL,
    started_at   TEXT,
    ended_at     TEXT,
    sequence     INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX execution_of ON execution (agent, position);
CREATE INDEX execution_by_status ON execution (agent, status, position);
CREATE TABLE execution_attempt (
    execution  TEXT NOT NULL,
    position   INTEGER NOT NULL,
    step_id    TEXT NOT NULL,
    attempt    INTEGER NOT NULL,
    status     TEXT NOT NULL,
    output     TEXT,
    error_code TEXT,
    error      TEXT,
    started_at TEXT NOT NULL,
    ended_at   TEXT,
    PRIMARY KEY (execution, position)
) WITHOUT ROWID;
