-- Every statement the catalog runs, by name. `:source` is (dataset, driver), bound as :dataset and :driver.

-- name: get
-- The row of one key.
SELECT key, fingerprint, rev, n, coalesce(size, 0), content_id FROM item
WHERE dataset = :dataset AND driver = :driver AND key = :key;

-- name: scan
-- Rows of a key range, in byte order.
SELECT key, fingerprint, rev, n, coalesce(size, 0), content_id FROM item
WHERE dataset = :dataset AND driver = :driver AND key > :after
ORDER BY key LIMIT :limit;

-- name: scan_until
-- Rows of a closed key range, in byte order.
SELECT key, fingerprint, rev, n, coalesce(size, 0), content_id FROM item
WHERE dataset = :dataset AND driver = :driver AND key > :after AND key <= :until
ORDER BY key LIMIT :limit;

-- name: known
-- Those of some keys that had a row before the transaction.
SELECT key FROM item
WHERE dataset = :dataset AND driver = :driver AND n <= :last AND key IN (SELECT value FROM json_each(:keys))
ORDER BY key;

-- name: stamps
-- What an unchanged key range is compared by.
SELECT key, fingerprint FROM item
WHERE dataset = :dataset AND driver = :driver AND key > :after AND key <= :until
ORDER BY key LIMIT :limit;

-- name: insert_settled
-- The first row of a key; none is inserted if there is one already.
INSERT INTO item (dataset, driver, key, rev, run, created_at, removed_at,
                  fingerprint, size, modified, etag, version, content_id, content_type, storage_class)
VALUES (:dataset, :driver, :key, 1, 0, :created_at, :removed_at,
        :fingerprint, :size, :modified, :etag, :version, :content_id, :content_type, :storage_class)
ON CONFLICT DO NOTHING;

-- name: settle_found
-- The object is there. The row keeps its number, and with it annotations and metadata.
UPDATE item SET
    rev = rev + 1,
    created_at = coalesce(created_at, :now),
    content_rev = content_rev + CASE
        WHEN created_at IS NULL THEN 0
        WHEN :content_id IS NOT NULL AND content_id IS NOT NULL THEN NOT (:content_id = content_id AND :size = size)
        ELSE fingerprint IS NOT :fingerprint END,
    removed_at = NULL,
    fingerprint = :fingerprint, size = :size, modified = :modified, etag = :etag, version = :version,
    content_id = :content_id, content_type = coalesce(:content_type, content_type),
    storage_class = :storage_class
WHERE dataset = :dataset AND driver = :driver AND key = :key AND rev = :rev;

-- name: settle_gone
-- The object is not there. Facts stay for the trash; the fingerprint goes.
UPDATE item SET rev = rev + 1, removed_at = coalesce(removed_at, :now), fingerprint = NULL
WHERE dataset = :dataset AND driver = :driver AND key = :key AND rev = :rev;

-- name: move_drop_new
-- The number that the new key got from the listing, if nobody used it meanwhile.
DELETE FROM item
WHERE n = :new AND rev = :new_rev AND fingerprint IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM annotation WHERE annotation.item = :new)
  AND NOT EXISTS (SELECT 1 FROM item_metadata WHERE item_metadata.item = :new);

-- name: move_keep_old
-- The old item takes the new key and what the store says of it.
UPDATE item SET key = :key, rev = :rev, removed_at = NULL, fingerprint = :fingerprint, size = :size,
    modified = :modified, etag = :etag, version = :version, content_id = :content_id,
    content_type = coalesce(:content_type, content_type), storage_class = :storage_class
WHERE n = :old AND rev = :old_rev;

-- name: move_tombstone
-- What stays at the old key, with a revision that no reader of the old row can hold.
INSERT INTO item (dataset, driver, key, rev, run, removed_at) VALUES (:dataset, :driver, :key, :rev, 0, :now);

-- name: count
-- Live items.
SELECT count(*) FROM item WHERE dataset = :dataset AND driver = :driver AND removed_at IS NULL;

