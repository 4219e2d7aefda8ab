-- What SQLite says in its own way, by name. The same names, with the same parameters, are in queries.postgres.sql.

-- name: stamp_texts
-- How many rows there are, their keys and their fingerprints; see syncagent.pages.SEPARATOR.
SELECT count(*), group_concat(key, char(1)), group_concat(coalesce(fingerprint, char(1)), char(1)) FROM (
    SELECT key, fingerprint FROM item
    WHERE dataset = :dataset AND driver = :driver AND key > :after AND key <= :until AND storage IS NULL
    ORDER BY key LIMIT :limit
);

-- name: settle_found
-- The object is there. The row keeps its number, and with it annotations and metadata.
UPDATE item SET
    rev = rev + 1,
    created_at = coalesce(created_at, :now),
    content_rev = content_rev + CASE
        WHEN created_at IS NULL THEN 0
        WHEN :content_id IS NOT NULL AND content_id IS NOT NULL THEN NOT (:content_id = content_id AND :size = size)
        ELSE fingerprint IS NOT :fingerprint END,
    -- A person deleted the item, not its object: it comes back when the object changes.
    removed_at = CASE WHEN fingerprint IS :fingerprint THEN removed_at END,
    storage = NULL, type = 'file',
    fingerprint = :fingerprint, size = :size, modified = :modified, etag = :etag, version = :version,
    content_id = :content_id, storage_class = :storage_class,
    -- Of the same write a probe may know better than the store.
    content_type = CASE WHEN fingerprint IS :fingerprint AND content_type IS NOT NULL THEN content_type
                        ELSE coalesce(:content_type, content_type, :guessed_type) END
WHERE dataset = :dataset AND driver = :driver AND key = :key AND rev = :rev
RETURNING key, fingerprint, rev, n, coalesce(size, 0), content_id;

-- name: annotate
-- One annotation.
-- No number that is in the trash, to which an annotation may come back.
INSERT INTO annotation (n, item, data, content_rev, updated_at, dataset, type, label, creator, created_at, updated_by)
SELECT 1 + max(coalesce((SELECT max(n) FROM annotation), 0), coalesce((SELECT max(n) FROM annotation_trash), 0)),
       :item, :data, content_rev, :now, dataset, :type, :label, :creator, :now, :creator FROM item WHERE n = :item
RETURNING n;

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

-- name: trashed_before
-- Items whose time in the trash is over.
SELECT n FROM item WHERE removed_at < :time AND created_at IS NOT NULL LIMIT 10000;

-- name: expire
-- Items older than their dataset lets them be go to the trash. The object stays, and does not bring the item back.
UPDATE item SET rev = rev + 1, removed_at = :now, updated_at = :now, updated_by = 'expiration'
WHERE n IN (
  SELECT i.n FROM dataset d JOIN item i ON i.dataset = d.n
  WHERE json_extract(d.data, '$.expirationOptions.itemMaxDays') > 0 AND NOT d.readonly AND i.removed_at IS NULL AND i.type = 'file'
    AND i.created_at < :now - json_extract(d.data, '$.expirationOptions.itemMaxDays') * 86400
  LIMIT 10000
);

-- name: vacuum_tombstones
-- Tombstones older than the slowest redelivery.
DELETE FROM item WHERE removed_at < :time AND created_at IS NULL AND fingerprint IS NULL;

-- name: place
-- An item whose bytes are not at its key in the driver's bucket, or that has none.
INSERT INTO item (dataset, driver, key, rev, run, created_at, fingerprint, size, modified, content_id, content_type,
                  storage, type, creator, updated_by)
VALUES (:dataset, :driver, :key, 1, 0, :now, :fingerprint, :size, :modified, :content_id, :content_type,
        :storage, :type, :creator, :creator)
ON CONFLICT (dataset, driver, key) DO UPDATE SET
    rev = rev + 1, created_at = coalesce(created_at, excluded.created_at), removed_at = NULL,
    content_rev = content_rev + (created_at IS NOT NULL AND fingerprint IS NOT excluded.fingerprint),
    fingerprint = excluded.fingerprint, size = excluded.size, modified = excluded.modified, etag = NULL, version = NULL,
    content_id = excluded.content_id, content_type = excluded.content_type, storage = excluded.storage,
    type = excluded.type, updated_at = excluded.created_at, updated_by = excluded.updated_by;

-- name: items_at
-- Live items of some keys.
SELECT i.n, i.key, coalesce(i.size, 0), i.content_type, i.etag, i.version, i.content_id, i.storage_class,
       coalesce(i.modified, ''), i.created_at, i.removed_at, i.rev, i.content_rev, i.annotations, i.type, i.hidden,
       i.storage, i.creator, i.updated_at, i.updated_by, m.user, m.system, m.description,
       (SELECT max(a.content_rev) FROM annotation a WHERE a.item = i.n)
