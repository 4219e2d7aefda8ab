"""Annotation files in, and facts of media: syncagent beside the platform's client dtlpy, and beside pycocotools.

    make bench                                  # or: python benchmarks/ingest.py --images 5000 --rounds 3
    python benchmarks/ingest.py --gigabyte      # memory of importing a gigabyte of COCO; takes minutes

COCO to items: the items are in the catalog of one `syncagent serve`. `syncagent annotations import` is timed as a whole process, of dtlpy's
Converter only the upload, without start and sign-in; each writes into a dataset of its own, in turns.
The bars: 20x dtlpy; reading at least as fast as pycocotools; at most 64 KiB read of a probed object; 300 MB for a gigabyte.
Exits 1 when one is missed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import coco_file  # after the path is known
from benchmarks.mirror import ENV
from syncagent.catalog.sql.sqlite import SqliteCatalog
from syncagent.model import DriverSpec, ObjectInfo
from tests.rigs.server import SDK, ServerRig, serving

CONVERT = """
import json, os, time
import dtlpy as dl

dl.login_m2m(email=os.environ["EMAIL"], password=os.environ["PASSWORD"])
dl.verbose.disable_progress_bar = True
dataset = dl.datasets.get(dataset_id=os.environ["DATASET"])
started = time.perf_counter()
dl.Converter().upload_local_dataset(from_format="coco", dataset=dataset, local_annotations_path=os.environ["COCO"])
seconds = time.perf_counter() - started
filters = dl.Filters(resource=dl.FiltersResource.ANNOTATION)
filters.page_size = 0
count = dataset.items.list(filters=filters).items_count
print(json.dumps({"seconds": seconds, "annotations": count}))
"""


def dataset_of(folder: Path, name: str, images: int) -> str:
    """A dataset whose items are there already; its id."""
    catalog = SqliteCatalog(folder / "catalog.db")
    try:
        made = catalog.ensure_dataset(name, DriverSpec(type="memory", bucket=name, name=name))
        found = [
            ObjectInfo(f"{n:012}.jpg", str(n), 1000, "2026-01-01T00:00:00Z", content_type="image/jpeg")
            for n in range(1, images + 1)
        ]
        catalog.insert_new(made.id, found)
        catalog.labels.add_labels(made.id, [{"tag": "first"}])
        return made.id
    finally:
        catalog.close()


def ours(folder: Path, name: str, coco: Path) -> tuple[float, int]:
    """Seconds, annotations."""
    env = {**ENV, "SYNCAGENT_CATALOG": f"sqlite:///{folder / 'catalog.db'}"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled once
    command = [
        sys.executable,
        "-m",
        "syncagent",
        "annotations",
        "import",
        name,
        str(coco),
        "--format",
        "coco",
        "--json",
    ]
    started = time.perf_counter()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    return seconds, json.loads(done.stdout.splitlines()[-1])["report"]["added"]


def theirs(rig: ServerRig, dataset: str, coco: Path, home: Path) -> tuple[float, int]:
    """Seconds, annotations."""
    home.mkdir()
    script = home / "convert.py"
    script.write_text(CONVERT)
    done = rig.client(script, home, seconds=3600, DATASET=dataset, COCO=str(coco))
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    told = json.loads(done.stdout.splitlines()[-1])
    return told["seconds"], told["annotations"]


def importing(images: int, rounds: int) -> bool:
    """COCO to items and annotations."""
    fast, slow = [], []
    with tempfile.TemporaryDirectory() as name, serving(Path(name)) as rig:
        coco = Path(name) / "coco.json"
        objects = coco_file.write(coco, images)
        for number in range(rounds):
            dataset_of(rig.folder, f"ours-{number}", images)
            seconds, added = ours(rig.folder, f"ours-{number}", coco)
            assert added == objects, (added, objects)
            fast.append(seconds)
            other = dataset_of(rig.folder, f"theirs-{number}", images)
            seconds, count = theirs(rig, other, coco, Path(name) / f"home-{number}")
            slow.append(seconds)
            print(
                f"round {number}: {added} in {fast[-1]:.2f} s; dtlpy {count} in {seconds:.1f} s", flush=True
            )
    ratio = statistics.median(slow) / statistics.median(fast)
    print(
        f"COCO, {images} images: {statistics.median(fast):.2f} s, dtlpy {statistics.median(slow):.1f} s: {ratio:.0f}x (bar 20x)"
    )
    return ratio >= 20


def reading(images: int, rounds: int) -> bool:
    """Reading alone, beside pycocotools, in one process and in turns."""
    import contextlib

    from pycocotools.coco import COCO

    from syncagent.ingest.formats import Folder, get

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "coco.json"
        coco_file.write(path, images)

        def mine() -> int:
            return sum(len(item.annotations) for item in get("coco").read(Folder(path)))

        def pycocotools() -> int:
            with contextlib.redirect_stdout(io.StringIO()):
                return len(COCO(str(path)).anns)

        mine_s, theirs_s = _in_turns(rounds, mine, pycocotools)
    print(
        f"reading: {mine_s * 1000:.0f} ms, pycocotools {theirs_s * 1000:.0f} ms: {theirs_s / mine_s:.1f}x (bar 1x)"
    )
    return theirs_s >= mine_s


def _in_turns(rounds: int, *contestants: Callable[[], int]) -> list[float]:
    times: list[list[float]] = [[] for _ in contestants]
    for _ in range(rounds):
        counts = set()
        for taken, contestant in zip(times, contestants, strict=True):
            started = time.perf_counter()
            counts.add(contestant())
            taken.append(time.perf_counter() - started)
        assert len(counts) == 1, counts
    return [statistics.median(taken) for taken in times]


def probing(count: int) -> bool:
    """Bytes and requests to learn the facts of images in a bucket."""
    import numpy as np
    from PIL import Image

    from syncagent import open_bucket
    from syncagent.ingest.probe import Window, probe

    rng = np.random.default_rng(1)
    noise = Image.fromarray(rng.integers(0, 255, (1200, 1600, 3), dtype=np.uint8))
    kinds = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tif": "TIFF"}
    bodies = {}
    for suffix, form in kinds.items():
        out = io.BytesIO()
        noise.save(out, form)
        bodies[suffix] = out.getvalue()
    read, requests, size, worst = 0, 0, 0, 0
    with open_bucket("memory://probing") as bucket:
        for n in range(count):
            suffix = list(kinds)[n % len(kinds)]
            key = f"{n:04}.{suffix}"
            bucket.put(key, io.BytesIO(bodies[suffix]))
            asked: list[int] = []

            def ranged(offset: int, length: int, key: str = key, asked: list[int] = asked) -> bytes:
                with bucket.open(key, offset=offset, length=length) as stream:
                    data = stream.read()
                asked.append(len(data))
                return data

            found = probe(ranged, len(bodies[suffix]), key)
            assert (found.width, found.height) == (1600, 1200), found
            read, requests, size = read + sum(asked), requests + len(asked), size + len(bodies[suffix])
            worst = max(worst, sum(asked))
            bucket.driver.delete(key)
    assert Window  # the same reader that every probe uses
    print(
        f"probing {count} images of {size / count / 1e6:.1f} MB: {read / count / 1024:.1f} KiB and {requests / count:.2f} requests each, "
        f"at most {worst / 1024:.0f} KiB (bar 64)"
    )
    return worst <= 64 << 10


def gigabyte() -> bool:
    """Peak memory of an import of a gigabyte of COCO whose annotations come first and are not grouped."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        coco = folder / "coco.json"
        images = int(1e9 / coco_file.BYTES_AN_ANNOTATION / coco_file.OBJECTS)
        objects = coco_file.write(coco, images, shuffled=True, annotations_first=True)
        dataset_of(folder, "large", images)
        env = {**ENV, "SYNCAGENT_CATALOG": f"sqlite:///{folder / 'catalog.db'}"}
        command = [
            sys.executable,
            "-m",
            "syncagent",
            "annotations",
            "import",
            "large",
            str(coco),
            "--format",
            "coco",
            "--json",
        ]
        started = time.perf_counter()
        child = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        told = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        assert json.loads(told.splitlines()[-1])["report"]["added"] == objects
        peak = usage.ru_maxrss * resource.getpagesize() // resource.getpagesize() / 1024
        print(
            f"{coco.stat().st_size / 1e9:.2f} GB of COCO, {images} images, {objects} objects: "
            f"{time.perf_counter() - started:.0f} s, {peak:.0f} MB at most (bar 300)"
        )
        return peak <= 300


def main() -> int:
    """Run, print, say whether the bars are met."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gigabyte", action="store_true", help="only the memory of a gigabyte")
    given = parser.parse_args()
    if given.gigabyte:
        return 0 if gigabyte() else 1
    if not SDK.exists():
        raise SystemExit("dtlpy is not installed; run 'make rigs'")
    met = [reading(given.images, max(5, given.rounds)), probing(1000), importing(given.images, given.rounds)]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
