-- What the platform's API tells of datasets, items and annotations beyond the mirror.

CREATE TABLE dataset_new (
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
INSERT INTO dataset_new (n, id, name, driver, created_at) SELECT n, id, name, driver, created_at FROM dataset;
DELETE FROM sqlite_sequence WHERE name = 'dataset_new';
INSERT INTO sqlite_sequence (name, seq) SELECT 'dataset_new', seq FROM sqlite_sequence WHERE name = 'dataset';
DROP TABLE dataset;
ALTER TABLE dataset_new RENAME TO dataset;

ALTER TABLE item ADD COLUMN storage TEXT;
ALTER TABLE item ADD COLUMN type TEXT NOT NULL DEFAULT 'file';
ALTER TABLE item ADD COLUMN hidden INTEGER NOT NULL DEFAULT 0;
ALTER TABLE item ADD COLUMN creator TEXT;
ALTER TABLE item ADD COLUMN updated_at INTEGER;
ALTER TABLE item ADD COLUMN updated_by TEXT;
ALTER TABLE item ADD COLUMN annotations INTEGER NOT NULL DEFAULT 0;
UPDATE item SET content_type = mimetype(key) WHERE content_type IS NULL AND created_at IS NOT NULL;
UPDATE item SET annotations = (SELECT count(*) FROM annotation WHERE annotation.item = item.n)
WHERE n IN (SELECT item FROM annotation);
CREATE INDEX item_order ON item (dataset) WHERE removed_at IS NULL;  -- by number, as pages are read
CREATE INDEX item_type ON item (dataset, content_type, type, hidden, removed_at) WHERE removed_at IS NULL;

ALTER TABLE item_metadata ADD COLUMN system TEXT;
ALTER TABLE item_metadata ADD COLUMN description TEXT;

ALTER TABLE annotation ADD COLUMN dataset INTEGER NOT NULL DEFAULT 0;
ALTER TABLE annotation ADD COLUMN type TEXT;
ALTER TABLE annotation ADD COLUMN label TEXT;
ALTER TABLE annotation ADD COLUMN creator TEXT;
ALTER TABLE annotation ADD COLUMN created_at INTEGER;
ALTER TABLE annotation ADD COLUMN updated_by TEXT;
UPDATE annotation SET dataset = (SELECT dataset FROM item WHERE item.n = annotation.item), created_at = updated_at,
    type = json_extract(data, '$.type'), label = json_extract(data, '$.label');
CREATE INDEX annotation_label ON annotation (dataset, label, item);

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
);
