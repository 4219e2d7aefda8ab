-- Every statement that SQLite and PostgreSQL both understand, by name; queries.sqlite.sql and queries.postgres.sql have the rest.
-- `each_text(:x) AS t` and `each_number(:x) AS t` are tables with one column, `value`, of what `Database.array` bound.

-- name: get
-- The row of one key.
SELECT key, fingerprint, rev, n, coalesce(size, 0), content_id FROM item
WHERE dataset = :dataset AND driver = :driver AND key = :key;

-- name: rows
-- The rows of some keys.
SELECT key, fingerprint, rev, n, coalesce(size, 0), content_id FROM item
WHERE dataset = :dataset AND driver = :driver AND key IN (SELECT value FROM each_text(:keys) AS one);

-- name: scan
-- Rows of a key range, in byte order.
SELECT key, fingerprint, rev, n, coalesce(size, 0), content_id FROM item
WHERE dataset = :dataset AND driver = :driver AND key > :after AND storage IS NULL
ORDER BY key LIMIT :limit;

-- name: scan_until
-- Rows of a closed key range, in byte order.
SELECT key, fingerprint, rev, n, coalesce(size, 0), content_id FROM item
WHERE dataset = :dataset AND driver = :driver AND key > :after AND key <= :until AND storage IS NULL
ORDER BY key LIMIT :limit;

-- name: stamps
-- What an unchanged key range is compared by.
SELECT key, fingerprint FROM item
WHERE dataset = :dataset AND driver = :driver AND key > :after AND key <= :until AND storage IS NULL
ORDER BY key LIMIT :limit;

-- name: key_after
-- The key so many rows after another.
SELECT key FROM item WHERE dataset = :dataset AND driver = :driver AND key > :after ORDER BY key LIMIT 1 OFFSET :skip;

-- name: insert_settled
-- The first row of a key; none is inserted if there is one already.
INSERT INTO item (dataset, driver, key, rev, run, created_at, removed_at,
                  fingerprint, size, modified, etag, version, content_id, content_type, storage_class)
VALUES (:dataset, :driver, :key, 1, 0, :created_at, :removed_at,
        :fingerprint, :size, :modified, :etag, :version, :content_id, coalesce(:content_type, :guessed_type), :storage_class)
ON CONFLICT DO NOTHING
RETURNING key, fingerprint, rev, n, coalesce(size, 0), content_id;

-- name: settle_gone
-- The object is not there. Facts stay for the trash; the fingerprint goes. Items with other bytes are not concerned.
UPDATE item SET rev = rev + 1,
    removed_at = CASE WHEN storage IS NULL THEN coalesce(removed_at, :now) ELSE removed_at END,
    fingerprint = CASE WHEN storage IS NULL THEN NULL ELSE fingerprint END
WHERE dataset = :dataset AND driver = :driver AND key = :key AND rev = :rev
RETURNING key, fingerprint, rev, n, coalesce(size, 0), content_id;

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
    content_type = coalesce(:content_type, content_type, :guessed_type), storage_class = :storage_class
WHERE n = :old AND rev = :old_rev;

-- name: move_tombstone
-- What stays at the old key, with a revision that no reader of the old row can hold.
INSERT INTO item (dataset, driver, key, rev, run, removed_at) VALUES (:dataset, :driver, :key, :rev, 0, :now);

-- name: count
-- Live items.
SELECT count(*) FROM item WHERE dataset = :dataset AND driver = :driver AND removed_at IS NULL;

-- name: items
-- Full items in key order.
SELECT i.n, i.key, coalesce(i.size, 0), i.content_type, i.etag, i.version, i.content_id, i.storage_class,
       coalesce(i.modified, ''), i.created_at, i.removed_at, i.rev, i.content_rev, i.annotations, i.type, i.hidden,
       i.storage, i.creator, i.updated_at, i.updated_by, m.user, m.system, m.description,
       (SELECT max(a.content_rev) FROM annotation a WHERE a.item = i.n)
FROM item i LEFT JOIN item_metadata m ON m.item = i.n
WHERE i.dataset = :dataset AND i.driver = :driver AND i.key > :after AND i.created_at IS NOT NULL
  AND (i.removed_at IS NOT NULL) = :trashed
ORDER BY i.key LIMIT :limit;

-- name: item
-- One full item, also from the trash.
SELECT i.n, i.key, coalesce(i.size, 0), i.content_type, i.etag, i.version, i.content_id, i.storage_class,
       coalesce(i.modified, ''), i.created_at, i.removed_at, i.rev, i.content_rev, i.annotations, i.type, i.hidden,
       i.storage, i.creator, i.updated_at, i.updated_by, m.user, m.system, m.description,
       (SELECT max(a.content_rev) FROM annotation a WHERE a.item = i.n)
