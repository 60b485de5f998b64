-- One row for each event, and one for each attempt that was refused. `address` and `user_agent`
-- stay sealed here.
CREATE TABLE audit (
    -- Event position and place within the event, as position * 4096 + place.
    position      INTEGER PRIMARY KEY,
    event         INTEGER NOT NULL,
    event_id      TEXT NOT NULL,
    event_type    TEXT NOT NULL,
    stream        TEXT NOT NULL,
    at            TEXT NOT NULL,
    organization  TEXT NOT NULL,
    product       TEXT,
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
CREATE INDEX audit_by_resource ON audit (resource_type, resource_id, position);
CREATE INDEX audit_by_actor ON audit (actor, position);
CREATE INDEX audit_by_product ON audit (product, position);
