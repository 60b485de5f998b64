-- A row here is small and changes often; what people and agents wrote is large, never changes, and lies
-- in `execution_text`.
CREATE TABLE execution (
    position     INTEGER PRIMARY KEY,
    id           BLOB NOT NULL UNIQUE,
    organization BLOB NOT NULL,
    product      BLOB NOT NULL,
    agent        BLOB NOT NULL,
    version_id   BLOB NOT NULL,
    digest       TEXT NOT NULL,
    trigger_id   BLOB,
    requested_by TEXT NOT NULL,
    status       TEXT NOT NULL,
    output_at    INTEGER,
    error_code   TEXT,
    error_step   TEXT,
    error_at     INTEGER,
    created_at   TEXT NOT NULL,
    started_at   TEXT,
    ended_at     TEXT,
    retry_of     BLOB,
    waiting_until TEXT
);
CREATE INDEX execution_of ON execution (agent, position);
CREATE INDEX execution_by_status ON execution (agent, status, position);
CREATE TABLE execution_attempt (
    -- The position of the execution, and that of the attempt's own beginning.
    execution  INTEGER NOT NULL,
    position   INTEGER NOT NULL,
    step_id    TEXT NOT NULL,
    attempt    INTEGER NOT NULL,
    status     TEXT NOT NULL,
    output_at  INTEGER,
    error_code TEXT,
    error_at   INTEGER,
    started_at TEXT NOT NULL,
    ended_at   TEXT,
    PRIMARY KEY (execution, position)
) WITHOUT ROWID;
-- Inputs, outputs and errors, by the position of the event that carries them. They stay sealed here.
CREATE TABLE execution_text (
    position INTEGER PRIMARY KEY,
    text     TEXT NOT NULL
);
