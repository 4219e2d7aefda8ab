-- A listing by several workers is resumed range by range.
ALTER TABLE run ADD COLUMN ranges TEXT;
