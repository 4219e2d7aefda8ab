"""One of many writers of a catalog, to be killed: `python -m tests.integration.writer_child URL FOLDER ROLE SEED`.

It says what it has done when that is done, and ends at the end of its input. What a person would see as a failure ends it with
a traceback.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from pathlib import Path

from syncagent import open_bucket, open_catalog
from syncagent.errors import Conflict, NotFound, SyncAgentError
from syncagent.reconcile import Reconciler

KEYS = [f"{folder}/{n:03}.txt" for folder in "ab" for n in range(100)]


def events(of: Reconciler, folder: Path, dice: random.Random) -> None:
    """The bucket changes, and a handler hears of it."""
    keys = dice.sample(KEYS, dice.choice([1, 1, 2, 20]))
    for key in keys:
        path = folder / key
        if dice.random() < 0.3:
            path.unlink(missing_ok=True)
        else:
            fresh = path.with_name(f".{path.name}.{dice.random()}")
            fresh.write_text(f"{dice.random()}")
            fresh.replace(path)
    for told in [of.settle(keys[0])] if len(keys) == 1 else of.settle_many(keys):
        if isinstance(told, SyncAgentError):
            raise told


def labels(of: Reconciler, dice: random.Random) -> None:
    """People label what there is."""
    items = list(of.catalog.items(of.dataset.id, after=dice.choice(KEYS), limit=5))
    if not items:
        return
    names = {item.id: f"{dice.random()}" for item in items}
    try:
        of.catalog.labels.annotate(
            of.dataset.id, [(item, [{"type": "class", "label": name}]) for item, name in names.items()]
        )
    except NotFound:
        return  # moved meanwhile, to another item's place
    for item, name in names.items():
        print("label", item, name, flush=True)


def main(url: str, folder: str, role: str, seed: str) -> None:
    dice, done = random.Random(seed), threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
    with open_catalog(url) as catalog, open_bucket(folder) as bucket:
        of = Reconciler(catalog, catalog.dataset("data"), bucket, workers=2)
        print("ready", flush=True)
        while not done.is_set():
            if role == "events":
                events(of, Path(folder), dice)
            elif role == "labels":
                labels(of, dice)
            else:
                try:
                    print("swept", of.sweep(max_deletes=1000).drift, flush=True)
                except Conflict:
                    time.sleep(0.1)  # somebody else sweeps
        print("ended", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
