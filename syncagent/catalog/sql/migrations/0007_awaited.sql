-- A file that cannot be read without its item, such as one whose numbers are relative to the picture's size.
ALTER TABLE source_file ADD COLUMN awaited TEXT;
ALTER TABLE source_file ADD COLUMN awaited_stem INTEGER;
ALTER TABLE source_file ADD COLUMN seen TEXT;
CREATE INDEX source_file_awaited ON source_file (dataset, awaited) WHERE awaited IS NOT NULL;

-- Those that could not be read may have lacked just that.
UPDATE source_file SET fingerprint = '' WHERE error IS NOT NULL AND fingerprint IS NOT NULL;
