-- Who may use the server, and the projects that datasets belong to.

CREATE TABLE account (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    email TEXT NOT NULL UNIQUE,         -- in lower case
    password TEXT NOT NULL,             -- argon2
    bot INTEGER NOT NULL,
    admin INTEGER NOT NULL,             -- owns every project
    generation INTEGER NOT NULL,        -- tokens of an earlier one are void
    created_at INTEGER NOT NULL
);

CREATE TABLE project (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    creator TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
-- Where datasets belong that the command line makes.
INSERT INTO project (n, id, name, created_at, updated_at)
VALUES (1, lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-8'
    || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))), 'syncagent', CAST(strftime('%s', 'now') AS INTEGER), CAST(strftime('%s', 'now') AS INTEGER));

CREATE TABLE member (
    project INTEGER NOT NULL,
    account INTEGER NOT NULL,
    role TEXT NOT NULL,
    PRIMARY KEY (project, account)
) WITHOUT ROWID;

ALTER TABLE driver ADD COLUMN project INTEGER NOT NULL DEFAULT 1;
ALTER TABLE driver ADD COLUMN creator TEXT;
