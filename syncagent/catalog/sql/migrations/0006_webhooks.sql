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

-- What is to be told, in the transaction that changed the item: no process can die in between.
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

CREATE TRIGGER item_created AFTER INSERT ON item
WHEN NEW.created_at IS NOT NULL AND NEW.removed_at IS NULL AND NEW.type = 'file'
  AND EXISTS (SELECT 1 FROM webhook WHERE dataset = NEW.dataset)
BEGIN
  INSERT INTO outbox (dataset, item, what, key, at)
  VALUES (NEW.dataset, NEW.n, 'created', NEW.key, CAST(strftime('%s', 'now') AS INTEGER));
END;

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
