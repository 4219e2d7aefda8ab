-- Pairs of moves are kept here while a sweep works them off, so that a renamed folder needs no memory.

DROP TABLE run_missing;
CREATE TABLE run_missing (
    run INTEGER NOT NULL,
    key TEXT NOT NULL,
    moved_to TEXT,                      -- the new key of the same bytes, where there is just one
    PRIMARY KEY (run, key)
) WITHOUT ROWID;
-- What an interrupted sweep had noted is gone with the table, so none may go on.
UPDATE run SET cursor = NULL WHERE state <> 'done';
