-- `email`, `name` and `subject` stay sealed here.
CREATE TABLE user (
    id           TEXT PRIMARY KEY,
    position     INTEGER NOT NULL UNIQUE,
    organization TEXT NOT NULL,
    email        TEXT NOT NULL,
    name         TEXT,
    role         TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    updated_at   TEXT NOT NULL,
    sequence     INTEGER NOT NULL,
    -- Where the password was last changed: no session from before is good.
    password_position INTEGER NOT NULL DEFAULT 0,
    -- Where it was last unlinked from an outside issuer: no session from there and from before is good.
    unlinked_position INTEGER NOT NULL DEFAULT 0,
    -- Who the user is outside, as was linked last.
    issuer       TEXT,
    subject      TEXT
) WITHOUT ROWID;
-- Deleted users of whom something is left to be erased.
CREATE TABLE deleted_user (
    id TEXT PRIMARY KEY
) WITHOUT ROWID;
CREATE INDEX user_of ON user (organization, position);
