-- The log on PostgreSQL, schema 1. Forward only: this file is never rewritten, a change is 0002.
--
-- `envelope` is the event: the canonical (RFC 8785) bytes of which history is proved. The columns
-- before it repeat what the indexes need and hold nothing that the envelope does not.

CREATE TABLE event_log (
    position       bigint PRIMARY KEY CHECK (position > 0),  -- 1, 2, 3, … in commit order
    aggregate_type text   COLLATE "C" NOT NULL,              -- the stream's name up to its first dash
    aggregate_id   text   COLLATE "C" NOT NULL,              -- … and behind it
    sequence       bigint NOT NULL CHECK (sequence > 0),     -- 1, 2, 3, … within the stream
    event_type     text   COLLATE "C" NOT NULL,
    command        uuid,                                     -- on a command's first event only
    envelope       text   COLLATE "C" NOT NULL
);

-- Finds a stream, and refuses a second event at the same place of it.
CREATE UNIQUE INDEX event_log_by_stream ON event_log (aggregate_type, aggregate_id, sequence);

-- Finds what a command led to, and refuses to store it twice. A command's events have consecutive
-- positions, so its first one is enough.
CREATE UNIQUE INDEX event_log_by_command ON event_log (command) WHERE command IS NOT NULL;

-- One row that is locked by whoever appends, so that positions are given in the order of commits.
-- It holds no position: a row that every group updates would drag its old versions along for as
-- long as any other transaction (a dump, say) is open. The head is the largest position.
CREATE TABLE event_log_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row)
);
INSERT INTO event_log_head DEFAULT VALUES;

CREATE FUNCTION refuse_to_change_the_event_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the event log is append-only: % of % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER events_are_never_changed
    BEFORE UPDATE OR DELETE OR TRUNCATE ON event_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_the_event_log();

CREATE TRIGGER the_head_is_only_locked
    BEFORE UPDATE OR DELETE OR TRUNCATE ON event_log_head
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_the_event_log();

-- Appends a group of events behind `head`, in the order of the arrays, and tells who listens.
-- Answers false, and does nothing, when the caller's picture of the log is not right: the head is
-- elsewhere, a command is stored, or a stream does not end where its first event here goes on.
CREATE FUNCTION append_to_event_log(
    head            bigint,
    aggregate_types text[],
    aggregate_ids   text[],
    sequences       bigint[],
    event_types     text[],
    commands        uuid[],     -- null on all but the first event of each command
    envelopes       text[]
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM event_log_head WHERE only_row FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the row of event_log_head is missing: restore the event log from a backup';
    END IF;
    -- Each statement from here on sees what was committed before the lock was given.
    IF head <> coalesce((SELECT max(stored.position) FROM event_log stored), 0) THEN
        RETURN false;
    END IF;
    IF EXISTS (SELECT FROM unnest(commands) AS new (id) JOIN event_log stored ON stored.command = new.id) THEN
        RETURN false;
    END IF;
    IF EXISTS (
        SELECT FROM (
            SELECT new.type, new.id, min(new.sequence) AS first
            FROM unnest(aggregate_types, aggregate_ids, sequences) AS new (type, id, sequence)
            GROUP BY new.type, new.id
        ) AS stream
        WHERE stream.first <> 1 + coalesce((
            SELECT max(stored.sequence) FROM event_log stored
            WHERE stored.aggregate_type = stream.type AND stored.aggregate_id = stream.id
        ), 0)
    ) THEN
        RETURN false;
    END IF;
    INSERT INTO event_log (position, aggregate_type, aggregate_id, sequence, event_type, command, envelope)
    SELECT head + new.place, new.aggregate_type, new.aggregate_id, new.sequence, new.event_type, new.command, new.envelope
    FROM unnest(aggregate_types, aggregate_ids, sequences, event_types, commands, envelopes) WITH ORDINALITY
        AS new (aggregate_type, aggregate_id, sequence, event_type, command, envelope, place);
    PERFORM pg_notify('event_log', (head + cardinality(envelopes))::text);
    RETURN true;
END
$$;

-- The log as postgres-es reads it: its repository (`get_events`) loads an aggregate from here. The
-- payload is cut out of the envelope, not kept twice. What stands before `data` and behind it in an
-- envelope holds no unescaped quotes, so the first `"data":` and the last `,"id":"` are the keys.
CREATE VIEW events AS
SELECT
    log.aggregate_type,
    log.aggregate_id,
    log.sequence,
    log.event_type,
    substring(log.event_type FROM '[^.]*$') AS event_version,
    ('{' || to_json(log.event_type) || ':' || left(rest.text, length(rest.text) - tail.length) || '}')::json AS payload,
    json_build_object(
        'position', log.position::text,
        'id', substring(right(rest.text, tail.length) FROM '^,"id":"([^"]*)"'),
        'time', substring(right(rest.text, tail.length) FROM ',"time":"([^"]*)"')
    ) AS metadata,
    log.position,
    log.command,
    log.envelope
FROM event_log log
CROSS JOIN LATERAL (
    SELECT substr(log.envelope, strpos(log.envelope, '"data":') + 7) AS text
) AS rest
CROSS JOIN LATERAL (
    SELECT strpos(reverse(rest.text), '":"di",') + 6 AS length
) AS tail;
