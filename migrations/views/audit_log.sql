-- One row for each event, and one for each attempt that was refused. `address` and `user_agent`
-- stay sealed here.
CREATE TABLE audit (
    -- Event position and place within the event, as position * 4096 + place.
    position      INTEGER PRIMARY KEY,
    -- Numbers for the ids below, 0 where there is none (no number for a request that is none): they are sorted and compared in a fraction of the time.
    resource_key  INTEGER NOT NULL,
    actor_key     INTEGER NOT NULL,
    product_key   INTEGER NOT NULL,
    request_key   INTEGER,
    event_id      BLOB NOT NULL,
    event_type    TEXT NOT NULL,
    -- None where it is that of the resource: <resource_type>-<resource_id>.
    stream        TEXT,
    at            TEXT NOT NULL,
    organization  BLOB NOT NULL,
    product       BLOB,
    actor         TEXT NOT NULL,
    action        TEXT NOT NULL,
    resource_type TEXT,
    resource_id   TEXT,
    outcome       TEXT NOT NULL,
    request_id    TEXT,
    address       TEXT,
    user_agent    TEXT,
    details       TEXT NOT NULL
);
CREATE INDEX audit_by_resource ON audit (resource_key);
CREATE INDEX audit_by_actor ON audit (actor_key);
CREATE INDEX audit_by_product ON audit (product_key);
CREATE INDEX audit_by_request ON audit (request_key) WHERE request_key IS NOT NULL;
-- The requests of a row that is of several, without the first one: that is the row's own.
CREATE TABLE audit_request (
    request_id TEXT NOT NULL,
    position   INTEGER NOT NULL,
    PRIMARY KEY (request_id, position)
) WITHOUT ROWID;