FROM item i LEFT JOIN item_metadata m ON m.item = i.n
WHERE i.dataset = :dataset AND i.driver = :driver AND i.key = :key AND i.created_at IS NOT NULL;

-- name: set_metadata
-- metadata.user of an item.
INSERT INTO item_metadata (item, "user") VALUES (:item, :user)
ON CONFLICT (item) DO UPDATE SET "user" = excluded."user";

-- name: count_annotations
-- How many an item has, told by its row.
UPDATE item SET annotations = (SELECT count(*) FROM annotation WHERE annotation.item = item.n) WHERE n = :item;

-- name: annotations
-- Annotations of an item, oldest first.
SELECT n, data FROM annotation WHERE item = :item ORDER BY n;

-- name: last_run
-- The newest run of a dataset.
SELECT n, origin, state, holder, heartbeat, cursor, started_at, report, ranges FROM run
WHERE dataset = :dataset ORDER BY n DESC LIMIT 1;

-- name: begin_run
-- A new run. The partial unique index lets only one of them be running.
INSERT INTO run (dataset, origin, state, holder, heartbeat, started_at, cursor, report, ranges)
VALUES (:dataset, :origin, 'running', :holder, :now, :started_at, :cursor, :report, :ranges)
RETURNING n;

-- name: set_origin
-- A run that resumes nothing is its own origin.
UPDATE run SET origin = n WHERE n = :run AND origin = 0;

-- name: end_run
-- The end of a run, if it is still ours.
UPDATE run SET state = :state, ended_at = :now, heartbeat = :now, report = :report, error = :error
WHERE n = :run AND state = 'running';

-- name: advance
-- Progress, if the run is still ours.
UPDATE run SET cursor = :cursor, heartbeat = :now, report = :report, ranges = :ranges WHERE n = :run AND state = 'running';

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
DELETE FROM run_missing WHERE run = :run AND key IN (SELECT value FROM each_text(:keys) AS one);

-- name: unpair_moves
-- What an interrupted run had paired may be ambiguous by now.
UPDATE run_missing SET moved_to = NULL WHERE run = :run AND moved_to IS NOT NULL;

-- name: moves
-- A page of pairs.
SELECT key, moved_to FROM run_missing
WHERE run = :run AND key > :after AND moved_to IS NOT NULL ORDER BY key LIMIT :limit;

-- name: quarantine
-- A key that could not be settled, once more.
INSERT INTO quarantine (dataset, key, reason, error, attempts, first_at, last_at)
VALUES (:dataset, :key, :reason, :error, 1, :now, :now)
ON CONFLICT (dataset, key) DO UPDATE SET
    reason = excluded.reason, error = excluded.error, attempts = quarantine.attempts + 1, last_at = excluded.last_at;

-- name: quarantined
-- Keys that could not be settled.
SELECT d.name, q.key, q.reason, q.error, q.attempts, q.first_at, q.last_at
FROM quarantine q JOIN dataset d ON d.n = q.dataset
WHERE CAST(:dataset AS BIGINT) IS NULL OR q.dataset = :dataset ORDER BY d.name, q.key;

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

-- name: files_wanted
-- Digests of the bytes that items have beside the catalog, also items in the trash.
SELECT DISTINCT substr(storage, 6) FROM item WHERE storage >= 'file:' AND storage < 'file;' AND created_at IS NOT NULL;

-- name: restore
-- An item that a person deleted while its object stayed.
UPDATE item SET rev = rev + 1, removed_at = NULL
WHERE dataset = :dataset AND driver = :driver AND key = :key AND removed_at IS NOT NULL AND created_at IS NOT NULL
  AND (fingerprint IS NOT NULL OR storage IS NOT NULL);


-- name: item_by_number
-- One full item and its dataset, also from the trash.
SELECT d.id, i.n, i.key, coalesce(i.size, 0), i.content_type, i.etag, i.version, i.content_id, i.storage_class,
       coalesce(i.modified, ''), i.created_at, i.removed_at, i.rev, i.content_rev, i.annotations, i.type, i.hidden,
       i.storage, i.creator, i.updated_at, i.updated_by, m.user, m.system, m.description,
       (SELECT max(a.content_rev) FROM annotation a WHERE a.item = i.n)
FROM item i LEFT JOIN item_metadata m ON m.item = i.n
JOIN dataset d ON d.n = i.dataset
WHERE i.n = :n AND i.created_at IS NOT NULL;

-- name: sign_item
-- Who made an item, and who changed it last.
UPDATE item SET creator = coalesce(creator, :by), updated_by = :by, updated_at = :now WHERE n = :n;

-- name: item_metadata
-- What an item tells beyond its row.
SELECT "user", system, description FROM item_metadata WHERE item = :n;

