-- What was said is sealed. The state is what the process managers go on with at a start.
CREATE TABLE conversation (
    id            TEXT PRIMARY KEY,
    position      INTEGER NOT NULL UNIQUE,
    organization  TEXT NOT NULL,
    product       TEXT NOT NULL,
    integration   TEXT NOT NULL,
    state         TEXT NOT NULL,
    is_unfinished INTEGER NOT NULL,
    messages      INTEGER NOT NULL,
    running       INTEGER NOT NULL,
    waiting       INTEGER NOT NULL,
    delivered     INTEGER NOT NULL,
    given_up      INTEGER NOT NULL,
    -- The last reply that did not arrive at once.
    code          TEXT,
    error         TEXT,
    failed_at     TEXT,
    started_at    TEXT NOT NULL,
    updated_at    TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX conversation_unfinished ON conversation (position) WHERE is_unfinished;
CREATE INDEX conversation_of_product ON conversation (product, position);

-- What was said, and what was answered.
CREATE TABLE conversation_turn (
    position      INTEGER PRIMARY KEY,
    conversation  TEXT NOT NULL,
    id            TEXT NOT NULL,
    -- message or reply.
    kind          TEXT NOT NULL,
    content       TEXT NOT NULL,
    message       TEXT,
    execution     TEXT,
    step_id       TEXT,
    -- Of a message received or handled; of a reply waiting, sending, delivered or given_up.
    status        TEXT NOT NULL,
    attempts      INTEGER NOT NULL DEFAULT 0,
    retry_at      TEXT,
    code          TEXT,
    error         TEXT,
    at            TEXT NOT NULL,
    settled_at    TEXT,
    -- Of a message: what was said in its place, and when; and when it was taken back.
    changed       TEXT,
    changed_at    TEXT,
    withdrawn_at  TEXT
);
CREATE UNIQUE INDEX conversation_turn_id ON conversation_turn (conversation, id);
CREATE INDEX conversation_turn_of ON conversation_turn (conversation, position);

-- What became of the files of a message.
CREATE TABLE conversation_file (
    conversation  TEXT NOT NULL,
    message       TEXT NOT NULL,
    number        INTEGER NOT NULL,
    file          TEXT,
    code          TEXT,
    error         TEXT,
    PRIMARY KEY (conversation, message, number)
) WITHOUT ROWID;
