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
    created_at INTEGER NOT NULL,
    project INTEGER NOT NULL DEFAULT 1,
    creator TEXT
);

CREATE TABLE "dataset" (
    n INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again: processes remember it
    id TEXT NOT NULL UNIQUE,            -- 24 hexadecimal digits
    name TEXT NOT NULL,
    driver INTEGER REFERENCES driver (n),  -- null: its bytes are kept beside the catalog
    created_at INTEGER NOT NULL,
    project INTEGER NOT NULL DEFAULT 1,
    creator TEXT,
    updated_at INTEGER,
    readonly INTEGER NOT NULL DEFAULT 0,
    system INTEGER NOT NULL DEFAULT 0,  -- a project's "Binaries": listed only when asked for
    data TEXT NOT NULL DEFAULT '{}',    -- JSON object: metadata, expirationOptions
    UNIQUE (project, name)
);

-- A row is an item (removed_at null), an item in the trash (removed_at and created_at set), or a
-- tombstone of a key that never was an item (created_at null). An item that a person deleted while its
-- object stays keeps its fingerprint, so that no sweep brings it back. The public id is the catalog's stamp
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
    storage_class TEXT,
    storage TEXT,                       -- null: mirrored, the object is at `key`; else see Items
    type TEXT NOT NULL DEFAULT 'file',
    hidden INTEGER NOT NULL DEFAULT 0,
    creator TEXT,
    updated_at INTEGER,
    updated_by TEXT,
    annotations INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX item_key ON item (dataset, driver, key);
CREATE INDEX item_order ON item (dataset) WHERE removed_at IS NULL;  -- by number, as pages are read
CREATE INDEX item_type ON item (dataset, content_type, type, hidden, removed_at) WHERE removed_at IS NULL;

CREATE TABLE item_metadata (
    item INTEGER PRIMARY KEY,
    user TEXT NOT NULL,                 -- JSON object
    system TEXT,
    description TEXT,
    probed TEXT                         -- the fingerprint that the facts in `system` are of
);

CREATE TABLE annotation (
    n INTEGER PRIMARY KEY,
    item INTEGER NOT NULL,
    data TEXT NOT NULL,                 -- JSON object
    content_rev INTEGER NOT NULL,       -- the item's, when it was annotated
    updated_at INTEGER NOT NULL,
    dataset INTEGER NOT NULL DEFAULT 0,
    type TEXT,
    label TEXT,
    creator TEXT,
    created_at INTEGER,
    updated_by TEXT,
    file INTEGER,                       -- row of the file that it came from; null: made by hand
    origin TEXT,                        -- the file's record
    edited INTEGER NOT NULL DEFAULT 0   -- people changed it since
);
CREATE INDEX annotation_item ON annotation (item);
CREATE INDEX annotation_label ON annotation (dataset, label, item);
CREATE INDEX annotation_file ON annotation (file, item) WHERE file IS NOT NULL;

-- Annotations that went with their file, or that people deleted though their file has them still.
CREATE TABLE annotation_trash (
    n INTEGER PRIMARY KEY,
    item INTEGER NOT NULL,
    file INTEGER NOT NULL,
    origin TEXT NOT NULL,
    data TEXT NOT NULL,
    type TEXT,
    label TEXT,
    creator TEXT,
    created_at INTEGER,
    removed_at INTEGER NOT NULL,
    by_hand INTEGER NOT NULL
);
CREATE INDEX annotation_trash_file ON annotation_trash (file, item);
CREATE INDEX annotation_trash_item ON annotation_trash (item);

-- Annotation and metadata files that are mirrored: what was taken of each, and from which write.
CREATE TABLE source_file (
    item INTEGER PRIMARY KEY,           -- the file's own row
    dataset INTEGER NOT NULL,
    fingerprint TEXT,                   -- the write that was taken; null: gone, or to be read again
    error TEXT,                         -- why it could not be read
    taken_at INTEGER NOT NULL,
    awaited TEXT,                       -- the item without which it cannot be read, or what comes before its extension
    awaited_stem INTEGER,
    seen TEXT                           -- what that item was when it was tried; null: there was none
);
CREATE INDEX source_file_awaited ON source_file (dataset, awaited) WHERE awaited IS NOT NULL;

-- What a file says about one item.
CREATE TABLE source_entry (
    n INTEGER PRIMARY KEY,
    file INTEGER NOT NULL,              -- row of the file
    dataset INTEGER NOT NULL,
    key TEXT NOT NULL,                  -- the item's, or what comes before its extension
    stem INTEGER NOT NULL,
    item INTEGER,                       -- null: it waits for its item
    annotations TEXT,                   -- JSON array, while it waits
    user TEXT                           -- JSON object
);
CREATE INDEX source_entry_file ON source_entry (file);
CREATE INDEX source_entry_item ON source_entry (item) WHERE item IS NOT NULL;
CREATE INDEX source_entry_waiting ON source_entry (dataset, key) WHERE item IS NULL;

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
, ranges TEXT);
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