-- name: write_metadata
-- What an item tells beyond its row.
INSERT INTO item_metadata (item, "user", system, description) VALUES (:n, :user, :system, :description)
ON CONFLICT (item) DO UPDATE SET "user" = excluded."user", system = excluded.system, description = excluded.description;

-- name: dismiss
-- A person deletes the item. The fingerprint stays: the object may, and must not bring the item back.
UPDATE item SET rev = rev + 1, removed_at = :now, updated_at = :now, updated_by = :by
WHERE n = :n AND removed_at IS NULL;

-- name: leave_known
-- What stays where a person moved an item away from: the object is known, and no item.
INSERT INTO item (dataset, driver, key, rev, run, removed_at, fingerprint)
SELECT dataset, driver, :old, rev, 0, :now, fingerprint FROM item WHERE n = :n;

-- name: rename
-- A new path. The bytes stay where they are.
UPDATE item SET key = :key, rev = rev + 1, storage = :storage, updated_at = :now, updated_by = :by WHERE n = :n;

-- name: annotation
-- One annotation.
SELECT a.n, a.item, a.data, a.type, a.label, a.creator, a.created_at, a.updated_at, a.updated_by, d.id
FROM annotation a JOIN dataset d ON d.n = a.dataset WHERE a.n = :n;

-- name: write_annotation
-- A changed annotation.
UPDATE annotation SET data = :data, type = :type, label = :label, updated_at = :now, updated_by = :by WHERE n = :n;

-- name: delete_annotation
-- One annotation less.
DELETE FROM annotation WHERE n = :n;

-- name: items_by_number
-- Some full items, with their datasets.
SELECT d.id, i.n, i.key, coalesce(i.size, 0), i.content_type, i.etag, i.version, i.content_id, i.storage_class,
       coalesce(i.modified, ''), i.created_at, i.removed_at, i.rev, i.content_rev, i.annotations, i.type, i.hidden,
       i.storage, i.creator, i.updated_at, i.updated_by, m.user, m.system, m.description,
       (SELECT max(a.content_rev) FROM annotation a WHERE a.item = i.n)
FROM each_number(:numbers) AS wanted
JOIN item i ON i.n = wanted.value AND i.created_at IS NOT NULL  -- a number may be a tombstone's by now
LEFT JOIN item_metadata m ON m.item = i.n
JOIN dataset d ON d.n = i.dataset;

-- name: clear_path
-- A path that only a tombstone or the trash holds is free: the trash keeps its item under a name of its own.
UPDATE item SET key = key || ' (trashed ' || n || ')', storage = coalesce(storage, 'key:' || key)
WHERE dataset = :dataset AND driver = :driver AND key = :key AND removed_at IS NOT NULL;

-- name: create_dataset
-- An empty dataset.
INSERT INTO dataset (id, name, driver, created_at, project, creator, system, data)
VALUES (:id, :name, :driver, :now, :project, :by, :system, :data) ON CONFLICT (project, name) DO NOTHING;

-- name: dataset_by_id
-- One dataset, with its counts if they are wanted: they cost a walk over its items.
SELECT s.id, s.name, p.id, d.id, s.creator, s.created_at, s.updated_at, s.readonly, s.system, s.data,
       CASE WHEN :counted THEN
           (SELECT count(*) FROM item i WHERE i.dataset = s.n AND i.removed_at IS NULL AND i.type = 'file') END,
       CASE WHEN :counted THEN (SELECT count(DISTINCT a.item) FROM annotation a WHERE a.dataset = s.n) END,
       CASE WHEN :counted THEN (SELECT count(*) FROM annotation a WHERE a.dataset = s.n) END
FROM dataset s JOIN project p ON p.n = s.project LEFT JOIN driver d ON d.n = s.driver WHERE s.id = :id;

-- name: datasets_of
-- Datasets of some projects, with their counts.
SELECT s.id, s.name, p.id, d.id, s.creator, s.created_at, s.updated_at, s.readonly, s.system, s.data,
       (SELECT count(*) FROM item i WHERE i.dataset = s.n AND i.removed_at IS NULL AND i.type = 'file'),
       (SELECT count(DISTINCT a.item) FROM annotation a WHERE a.dataset = s.n),
       (SELECT count(*) FROM annotation a WHERE a.dataset = s.n)
FROM dataset s JOIN project p ON p.n = s.project LEFT JOIN driver d ON d.n = s.driver
WHERE (CAST(:everywhere AS BOOLEAN) OR p.id IN (SELECT value FROM each_text(:projects) AS one))
  AND (CAST(:name AS TEXT) IS NULL OR s.name = :name) AND (CAST(:system AS BOOLEAN) OR s.system = 0)
ORDER BY s.name, s.n;

-- name: change_dataset
-- A dataset's name, lock and metadata.
UPDATE dataset SET name = :name, readonly = :readonly, data = :data, updated_at = :now WHERE id = :id;

