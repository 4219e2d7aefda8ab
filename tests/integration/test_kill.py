"""A sweep is killed again and again, wherever it happens to be. Nothing is lost, nothing is doubled."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from syncagent.catalog.sql.catalog import SqlCatalog
from syncagent.reconcile import Reconciler
from tests.engine import assert_equal
from tests.integration.kill_child import SIZE, SPEC, after, before, bucket
from tests.rigs.catalogs import POSTGRES, copy_to, open_at

ROOT = Path(__file__).parents[2]
KILLS = 16
LABELLED = range(0, SIZE, 10)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog that knows an older state of the bucket, with labels on 2,000 items."""
    path = tmp_path_factory.mktemp("kill") / "catalog.db"
    with open_at(path) as catalog:
        ds = catalog.ensure_dataset("data", SPEC).id
        catalog.insert_new(ds, list(before().values()))
        with catalog.db.transaction():
            for n in LABELLED:
                catalog.annotate(ds, f"{n:06}", {"label": n})
    return path


def start(path: Path, pause: float, listers: int = 1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.integration.kill_child", str(path), str(pause), str(listers)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip


def kill_at(path: Path, lines: int, delay: float, listers: int = 1) -> bool:
    """Kill a sweep some time after its n-th line; tells whether it was still at work."""
    with start(path, 0.005 * listers, listers) as child:
        assert child.stdout is not None
        for _ in range(lines):
            if not child.stdout.readline():
                break
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        return child.returncode == -signal.SIGKILL


def labels(catalog: SqlCatalog, ds: str) -> Counter[int]:
    """Every label that can still be reached, in the dataset or in its trash."""
    found: Counter[int] = Counter()
    for trashed in (False, True):
        for item in catalog.items(ds, trashed=trashed):
            if item.annotations:
                found.update(a["label"] for a in catalog.annotations(ds, item.key))
    return found


def sound(path: Path) -> None:
    """What must hold at every moment, also right after a kill."""
    with open_at(path) as catalog:
        if not POSTGRES:
            assert catalog.db.sql("PRAGMA integrity_check") == [("ok",)]
        ((rows, keys),) = catalog.db.sql("SELECT count(*), count(DISTINCT key) FROM item")
        assert rows == keys, "a key twice"
        assert catalog.db.sql("SELECT count(*) FROM annotation") == [(len(LABELLED),)]
        orphans = "SELECT count(*) FROM annotation WHERE item NOT IN (SELECT n FROM item)"
        assert catalog.db.sql(orphans) == [(0,)]


def finished(path: Path) -> None:
    with open_at(path) as catalog:
        dataset = catalog.dataset("data")
        of = Reconciler(catalog, dataset, bucket())
        assert_equal(of)
        assert list(of.check()) == []
        assert labels(catalog, dataset.id) == Counter(LABELLED)
        run = catalog.runs(limit=1)[0]
        assert run.state == "done"
        assert catalog.db.sql("SELECT count(*) FROM run_missing") == [(0,)]
        for n in range(20, SIZE, 200):
            assert catalog.annotations(dataset.id, f"{n:06}-moved")[0]["label"] == n, "moved with its label"


def test_killed_anywhere_the_next_sweep_finishes(prepared: Path, tmp_path: Path) -> None:
    """Each kill on a catalog of its own, so that every stage is hit."""
    rng = random.Random(2026)
    interrupted = resumed = 0
    for attempt in range(KILLS):
        path = tmp_path / f"{attempt}.db"
        copy_to(prepared, path)
        lines, delay = 1 + attempt * 44 // KILLS, rng.uniform(0, 0.04)
        interrupted += kill_at(path, lines, delay)
        sound(path)
        with start(path, 0.0) as child:
            said = child.communicate(timeout=30)[0].splitlines()
        assert child.returncode == 0, (attempt, lines, delay)
        resumed += said[-1].startswith("done ") and said[-1] != "done None"
        sound(path)
        finished(path)
    assert interrupted >= 12, "most kills hit a sweep at work"
    assert resumed >= 4, "and some of them were gone on with inside the listing"


def test_killed_again_and_again_it_gets_there(prepared: Path, tmp_path: Path) -> None:
    """All kills on one catalog; each sweep takes over from the dead one before."""
    path = tmp_path / "catalog.db"
    copy_to(prepared, path)
    rng = random.Random(7)
    for _ in range(8):
        kill_at(path, rng.randint(2, 7), rng.uniform(0, 0.01))
        sound(path)
    with start(path, 0.0) as child:
        last = child.communicate(timeout=30)[0].splitlines()[-1]
    assert last.startswith("done 0"), "resumed"
    with open_at(path) as catalog:
        runs = catalog.runs()
        assert [run.state for run in runs] == ["done"] + ["resumed"] * (len(runs) - 1)
        assert len({run.origin for run in runs}) == 1
        # What the last run reports is the whole: nothing left out, and nothing told twice but a page or so.
        assert runs[0].report.listed == pytest.approx(len(after()), abs=1000 * len(runs))
        assert runs[0].report.removed + runs[0].report.moved > 0
    finished(path)


def test_killed_while_several_workers_list(prepared: Path, tmp_path: Path) -> None:
    """Each range is gone on with from where it was, by as many workers, by others, or by one."""
    path = tmp_path / "catalog.db"
    copy_to(prepared, path)
    rng = random.Random(11)
    ranges = 0
    for _ in range(3):
        kill_at(path, rng.randint(2, 4), rng.uniform(0, 0.01), listers=4)
        sound(path)
        with open_at(path) as catalog:
            left = catalog.runs(limit=1)[0].ranges
            ranges = max(ranges, len(left or []))
    with start(path, 0.0, 3) as child:
        last = child.communicate(timeout=30)[0].splitlines()[-1]
    assert last.startswith("done ") and last != "done None", "resumed"
    assert ranges > 1, "some were killed with several ranges left"
    with open_at(path) as catalog:
        assert len({run.origin for run in catalog.runs()}) == 1
    finished(path)
