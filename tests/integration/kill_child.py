"""A sweep of its own, to be killed: `python -m tests.integration.kill_child CATALOG SLEEP LISTERS`.

The bucket is made of numbers, so that every process sees the same one without storing it.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from syncagent import reconcile
from syncagent.drivers import Bucket
from syncagent.drivers.memory import MemoryDriver
from syncagent.errors import NotFound
from syncagent.model import DriverSpec, ObjectInfo
from tests.engine import info
from tests.rigs.catalogs import open_at

SIZE = 20_000
PAGE = 500
SPEC = DriverSpec(type="memory", bucket="kill", name="kill")


def before() -> dict[str, ObjectInfo]:
    """What the catalog knows: the first half of the numbers."""
    return {f"{n:06}": info(f"{n:06}", f"old {n}") for n in range(0, SIZE, 2)}


def after() -> dict[str, ObjectInfo]:
    """What the bucket holds: all numbers, of which some changed, vanished or moved."""
    objects = {f"{n:06}": info(f"{n:06}", f"old {n}") for n in range(SIZE)}
    for n in range(0, SIZE, 100):
        objects[f"{n:06}"] = info(f"{n:06}", f"changed {n}")
    for n in range(10, SIZE, 50):
        del objects[f"{n:06}"]
    for n in range(20, SIZE, 200):
        objects[f"{n:06}-moved"] = objects.pop(f"{n:06}")._replace(key=f"{n:06}-moved")
    return objects


class Numbers(MemoryDriver):
    """Lists and looks; each page takes a while."""

    def __init__(self, pause: float) -> None:
        super().__init__()
        self.caps = replace(self.caps, ranges=True)
        self.pause = pause
        self.found = after()
        self.requests = Counter()

    def list(
        self, prefix: str = "", *, after: str | None = None, until: str | None = None
    ) -> Iterator[list[ObjectInfo]]:
        keys = sorted(key for key in self.found if after is None or key > after)
        for start in range(0, len(keys), PAGE):
            time.sleep(self.pause)
            yield [self.found[key] for key in keys[start : start + PAGE]]

    def stat(self, key: str) -> ObjectInfo:
        if key not in self.found:
            raise NotFound("gone", resource=key)
        return self.found[key]


def bucket(pause: float = 0.0) -> Bucket:
    return Bucket(Numbers(pause), SPEC, url="memory://kill")


def main() -> None:
    reconcile._ADVANCE_SECONDS = 0.0
    with open_at(Path(sys.argv[1])) as catalog:
        type(catalog).span = 1  # wherever the catalog is, each page is a step
        made, listers = bucket(float(sys.argv[2])), int(sys.argv[3])
        of = reconcile.Reconciler(catalog, catalog.dataset("data"), made, workers=2, listers=listers)
        print("begin", flush=True)
        report = of.sweep(on_progress=lambda report: print(f"at {report.listed}", flush=True))
        print(f"done {report.resumed_after}", flush=True)


if __name__ == "__main__":
    main()
