-- The schema as it is after all migrations; a test proves the two equal.

CREATE TABLE setting (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE integration (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    sealed BLOB NOT NULL,               -- options, encrypted
    created_at INTEGER NOT NULL
);

CREATE TABLE driver (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    integration INTEGER REFERENCES integration (n),
    bucket TEXT NOT NULL,
    path TEXT NOT NULL,
    scope TEXT NOT NULL,
    region TEXT,
    endpoint TEXT,
    storage_class TEXT,
    allow_external_delete INTEGER NOT NULL,
    options TEXT NOT NULL,              -- JSON object
    created_at INTEGER NOT NULL
);

CREATE TABLE dataset (
    n INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again: processes remember it
    id TEXT NOT NULL UNIQUE,            -- 24 hexadecimal digits
    name TEXT NOT NULL UNIQUE,
    driver INTEGER NOT NULL REFERENCES driver (n),
    created_at INTEGER NOT NULL
);

-- A row is an item (removed_at null), an item in the trash (removed_at and created_at set), or a
-- tombstone of a key that never was an item (created_at null). The public id is the catalog's stamp
-- and n in hexadecimal, so finding an item by id needs no index of its own.
CREATE TABLE item (
    n INTEGER PRIMARY KEY,
    dataset INTEGER NOT NULL,
    driver INTEGER NOT NULL,
    key TEXT NOT NULL,
    rev INTEGER NOT NULL,
    run INTEGER NOT NULL,               -- the sweep that found it; 0: not a sweep
    created_at INTEGER,                 -- times are Unix seconds
    content_rev INTEGER NOT NULL DEFAULT 1,  -- grows when other bytes are seen than before
    removed_at INTEGER,
    fingerprint TEXT,                   -- null: no object
    size INTEGER,
    modified TEXT,
    etag TEXT,
    version TEXT,
    content_id TEXT,
    content_type TEXT,
    storage_class TEXT
);
CREATE UNIQUE INDEX item_key ON item (dataset, driver, key);

CREATE TABLE item_metadata (
    item INTEGER PRIMARY KEY,
    user TEXT NOT NULL                  -- JSON object
);

CREATE TABLE annotation (
    n INTEGER PRIMARY KEY,
    item INTEGER NOT NULL,
    data TEXT NOT NULL,                 -- JSON object
    content_rev INTEGER NOT NULL,       -- the item's, when it was annotated
    updated_at INTEGER NOT NULL
);
CREATE INDEX annotation_item ON annotation (item);

CREATE TABLE run (
    n INTEGER PRIMARY KEY,
    dataset INTEGER NOT NULL,
    origin INTEGER NOT NULL,            -- the run that began this listing
    state TEXT NOT NULL,
    holder TEXT NOT NULL,
    heartbeat INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at INTEGER,
    cursor TEXT,
    report TEXT NOT NULL,               -- JSON object
    error TEXT
);
CREATE INDEX run_dataset ON run (dataset, n);
-- At most one sweep holds a dataset.
CREATE UNIQUE INDEX run_holder ON run (dataset) WHERE state = 'running';

CREATE TABLE run_missing (
    run INTEGER NOT NULL,
    key TEXT NOT NULL,
    moved_to TEXT,                      -- the new key of the same bytes, where there is just one
    PRIMARY KEY (run, key)
) WITHOUT ROWID;

CREATE TABLE quarantine (
    dataset INTEGER NOT NULL,
    key TEXT NOT NULL,
    reason TEXT NOT NULL,
    error TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    PRIMARY KEY (dataset, key)
) WITHOUT ROWID;
