"""What only the SQLite catalog has: a file, a schema, locks, a disk that fills."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from syncagent.catalog import open_catalog
from syncagent.catalog.sql import connection
from syncagent.catalog.sql.connection import Connection
from syncagent.catalog.sql.sqlite import SqliteCatalog
from syncagent.catalog.sql.statements import migrations, parameters, queries
from syncagent.errors import ConfigError, Conflict, SyncAgentError, Transient
from syncagent.model import DriverSpec, ObjectInfo
from tests.engine import info

SPEC = DriverSpec(type="memory", bucket="box", name="box")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.db"


@pytest.fixture
def catalog(path: Path) -> Iterator[SqliteCatalog]:
    with SqliteCatalog(path, timeout=0.1) as opened:
        yield opened


@pytest.fixture
def ds(catalog: SqliteCatalog) -> str:
    return catalog.ensure_dataset("data", SPEC).id


def shape(db: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """Every table and index, without comments and spacing."""
    rows = db.execute(
        "SELECT type, name, coalesce(sql, '') FROM sqlite_master ORDER BY type, name"
    ).fetchall()
    return [(kind, name, _plain_text(sql)) for kind, name, sql in rows]


def _plain_text(sql: str) -> str:
    code = " ".join(line.partition("--")[0] for line in sql.splitlines())
    return re.sub(r"\s*([(),])\s*", r"\1", " ".join(code.split()))


def plain(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, timeout=0.1)


# -- the schema ----------------------------------------------------------------------------------


def test_schema_is_what_the_migrations_make(catalog: SqliteCatalog, path: Path) -> None:
    with closing(sqlite3.connect(":memory:")) as wanted, closing(plain(path)) as made:
        wanted.executescript((files("syncagent.catalog.sql") / "schema.sql").read_text())
        assert shape(made) == shape(wanted)
        assert len(shape(made)) > 10
        assert made.execute("PRAGMA user_version").fetchone() == (len(migrations()),)


def test_every_statement_is_sound_sql_and_used(catalog: SqliteCatalog) -> None:
    sources = "".join(file.read_text() for file in Path(str(files("syncagent.catalog.sql"))).glob("*.py"))
    for name, statement in queries("sqlite").items():
        given = dict.fromkeys(parameters(statement))
        values = given if given or "?" not in statement else [None] * statement.count("?")
        catalog.db.sql(f"EXPLAIN {statement}", values)
        assert f'"{name}"' in sources, f"{name} is used nowhere"


def test_an_event_looks_at_no_file_that_waits_for_something_else(catalog: SqliteCatalog) -> None:
    statement = queries("sqlite")["awaiting_of"]
    plan = catalog.db.sql(f"EXPLAIN QUERY PLAN {statement}", dict.fromkeys(parameters(statement)))
    assert plan[0][3] == "SEARCH f USING INDEX source_file_awaited (dataset=? AND awaited=?)"


def test_lookups_and_scans_use_the_index(catalog: SqliteCatalog) -> None:
    for name in ("get", "scan", "scan_until", "settle_found", "settle_gone", "item", "items"):
        statement = queries("sqlite")[name]
        plan = catalog.db.sql(f"EXPLAIN QUERY PLAN {statement}", dict.fromkeys(parameters(statement)))
        text = " | ".join(row[3] for row in plan)
        assert "USING INDEX item_key" in text, (name, text)
        assert "TEMP B-TREE" not in text, (name, text)


@pytest.mark.parametrize("migrate", [True, False])
def test_a_newer_schema_is_left_alone(path: Path, migrate: bool) -> None:
    SqliteCatalog(path).close()
    with closing(plain(path)) as db:
        db.execute("PRAGMA user_version=99")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"newer syncagent .schema 99") as caught:
        SqliteCatalog(path, migrate=migrate)
    assert caught.value.exit_code == 2
    assert path.read_bytes() == before


def test_an_older_schema_is_left_alone_when_asked_to(path: Path) -> None:
    with closing(plain(path)) as db:
        db.execute("CREATE TABLE t (x)")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="catalog migrate"):
        SqliteCatalog(path, migrate=False)
    assert path.read_bytes() == before


def test_a_migration_that_breaks_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(
            "syncagent.catalog.sql.connection.migrations",
            lambda: [*migrations(), "CREATE TABLE extra (x);\nCREATE TABLE item (x);\n"],
        )
        with pytest.raises(SyncAgentError):
            SqliteCatalog(path)
    with closing(plain(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(migrations()),)
        assert "extra" not in [name for _, name, _ in shape(db)]
    SqliteCatalog(path).close()


def test_migrating_twice_does_nothing(catalog: SqliteCatalog) -> None:
    assert catalog.db.migrate() == 0


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be one" * 50, b"SQLite format 3\0" + b"x" * 9000]
)
def test_what_is_not_a_database_is_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="not a sound SQLite file"):
        SqliteCatalog(path)
    assert path.read_bytes() == content


def test_a_folder_is_not_a_catalog(tmp_path: Path) -> None:
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(SyncAgentError) as caught:
        SqliteCatalog(tmp_path / "folder.db")
    assert "folder.db" in str(caught.value)
    assert caught.value.exit_code in (2, 6)


def test_open_catalog_by_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url, made in (
        ("sqlite:///one.db", tmp_path / "one.db"),
        (f"sqlite:///{tmp_path}/two.db", tmp_path / "two.db"),
        ("new/folder/three.db", tmp_path / "new/folder/three.db"),
        (str(tmp_path / "four.db"), tmp_path / "four.db"),
    ):
        open_catalog(url).close()
        assert made.is_file()
    for url in ("mysql://h/db", "sqlite://", "sqlite:///"):
        with pytest.raises(ConfigError):
            open_catalog(url)


# -- locks, permissions, disks -------------------------------------------------------------------


def test_locked_by_another_process_is_transient(catalog: SqliteCatalog, ds: str, path: Path) -> None:
    catalog.insert_new(ds, [info("a")])
    with closing(plain(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for write in (
            lambda: catalog.insert_new(ds, [info("b")]),
            lambda: catalog.settle(ds, "a", None, expect_rev=1),
            lambda: catalog.begin_run(ds),
            lambda: catalog.quarantine(ds, "a", Transient("x")),
        ):
            with pytest.raises(Transient, match="locked by another process") as caught:
                write()
            assert caught.value.exit_code == 5
        assert [row.key for row in catalog.scan(ds)] == ["a"], "readers are not held up"
        with SqliteCatalog(path, timeout=0.1) as third:
            assert third.count(ds) == 1
        other.execute("ROLLBACK")
    assert catalog.insert_new(ds, [info("b")]) == []
    assert catalog.count(ds) == 2


AS_NOBODY = """
import os, sys, pathlib
from syncagent.catalog.sql.sqlite import SqliteCatalog
from syncagent.catalog.sql.statements import migrations, queries
from syncagent.errors import SyncAgentError
from tests.engine import info
# Python itself may be where nobody may read, so everything is loaded before.
migrations(), queries("sqlite")
os.setgroups([]); os.setegid(65534); os.seteuid(65534)
try:
    with SqliteCatalog(pathlib.Path(sys.argv[1]), timeout=0.1) as catalog:
        ds = catalog.dataset("data").id
        print("read", catalog.count(ds))
        catalog.insert_new(ds, [info("b")])
        print("wrote")