-- name: folders
-- Directories that directly hold an item, and those that people made.
SELECT DISTINCT CASE type WHEN 'dir' THEN key ELSE rtrim(rtrim(key, replace(key, '/', '')), '/') END FROM item
WHERE dataset = :dataset AND driver = :driver AND removed_at IS NULL AND created_at IS NOT NULL;

-- name: create_recipe
-- A recipe or an ontology.
INSERT INTO recipe (id, project, kind, data, created_at, updated_at)
SELECT :id, n, :kind, :data, :now, :now FROM project WHERE id = :project;

-- name: recipe
-- One of them.
SELECT r.id, p.id, r.data, r.created_at, r.updated_at FROM recipe r JOIN project p ON p.n = r.project
WHERE r.kind = :kind AND r.id = :id;

-- name: recipes_of
-- Those of some projects.
SELECT r.id, p.id, r.data, r.created_at, r.updated_at FROM recipe r JOIN project p ON p.n = r.project
WHERE r.kind = :kind AND p.id IN (SELECT value FROM each_text(:projects) AS one) ORDER BY r.n;

-- name: change_recipe
-- New contents.
UPDATE recipe SET data = :data, updated_at = :now WHERE kind = :kind AND id = :id;

-- name: delete_recipe
-- One less.
DELETE FROM recipe WHERE kind = :kind AND id = :id;

-- name: create_command
-- A job that has begun.
INSERT INTO command (id, type, creator, status, progress, spec, created_at, updated_at, holder)
VALUES (:id, :type, :by, 'in-progress', 0, :spec, :now, :now, :holder);

-- name: command
-- One job.
SELECT id, type, creator, status, progress, spec, error, created_at, updated_at FROM command WHERE id = :id;

-- name: commands_of
-- The newest jobs of somebody.
SELECT id, type, creator, status, progress, spec, error, created_at, updated_at FROM command
WHERE creator = :by ORDER BY n DESC LIMIT 100;

-- name: advance_command
-- Progress, if the job still runs.
UPDATE command SET progress = :progress, updated_at = :now WHERE id = :id AND status = 'in-progress';

-- name: end_command
-- The end, if the job still runs.
UPDATE command SET status = :status, progress = CASE :status WHEN 'success' THEN 100 ELSE progress END,
    spec = :spec, error = :error, updated_at = :now WHERE id = :id AND status = 'in-progress';

-- name: commands_held
-- Jobs that run, and whose they are.
SELECT id, holder FROM command WHERE status = 'in-progress';

-- name: abandon_command
-- A job whose process is gone.
UPDATE command SET status = 'failed', error = 'the server was stopped', updated_at = :now
WHERE id = :id AND status = 'in-progress';

-- name: create_account
-- Somebody new.
INSERT INTO account (id, email, password, bot, admin, generation, created_at)
VALUES (:id, :email, :password, :bot, :admin, 1, :now) ON CONFLICT (email) DO NOTHING;

-- name: account
-- Somebody, by address.
SELECT n, id, email, password, bot, admin, generation, created_at FROM account WHERE email = :email;

-- name: accounts
-- Everybody.
SELECT n, id, email, password, bot, admin, generation, created_at FROM account ORDER BY email;

-- name: change_password
-- A new password makes earlier tokens void.
UPDATE account SET password = :password, generation = generation + 1 WHERE email = :email;

-- name: remove_account
-- Somebody less.
DELETE FROM account WHERE email = :email;

-- name: remove_memberships
-- What somebody might do.
DELETE FROM member WHERE account = :account;

-- name: create_project
-- An empty project.
INSERT INTO project (id, name, creator, created_at, updated_at) VALUES (:id, :name, :by, :now, :now)
ON CONFLICT (name) DO NOTHING;

-- name: projects
-- All projects, and the role that an account has in each.
SELECT p.id, p.name, p.creator, p.created_at, p.updated_at, m.role FROM project p
LEFT JOIN member m ON m.project = p.n AND m.account = :account ORDER BY p.n;

-- name: rename_project
-- Another name.
UPDATE project SET name = :name, updated_at = :now WHERE id = :id;

-- name: project_in_use
-- A dataset or a driver of a project.
SELECT s.name FROM dataset s JOIN project p ON p.n = s.project WHERE p.id = :id AND s.system = 0
UNION ALL SELECT d.name FROM driver d JOIN project p ON p.n = d.project WHERE p.id = :id LIMIT 1;

-- name: remove_project
-- A project that nothing belongs to.
DELETE FROM project WHERE id = :id AND n <> 1;

-- name: remove_system_datasets
-- A project's own dataset goes with it.
DELETE FROM dataset WHERE system = 1 AND project = (SELECT n FROM project WHERE id = :id);

-- name: members
-- Who may do what in a project.
SELECT a.id, a.email, a.bot, m.role, a.created_at FROM member m JOIN account a ON a.n = m.account
JOIN project p ON p.n = m.project WHERE p.id = :id ORDER BY a.email;

