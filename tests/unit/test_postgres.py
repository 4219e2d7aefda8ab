"""What only a catalog on PostgreSQL has: many hosts, a network in between, a password."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from syncagent.catalog import open_catalog
from syncagent.catalog.sql import postgres_connection
from syncagent.catalog.sql.postgres import PostgresCatalog
from syncagent.catalog.sql.postgres_connection import apply, schema_version, shown
from syncagent.catalog.sql.statements import migrations
from syncagent.catalog.sql.types import mimetype
from syncagent.cli.root import cli
from syncagent.errors import AccessDenied, ConfigError, Conflict, InvalidInput, SyncAgentError, Transient
from syncagent.model import DriverSpec, Integration, ObjectInfo, Report, Settle
from tests.engine import Clock, drop, info, live, memory_bucket, put, reconciler
from tests.rigs.postgres import Server, server

SPEC = DriverSpec(type="memory", bucket="box", name="box")
PASSWORD = "hunter2-%s"


@pytest.fixture
def url() -> str:
    return server().schema()


@pytest.fixture
def catalog(url: str) -> Iterator[PostgresCatalog]:
    with PostgresCatalog(url, timeout=2.0) as one:
        yield one


@pytest.fixture
def ds(catalog: PostgresCatalog) -> str:
    return catalog.ensure_dataset("data", SPEC).id


# -- opening -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:hunter2@127.0.0.1:1/db",
        "postgresql://ann@127.0.0.1:1/db?password=hunter2",
        "postgresql://ann:hunter2@127.0.0.1:1/db?sslmode=wrong",
        "postgresql://ann:hunter2@127.0.0.1:1/db?unknown=yes",
        "postgresql://ann:hunter2@[127.0.0.1/db",
        "postgresql://ann:hunter2@127.0.0.1:port/db",
    ],
)
def test_a_password_is_in_no_error(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SyncAgentError) as caught:
        open_catalog(url, timeout=0.1)
    assert isinstance(caught.value, Transient | ConfigError)
    told = CliRunner().invoke(
        cli, ["datasets", "ls"], env={"SYNCAGENT_CATALOG": url, "SYNCAGENT_CATALOG_TIMEOUT": "1"}
    )
    for text in (
        str(caught.value),
        repr(caught.value),
        caught.value.resource or "",
        told.output,
        repr(told.exception),
    ):
        assert "hunter2" not in text and "ann" not in text
    assert "\n" not in str(caught.value)


def test_a_catalog_is_shown_without_user_and_password() -> None:
    assert (
        shown("postgresql://ann:hunter2@db.example.com:5433/team") == "postgresql://db.example.com:5433/team"
    )
    assert shown("postgresql://ann:hunter2@/team?host=/run/pg") == "postgresql:///team"
    assert shown("service=team password=hunter2") == "postgresql:///?service=team"


def test_what_names_the_catalog_holds_no_secret(catalog: PostgresCatalog, url: str) -> None:
    with PostgresCatalog(f"{url}&password=hunter2") as one:
        for text in (repr(one), str(one), str(one.stats()), one.db.name, repr(one.vault)):
            assert "hunter2" not in text


def test_user_and_password_also_come_from_where_libpq_has_them(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = psycopg.conninfo.conninfo_to_dict(url)
    service = tmp_path / "services"
    service.write_text(
        f"[team]\nhost={told['host']}\ndbname=postgres\nuser=postgres\noptions={told['options']}\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    with open_catalog("postgresql://?service=team") as one:
        assert one.datasets() == []
    with pytest.raises(ConfigError, match="service"):
        open_catalog("postgresql://?service=nobody")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (("/postgres?", "/nowhere?"), ConfigError, "no such database"),
        (("postgres:@", "nobody:@"), AccessDenied, "refused the login"),
        (("host=", "host=/nowhere"), Transient, "out of reach"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    url: str, change: tuple[str, str], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        open_catalog(url.replace(*change))
    assert "\n" not in str(caught.value)


def test_a_schema_that_is_not_there(url: str) -> None:
    with pytest.raises(ConfigError, match="no such schema"):
        open_catalog(url.replace("path%3Dt_", "path%3Dnone_"))


def test_without_psycopg_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "syncagent.catalog.sql.postgres", raising=False)
    monkeypatch.delitem(sys.modules, "syncagent.catalog.sql.postgres_connection", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"syncagent\[postgres\]"):
        open_catalog("postgresql://h/db")


def test_secrets_need_a_key_and_files_a_folder(catalog: PostgresCatalog, ds: str) -> None:
    with pytest.raises(ConfigError, match="SYNCAGENT_SECRET_KEY"):
        catalog.create_integration(Integration("aws", "s3", {"secret": "x"}))
    with pytest.raises(ConfigError, match="SYNCAGENT_FILES"):
        _ = catalog.files
    assert catalog.integrations() == []


def test_the_roles_of_the_docs_are_enough(catalog: PostgresCatalog) -> None:
    page = (Path(__file__).parents[2] / "docs/postgresql.md").read_text()
    (script,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    name = f"r_{uuid.uuid4().hex[:12]}"
    script = script.replace("syncagent", name)
    with psycopg.connect(server().url, autocommit=True) as client:
        client.execute(script)
    as_owner = server().url.replace("postgres:@", f"{name}_owner:@") + f"&options=-csearch_path%3D{name}"
    as_writer = as_owner.replace(f"{name}_owner", name)
    with pytest.raises(AccessDenied, match="not do that"):
        PostgresCatalog(as_writer)
    PostgresCatalog(as_owner).close()
    with PostgresCatalog(as_writer) as one:
        bucket = memory_bucket({"a": b"x", "b": b"y"})
        of = reconciler(one, bucket)
        of.sweep()
        one.annotate(of.dataset.id, "a", {"label": "cat"})
        drop(bucket, "a")
        of.sweep()
        assert one.vacuum(trash_days=-1)["trash"] == 1
        one.remove_dataset("data")


# -- migrations ----------------------------------------------------------------------------------


def test_many_that_open_a_new_catalog_at_once_make_one(url: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: PostgresCatalog(url), range(8)))
    assert len({one.stamp for one in opened}) == 1
    assert {one.stats()["schema"] for one in opened} == {len(migrations("postgres"))}
    for one in opened:
        one.close()


def test_a_newer_schema_is_left_alone(catalog: PostgresCatalog, url: str) -> None:
    catalog.db.change_sql("UPDATE setting SET value = '99' WHERE name = 'schema'")
    with pytest.raises(ConfigError, match=r"newer syncagent .schema 99"):
        PostgresCatalog(url)


def test_an_older_schema_is_left_alone_where_that_is_asked_for(url: str) -> None:
    with pytest.raises(ConfigError, match="catalog migrate"):
        PostgresCatalog(url, migrate=False)
    with psycopg.connect(url) as client:
        assert schema_version(client) == 0


def test_a_migration_under_load_disturbs_nobody(catalog: PostgresCatalog, ds: str, url: str) -> None:
    """What is expanded, while four writers that know nothing of it go on."""
    stop, failed, written = threading.Event(), list[BaseException](), [0] * 4

    def write(who: int) -> None:
        try:
            while not stop.is_set():
                key = f"{who}/{written[who]:05}"
                catalog.insert_new(ds, [info(key)])
                catalog.settle(ds, key, info(key, "more"), expect_rev=1)
                written[who] += 1
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    later = [*migrations("postgres"), "ALTER TABLE item ADD COLUMN later text COLLATE \"C\";",
             "CREATE TABLE apart (n bigint PRIMARY KEY);"]  # fmt: skip
    with psycopg.connect(url, autocommit=True) as client:
        while min(written) < 5 and not failed:
            time.sleep(0.01)
        assert apply(client, later) == 2
        assert schema_version(client) == len(later)
        before = list(written)
        while any(now < then + 5 for now, then in zip(written, before, strict=True)) and not failed:
            time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert catalog.count(ds) == sum(written)


# -- keys ----------------------------------------------------------------------------------------


def test_keys_that_postgresql_cannot_hold_are_refused_each_by_itself(
    catalog: PostgresCatalog, ds: str
) -> None:
    odd = ["a\0b", "m\ud800", "k" * 3000]
    found = [info(key) for key in ["a", "a\0b", "b", "k" * 3000]] + [
        info("m")._replace(key="m\ud800"),
        info("z"),
    ]
    assert sorted(catalog.insert_new(ds, found)) == sorted(odd)
    assert [row.key for row in catalog.scan(ds)] == ["a", "b", "z"]
    assert [row.key for row in catalog.scan(ds, after="a\0b")] == ["b", "z"]
    assert [row.key for row in catalog.scan(ds, until="a\0b")] == ["a"]
    assert catalog.stamps(ds, after=None, until="b\0", limit=9) == catalog.stamps(
        ds, after=None, until="b", limit=9
    )
    for key in odd:
        assert catalog.get(ds, key) is None
        with pytest.raises(InvalidInput):
            catalog.settle(ds, key, info("a")._replace(key=key), expect_rev=0)
        catalog.quarantine(ds, key, InvalidInput("no"))
    assert catalog.rows(ds, ["a", *odd]) == [catalog.get(ds, "a"), None, None, None]
    assert len(catalog.quarantined(ds)) == 3
    assert catalog.release(ds, odd) == 3


def test_a_sweep_goes_on_around_such_a_key(catalog: PostgresCatalog) -> None:
    bucket = memory_bucket(dict.fromkeys(("a", "b", "c"), b"body"))
    stored = bucket.driver._store.objects  # type: ignore[attr-defined]
    stored["b\0b"] = replace(stored["b"], info=stored["b"].info._replace(key="b\0b"))
    of = reconciler(catalog, bucket)
    report = of.sweep()
    assert (report.added, report.failed) == (3, 1)
    assert sorted(live(catalog, of.dataset)) == ["a", "b", "c"]
    assert [one.key for one in catalog.quarantined()] == ["b\\x00b"]
    drop(bucket, "a")
    report = of.sweep()
    assert (report.removed, report.failed) == (1, 1)


def test_a_text_with_nul_is_no_bug(catalog: PostgresCatalog, ds: str) -> None:
    catalog.insert_new(ds, [info("k")])
    with pytest.raises(InvalidInput, match="NUL"):
        catalog.set_user_metadata(ds, "k", {"a": "b\0c"})
    with pytest.raises(InvalidInput):
        catalog.set_user_metadata(ds, "k", {"a": "\ud800"})
    assert catalog.item(ds, "k").user == {}


def test_what_copy_takes_apart_is_written_as_it_is(catalog: PostgresCatalog, ds: str) -> None:
    """In pages that share a value, hold none or some, or have one that separates values and rows."""
    odd = ["\\", "a\\N", "tab\t", "\nline", "line\n", "\r", "é", "\\."]
    found = [
        info(f"{n:05}.jpg", str(n))._replace(size=n, content_type=None) for n in range(500 * len(odd) + 2000)
    ]
    for n, text in enumerate(odd):
        found[500 * n + 9] = found[500 * n + 9]._replace(key=f"{500 * n + 9:05}{text}", storage_class=text)
    for n in range(500 * len(odd), len(found), 3):
        found[n] = found[n]._replace(version=f"v{n}", content_type=f"type/{n}")
    for n in range(500 * len(odd), len(found), 7):
        found[n] = found[n]._replace(content_id=None, etag=None)
    assert catalog.insert_new(ds, found[::-1]) == []
    stored = catalog.db.sql(f"SELECT {', '.join(ObjectInfo._fields)} FROM item ORDER BY key")
    types = [one.content_type or mimetype(one.key) for one in found]
    assert stored == [tuple(one._replace(content_type=kind)) for one, kind in zip(found, types, strict=True)]


def test_progress_is_not_waited_for_and_the_end_of_a_run_is(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: dict[str, str] = {}
    with PostgresCatalog(f"{url}%20-csynchronous_commit%3Don") as catalog:
        change = catalog.db.change

        def noted(name: str, *given: Any) -> int:
            ((waits[name],),) = catalog.db.sql("SELECT current_setting('synchronous_commit')")
            return change(name, *given)

        monkeypatch.setattr(catalog.db, "change", noted)
        reconciler(catalog, memory_bucket({"a": b"x"})).sweep()
    assert (waits["advance"], waits["end_run"]) == ("off", "on")


# -- many writers --------------------------------------------------------------------------------


def test_two_who_insert_the_same_keys_lose_nothing(url: str, catalog: PostgresCatalog, ds: str) -> None:
    """Both in batches that overlap, one from either end."""
    batches = [[f"{n:05}" for n in range(at * 100, at * 100 + 200)] for at in range(30)]
    with PostgresCatalog(url) as other:
        known: dict[int, int] = {}

        def write(who: int, one: PostgresCatalog) -> None:
            mine = batches if who == 0 else batches[::-1]
            known[who] = sum(len(one.insert_new(ds, [info(key) for key in batch])) for batch in mine)

        threads = [
            threading.Thread(target=write, args=(who, one)) for who, one in enumerate((catalog, other))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    keys = {key for batch in batches for key in batch}
    assert catalog.count(ds) == len(keys)
    assert sum(known.values()) == 2 * sum(map(len, batches)) - len(keys)


def test_what_somebody_holds_comes_too_late_and_nobody_waits(
    catalog: PostgresCatalog, ds: str, url: str
) -> None:
    catalog.insert_new(ds, [info("a"), info("b")])
    with psycopg.connect(url) as holder:
        holder.execute("SELECT 1 FROM item WHERE key = 'a' FOR UPDATE")
        started = time.monotonic()
        told = catalog.settle_many(ds, [Settle("b", info("b", "x"), 1), Settle("a", info("a", "x"), 1)])
        assert time.monotonic() - started < 1.5
    assert [row and row.key for row in told] == ["b", None]


def test_a_lock_is_not_waited_for_for_ever(catalog: PostgresCatalog, ds: str, url: str) -> None:
    catalog.insert_new(ds, [info("a")])
    with psycopg.connect(url) as holder:
        holder.execute("SELECT 1 FROM item WHERE key = 'a' FOR UPDATE")
        with pytest.raises(Transient, match="locked by another process"), catalog.db.transaction(alone=False):
            catalog.settle(ds, "a", info("a", "x"), expect_rev=1)


def test_labels_of_two_processes_are_all_kept(catalog: PostgresCatalog, ds: str, url: str) -> None:
    catalog.insert_new(ds, [info("k")])
    item = catalog.item(ds, "k").id

    def label(who: int) -> None:
        with PostgresCatalog(url) as one:
            for n in range(20):
                one.labels.annotate(ds, [(item, [{"type": "box", "label": f"{who}-{n}"}])])
                one.labels.describe(ds, [_change(item, {f"{who}-{n}": n})])

    threads = [threading.Thread(target=label, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = catalog.item(ds, "k")
    assert (found.annotations, len(catalog.annotations(ds, "k")), len(found.user)) == (80, 80, 80)


def _change(item: str, user: dict[str, Any]) -> Any:
    from syncagent.catalog.labels import Change

    return Change(item=item, user=user)


# -- holders -------------------------------------------------------------------------------------


def test_a_dead_holder_of_another_host_is_known_at_once(
    catalog: PostgresCatalog, ds: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import socket, sys\n"
        "socket.gethostname = lambda: 'elsewhere'\n"
        "from syncagent.catalog.sql.postgres import PostgresCatalog\n"
        "catalog = PostgresCatalog(sys.argv[1])\n"
        "catalog.begin_run(sys.argv[2])\n"
        "print('begun', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, url, ds], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "begun\n"
        with pytest.raises(Conflict, match="elsewhere"):
            catalog.begin_run(ds)
        child.send_signal(signal.SIGKILL)
        child.wait()
    until = time.monotonic() + 10
    while True:  # the server notices in a moment that the connection is gone
        try:
            run = catalog.begin_run(ds)
            break
        except Conflict:
            assert time.monotonic() < until
            time.sleep(0.02)
    assert [one.state for one in catalog.runs(ds)] == ["running", "interrupted"]
    assert run.holder == f"{socket.gethostname()}:{os.getpid()}"


def test_a_range_is_one_workers(catalog: PostgresCatalog, ds: str, url: str) -> None:
    with PostgresCatalog(url) as other:
        with catalog.range_lock(ds, None, "m") as mine, other.range_lock(ds, None, "m") as theirs:
            assert (mine, theirs) == (True, False)
            assert catalog.holds_range(ds, None, "m") and not other.holds_range(ds, None, "m")
            with other.range_lock(ds, "m", None) as rest, catalog.range_lock(ds, None, "m") as twice:
                assert (rest, twice) == (True, False)
            assert not other.holds_range(ds, "m", None)
        with other.range_lock(ds, None, "m") as theirs:
            assert theirs
        assert not catalog.holds_range(ds, None, "m")


def test_a_range_is_free_when_its_worker_is_gone(catalog: PostgresCatalog, ds: str, url: str) -> None:
    with PostgresCatalog(url) as other, other.range_lock(ds, "a", "b") as taken:
        assert taken
        with psycopg.connect(url, autocommit=True) as client:
            pids = client.execute(
                "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
            ).fetchall()
            for (pid,) in pids:
                client.execute("SELECT pg_terminate_backend(%s)", (pid,))
        assert not other.holds_range(ds, "a", "b")
        with catalog.range_lock(ds, "a", "b") as mine:
            assert mine


# -- the network ---------------------------------------------------------------------------------


def test_connections_are_few_and_asked_before_they_are_used(
    catalog: PostgresCatalog, ds: str, url: str
) -> None:
    with PostgresCatalog(url, pool=2) as one, psycopg.connect(url, autocommit=True) as client:
        with ThreadPoolExecutor(12) as pool:
            assert set(pool.map(lambda _: one.count(ds), range(60))) == {0}
        mine = "SELECT pid FROM pg_stat_activity WHERE application_name = 'syncagent' AND pid <> pg_backend_pid()"
        assert one.db._pool.get_stats()["pool_size"] <= 2  # type: ignore[attr-defined]
        for (pid,) in client.execute(mine).fetchall():
            client.execute("SELECT pg_terminate_backend(%s)", (pid,))
        time.sleep(postgres_connection._FRESH_SECONDS)
        one.quarantine(ds, "k", Transient("x"))
        assert len(one.quarantined(ds)) == 1


def test_a_restart_of_the_server_is_survived() -> None:
    with Server() as own, PostgresCatalog(own.schema(), timeout=20) as catalog:
        bucket = memory_bucket({f"{n:03}": b"x" for n in range(300)}, page_size=50)
        of = reconciler(catalog, bucket)
        of.sweep()
        own.restart()
        assert catalog.count(of.dataset.id) == 300
        put(bucket, "new")
        drop(bucket, "000")
        own.restart()
        report = of.sweep()
        assert (report.added, report.removed, report.failed) == (1, 1, 0)
        assert catalog.heartbeat(report.run) is None


def test_a_lock_timeout_and_a_statement_timeout_are_set(catalog: PostgresCatalog) -> None:
    names = "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
    assert catalog.db.sql(names) == [("2s", "10min")]


def test_nothing_is_prepared_and_nothing_temporary_made(catalog: PostgresCatalog, ds: str) -> None:
    """A pooler in transaction mode gives each transaction another session."""
    catalog.insert_new(ds, [info(f"{n}") for n in range(50)])
    catalog.insert_new(ds, [info(f"{n}") for n in range(60)])
    for n in range(20):
        catalog.settle(ds, f"{n}", info(f"{n}", "x"), expect_rev=1)
        assert catalog.get(ds, f"{n}") is not None
    assert catalog.db.sql("SELECT count(*) FROM pg_prepared_statements") == [(0,)]
    assert catalog.db.sql("SELECT count(*) FROM pg_class WHERE relpersistence = 't'") == [(0,)]


def test_another_hosts_silence_ends_its_lease_though_its_connection_stands(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    with PostgresCatalog(url, clock=clock) as catalog, PostgresCatalog(url, clock=clock) as other:
        ds = catalog.ensure_dataset("data", SPEC).id
        with monkeypatch.context() as patched:
            patched.setattr(socket, "gethostname", lambda: "elsewhere")
            run = catalog.begin_run(ds)
        with pytest.raises(Conflict):
            other.begin_run(ds)
        clock.forward(seconds=61)
        other.begin_run(ds)
        with pytest.raises(Conflict, match="taken over"):
            catalog.advance(run.number, "k", [], Report())