except SyncAgentError as error:
    print(type(error).__name__, error.exit_code)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become somebody else")
@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "said"),
    [
        (0o777, 0o444, "read 1 AccessDenied 6"),
        (0o777, 0o600, "AccessDenied 6"),
        (0o700, 0o666, "AccessDenied 6"),
        (0o777, 0o666, "read 1 wrote"),
    ],
    ids=["read-only file", "private file", "private folder", "open to all"],
)
def test_what_the_file_system_forbids_is_access_denied(folder_mode: int, file_mode: int, said: str) -> None:
    # pytest's own folder is closed to others, so this one is not below it.
    folder = Path(tempfile.mkdtemp(prefix="syncagent-test-"))
    try:
        path = folder / "catalog.db"
        with SqliteCatalog(path) as catalog:
            catalog.insert_new(catalog.ensure_dataset("data", SPEC).id, [info("a")])
        path.chmod(file_mode)
        folder.chmod(folder_mode)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(path)], capture_output=True, text=True, check=False,
            env={"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        assert done.stdout.split() == said.split(), done.stderr
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become somebody else")
def test_a_new_catalog_in_a_forbidden_folder_is_access_denied() -> None:
    folder = Path(tempfile.mkdtemp(prefix="syncagent-test-"))
    try:
        folder.chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(folder / "catalog.db")], capture_output=True, text=True,
            check=False, env={"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        assert done.stdout.split() == ["AccessDenied", "6"], done.stderr
        assert list(folder.iterdir()) == []
    finally:
        shutil.rmtree(folder)


def test_a_full_disk_is_transient_and_changes_nothing(catalog: SqliteCatalog, ds: str) -> None:
    catalog.insert_new(ds, [info(f"{n:05}") for n in range(100)])
    before = list(catalog.scan(ds))
    pages = catalog.db.sql("PRAGMA page_count")[0][0]
    catalog.db.sql(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(Transient, match="is full") as caught:
        catalog.insert_new(ds, [info(f"new{n:05}") for n in range(5000)])
    assert caught.value.exit_code == 5
    assert list(catalog.scan(ds)) == before
    run = catalog.begin_run(ds)
    assert run.number, "and it goes on where there is room"
    catalog.db.sql(f"PRAGMA max_page_count={pages + 5000}")
    assert catalog.insert_new(ds, [info(f"new{n:05}") for n in range(5000)]) == []
    assert catalog.count(ds) == 5100
    assert catalog.db.sql("PRAGMA integrity_check") == [("ok",)]


# -- transactions and threads --------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, Conflict])
def test_what_raises_inside_a_transaction_is_rolled_back(
    catalog: SqliteCatalog, ds: str, error: type[BaseException]
) -> None:
    catalog.insert_new(ds, [info("a")])
    before = list(catalog.scan(ds))
    with pytest.raises(error), catalog.db.transaction():
        catalog.settle(ds, "a", None, expect_rev=1)
        with catalog.db.transaction():  # joins the outer one
            catalog.insert_new(ds, [info("b")])
        assert len(list(catalog.scan(ds))) == 2
        raise error("now")
    assert list(catalog.scan(ds)) == before
    catalog.insert_new(ds, [info("b")])
    assert catalog.count(ds) == 2


def test_a_process_that_dies_in_a_transaction_leaves_nothing(
    path: Path, catalog: SqliteCatalog, ds: str
) -> None:
    catalog.insert_new(ds, [info("a")])
    script = (
        "import os, pathlib, signal, sys\n"
        "from syncagent.catalog.sql.sqlite import SqliteCatalog\n"
        "from tests.engine import info\n"
        "catalog = SqliteCatalog(pathlib.Path(sys.argv[1]))\n"
        "with catalog.db.transaction():\n"
        "    catalog.insert_new(sys.argv[2], [info(f'{n:05}') for n in range(3000)])\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), ds], check=False, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == -9
    assert [row.key for row in catalog.scan(ds)] == ["a"]
    catalog.insert_new(ds, [info("b")])


def test_threads_share_a_catalog(catalog: SqliteCatalog, ds: str) -> None:
    """Each of 8 threads raises the revision of 10 rows 25 times; not one step is lost."""
    catalog.insert_new(ds, [info(f"{n}") for n in range(10)])

    def work(_: int) -> int:
        conflicts = 0
        for n in range(250):
            key = f"{n % 10}"
            while True:
                row = catalog.get(ds, key)
                assert row is not None
                try:
                    catalog.settle(ds, key, info(key), expect_rev=row.rev)
                except Conflict:
                    conflicts += 1
                    continue
                break
        return conflicts

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert {row.rev for row in catalog.scan(ds)} == {1 + 8 * 25}


def test_a_transaction_of_one_thread_is_not_joined_by_another(catalog: SqliteCatalog, ds: str) -> None:
    inside, done = threading.Event(), threading.Event()

    def other() -> None:
        inside.wait(5)
        catalog.insert_new(ds, [info("theirs")])
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with pytest.raises(RuntimeError), catalog.db.transaction():
        catalog.insert_new(ds, [info("ours")])
        inside.set()
        assert not done.wait(0.1), "it waits for its turn"
        raise RuntimeError
    thread.join()
    assert [row.key for row in catalog.scan(ds)] == ["theirs"]


def test_many_open_a_new_catalog_at_once(path: Path) -> None:
    start = threading.Barrier(6)

    def make(_: int) -> str:
        start.wait()
        with SqliteCatalog(path, timeout=10) as one:
            return one.ensure_dataset("data", SPEC).id + one._stamp

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(make, range(6)))) == 1


def test_the_switch_to_write_ahead_waits_its_turn(path: Path) -> None:
    """SQLite answers "busy" at once where two processes make one new file; a race that a test can only stage."""

    class Busy:
        def __init__(self, left: int) -> None:
            self.calls, self.left = 0, left

        def execute(self, statement: str) -> None:
            self.calls += 1
            if self.calls <= self.left:
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY
                raise error

    with closing(Connection(path, timeout=1, migrate=True)) as db:
        real = db._db
        try:
            for left, needed, calls in ((2, True, 3), (2, False, 1), (0, True, 1)):
                db._db = busy = Busy(left)  # type: ignore[assignment]
                db._write_ahead(needed=needed)
                assert busy.calls == calls
            db._db, db._timeout = Busy(10**9), 0.05  # type: ignore[assignment]
            with pytest.raises(sqlite3.OperationalError):
                db._write_ahead(needed=True)
        finally:
            db._db = real


def test_statements_are_counted(tmp_path: Path) -> None:
    db = Connection(tmp_path / "c.db", timeout=1, migrate=True)
    with closing(db):
        before = db.statements
        db.sql("SELECT 1")
        db.change("release_all", {"dataset": 1})
        assert db.statements == before + 2


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells a process its peak")
def test_giving_space_back_takes_no_memory_for_all_of_it(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from syncagent.catalog.sql.sqlite import SqliteCatalog\n"
        "peak = lambda: int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])\n"
        "with SqliteCatalog(Path(sys.argv[1])) as catalog:\n"
        "    catalog.db.sql('PRAGMA cache_size=-1000')\n"
        "    catalog.db.sql('CREATE TABLE large AS WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 50)'\n"
        "        ' SELECT randomblob(1000000) AS bytes FROM n')\n"
        "    before = peak(); catalog.reclaim(); print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    assert path.stat().st_size > 50_000_000
    assert int(done.stdout) < 20_000, "kB"


def test_batches_of_any_size_at_any_time_share_their_statements(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of a thousand rows takes nearly a megabyte, and Python keeps those that differ."""
    asked: set[str] = set()
    change = Connection.change_sql

    def noting(self: Connection, statement: str, parameters: Any = ()) -> int:
        asked.add(statement)
        return change(self, statement, parameters)

    monkeypatch.setattr(Connection, "change_sql", noting)
    seconds = iter(range(10**9, 2 * 10**9))
    with SqliteCatalog(path, clock=lambda: next(seconds)) as catalog:
        dataset = catalog.ensure_dataset("box", SPEC).id
        keys = (f"{n:05}" for n in range(10**5))
        sizes = [1, 9, 11, 537, 1001, 2222]
        for size in sizes:
            assert catalog.insert_new(dataset, [info(next(keys)) for _ in range(size)], run=7) == []
        assert catalog.count(dataset) == sum(sizes)
        assert (
            len(
                {item.created_at for item in (catalog.item(dataset, "00000"), catalog.item(dataset, "00100"))}
            )
            == 2
        )
    assert len([one for one in asked if one.startswith("INSERT INTO item (")]) == 4


def test_keys_with_a_nul_are_known_again(catalog: SqliteCatalog, ds: str) -> None:
    """JSON's functions, by which batches are asked for, end a text there."""
    catalog.insert_new(ds, [info("a"), info("a\0b")])
    assert catalog.insert_new(ds, [info("a\0b", "new"), info("a\0c"), info("b")]) == ["a\0b"]
    assert sorted(catalog.insert_new(ds, [info("a\0c"), info("c"), info("b")])) == ["a\0c", "b"]
    assert [row.key for row in catalog.scan(ds)] == ["a", "a\0b", "a\0c", "b", "c"]


def test_who_only_reads_does_not_wait_for_another_threads_transaction(
    catalog: SqliteCatalog, ds: str
) -> None:
    catalog.insert_new(ds, [info("a")])

    def keys() -> list[str]:
        rows = [row.key for row in catalog.scan(ds)]
        assert catalog.unchanged(ds, [info(key) for key in rows], after=None)
        return rows

    with ThreadPoolExecutor(1) as another:
        with catalog.db.transaction():
            catalog.insert_new(ds, [info("b")])
            assert another.submit(keys).result(10) == ["a"], "what is committed"
            assert keys() == ["a", "b"], "and its own"
        assert another.submit(keys).result(10) == ["a", "b"]


class TestTheLogIsCopiedBehind:
    """While large batches come, the thread that writes them does not copy what it wrote into the file as well."""

    def batch(self, at: int) -> list[ObjectInfo]:
        return [info(f"{at}/{n:05}") for n in range(1000)]

    def threads(self) -> list[threading.Thread]:
        return [one for one in threading.enumerate() if one.name == "syncagent-log"]

    def log_is_long_at(self, catalog: SqliteCatalog) -> int:
        return int(catalog.db.sql("PRAGMA wal_autocheckpoint")[0][0])

    def test_and_as_before_when_none_came_for_a_while(
        self, path: Path, catalog: SqliteCatalog, ds: str
    ) -> None:
        before = path.stat().st_size
        catalog.insert_new(ds, self.batch(0)[:999])
        assert not self.threads(), "of what handlers write"
        assert (self.log_is_long_at(catalog), path.stat().st_size) == (1000, before)
        for at in range(1, 4):
            catalog.insert_new(ds, self.batch(at))
        (thread,) = self.threads()
        assert self.log_is_long_at(catalog) == 4000
        thread.join(30)
        assert not self.threads()
        assert self.log_is_long_at(catalog) == 1000
        assert path.stat().st_size > before + 100_000, "copied, though the log is short"
        catalog.insert_new(ds, self.batch(5))
        assert len(self.threads()) == 1

    def test_closed_meanwhile(
        self, path: Path, catalog: SqliteCatalog, ds: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connection, "_IDLE", 300.0)
        for at in range(20):
            catalog.insert_new(ds, self.batch(at))
        catalog.close()  # which tells it
        assert not self.threads()
        catalog.close()
        assert not path.with_name(path.name + "-wal").exists(), "nobody else has it open"
        with SqliteCatalog(path) as again:
            assert again.count(ds) == 20_000

    def test_one_that_cannot_is_no_harm(
        self, catalog: SqliteCatalog, ds: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse() -> sqlite3.Connection:
            raise sqlite3.OperationalError("disk I/O error")

        monkeypatch.setattr(catalog._file, "_connected", refuse)
        for at in range(3):
            catalog.insert_new(ds, self.batch(at))
            for thread in self.threads():
                thread.join(30)
        assert self.log_is_long_at(catalog) == 1000
        assert catalog.count(ds) == 3000

    def test_a_reader_of_what_was_keeps_seeing_it(self, path: Path, catalog: SqliteCatalog, ds: str) -> None:
        catalog.insert_new(ds, [info("a")])
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM item").fetchone() == (1,)
            for at in range(3):
                catalog.insert_new(ds, self.batch(at))
            (thread,) = self.threads()
            thread.join(30)
            assert reader.execute("SELECT count(*) FROM item").fetchone() == (1,)
        assert catalog.count(ds) == 3001