-- name: set_member
-- A role in a project.
INSERT INTO member (project, account, role)
SELECT p.n, a.n, :role FROM project p, account a WHERE p.id = :id AND a.email = :email
ON CONFLICT (project, account) DO UPDATE SET role = excluded.role;

-- name: remove_member
-- A role less.
DELETE FROM member WHERE project = (SELECT n FROM project WHERE id = :id)
  AND account = (SELECT n FROM account WHERE email = :email);

-- name: driver_owner
-- The project of a driver, and who made it.
SELECT p.id, d.creator, d.created_at FROM driver d JOIN project p ON p.n = d.project WHERE d.id = :id;

-- name: own_driver
-- Whose a driver is.
UPDATE driver SET project = (SELECT n FROM project WHERE id = :project), creator = :by WHERE id = :id;

-- name: dataset_items
-- Numbers of those of some rows that are items of a dataset.
SELECT n FROM item WHERE n IN (SELECT value FROM each_number(:numbers) AS one) AND +dataset = :dataset AND created_at IS NOT NULL;

-- name: annotations_of
-- Annotations of some items, oldest first.
SELECT a.n, a.item, a.data, a.type, a.label, a.creator, a.created_at, a.updated_at, a.updated_by, d.id
FROM each_number(:items) AS wanted JOIN annotation a ON a.item = wanted.value JOIN dataset d ON d.n = a.dataset
WHERE a.dataset = :dataset ORDER BY a.item, a.n;

-- name: annotate_numbered
-- One annotation, under a number that is free. By place: of many rows, binding names was a third of the time.
INSERT INTO annotation (n, item, content_rev, dataset, data, type, label, creator, created_at, updated_at, updated_by, file, origin)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?, ?);

-- name: annotated_items
-- What annotations keep of their items.
SELECT n, content_rev, dataset FROM item WHERE n IN (SELECT value FROM each_number(:items) AS one);

-- name: count_annotations_of
-- How many some items have, told by their rows.
UPDATE item SET annotations = (SELECT count(*) FROM annotation WHERE annotation.item = item.n)
WHERE n IN (SELECT value FROM each_number(:items) AS one);

-- name: trash_annotation
-- One that came from a file, and is not wanted any more.
INSERT INTO annotation_trash (n, item, file, origin, data, type, label, creator, created_at, removed_at, by_hand)
SELECT n, item, file, origin, data, type, label, creator, created_at, :now, :by_hand FROM annotation
WHERE n = :n AND file IS NOT NULL;

-- name: edit_annotation
-- People changed what came from a file.
UPDATE annotation SET edited = 1 WHERE n = :n AND file IS NOT NULL;

-- name: annotations_from
-- What a file gave to some items.
SELECT a.n, a.item, a.origin, a.edited FROM each_number(:items) AS wanted
JOIN annotation a ON a.file = :file AND a.item = wanted.value ORDER BY a.n;

-- name: trashed_from
-- What it gave to them, and what is in the trash now.
SELECT t.n, t.item, t.origin, t.by_hand FROM each_number(:items) AS wanted
JOIN annotation_trash t ON t.file = :file AND t.item = wanted.value ORDER BY t.n;

-- name: annotations_elsewhere
-- What a file gave to items that it does not tell of any more.
SELECT n, item, edited FROM annotation
WHERE file = :file AND item NOT IN (SELECT item FROM source_entry WHERE file = :file AND item IS NOT NULL) ORDER BY n;

-- name: untrash_annotation
-- One less in the trash.
DELETE FROM annotation_trash WHERE n = :n;

-- name: source_row
-- A file's row, and what was taken of it.
SELECT i.n, i.fingerprint, f.fingerprint, f.error FROM item i LEFT JOIN source_file f ON f.item = i.n
WHERE i.dataset = :dataset AND i.driver = :driver AND i.key = :key;

-- name: note_source
-- What was taken of a file.
INSERT INTO source_file (item, dataset, fingerprint, error, taken_at, awaited, awaited_stem, seen)
VALUES (:file, :dataset, :fingerprint, :error, :now, :awaited, :awaited_stem, :seen)
ON CONFLICT (item) DO UPDATE SET fingerprint = excluded.fingerprint, error = excluded.error, taken_at = excluded.taken_at,
    awaited = excluded.awaited, awaited_stem = excluded.awaited_stem, seen = excluded.seen;

-- name: reread_below
-- Files of a key range are read again. Those that gave nothing, and were read well, are lists of classes.
UPDATE source_file SET fingerprint = '' WHERE fingerprint <> '' AND item <> :file
  AND (error IS NOT NULL OR EXISTS (SELECT 1 FROM source_entry e WHERE e.file = source_file.item))
  AND item IN (SELECT n FROM item WHERE dataset = :dataset AND driver = :driver AND key >= :first AND key < :until);

