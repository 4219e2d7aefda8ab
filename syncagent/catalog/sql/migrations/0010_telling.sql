-- It took a tenth of a first sweep, and almost nobody has a webhook: it is made when the first is put. See `item_created` in
-- telling.sqlite.sql.
DROP TRIGGER IF EXISTS item_created;