CREATE TABLE account (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    email TEXT NOT NULL UNIQUE,         -- in lower case
    password TEXT NOT NULL,             -- argon2
    bot INTEGER NOT NULL,
    admin INTEGER NOT NULL,             -- owns every project
    generation INTEGER NOT NULL,        -- tokens of an earlier one are void
    created_at INTEGER NOT NULL
);

CREATE TABLE project (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    creator TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
CREATE TABLE member (
    project INTEGER NOT NULL,
    account INTEGER NOT NULL,
    role TEXT NOT NULL,
    PRIMARY KEY (project, account)
) WITHOUT ROWID;

CREATE TABLE recipe (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    project INTEGER NOT NULL,
    kind TEXT NOT NULL,                 -- recipe or ontology
    data TEXT NOT NULL,                 -- JSON object
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
CREATE INDEX recipe_project ON recipe (project, kind, n);

CREATE TABLE command (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    creator TEXT NOT NULL,
    status TEXT NOT NULL,
    progress INTEGER NOT NULL,
    spec TEXT NOT NULL,                 -- JSON object
    error TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
, holder TEXT);

-- Whom to tell of a dataset's items.
CREATE TABLE webhook (
    dataset INTEGER PRIMARY KEY,
    url TEXT NOT NULL,
    sealed BLOB NOT NULL,               -- the secret that signs, encrypted
    private INTEGER NOT NULL,           -- may be on a private network
    created_at INTEGER NOT NULL,
    failures INTEGER NOT NULL DEFAULT 0,  -- in a row
    retry_at INTEGER NOT NULL DEFAULT 0,
    dropped INTEGER NOT NULL DEFAULT 0,   -- given up
    error TEXT                          -- of the last failure; null: the last went well
);

-- What is to be told, in the transaction that changed the item: no process can die in between. While there is a webhook, one more
-- trigger tells of new items: `item_created` in telling.sqlite.sql.
CREATE TABLE outbox (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    dataset INTEGER NOT NULL,
    item INTEGER NOT NULL,
    what TEXT NOT NULL,                 -- created, updated, removed, moved, restored
    key TEXT NOT NULL,
    source TEXT,                        -- where it was moved from
    at INTEGER NOT NULL,
    taken_until INTEGER NOT NULL DEFAULT 0,  -- somebody is telling it
    attempts INTEGER NOT NULL DEFAULT 0,  -- that the receiver refused
    retry_at INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX outbox_dataset ON outbox (dataset, taken_until);
CREATE INDEX outbox_item ON outbox (item);

CREATE TRIGGER item_changed AFTER UPDATE OF key, fingerprint, removed_at, created_at ON item
WHEN (OLD.fingerprint IS NOT NEW.fingerprint OR OLD.key <> NEW.key OR OLD.removed_at IS NOT NEW.removed_at
    OR OLD.created_at IS NOT NEW.created_at)
  AND NEW.type = 'file' AND EXISTS (SELECT 1 FROM webhook WHERE dataset = NEW.dataset)
BEGIN
  INSERT INTO outbox (dataset, item, what, key, source, at)
  SELECT NEW.dataset, NEW.n, what, CASE what WHEN 'removed' THEN OLD.key ELSE NEW.key END,
    CASE what WHEN 'moved' THEN OLD.key END, CAST(strftime('%s', 'now') AS INTEGER)
  FROM (SELECT CASE
    WHEN NEW.created_at IS NULL OR NEW.removed_at IS NOT NULL
      THEN CASE WHEN OLD.created_at IS NOT NULL AND OLD.removed_at IS NULL THEN 'removed' END
    WHEN OLD.created_at IS NULL THEN 'created'
    WHEN OLD.removed_at IS NOT NULL THEN 'restored'
    WHEN OLD.key <> NEW.key THEN 'moved'
    WHEN OLD.fingerprint IS NOT NEW.fingerprint THEN 'updated' END AS what)
  WHERE what IS NOT NULL;
END;

-- An item that a listing found new, and that turned out to be a moved one: who heard of it hears that it is gone, nobody else
-- has to hear of it at all.
CREATE TRIGGER item_dropped AFTER DELETE ON item
WHEN OLD.created_at IS NOT NULL AND OLD.removed_at IS NULL AND OLD.type = 'file'
  AND EXISTS (SELECT 1 FROM webhook WHERE dataset = OLD.dataset)
BEGIN
  INSERT INTO outbox (dataset, item, what, key, at)
  SELECT OLD.dataset, OLD.n, 'removed', OLD.key, CAST(strftime('%s', 'now') AS INTEGER)
  WHERE NOT EXISTS (SELECT 1 FROM outbox WHERE item = OLD.n AND what = 'created' AND taken_until = 0);
  DELETE FROM outbox WHERE item = OLD.n AND what <> 'removed' AND taken_until = 0;
END;