-- name: awaiting
-- Files that wait for an item.
SELECT f.item, i.key, coalesce(i.size, 0), f.awaited, f.awaited_stem, f.seen FROM source_file f JOIN item i ON i.n = f.item
WHERE f.dataset = :dataset AND f.awaited IS NOT NULL AND (f.awaited, f.item) > (:after, :n)
ORDER BY f.awaited, f.item LIMIT 1000;

-- name: wake
-- The item came, or is another than it was.
UPDATE source_file SET fingerprint = '' WHERE item = :file AND fingerprint <> '';

-- name: entries_of
-- What a file said.
SELECT n, key, stem, item, "user" FROM source_entry WHERE file = :file;

-- name: drop_entries
-- A file says nothing any more, or something else.
DELETE FROM source_entry WHERE file = :file;

-- name: add_entry
-- What a file says about an item.
INSERT INTO source_entry (file, dataset, key, stem, item, annotations, "user")
VALUES (:file, :dataset, :key, :stem, :item, :annotations, :user);

-- name: waiting
-- Entries whose item has come, by its whole key.
SELECT e.n, e.file, e.annotations, e.user, i.n FROM source_entry e
JOIN item i ON i.dataset = e.dataset AND i.driver = :driver AND i.key = e.key AND i.removed_at IS NULL
WHERE e.dataset = :dataset AND e.item IS NULL AND e.stem = 0 LIMIT 1000;

-- name: waiting_for
-- Those of some keys.
SELECT e.n, e.file, e.annotations, e.user, i.n FROM source_entry e
JOIN item i ON i.dataset = e.dataset AND i.driver = :driver AND i.key = e.key AND i.removed_at IS NULL
WHERE e.dataset = :dataset AND e.key IN (SELECT value FROM each_text(:keys) AS one) AND e.item IS NULL AND e.stem = 0 LIMIT 1000;

-- name: waiting_stems
-- Stems that wait.
SELECT DISTINCT key FROM source_entry
WHERE dataset = :dataset AND item IS NULL AND stem = 1 AND key > :after ORDER BY key LIMIT 1000;

-- name: waiting_stems_of
-- Those among some.
SELECT DISTINCT key FROM source_entry
WHERE dataset = :dataset AND key IN (SELECT value FROM each_text(:keys) AS one) AND item IS NULL AND stem = 1 AND key > :after
ORDER BY key LIMIT 1000;

-- name: waiting_of_stem
-- Entries of a stem.
SELECT n, file, annotations, "user" FROM source_entry WHERE dataset = :dataset AND item IS NULL AND stem = 1 AND key = :key;

-- name: matched
-- An entry has found its item.
UPDATE source_entry SET item = :item, annotations = NULL WHERE n = :n;

-- name: reread_sources
-- Files that told of an item that leaves for good: they are read again, should it come back.
UPDATE source_file SET fingerprint = '' WHERE fingerprint IS NOT NULL AND item IN (SELECT file FROM source_entry WHERE item = :item);

-- name: forget_trashed_annotations
-- Trashed annotations of an item that leaves for good.
DELETE FROM annotation_trash WHERE item = :item;

-- name: vacuum_annotations
-- Trashed annotations past their time. Those that people deleted stay as long as their file has them.
DELETE FROM annotation_trash WHERE removed_at < :time AND by_hand = 0;

-- name: probed
-- The write that an item's facts are of, and its metadata.
SELECT i.n, i.fingerprint, m.user, m.system, m.description FROM item i LEFT JOIN item_metadata m ON m.item = i.n
WHERE i.n = :n AND i.dataset = :dataset AND i.removed_at IS NULL;

-- name: write_facts
-- Facts of an item, and the write that they are of.
INSERT INTO item_metadata (item, "user", system, probed) VALUES (:n, '{}', :system, :probed)
ON CONFLICT (item) DO UPDATE SET system = excluded.system, probed = excluded.probed;

-- name: write_type
-- A type by content.
UPDATE item SET content_type = :type WHERE n = :n;

-- name: put_webhook
-- Whom to tell of a dataset's items.
INSERT INTO webhook (dataset, url, sealed, private, created_at) VALUES (:dataset, :url, :sealed, :private, :now)
ON CONFLICT (dataset) DO UPDATE SET url = excluded.url, sealed = excluded.sealed, private = excluded.private,
    failures = 0, retry_at = 0, error = NULL;

-- name: remove_webhook
-- Nobody is told any more.
DELETE FROM webhook WHERE dataset = :dataset;

-- name: empty_outbox
-- What nobody has to be told any more.
DELETE FROM outbox WHERE dataset = :dataset;

