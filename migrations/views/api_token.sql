CREATE TABLE api_token (
    id                   TEXT PRIMARY KEY,
    position             INTEGER NOT NULL UNIQUE,
    organization         TEXT NOT NULL,
    product              TEXT NOT NULL,
    name                 TEXT NOT NULL,
    prefix               TEXT NOT NULL,
    secret_hash          TEXT NOT NULL,
    previous_hash        TEXT,
    previous_valid_until TEXT,
    status               TEXT NOT NULL,
    -- Somebody switched it off: it stays so when it runs out and is renewed.
    is_switched_off      INTEGER NOT NULL DEFAULT 0,
    scopes               TEXT NOT NULL,
    allowed_ips          TEXT NOT NULL,
    created_at           TEXT NOT NULL,
    created_by           TEXT NOT NULL,
    updated_at           TEXT NOT NULL,
    expires_at           TEXT,
    sequence             INTEGER NOT NULL,
    usage_count          INTEGER NOT NULL DEFAULT 0,
    last_used_at         TEXT
) WITHOUT ROWID;
CREATE INDEX api_token_of ON api_token (product, position);
CREATE INDEX api_token_by_secret ON api_token (secret_hash);
CREATE INDEX api_token_by_previous ON api_token (previous_hash) WHERE previous_hash IS NOT NULL;
CREATE INDEX api_token_expiring ON api_token (expires_at) WHERE status IN ('active', 'inactive') AND expires_at IS NOT NULL;
