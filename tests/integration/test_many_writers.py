"""Many processes write to one catalog on PostgreSQL, are killed at random, and converge."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from syncagent import open_bucket, open_catalog
from syncagent.reconcile import Reconciler
from tests.engine import assert_equal
from tests.integration.writer_child import KEYS
from tests.rigs.postgres import server

ROOT = Path(__file__).parents[2]
ROLES = ["events"] * 4 + ["labels"] * 2 + ["sweep"] * 2
SECONDS, KILLS = 5.0, 6


class Writer:
    """A process of one role, and all that it said."""

    def __init__(self, url: str, folder: Path, role: str, seed: int) -> None:
        self.role, self.said, self.faults = role, list[str](), list[str]()
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.writer_child", url, str(folder), role, str(seed)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        self._threads = [
            threading.Thread(target=lambda: self.said.extend(self._child.stdout)),  # type: ignore[arg-type]
            threading.Thread(target=lambda: self.faults.extend(self._child.stderr)),  # type: ignore[arg-type]
        ]
        for thread in self._threads:
            thread.start()

    def kill(self) -> None:
        self._child.send_signal(signal.SIGKILL)
        self._ended(-signal.SIGKILL)

    def end(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._ended(0)

    def _ended(self, code: int) -> None:
        assert self._child.wait(timeout=60) == code, "".join(self.faults)
        for thread in self._threads:
            thread.join()
        for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
            if pipe is not None:
                pipe.close()


def test_eight_writers_that_are_killed_at_random_converge(tmp_path: Path) -> None:
    dice, url = random.Random(8), server().schema()
    folder = tmp_path / "bucket"
    for key in KEYS:
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_text("first")
    with open_catalog(url) as catalog, open_bucket(str(folder)) as bucket:
        dataset = catalog.ensure_dataset("data", bucket.spec)
        writers = [Writer(url, folder, role, seed) for seed, role in enumerate(ROLES)]
        ended: list[Writer] = []
        for seed in range(100, 100 + KILLS):
            time.sleep(SECONDS / KILLS)
            killed = writers.pop(dice.randrange(len(writers)))
            killed.kill()
            ended.append(killed)
            writers.append(Writer(url, folder, killed.role, seed))
        while not all("ready\n" in one.said for one in writers):
            time.sleep(0.05)
        for one in writers:
            one.end()
        ended += writers

        of = Reconciler(catalog, dataset, bucket)
        of.sweep(max_deletes=1000)
        assert_equal(of)
        assert list(of.check()) == []
        labelled = [line.split() for one in ended for line in one.said if line.startswith("label")]
        items = [item for trashed in (False, True) for item in catalog.items(dataset.id, trashed=trashed)]
        told = catalog.labels.annotations_of(dataset.id, [item.id for item in items])
        kept = {(item, label["label"]) for item, mine in told.items() for label in mine}
        assert {(item, name) for _, item, name in labelled} <= kept, "a label was lost"
        assert all(item.annotations == len(told.get(item.id, [])) for item in items)
        assert len(labelled) > 50
        assert sum(line.startswith("swept") for one in ended for line in one.said) > 3
        assert catalog.quarantined() == []
        assert [run.state for run in catalog.runs(limit=1)] == ["done"]
        assert not any("deadlock" in line for one in ended for line in one.faults)