FROM json_each(:keys) wanted
CROSS JOIN item i INDEXED BY item_key ON i.dataset = :dataset AND i.driver = :driver AND i.key = wanted.value AND i.removed_at IS NULL
LEFT JOIN item_metadata m ON m.item = i.n;

-- name: items_of_stems
-- Live items whose key is a stem, or a stem and one extension. A full stop comes just before a slash in byte order.
SELECT wanted.value, i.n, i.key, coalesce(i.size, 0), i.content_type, i.etag, i.version, i.content_id, i.storage_class,
       coalesce(i.modified, ''), i.created_at, i.removed_at, i.rev, i.content_rev, i.annotations, i.type, i.hidden,
       i.storage, i.creator, i.updated_at, i.updated_by, m.user, m.system, m.description,
       (SELECT max(a.content_rev) FROM annotation a WHERE a.item = i.n)
FROM json_each(:stems) wanted
JOIN item i ON i.dataset = :dataset AND i.driver = :driver AND i.removed_at IS NULL AND i.type = 'file'
     AND (i.key = wanted.value OR i.key > wanted.value || '.' AND i.key < wanted.value || '/'
          AND instr(substr(i.key, length(wanted.value) + 2), '.') = 0)
LEFT JOIN item_metadata m ON m.item = i.n
ORDER BY wanted.value, NOT (i.content_type GLOB 'image/*' OR i.content_type GLOB 'video/*' OR i.content_type GLOB 'audio/*'), i.key;

-- name: stale
-- Files that were written or went since they were taken.
SELECT i.key, i.fingerprint FROM item i LEFT JOIN source_file f ON f.item = i.n
WHERE i.dataset = :dataset AND i.driver = :driver AND i.key >= :first AND i.key < :until AND i.fingerprint IS NOT f.fingerprint
  AND EXISTS (SELECT 1 FROM json_each(:suffixes) s WHERE lower(substr(i.key, -length(s.value))) = s.value)
ORDER BY i.key LIMIT :limit;

-- name: awaiting_of
-- Those that wait for some. The plus keeps the index for these: an event looks at no other that waits.
SELECT f.item, i.key, coalesce(i.size, 0), f.awaited, f.awaited_stem, f.seen FROM source_file f JOIN item i ON i.n = f.item
WHERE f.dataset = :dataset AND f.awaited IN (SELECT value FROM json_each(:keys)) AND f.awaited IS NOT NULL
  AND (+f.awaited, f.item) > (:after, :n)
ORDER BY f.awaited, f.item LIMIT 1000;

-- name: unprobed
-- Files whose object was written since it was probed.
SELECT i.fingerprint, i.n, i.key, coalesce(i.size, 0), i.content_type, i.etag, i.version, i.content_id, i.storage_class,
       coalesce(i.modified, ''), i.created_at, i.removed_at, i.rev, i.content_rev, i.annotations, i.type, i.hidden,
       i.storage, i.creator, i.updated_at, i.updated_by, m.user, m.system, m.description,
       (SELECT max(a.content_rev) FROM annotation a WHERE a.item = i.n)
FROM item i LEFT JOIN item_metadata m ON m.item = i.n
WHERE i.dataset = :dataset AND i.n > :after AND i.removed_at IS NULL AND i.type = 'file' AND i.fingerprint IS NOT NULL
  AND m.probed IS NOT i.fingerprint
ORDER BY i.n LIMIT :limit;

-- name: free_numbers
-- So many numbers that no annotation has, or had before it went to the trash.
SELECT last.n + one.value FROM
    (SELECT max(coalesce((SELECT max(n) FROM annotation), 0), coalesce((SELECT max(n) FROM annotation_trash), 0), :above) AS n) last,
    (WITH RECURSIVE counted (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM counted WHERE value < :count) SELECT value FROM counted) one
WHERE :count > 0;

-- name: hold_item
-- The row of an item, which nobody else changes before the transaction ends.
SELECT n FROM item WHERE n = :n;

-- name: trashed
-- Items in the trash: those of some keys, or all.
SELECT n FROM item WHERE dataset = :dataset AND driver = :driver AND removed_at IS NOT NULL AND created_at IS NOT NULL
  AND (:everything OR key IN (SELECT value FROM json_each(:keys)));

-- name: digest
-- How many rows the first of a key range are, how many of them live, the sum of what those hash to, and the last key.
SELECT count(*), count(fingerprint), summed(key, fingerprint), max(key) FROM (
    SELECT key, fingerprint FROM item
    WHERE dataset = :dataset AND driver = :driver AND key > :after AND key <= :until AND storage IS NULL
    ORDER BY key LIMIT :limit
);