-- name: webhooks
-- All webhooks, and how much each is still to be told.
SELECT d.name, w.url, w.sealed, w.private, (SELECT count(*) FROM outbox o WHERE o.dataset = w.dataset), w.failures,
       w.dropped, w.error
FROM webhook w JOIN dataset d ON d.n = w.dataset ORDER BY d.name;

-- name: take_outbox
-- The oldest of what is to be told, for whoever asks first.
UPDATE outbox SET taken_until = :until
WHERE n IN (
  SELECT o.n FROM outbox o JOIN webhook w ON w.dataset = o.dataset
  WHERE o.dataset = :dataset AND o.taken_until <= :now AND o.retry_at <= :now AND w.retry_at <= :now
    AND NOT EXISTS (  -- one item's events come in order
      SELECT 1 FROM outbox e WHERE e.item = o.item AND e.n < o.n AND (e.taken_until > :now OR e.retry_at > :now)
    )
  ORDER BY o.n LIMIT :most
)
RETURNING n, item, what, key, source, at, attempts;

-- name: told
-- It was told.
DELETE FROM outbox WHERE n = :n;

-- name: release_outbox
-- It was not told.
UPDATE outbox SET taken_until = 0 WHERE n = :n;

-- name: refuse_outbox
-- The receiver does not want it, for now.
UPDATE outbox SET taken_until = 0, attempts = attempts + 1, retry_at = :retry_at WHERE n = :n;

-- name: drop_outbox
-- What could not be told for too long.
DELETE FROM outbox WHERE dataset = :dataset AND at < :before;

-- name: webhook_well
-- The last request went well.
UPDATE webhook SET failures = 0, retry_at = 0, error = NULL WHERE dataset = :dataset;

-- name: webhook_failed
-- The last request did not.
UPDATE webhook SET failures = failures + 1, retry_at = :retry_at, error = :error, dropped = dropped + :dropped
WHERE dataset = :dataset;

-- name: webhook_refused
-- It answers, and does not want one of them.
UPDATE webhook SET error = :error, dropped = dropped + :dropped WHERE dataset = :dataset;

-- name: create_integration
-- Credentials, sealed.
INSERT INTO integration (id, name, type, sealed, created_at) VALUES (:id, :name, :type, :sealed, :now);

-- name: integration
-- One, by name.
SELECT id, name, type, sealed FROM integration WHERE name = :name;

-- name: integrations
-- All of them.
SELECT id, name, type FROM integration ORDER BY name;

-- name: change_integration
-- Another name, other credentials.
UPDATE integration SET name = :new_name, sealed = :sealed WHERE name = :name;

-- name: integration_users
-- Drivers that open their bucket with it.
SELECT d.name FROM driver d JOIN integration i ON i.n = d.integration WHERE i.name = :name;

-- name: remove_integration
-- One less.
DELETE FROM integration WHERE name = :name;

-- name: integration_number
-- Its row.
SELECT n FROM integration WHERE name = :name;

-- name: create_driver
-- A bucket and how to open it.
INSERT INTO driver (id, name, type, integration, bucket, path, scope, region, endpoint, storage_class,
                    allow_external_delete, options, created_at)
VALUES (:id, :name, :type, :integration, :bucket, :path, :scope, :region, :endpoint, :storage_class,
        :allow_external_delete, :options, :now);

-- name: drivers
-- All of them.
SELECT d.id, d.name, d.type, i.name, d.bucket, d.path, d.scope, d.region, d.endpoint, d.storage_class,
       d.allow_external_delete, d.options
FROM driver d LEFT JOIN integration i ON i.n = d.integration ORDER BY d.name;

-- name: driver_users
-- Datasets that mirror it.
SELECT s.name FROM dataset s JOIN driver d ON d.n = s.driver WHERE d.name = :name;

-- name: remove_driver
-- One less.
DELETE FROM driver WHERE name = :name;

-- name: driver_number
-- Its row.
SELECT n FROM driver WHERE name = :name;

-- name: driver_by_id
-- Its row and its project's.
SELECT n, project FROM driver WHERE id = :id;

-- name: project_by_id
-- Its row.
SELECT n FROM project WHERE id = :id;

-- name: project_named
-- Another project of this name.
SELECT 1 FROM project WHERE name = :name AND id <> :id;

-- name: add_dataset
-- An empty dataset of the first project.
INSERT INTO dataset (id, name, driver, created_at) VALUES (:id, :name, :driver, :now);

-- name: dataset_named
-- Whether some project has one of this name.
SELECT 1 FROM dataset WHERE name = :name;

-- name: datasets
-- All datasets with their drivers, but for each project's own.
SELECT s.id, s.name, s.created_at, d.id, d.name, d.type, i.name, d.bucket, d.path, d.scope, d.region, d.endpoint,
       d.storage_class, d.allow_external_delete, d.options
