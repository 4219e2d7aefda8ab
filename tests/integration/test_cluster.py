"""Sweeps on a Dask cluster of two processes, a catalog on PostgreSQL, a bucket behind the real SDK: the same as by one machine."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from distributed import Client, Future, LocalCluster
from distributed.comm import CommClosedError

from syncagent import reconcile
from syncagent.agent import Agent
from syncagent.cluster import Spread, dask, open_engine, sweep
from syncagent.cluster.base import Event, Order, Told
from syncagent.cluster.dask import DaskEngine
from syncagent.config import load
from syncagent.drivers import parse_url
from syncagent.errors import ConfigError, SyncAgentError, Transient
from syncagent.model import Integration, Report
from syncagent.reconcile import Reconciler
from tests.engine import assert_equal, live
from tests.rigs.postgres import server
from tests.rigs.ranged_s3 import RangedS3

SIZE = 2000
SECRET = "wJalrXUtnFEMI"
SECONDS = 0.04  # a page: a listing takes some seconds of two workers with two listings each
HERE = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}


class Rig:
    """A cluster, a bucket and a catalog."""

    def __init__(self, cluster: LocalCluster, s3: RangedS3, agent: Agent) -> None:
        self.s3, self.agent = s3, agent
        self.url = cluster.scheduler_address.replace("tcp://", "dask://")
        self.client = Client(cluster, set_as_default=False)

    def reconciler(self, name: str) -> Reconciler:
        spec = parse_url(f"s3://box?region=us-east-1&endpoint={self.s3.url}")
        return self.agent.reconciler(
            self.agent.catalog.ensure_dataset(name, replace(spec, integration="keys"))
        )

    def sweep(self, of: Reconciler, **options: Any) -> Report:
        engine = open_engine(self.url)
        try:
            return of.sweep(elsewhere=Spread(engine, of, self.agent.settings), **options)
        finally:
            engine.close()

    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Progress is told ten times a second."""
        monkeypatch.setattr(sweep, "_ADVANCE", 0.1)
        monkeypatch.setattr(reconcile, "_ADVANCE_SECONDS", 0.1)
        self.client.run(setattr, reconcile, "_ADVANCE_SECONDS", 0.1)

    def wait_for(self, workers: int) -> None:
        """Dask starts another worker for one that was killed, after a while."""
        self.client.wait_for_workers(workers, timeout=60)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SYNCAGENT_SECRET_KEY", Fernet.generate_key().decode())
        with LocalCluster(n_workers=2, threads_per_worker=1, **HERE) as started:
            yield started


@pytest.fixture
def rig(cluster: LocalCluster) -> Iterator[Rig]:
    settings = load(catalog=server().schema(), listers=2)
    with RangedS3(SECONDS) as s3, Agent(settings) as agent:
        agent.catalog.create_integration(Integration("keys", "s3", {"key": "AKIAEXAMPLE", "secret": SECRET}))
        s3.bodies = {f"{n:05}": b"%d" % n for n in range(SIZE)}
        made = Rig(cluster, s3, agent)
        with made.client:
            made.wait_for(1)
            yield made


def counts(report: Report) -> dict[str, int]:
    names = ("listed", "added", "changed", "moved", "removed", "same", "failed")
    return {name: getattr(report, name) for name in names}


class Killing(DaskEngine):
    """Kills the first worker that tells how far it is: what it does after that is told by nobody."""

    killed: str | None = None

    def next(self, timeout: float) -> Event | None:
        event = super().next(timeout)
        if isinstance(event, Told) and event.what["left"] and not self.killed:
            pids = self._client.run(os.getpid)
            for address, keys in self._client.processing().items():
                if any(key.endswith(f"-{event.task}") for key in keys):
                    self.killed = address
                    os.kill(pids[address], signal.SIGKILL)
        return event


def killed_sweep(rig: Rig, of: Reconciler) -> Report:
    with contextlib.closing(Killing(rig.url.replace("dask://", "tcp://"))) as engine:
        report = of.sweep(elsewhere=Spread(engine, of, rig.agent.settings))
        assert engine.killed
    return report


def test_a_worker_killed_in_the_middle(rig: Rig) -> None:
    rig.wait_for(2)
    ours, alone = rig.reconciler("ours"), rig.reconciler("alone")
    report = killed_sweep(rig, ours)
    assert report.listed == report.added == SIZE
    rig.s3.seconds = 0
    assert counts(report) == counts(alone.sweep())
    assert_equal(ours)

    # Everything that can happen, also to what the lost worker has.
    rig.wait_for(2)
    rig.s3.seconds = SECONDS
    for n in range(0, SIZE, 30):
        del rig.s3.bodies[f"{n:05}"]
        rig.s3.bodies[f"{n + 1:05}"] = b"changed %d" % n
        rig.s3.bodies[f"{n + 2:05}-new"] = b"new %d" % n
    for n in range(7, SIZE, 300):
        rig.s3.bodies[f"{n:05}-moved"] = rig.s3.bodies.pop(f"{n:05}")
    report = killed_sweep(rig, ours)
    assert (report.changed, report.removed, report.added, report.moved) == (67, 67, 67, 7)
    rig.s3.seconds = 0
    assert counts(report) == counts(alone.sweep())
    assert_equal(ours)
    assert live(ours.catalog, ours.dataset) == live(alone.catalog, alone.dataset)


def interrupted(at: int) -> Callable[[Report], None]:
    def progress(report: Report) -> None:
        if report.listed >= at:
            raise KeyboardInterrupt

    return progress


