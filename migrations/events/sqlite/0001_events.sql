-- The log on SQLite, schema 1. Forward only: this file is never rewritten, a change is 0002.
--
-- `envelope` is the event: the canonical (RFC 8785) bytes of which history is proved. The columns
-- before it repeat what the indexes need and hold nothing that the envelope does not.

CREATE TABLE events (
    position INTEGER PRIMARY KEY,       -- 1, 2, 3, … in commit order
    stream   TEXT    NOT NULL,
    sequence INTEGER NOT NULL,          -- 1, 2, 3, … within the stream
    command  BLOB,                      -- the command's id, on its first event only
    envelope TEXT    NOT NULL
) STRICT;

-- Finds a stream, and refuses a second event at the same place of it.
CREATE UNIQUE INDEX events_by_stream ON events (stream, sequence);

-- Finds what a command led to, and refuses to store it twice. A command's events have consecutive
-- positions, so its first one is enough.
CREATE UNIQUE INDEX events_by_command ON events (command) WHERE command IS NOT NULL;

CREATE TRIGGER events_are_never_changed BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'the event log is append-only: events are never changed');
END;

CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events
BEGIN
    SELECT RAISE(ABORT, 'the event log is append-only: events are never deleted');
END;