FROM dataset s LEFT JOIN driver d ON d.n = s.driver LEFT JOIN integration i ON i.n = d.integration
WHERE s.system = 0 ORDER BY s.name, s.n;

-- name: datasets_called
-- Those of an id or a name.
SELECT s.id, s.name, s.created_at, d.id, d.name, d.type, i.name, d.bucket, d.path, d.scope, d.region, d.endpoint,
       d.storage_class, d.allow_external_delete, d.options
FROM dataset s LEFT JOIN driver d ON d.n = s.driver LEFT JOIN integration i ON i.n = d.integration
WHERE s.id = :name OR s.name = :name AND s.system = 0 ORDER BY s.name, s.n;

-- name: dataset_source
-- The numbers that stand for a dataset and its driver.
SELECT n, driver FROM dataset WHERE id = :id;

-- name: running
-- The sweep that holds a dataset.
SELECT 1 FROM run WHERE dataset = :dataset AND state = 'running';

-- name: drop_annotations
-- With their dataset.
DELETE FROM annotation WHERE item IN (SELECT n FROM item WHERE dataset = :dataset);

-- name: drop_metadata
-- With their dataset.
DELETE FROM item_metadata WHERE item IN (SELECT n FROM item WHERE dataset = :dataset);

-- name: drop_trashed_annotations
-- With their dataset.
DELETE FROM annotation_trash WHERE item IN (SELECT n FROM item WHERE dataset = :dataset);

-- name: drop_all_missing
-- With their dataset.
DELETE FROM run_missing WHERE run IN (SELECT n FROM run WHERE dataset = :dataset);

-- name: drop_items
-- With their dataset.
DELETE FROM item WHERE dataset = :dataset;

-- name: drop_runs
-- With their dataset.
DELETE FROM run WHERE dataset = :dataset;

-- name: drop_source_files
-- With their dataset.
DELETE FROM source_file WHERE dataset = :dataset;

-- name: drop_source_entries
-- With their dataset.
DELETE FROM source_entry WHERE dataset = :dataset;

-- name: drop_dataset
-- A dataset that nothing belongs to any more.
DELETE FROM dataset WHERE n = :dataset;

-- name: resumed
-- A run that another one goes on with.
UPDATE run SET state = 'resumed' WHERE n = :run;

-- name: lost
-- A run whose process is gone.
UPDATE run SET state = 'interrupted', ended_at = heartbeat, error = 'the process ended' WHERE n = :run;

-- name: run_of
-- Whether there is such a run of a dataset.
SELECT 1 FROM run WHERE n = :run AND dataset = :dataset;

-- name: run_source
-- What a run sweeps, and which run began its listing.
SELECT r.dataset, r.origin, d.driver FROM run r JOIN dataset d ON d.n = r.dataset WHERE r.n = :run;

-- name: run
-- One run.
SELECT r.n, d.name, r.state, r.holder, r.started_at, r.ended_at, r.cursor, r.report, r.error, r.origin, r.ranges
FROM run r JOIN dataset d ON d.n = r.dataset WHERE r.n = :run;

-- name: runs
-- The newest runs, of a dataset or of all.
SELECT r.n, d.name, r.state, r.holder, r.started_at, r.ended_at, r.cursor, r.report, r.error, r.origin, r.ranges
FROM run r JOIN dataset d ON d.n = r.dataset
WHERE CAST(:dataset AS BIGINT) IS NULL OR r.dataset = :dataset ORDER BY r.n DESC LIMIT :limit;

-- name: counts
-- Items, items in the trash, tombstones.
SELECT count(*) FILTER (WHERE removed_at IS NULL),
       count(*) FILTER (WHERE removed_at IS NOT NULL AND created_at IS NOT NULL),
       count(*) FILTER (WHERE created_at IS NULL) FROM item;

-- name: annotation_count
-- Annotations of all items.
SELECT count(*) FROM annotation;

-- name: setting
-- What the catalog remembers of itself.
SELECT value FROM setting WHERE name = :name;

-- name: put_setting
-- The first to say it is right.
INSERT INTO setting (name, value) VALUES (:name, :value) ON CONFLICT DO NOTHING;

-- name: annotations_of_file
-- How many a file gave.
SELECT count(*) FROM annotation WHERE file = :file;

-- name: entries_waiting
-- What a file says of items that have not come.
SELECT count(*) FROM source_entry WHERE file = :file AND item IS NULL;

-- name: change_user_metadata
-- metadata.user of an item that has some.
UPDATE item_metadata SET "user" = :user WHERE item = :item;

-- name: some_annotations
-- Those of some numbers that are a dataset's.
SELECT n, item FROM annotation WHERE dataset = :dataset AND n IN (SELECT value FROM each_number(:numbers) AS one);

-- name: item_dataset
-- Whose item it is.
SELECT dataset FROM item WHERE n = :n;
