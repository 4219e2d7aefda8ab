"""Draw the masks of one picture, here and with the platform's client dtlpy on the same annotations.

    make rigs                     # once: dtlpy with OpenCV, in an environment of its own (PEERS_DIR)
    python benchmarks/render.py --rounds 15

Two tasks: `draw`, annotations in memory to an array, as `annotations.show(annotation_format=MASK)`; `file`, the JSON of the item to
a PNG, as `annotations.download(annotation_format=MASK)`. The peer has its own process; rounds are interleaved, medians are printed, and
the ratio: above 1, syncagent is faster. The peer is spared what it asks its server: it is given the size and one colour.
Exits 1 when the mix of the bar (50 objects: polygons with 25 corners, boxes, masks) is drawn slower than by the peer.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from syncagent.ingest import masks
from syncagent.ingest.annotations import Labelled, Polygon
from syncagent.ingest.formats.dataloop import annotations_of
from syncagent.ingest.render import Style, mask, png

ROOT = Path(__file__).resolve().parent.parent
WIDTH, HEIGHT = 1920, 1080
Json = dict[str, Any]

WORKER = """
import json, os, sys, tempfile, time, warnings
warnings.simplefilter("ignore")
out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
import dtlpy as dl, numpy as np
width, height = int(sys.argv[1]), int(sys.argv[2])
kinds = {}
def collection(told):
    found = dl.AnnotationCollection.from_json(told)
    assert len(found.annotations) == len(told)
    return found
def draw(found):
    return found.show(image=np.zeros((height, width, 4), np.uint8), height=height, width=width, thickness=2, color=(200, 30, 60, 255))
for line in sys.stdin:
    task, path = json.loads(line)
    told = json.load(open(path))["annotations"]
    if path not in kinds:
        kinds[path] = collection(told)
        draw(kinds[path])  # it decodes its masks when it first needs them, and keeps them
    start = time.perf_counter()
    if task == "draw":
        drawn = draw(kinds[path])
    else:
        from PIL import Image
        drawn = draw(collection(json.load(open(path))["annotations"]))
        Image.fromarray(drawn.astype(np.uint8)).save(path + ".peer.png")  # as its download() does
    seconds = time.perf_counter() - start
    out.write(json.dumps([seconds, int((drawn[..., 3] > 0).sum())]) + "\\n")
    out.flush()
"""


def objects(count: int, kinds: tuple[str, ...], seed: int = 1) -> list[Json]:
    """Annotations in the platform's JSON, of some kinds in turn."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        x, y = chance.uniform(0, WIDTH - 400), chance.uniform(0, HEIGHT - 300)
        w, h = chance.uniform(40, 400), chance.uniform(40, 300)
        ring = [
            (x + w / 2 * (1 + r * math.cos(a)), y + h / 2 * (1 + r * math.sin(a)))
            for a, r in ((2 * math.pi * n / 25, chance.uniform(0.6, 1)) for n in range(25))
        ]
        told: Json = {
            "label": f"label {number % 5}", "metadata": {"system": {}, "user": {}}, "id": f"{number:024x}", "creator": "a",
            "createdAt": "", "updatedBy": "a", "updatedAt": "", "itemId": "0" * 24, "datasetId": "0" * 24, "attributes": {},
        }  # fmt: skip
        if kind == "box":
            told |= {
                "type": "box",
                "coordinates": [{"x": x, "y": y, "z": 0}, {"x": x + w, "y": y + h, "z": 0}],
            }
        elif kind == "segment":
            told |= {"type": "segment", "coordinates": [[{"x": u, "y": v} for u, v in ring]]}
        else:
            area = masks.from_polygon(Polygon(((tuple(n for p in ring for n in p),),)), WIDTH, HEIGHT)
            told |= {"type": "binary", "coordinates": masks.to_url(area)}
        found.append(told)
    return found


class Peer:
    """The client in a process of its own, which does one round when it is asked."""

    def __init__(self, python: Path, folder: Path) -> None:
        # On import it removes old files from its folder: it gets an empty one.
        given = {**os.environ, "DATALOOP_PATH": str(folder), "HOME": str(folder)}
        command = [str(python), "-c", WORKER, str(WIDTH), str(HEIGHT)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=given,
            cwd=folder,
        )  # fmt: skip

    def __call__(self, task: str, path: Path) -> tuple[float, int]:
        """Seconds of one round, and the pixels that it drew."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([task, str(path)]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit("the peer broke off; make it anew with make rigs")
        seconds, drawn = json.loads(line)
        return seconds, drawn

    def close(self) -> None:
        """End it."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def ours(told: list[Json], path: Path) -> dict[str, Callable[[], Any]]:
    """The two tasks."""
    style = Style(colors={f"label {n}": "#c81e3c" for n in range(5)})
    item = Labelled(key="a.jpg", annotations=annotations_of(told, "a.jpg"), width=WIDTH, height=HEIGHT)

    def file() -> Any:
        read = annotations_of(json.loads(path.read_bytes())["annotations"], "a.jpg")
        drawn = mask(Labelled(key="a.jpg", annotations=read, width=WIDTH, height=HEIGHT), style)
        path.with_suffix(".png").write_bytes(png(drawn))
        return drawn

    return {"draw": lambda: mask(item, style), "file": file}


def main() -> int:
    """Run all, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--objects", type=int, default=50)
    rounds, count = (given := parser.parse_args()).rounds, given.objects
    python = ROOT / os.environ.get("PEERS_DIR", ".rigs/dtlpy") / "bin/python"
    if not python.exists():
        sys.exit("the peer is not there: make it with make rigs (PEERS_DIR says where)")
    mixes = {
        "the mix": ("segment", "box", "binary"), "polygons": ("segment",), "boxes": ("box",), "masks": ("binary",)
    }  # fmt: skip
    good = True
    print(f"{count} objects at {WIDTH} x {HEIGHT}, {rounds} rounds, medians in ms; numpy {np.__version__}")
    print(f"{'':10} {'task':5} {'syncagent':>10} {'dtlpy':>10} {'ratio':>7} {'pixels':>9} {'dtlpy':>9}")
    with tempfile.TemporaryDirectory(prefix="syncagent-") as folder:
        peer = Peer(python, Path(folder))
        for name, kinds in mixes.items():
            told = objects(count, kinds)
            path = Path(folder) / f"{name}.json".replace(" ", "-")
            path.write_text(json.dumps({"annotations": told}))
            for task, work in ours(told, path).items():
                mine, theirs = [], []
                drawn = work()
                peer(task, path)
                for _ in range(rounds):
                    start = time.perf_counter()
                    work()
                    mine.append(time.perf_counter() - start)
                    seconds, pixels = peer(task, path)
                    theirs.append(seconds)
                a, b = statistics.median(mine) * 1000, statistics.median(theirs) * 1000
                seen = int((drawn[..., 3] > 0).sum())
                print(f"{name:10} {task:5} {a:10.1f} {b:10.1f} {b / a:7.2f} {seen:9} {pixels:9}")
                good &= b >= a or name != "the mix"
        peer.close()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
