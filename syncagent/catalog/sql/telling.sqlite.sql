-- The trigger of SQLite's that is not always there: each new row pays for it. By name.

-- name: item_created
-- Tells of new items; there only while a dataset has a webhook.
CREATE TRIGGER IF NOT EXISTS item_created AFTER INSERT ON item
WHEN NEW.created_at IS NOT NULL AND NEW.removed_at IS NULL AND NEW.type = 'file'
  AND EXISTS (SELECT 1 FROM webhook WHERE dataset = NEW.dataset)
BEGIN
  INSERT INTO outbox (dataset, item, what, key, at)
  VALUES (NEW.dataset, NEW.n, 'created', NEW.key, CAST(strftime('%s', 'now') AS INTEGER));
END;

-- name: no_item_created
-- Nobody is told.
DROP TRIGGER IF EXISTS item_created;
