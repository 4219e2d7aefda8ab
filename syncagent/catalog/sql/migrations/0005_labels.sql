-- Annotation and metadata files that are mirrored: what was taken of each, and from which write.
CREATE TABLE source_file (
    item INTEGER PRIMARY KEY,           -- the file's own row
    dataset INTEGER NOT NULL,
    fingerprint TEXT,                   -- the write that was taken; null: gone, or to be read again
    error TEXT,                         -- why it could not be read
    taken_at INTEGER NOT NULL
);

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

-- Annotations that came from a file: which, and which record. Those that people changed since stay.
ALTER TABLE annotation ADD COLUMN file INTEGER;
ALTER TABLE annotation ADD COLUMN origin TEXT;
ALTER TABLE annotation ADD COLUMN edited INTEGER NOT NULL DEFAULT 0;
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

ALTER TABLE item_metadata ADD COLUMN probed TEXT;  -- the fingerprint that the facts in `system` are of