-- name: items
-- Full items in key order.
SELECT i.n, i.key, i.size, i.content_type, i.etag, i.version, i.content_id, i.storage_class, i.modified,
       i.created_at, i.removed_at, i.rev, i.content_rev, m.user,
       (SELECT count(*) FROM annotation a WHERE a.item = i.n),
       (SELECT max(a.content_rev) FROM annotation a WHERE a.item = i.n)
FROM item i LEFT JOIN item_metadata m ON m.item = i.n
WHERE i.dataset = :dataset AND i.driver = :driver AND i.key > :after AND i.created_at IS NOT NULL
  AND (i.removed_at IS NOT NULL) = :trashed
ORDER BY i.key LIMIT :limit;

-- name: item
-- One full item, also from the trash.
SELECT i.n, i.key, i.size, i.content_type, i.etag, i.version, i.content_id, i.storage_class, i.modified,
       i.created_at, i.removed_at, i.rev, i.content_rev, m.user,
       (SELECT count(*) FROM annotation a WHERE a.item = i.n),
       (SELECT max(a.content_rev) FROM annotation a WHERE a.item = i.n)
FROM item i LEFT JOIN item_metadata m ON m.item = i.n
WHERE i.dataset = :dataset AND i.driver = :driver AND i.key = :key AND i.created_at IS NOT NULL;

-- name: set_metadata
-- metadata.user of an item.
INSERT INTO item_metadata (item, user) VALUES (:item, :user)
ON CONFLICT (item) DO UPDATE SET user = excluded.user;

-- name: annotate
-- One annotation.
INSERT INTO annotation (item, data, content_rev, updated_at)
SELECT :item, :data, content_rev, :now FROM item WHERE n = :item;

-- name: annotations
-- Annotations of an item, oldest first.
SELECT n, data FROM annotation WHERE item = :item ORDER BY n;

-- name: last_run
-- The newest run of a dataset.
SELECT n, origin, state, holder, heartbeat, cursor, started_at, report FROM run
WHERE dataset = :dataset ORDER BY n DESC LIMIT 1;

-- name: begin_run
-- A new run. The partial unique index lets only one of them be running.
INSERT INTO run (dataset, origin, state, holder, heartbeat, started_at, cursor, report)
VALUES (:dataset, :origin, 'running', :holder, :now, :started_at, :cursor, :report);

-- name: set_origin
-- A run that resumes nothing is its own origin.
UPDATE run SET origin = n WHERE n = :run AND origin = 0;

-- name: end_run
-- The end of a run, if it is still ours.
UPDATE run SET state = :state, ended_at = :now, heartbeat = :now, report = :report, error = :error
WHERE n = :run AND state = 'running';

-- name: advance
-- Progress, if the run is still ours.
UPDATE run SET cursor = :cursor, heartbeat = :now, report = :report WHERE n = :run AND state = 'running';

-- name: heartbeat
-- A sign of life.
UPDATE run SET heartbeat = :now WHERE n = :run AND state = 'running';

-- name: note_missing
-- A key that the listing lacks; it is settled when the listing has ended cleanly.
INSERT INTO run_missing (run, key) VALUES (?, ?) ON CONFLICT DO NOTHING;

-- name: adopt_missing
-- What an interrupted run had noted goes on with the run that resumes it.
UPDATE run_missing SET run = :run WHERE run = :former;

-- name: missing
-- A page of noted keys.
SELECT key FROM run_missing WHERE run = :run AND key > :after ORDER BY key LIMIT :limit;

-- name: drop_missing
-- Noted keys of a run that has ended.
DELETE FROM run_missing WHERE run = :run;

-- name: drop_stale_missing
-- Noted keys of earlier runs that nobody resumes.
DELETE FROM run_missing WHERE run IN (SELECT n FROM run WHERE dataset = :dataset AND n < :run);

