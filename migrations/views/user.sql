-- `email` and `name` stay sealed here.
CREATE TABLE user (
    id           TEXT PRIMARY KEY,
    position     INTEGER NOT NULL UNIQUE,
    organization TEXT NOT NULL,
    email        TEXT NOT NULL,
    name         TEXT,
    role         TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    updated_at   TEXT NOT NULL,
    sequence     INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX user_of ON user (organization, position);
