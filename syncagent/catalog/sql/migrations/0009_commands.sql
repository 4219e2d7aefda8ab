-- Which process runs a command: a server that starts ends those of servers that are gone, and of no other.
ALTER TABLE command ADD COLUMN holder TEXT;