-- name: count_missing
-- How many keys are noted.
SELECT count(*) FROM run_missing WHERE run = :run;

-- name: forget_missing
-- Noted keys that were dealt with.
DELETE FROM run_missing WHERE run = :run AND key IN (SELECT value FROM json_each(:keys));

-- name: unpair_moves
-- What an interrupted run had paired may be ambiguous by now.
UPDATE run_missing SET moved_to = NULL WHERE run = :run AND moved_to IS NOT NULL;

-- name: moves
-- A page of pairs.
SELECT key, moved_to FROM run_missing
WHERE run = :run AND key > :after AND moved_to IS NOT NULL ORDER BY key LIMIT :limit;

-- name: pair_moves
-- Pairs of one vanished and one new key with the same bytes, where neither side has another candidate.
-- Both sides are read once and grouped together: a join of the two would take their product.
UPDATE run_missing SET moved_to = pair.new FROM (
    WITH gone AS MATERIALIZED (
        SELECT i.key, i.content_id, i.size FROM run_missing m
        CROSS JOIN item i ON i.dataset = :dataset AND i.driver = :driver AND i.key = m.key
        WHERE m.run = :run AND i.content_id IS NOT NULL AND i.fingerprint IS NOT NULL AND i.size > 0
    ),
    come AS (
        SELECT i.key, i.content_id, i.size FROM item i
        WHERE i.dataset = :dataset AND i.driver = :driver AND i.run = :origin
          AND i.fingerprint IS NOT NULL AND i.content_id IS NOT NULL
          AND (i.content_id, i.size) IN (SELECT content_id, size FROM gone)
    ),
    candidate AS (
        SELECT content_id, size, key AS old, NULL AS new FROM gone
        UNION ALL
        SELECT content_id, size, NULL, key FROM come
    )
    SELECT min(old) AS old, min(new) AS new FROM candidate
    GROUP BY content_id, size
    HAVING count(old) = 1 AND count(new) = 1
) AS pair
WHERE run_missing.run = :run AND run_missing.key = pair.old;

-- name: quarantine
-- A key that could not be settled, once more.
INSERT INTO quarantine (dataset, key, reason, error, attempts, first_at, last_at)
VALUES (:dataset, :key, :reason, :error, 1, :now, :now)
ON CONFLICT (dataset, key) DO UPDATE SET
    reason = excluded.reason, error = excluded.error, attempts = attempts + 1, last_at = excluded.last_at;

-- name: quarantined
-- Keys that could not be settled.
SELECT d.name, q.key, q.reason, q.error, q.attempts, q.first_at, q.last_at
FROM quarantine q JOIN dataset d ON d.n = q.dataset
WHERE :dataset IS NULL OR q.dataset = :dataset ORDER BY d.name, q.key;

-- name: release
-- A key settled after all, or given up.
DELETE FROM quarantine WHERE dataset = :dataset AND key = :key;

-- name: release_all
-- All of a dataset.
DELETE FROM quarantine WHERE dataset = :dataset;

-- name: forget_annotations
-- Labels of an item that leaves the trash for good.
DELETE FROM annotation WHERE item = :item;

-- name: forget_metadata
-- Metadata of an item that leaves the trash for good.
DELETE FROM item_metadata WHERE item = :item;

-- name: forget_item
-- The row becomes a tombstone, so that a late event still finds that it was looked at.
UPDATE item SET rev = rev + 1, created_at = NULL, size = NULL, modified = NULL, etag = NULL,
    version = NULL, content_id = NULL, content_type = NULL, storage_class = NULL
WHERE n = :item AND removed_at IS NOT NULL;

-- name: trashed_before
-- Items whose time in the trash is over.
SELECT n FROM item WHERE removed_at < :time AND created_at IS NOT NULL LIMIT 10000;

-- name: vacuum_tombstones
-- Tombstones older than the slowest redelivery.
DELETE FROM item WHERE removed_at < :time AND created_at IS NULL;
