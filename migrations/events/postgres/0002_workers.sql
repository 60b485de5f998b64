-- Which workers live, schema 2. Forward only: this file is never rewritten, a change is 0003.
--
-- Nothing here is a fact about the past, and nothing is lost with it: whoever lives is here again at
-- its next beat, and of whoever is not here nothing is known.
CREATE TABLE event_log_worker (
    id       uuid PRIMARY KEY,
    beats    bigint NOT NULL,                    -- 1, 2, 3, … as long as it lives
    has_left boolean NOT NULL DEFAULT false,     -- it said that it stops
    heard_at timestamptz NOT NULL DEFAULT now()  -- by the database's clock: only to tidy up by
);