def test_interrupted_and_resumed_by_the_other(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.quick(monkeypatch)
    of = rig.reconciler("ours")
    with pytest.raises(KeyboardInterrupt):
        rig.sweep(of, on_progress=interrupted(1))
    (run, *_) = of.catalog.runs()
    assert run.state == "interrupted"
    assert run.ranges
    assert run.report.listed == run.report.added == of.catalog.count(of.dataset.id) < SIZE
    asked = rig.s3.pages
    time.sleep(2 * rig.s3.seconds)
    assert rig.s3.pages == asked, "nobody works on"
    # By this machine for a while, and by the cluster again.
    with pytest.raises(KeyboardInterrupt):
        of.sweep(on_progress=interrupted(run.report.listed + 1))
    rig.s3.seconds = 0
    report = rig.sweep(of)
    assert (report.listed, report.added, report.same) == (SIZE, SIZE, 0)
    assert_equal(of)


def _bug(order: Order, tell: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
    raise ZeroDivisionError("an order")


def _silent(order: Order, tell: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
    time.sleep(5)
    return {}


def _fatal(order: Order, tell: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
    os._exit(1)


def test_what_goes_wrong_is_named(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    of = rig.reconciler("ours")
    monkeypatch.setattr(sweep, "work", _bug)
    with pytest.raises(
        SyncAgentError, match="the range after None failed on a worker: ZeroDivisionError"
    ) as bug:
        rig.sweep(of)
    assert isinstance(bug.value.__cause__, ZeroDivisionError)
    monkeypatch.undo()
    monkeypatch.setattr(sweep, "__version__", "99.0")
    with pytest.raises(ConfigError, match=r"has syncagent .*, and this is 99.0; install syncagent==99.0"):
        rig.sweep(of)
    monkeypatch.undo()
    rig.s3.reply = lambda _: (403, {}, b"<Error><Code>AccessDenied</Code></Error>")
    with pytest.raises(SyncAgentError) as denied:
        rig.sweep(of)
    assert denied.value.exit_code == 6
    monkeypatch.setattr(sweep, "work", _fatal)
    with pytest.raises(Transient, match="3 workers were lost with the range after None"):
        rig.sweep(of)
    rig.wait_for(1)
    monkeypatch.setattr(sweep, "work", _silent)
    monkeypatch.setattr(sweep, "_SILENT", 0.2)
    rig.quick(monkeypatch)
    with pytest.raises(Transient, match="3 workers were lost with the range after None"):
        rig.sweep(of)
    assert of.catalog.count(of.dataset.id) == 0


def test_no_secret_is_in_an_order(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = rig.agent.settings.model_copy(
        update={"catalog": rig.agent.settings.catalog.replace("postgres:@", "postgres:hunter2@")}
    )
    assert "hunter2" in settings.catalog
    of = rig.reconciler("ours")
    engine = open_engine(rig.url)
    try:
        told = repr(Spread(engine, of, settings)._order)
    finally:
        engine.close()
    assert "search_path" in told
    assert not any(secret in told for secret in ("hunter2", SECRET, "AKIAEXAMPLE"))


@pytest.mark.parametrize("moment", ["listing", "answering", "fetching"])
def test_a_scheduler_that_goes_is_worth_another_try(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    of = rig.reconciler("ours")
    rig.quick(monkeypatch)
    gone = LocalCluster(n_workers=1, threads_per_worker=1, **HERE)
    rig.url = gone.scheduler_address.replace("tcp://", "dask://")
    ending: list[threading.Thread] = []
    fetched = Future.result

    def end() -> None:
        ending.append(threading.Thread(target=gone.close))
        ending[0].start()

    def progress(report: Report) -> None:
        if report.listed and not ending and moment == "listing":
            end()

    def result(future: Future[Any], timeout: float | None = None) -> Any:
        """An answer that is asked for when it is there, and fetched when the scheduler is gone."""
        if moment != "listing" and not ending:
            assert future.status == "finished"
            end()
            if moment == "fetching":  # before the client has noticed
                raise CommClosedError
            for _ in range(1000):
                if future.status == "cancelled":
                    break
                time.sleep(0.01)
        return fetched(future, timeout)

    monkeypatch.setattr(Future, "result", result)
    with pytest.raises(Transient, match=r"scheduler tcp://127.0.0.1:[0-9]+ is gone; run it again"):
        rig.sweep(of, on_progress=progress)
    ending[0].join()
    rig.s3.seconds = 0
    assert of.catalog.runs()[0].state == "failed"
    report = of.sweep()
    assert report.listed == SIZE
    assert_equal(of)
    monkeypatch.setattr(dask, "_CONNECT", 0.2)
    with pytest.raises(Transient, match="cannot be reached"):
        open_engine(rig.url)


@pytest.mark.parametrize(
    "url", ["ray://head:10001", "head:8786", "dask://", "dask://user@head", "dask://head/x"]
)
def test_other_urls(url: str) -> None:
    with pytest.raises(ConfigError, match="dask://SCHEDULER:8786"):
        open_engine(url)


def test_a_catalog_in_a_file_is_refused(tmp_path: Path, rig: Rig) -> None:
    (tmp_path / "box").mkdir()
    with Agent(load(catalog=f"sqlite:///{tmp_path / 'c.db'}")) as agent:
        of = agent.reconciler(agent.resolve(str(tmp_path / "box"), create=True))
        with pytest.raises(ConfigError, match="only one on PostgreSQL"):
            sweep.check(of)
    of = rig.agent.reconciler(rig.agent.resolve(str(tmp_path / "box"), create=True))
    with pytest.raises(ConfigError, match="cannot be listed by a cluster"):
        sweep.check(of)
