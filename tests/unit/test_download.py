"""Downloads: what is written where, what goes on after a break, and what is never written."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import unicodedata
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from syncagent.agent import Agent
from syncagent.catalog import Dataset, Item
from syncagent.config import load
from syncagent.drivers import Bucket
from syncagent.drivers.memory import MemoryDriver
from syncagent.errors import AlreadyExists, InvalidInput, NotFound, Transient, Unsupported
from syncagent.ingest import render
from syncagent.ingest.annotate import exported
from syncagent.ingest.download import Downloaded, Downloader, Options
from syncagent.ingest.gather import Link, gather
from syncagent.ingest.gather import Options as Named
from syncagent.ingest.layout import Names
from syncagent.ingest.origin import Facts, HereOrigin
from syncagent.ingest.partial import is_part, is_same, part_name
from syncagent.model import Action, DriverSpec, ObjectInfo, Outcome
from tests.rigs.catalogs import url_of
from tests.rigs.fake_http import FakeHttp, Request
from tests.rigs.s3 import S3Rig

ALL = ("json", "mask", "instance", "object_id", "on-image")


@pytest.fixture
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    with Agent(load(catalog=url_of(tmp_path_factory.mktemp("catalog") / "catalog.db"))) as one:
        yield one


class Box:
    """A dataset over a bucket in memory, and what is asked of that."""

    def __init__(self, agent: Agent, name: str = "data") -> None:
        self.agent = agent
        bucket = f"down-{uuid.uuid4().hex}"
        self.dataset: Dataset = agent.catalog.ensure_dataset(
            name, DriverSpec(type="memory", bucket=bucket, name=bucket)
        )
        self.bucket = agent.bucket(self.dataset.driver)
        self.driver = cast(MemoryDriver, self.bucket.driver)

    def put(self, objects: dict[str, bytes]) -> None:
        for key, body in objects.items():
            self.bucket.put(key, io.BytesIO(body))
        self.agent.reconciler(self.dataset).sweep()

    def item(self, key: str) -> Item:
        return self.agent.catalog.labels.at(self.dataset.id, [key])[key]

    def over(self, driver: MemoryDriver) -> Downloader:
        """The downloader over the same objects through another driver."""
        driver._store = self.driver._store
        origin = HereOrigin(Bucket(driver, self.dataset.driver, url="memory://x"), None)

        def linked(item: str) -> Any:
            raise NotFound(item)

        return Downloader(origin, self.agent.catalog.labels, self.dataset.id, linked=linked, workers=2)

    def run(self, folder: Path, **options: Any) -> Downloaded:
        """With this machine's own driver."""
        return self.agent.downloader(self.dataset).run(folder, None, Options(**options))

    def label(self, key: str, *annotations: dict[str, Any], label: str = "car") -> None:
        store = self.agent.catalog.labels
        store.add_labels(
            self.dataset.id, [{"tag": label, "color": "#ff0000"}, {"tag": "bike", "color": "#00ff00"}]
        )
        told = [{"label": label, "metadata": {}, **one} for one in annotations]
        store.annotate(self.dataset.id, [(self.item(key).id, told)])


@pytest.fixture
def box(agent: Agent) -> Box:
    return Box(agent)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def picture(size: tuple[int, int] = (30, 20), turned: int | None = None, form: str = "PNG") -> bytes:
    out = io.BytesIO()
    exif = Image.Exif()
    if turned:
        exif[274] = turned
    Image.new("RGB", size, "white").save(out, form, exif=exif)
    return out.getvalue()


SQUARE = {"type": "box", "coordinates": [{"x": 3, "y": 4}, {"x": 13, "y": 12}]}


# -- layouts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"items/a.png", "items/sub/b.txt"}),
        ({"to_items_folder": False}, {"a.png", "sub/b.txt"}),
        ({"without_relative_path": True}, {"items/a.png", "items/b.txt"}),
        ({"to_items_folder": False, "without_relative_path": True}, {"a.png", "b.txt"}),
        ({"annotations": ["json"]}, {"items/a.png", "items/sub/b.txt", "json/a.png.json", "json/sub/b.txt.json"}),
        ({"annotations": ["json"], "version": 1, "binaries": False}, {"json/a.json", "json/sub/b.json"}),
        ({"annotations": ["mask"], "binaries": False, "without_relative_path": True}, {"mask/a.png.png"}),
        (
            {"annotations": ALL, "version": 1, "binaries": False},
            {"json/a.json", "json/sub/b.json", "mask/a.png", "instance/a.png", "object_id/a.png", "img_mask/a.png",
             "instance/instance_map.json"},
        ),
    ],
)  # fmt: skip
def test_layouts_are_the_clients(
    box: Box, tmp_path: Path, options: dict[str, Any], expected: set[str]
) -> None:
    box.put({"a.png": picture(), "sub/b.txt": b"bytes"})
    box.label("a.png", {**SQUARE, "metadata": {"system": {"objectId": "7"}}})
    report = box.run(tmp_path / "out", **options)
    assert (report.failed, report.added) == (
        0,
        2 if "mask" not in options.get("annotations", ()) else report.added,
    )
    assert set(files(tmp_path / "out")) == expected


def test_what_is_asked_for_must_be_known() -> None:
    with pytest.raises(
        InvalidInput, match="'masks' is nothing that annotations can be had as; known are json, mask"
    ):
        Options(annotations=["json", "masks"])


def test_the_bytes_are_the_objects_and_the_json_is_the_platforms(box: Box, tmp_path: Path) -> None:
    box.put({"a.png": picture(), "empty": b"", "large.bin": bytes(range(256)) * 8000})
    box.label("a.png", SQUARE)
    report = box.run(tmp_path, annotations=["json"])
    assert report.bytes == len(picture()) + 256 * 8000
    assert (tmp_path / "items/a.png").read_bytes() == picture()
    assert (tmp_path / "items/empty").read_bytes() == b""
    assert (tmp_path / "items/large.bin").read_bytes() == bytes(range(256)) * 8000
    told = json.loads((tmp_path / "json/a.png.json").read_text())
    store = box.agent.catalog.labels
    assert told["annotations"] == store.annotations_of(box.dataset.id, [told["id"]])[told["id"]]
    assert (told["filename"], told["metadata"]["system"]["size"]) == ("/a.png", len(picture()))
    assert json.loads((tmp_path / "json/empty.json").read_text())["annotations"] == []


def test_a_query_selects(box: Box, tmp_path: Path) -> None:
    box.put({"a/x": b"1", "b/y": b"2"})
    query = {"filter": {"$and": [{"type": "file"}, {"filename": "/b/y"}]}}
    assert box.agent.downloader(box.dataset).run(tmp_path, query).added == 1
    assert set(files(tmp_path)) == {"items/b/y"}


# -- again ---------------------------------------------------------------------------------------


def test_again_nothing_is_read(box: Box, tmp_path: Path) -> None:
    box.put({"a.png": picture(), "b": b"bytes"})
    box.label("a.png", {**SQUARE, "metadata": {"system": {"objectId": "7"}}})
    first = box.run(tmp_path / "out", annotations=ALL)
    gets, before = box.driver.requests["get"], files(tmp_path / "out")
    again = box.run(tmp_path / "out", annotations=ALL)
    assert (first.added, first.files, again.same, again.bytes, again.files) == (2, 6, 2, 0, 0)
    assert box.driver.requests["get"] == gets
    assert files(tmp_path / "out") == before


def test_another_file_is_left_unless_it_is_to_be_replaced(box: Box, tmp_path: Path) -> None:
    box.put({"a": b"bytes", "b": b"other"})
    box.run(tmp_path)
    (tmp_path / "items/a").write_bytes(b"mine!")
    kept = box.run(tmp_path)
    assert (kept.failed, kept.same) == (1, 1)
    assert "has other bytes; --overwrite replaces it" in kept.errors[0][1]
    assert (tmp_path / "items/a").read_bytes() == b"mine!"
    replaced = box.run(tmp_path, overwrite=True)
    assert (replaced.changed, replaced.same) == (1, 1), "what certainly is the same is not read again"
    assert (tmp_path / "items/a").read_bytes() == b"bytes"


def test_an_object_that_was_overwritten_in_the_same_second_is_seen(box: Box, tmp_path: Path) -> None:
    box.put({"a": b"first"})
    box.run(tmp_path)
    box.put({"a": b"other"})
    assert box.run(tmp_path).failed == 1
    assert box.run(tmp_path, overwrite=True).changed == 1
    assert (tmp_path / "items/a").read_bytes() == b"other"


def test_a_file_of_the_objects_size_and_time_is_the_same_where_no_digest_tells(
    box: Box, tmp_path: Path
) -> None:
    """As with S3 and keys of KMS: the etag looks like an MD5, and is none."""
    box.put({"a": b"bytes"})
    held = box.driver._store.objects["a"]
    sealed = held.info._replace(
        fingerprint="sealed", content_id="0" * 32, etag="0" * 32, modified="2020-01-02T03:04:05Z"
    )
    box.driver._store.objects["a"] = type(held)(sealed, held.body)
    box.agent.reconciler(box.dataset).sweep()
    assert box.run(tmp_path).added == 1
    assert int((tmp_path / "items/a").stat().st_mtime) == 1577934245
    assert box.run(tmp_path).same == 1
    os.utime(tmp_path / "items/a", (0, 0))
    assert box.run(tmp_path).failed == 1, "it may be anybody's"


def test_stamps_tell_writes_of_one_second_apart(tmp_path: Path) -> None:
    from syncagent.ingest.partial import Saver

    def facts(etag: str, when: str = "2020-01-02T03:04:05Z") -> Facts:
        return Facts(5, None, etag, None, when)

    class Fixed:
        def chunks(self, item: Item, offset: int = 0) -> Any:
            yield b"bytes"[offset:]

        def now(self, item: Item) -> Facts:
            return facts("one")

    path = tmp_path / "a"
    item = cast(Item, ObjectInfo("a", "f", 5, "2020-01-02T03:04:05Z", "one"))
    Saver().save(Fixed(), item, path)
    assert is_same(path, facts("one"))
    assert is_same(path, facts("one"), proof=True), (
        "nothing else can be compared without reading it all again"
    )
    digest = Facts(
        5,
        "md5:" + base64.b64encode(hashlib.md5(b"other", usedforsecurity=False).digest()).decode(),
        "one",
        None,
        facts("one").modified,
    )
    assert is_same(path, digest)
    assert not is_same(path, digest, proof=True)
    assert not is_same(path, facts("two"), proof=True)
    assert not is_same(path, facts("two")), "another write, of the same second"
    assert not is_same(path, facts("one", "2020-01-02T03:04:06Z"))
    assert not is_same(path, Facts(6, None, "one", None, "2020-01-02T03:04:05Z"))
    os.utime(path, (1577934245, 1577934245))  # as a file system of whole seconds keeps it
    assert is_same(path, facts("one"))
    now = int(path.stat().st_ctime)
    just = datetime.fromtimestamp(now, UTC).isoformat()
    os.utime(path, (now, now))
    assert not is_same(path, facts("one", just)), "it may have been written again since"


def test_labels_that_changed_are_told(box: Box, tmp_path: Path) -> None:
    box.put({"a.png": picture()})
    box.label("a.png", SQUARE)
    box.run(tmp_path, annotations=["json", "mask"])
    box.label("a.png", {"type": "point", "coordinates": {"x": 25, "y": 15}})
    stale = box.run(tmp_path, annotations=["json", "mask"])
    assert stale.failed == 1
    assert "a.png.json is there, and says something else; --overwrite replaces it" in stale.errors[0][1]
    assert box.run(tmp_path, annotations=["json", "mask"], overwrite=True).changed == 1
    told = json.loads((tmp_path / "json/a.png.json").read_text())
    assert len(told["annotations"]) == 2
    told["annotations"][0]["label"] = "cat"  # as many letters as before
    (tmp_path / "json/a.png.json").write_text(json.dumps(told, indent=1))
    assert box.run(tmp_path, annotations=["json"]).failed == 1


def test_other_numbers_of_labels_are_not_mixed(box: Box, tmp_path: Path) -> None:
    box.put({"a.png": picture()})
    box.label("a.png", SQUARE)
    box.run(tmp_path, annotations=["instance"])
    assert json.loads((tmp_path / "instance/instance_map.json").read_text()) == {"bike": 1, "car": 2}
    box.agent.catalog.labels.add_labels(box.dataset.id, [{"tag": "apple"}])
    with pytest.raises(AlreadyExists, match=r"instance_map\.json is there, and says something else"):
        box.run(tmp_path, annotations=["instance"])
    box.run(tmp_path, annotations=["instance"], overwrite=True)
    assert set(np.unique(np.asarray(Image.open(tmp_path / "instance/a.png.png")))) == {0, 3}


# -- breaks --------------------------------------------------------------------------------------


class Breaking(MemoryDriver):
    """Streams that end as `breaks` says: by key, after how many bytes each in turn, and how."""

    def __init__(self, breaks: dict[str, list[int]], *, silent: bool = False) -> None:
        super().__init__()
        self.breaks, self.silent = breaks, silent
        self.opened: list[tuple[str, int]] = []
        self.on_open: Callable[[str, int], None] = lambda key, turn: None

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> contextlib.closing[BinaryIO]:
        self.opened.append((key, offset))
        self.on_open(key, sum(one == key for one, _ in self.opened))
        whole = self._get(key).body[offset:]
        left = self.breaks.get(key, [])
        return contextlib.closing(
            cast(BinaryIO, _Broken(whole, left.pop(0) if left else None, silent=self.silent))
        )


class _Broken(io.RawIOBase):
    def __init__(self, body: bytes, limit: int | None, *, silent: bool) -> None:
        self._body, self._limit, self._silent, self._at = body, limit, silent, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        end = len(self._body) if self._limit is None else min(self._limit, len(self._body))
        data = self._body[self._at : min(end, self._at + len(buffer))]
        if not data and self._limit is not None and not self._silent:
            raise Transient("the connection broke")
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


@pytest.mark.parametrize("silent", [False, True])
def test_a_stream_that_breaks_goes_on_where_it_stopped(box: Box, tmp_path: Path, silent: bool) -> None:
    body = bytes(range(250)) * 4
    box.put({"a": body, "b": b"bytes"})
    driver = Breaking({"a": [100, 1, 300, *[10] * 20]}, silent=silent)
    report = box.over(driver).run(tmp_path)
    assert report.failed == 0, report.errors
    assert (tmp_path / "items/a").read_bytes() == body
    assert [offset for key, offset in driver.opened if key == "a"][:4] == [0, 100, 101, 401]
    assert report.bytes == 1005, "no byte came twice"
    assert set(files(tmp_path)) == {"items/a", "items/b"}


def test_a_stream_that_gives_nothing_is_given_up_and_the_rest_comes(box: Box, tmp_path: Path) -> None:
    box.put({"a": b"x" * 100, "b": b"bytes"})
    driver = Breaking({"a": [40, *[0] * 100]})
    report = box.over(driver).run(tmp_path)
    assert (report.added, report.failed) == (1, 1)
    assert report.errors == [("a", "the connection broke")]
    (part,) = set(files(tmp_path)) - {"items/b"}
    assert is_part(part)
    assert (tmp_path / part).stat().st_size == 40
    second = Breaking({})
    again = box.over(second).run(tmp_path)
    assert (again.added, again.same, second.opened) == (1, 1, [("a", 40)])
    assert (tmp_path / "items/a").read_bytes() == b"x" * 100
    assert set(files(tmp_path)) == {"items/a", "items/b"}


def test_a_part_of_another_write_is_not_gone_on_with(box: Box, tmp_path: Path) -> None:
    box.put({"a": b"old" * 40})
    box.over(Breaking({"a": [50, *[0] * 100]})).run(tmp_path)
    box.put({"a": b"new" * 40})
    driver = Breaking({})
    assert box.over(driver).run(tmp_path).added == 1
    assert driver.opened == [("a", 0)]
    assert files(tmp_path) == {"items/a": b"new" * 40}, "and the old part is gone"


def test_a_part_of_an_object_that_the_catalog_does_not_know_yet(box: Box, tmp_path: Path) -> None:
    """The catalog is behind: the part has the old token, and so has the item."""
    box.put({"a": b"old" * 40})
    box.over(Breaking({"a": [50, *[0] * 100]})).run(tmp_path)
    box.bucket.put("a", io.BytesIO(b"newer" * 40))
    assert box.over(Breaking({})).run(tmp_path).added == 1
    assert files(tmp_path) == {"items/a": b"newer" * 40}
    assert box.run(tmp_path).same == 1, "the file is what the bucket has, whatever the catalog thinks"


@pytest.mark.parametrize("now", [b"n" * 30, b"n" * 200])
def test_an_object_of_another_size_than_the_catalog_knows(box: Box, tmp_path: Path, now: bytes) -> None:
    box.put({"fresh": b"old" * 40, "part": b"old" * 40})
    box.over(Breaking({key: [50, *[0] * 100] for key in ("fresh", "part")})).run(tmp_path)
    (left,) = (tmp_path / "items").glob("fresh.*.part")
    left.unlink()
    for key in ("fresh", "part"):
        box.bucket.put(key, io.BytesIO(now))
    outcomes: list[Outcome] = []
    driver = Breaking({})
    report = box.over(driver).run(tmp_path, on_outcome=outcomes.append)
    assert report.errors == []
    assert {one.size for one in outcomes} == {len(now)}
    assert files(tmp_path) == {"items/fresh": now, "items/part": now}
    assert [offset for key, offset in driver.opened if key == "part"] == [0], (
        "the part is known for another's at once"
    )


def test_an_object_that_changes_between_two_reads_is_never_mixed(box: Box, tmp_path: Path) -> None:
    box.put({"a": b"a" * 100})
    driver = Breaking({"a": [60]})

    def change(key: str, turn: int) -> None:
        if turn == 2:  # after it was looked at, before it is read
            box.bucket.put("a", io.BytesIO(b"b" * 100))

    driver.on_open = change
    assert box.over(driver).run(tmp_path).added == 1
    assert files(tmp_path) == {"items/a": b"b" * 100}


def test_an_object_that_is_gone_fails_alone(box: Box, tmp_path: Path) -> None:
    box.put({"a": b"1", "b": b"2"})
    box.driver.delete("a")
    report = box.run(tmp_path)
    assert (report.added, report.failed) == (1, 1)
    assert "no object 'a'" in report.errors[0][1]
    assert set(files(tmp_path)) == {"items/b"}


class Damaging(MemoryDriver):
    """Says MD5s as Google does; some reads have one bit wrong."""

    def __init__(self, damaged: int) -> None:
        super().__init__()
        self.damaged = damaged

    def _get(self, key: str) -> Any:
        held = super()._get(key)
        digest = base64.b64encode(hashlib.md5(held.body, usedforsecurity=False).digest()).decode()
        return type(held)(held.info._replace(content_id=f"md5:{digest}"), held.body)

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> contextlib.closing[BinaryIO]:
        body = bytearray(self._get(key).body[offset:])
        if self.damaged > 0:
            self.damaged -= 1
            body[0] ^= 1
        return contextlib.closing(io.BytesIO(bytes(body)))


@pytest.mark.parametrize(("times", "good"), [(1, True), (2, True), (99, False)])
def test_damaged_bytes_are_read_again_and_never_kept(
    agent: Agent, tmp_path: Path, times: int, good: bool
) -> None:
    box = Box(agent)
    box.bucket.put("a", io.BytesIO(b"bytes"))
    digest = base64.b64encode(hashlib.md5(b"bytes", usedforsecurity=False).digest()).decode()
    held = box.driver._store.objects["a"]
    box.driver._store.objects["a"] = type(held)(held.info._replace(content_id=f"md5:{digest}"), held.body)
    agent.reconciler(box.dataset).sweep()
    report = box.over(Damaging(times)).run(tmp_path / "out")
    if good:
        assert files(tmp_path / "out") == {"items/a": b"bytes"}
    else:
        assert "damaged" in report.errors[0][1]
        assert files(tmp_path / "out") == {}


def test_a_digest_is_taken_over_all_pieces(agent: Agent, tmp_path: Path) -> None:
    box = Box(agent)
    body = os.urandom(1000)
    box.bucket.put("a", io.BytesIO(body))
    digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    held = box.driver._store.objects["a"]
    box.driver._store.objects["a"] = type(held)(held.info._replace(content_id=f"md5:{digest}"), held.body)
    agent.reconciler(box.dataset).sweep()
    box.over(Breaking({"a": [300, *[0] * 100]})).run(tmp_path)
    driver = Breaking({"a": [100, 100]})
    report = box.over(driver).run(tmp_path)
    assert (report.added, report.bytes) == (1, 700)
    assert [offset for _, offset in driver.opened] == [300, 400, 500]
    assert files(tmp_path) == {"items/a": body}


def test_an_interruption_leaves_parts_only_and_the_next_run_goes_on(box: Box, tmp_path: Path) -> None:
    body = os.urandom(900_000)
    box.put({"a": b"small", "b": body})
    driver = Breaking({})
    halfway, ended = threading.Event(), threading.Event()

    class Slow(io.RawIOBase):
        at = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            if self.at:
                halfway.set()
                assert ended.wait(60)
            data = body[self.at : self.at + 300_000][: len(buffer)]
            buffer[: len(data)] = data
            self.at += len(data)
            return len(data)

    plain = driver.open
    driver.open = (  # type: ignore[method-assign]
        lambda key, **more: contextlib.closing(cast(BinaryIO, Slow())) if key == "b" else plain(key, **more)
    )
    downloader = box.over(driver)

    def interrupt(told: Downloaded) -> None:
        if told.added and halfway.is_set():
            ended.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        downloader.run(tmp_path, on_progress=interrupt)
    found = files(tmp_path)
    assert found.pop("items/a") == b"small"
    ((name, part),) = found.items()
    assert is_part(name)
    assert body.startswith(part)
    assert part
    second = Breaking({})
    assert box.over(second).run(tmp_path).added == 1
    assert second.opened == [("b", len(part))]
    assert files(tmp_path) == {"items/a": b"small", "items/b": body}


KILLED = """
import os, signal, sys
from pathlib import Path
from syncagent.agent import Agent
from syncagent.config import load
from syncagent.ingest import partial

written = 0
add = partial._Sum.add
def count(self, chunk, end):
    global written
    written += len(chunk)
    if written > 500_000:
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, chunk, end)
partial._Sum.add = count
with Agent(load(catalog=sys.argv[1])) as agent:
    agent.downloader(agent.catalog.dataset("bucket")).run(Path(sys.argv[2]))
"""


def test_a_killed_process_leaves_parts_that_go_on(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    contents = {f"{n}.bin": os.urandom(700_000) for n in range(2)}
    for name, body in contents.items():
        (tmp_path / "bucket" / name).write_bytes(body)
    dataset = agent.resolve(str(tmp_path / "bucket"), create=True)
    agent.reconciler(dataset).sweep()
    command = [sys.executable, "-c", KILLED, agent.settings.catalog, str(tmp_path / "out")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    left = files(tmp_path / "out")
    assert left
    assert all(is_part(name) or left[name] == contents[Path(name).name] for name in left), (
        "no half file has a whole name"
    )
    report = agent.downloader(dataset).run(tmp_path / "out")
    assert report.failed == 0
    assert report.bytes == 1_400_000 - sum(map(len, left.values())), "what was written is not read again"
    assert files(tmp_path / "out") == {f"items/{name}": body for name, body in contents.items()}


def test_broken_streams_of_a_cloud_go_on(s3_rig: S3Rig, agent: Agent, tmp_path: Path) -> None:
    """The real SDK, a real server, and a network between them that cuts answers."""
    import httpx

    bucket = f"down-{uuid.uuid4().hex[:12]}"
    s3_rig.client.create_bucket(Bucket=bucket)
    body = os.urandom(3_000_000)
    s3_rig.client.put_object(Bucket=bucket, Key="sub/large.bin", Body=body)
    s3_rig.client.put_object(Bucket=bucket, Key="a+b %20.txt", Body=b"small")
    ranges: list[str | None] = []

    def reply(request: Request) -> tuple[int, dict[str, str], bytes]:
        query = "&".join(f"{name}={value}" for name, value in request.query.items())
        url = f"{s3_rig.endpoint}{request.path}" + (f"?{query}" if query else "")
        told = {
            name: value
            for name, value in request.headers.items()
            if name in {"range", "authorization", "x-amz-date"}
        }
        answer = httpx.request(request.method, url, headers=told)
        headers = {
            n: v
            for n, v in answer.headers.items()
            if n in {"etag", "last-modified", "content-range", "content-type"}
        }
        if request.method == "HEAD":
            headers["Content-Length"] = answer.headers["content-length"]
        if request.method == "GET" and request.path.endswith("large.bin"):
            ranges.append(request.headers.get("range"))
            if len(ranges) < 4:
                headers["Content-Length"] = str(len(answer.content))
                return answer.status_code, headers, answer.content[: len(answer.content) // 2]
        return answer.status_code, headers, answer.content

    with FakeHttp(reply) as network:
        agent.catalog.create_integration(s3_rig.integration)
        url = f"s3://{bucket}?endpoint={network.url}&region=us-east-1"
        dataset = agent.resolve(url, integration=s3_rig.integration.name, create=True)
        agent.reconciler(dataset).sweep()
        report = agent.downloader(dataset).run(tmp_path / "out")
        assert report.errors == []
        assert files(tmp_path / "out") == {"items/sub/large.bin": body, "items/a+b %20.txt": b"small"}
        starts = [int((told or "bytes=0-").removeprefix("bytes=").partition("-")[0]) for told in ranges]
        assert starts[0] == 0
        assert starts == sorted(set(starts)), "each went on after the other"
        assert len(starts) >= 4
        assert report.bytes == 3_000_005
        agent.close()


# -- names ---------------------------------------------------------------------------------------

HOSTILE = [
    "a//b", "a/", "/a", "..", "../up", "sub/../../up", "./a", "a/./b", "a/..", "n" * 256, f"sub/{'é' * 128}",
    "x.0123456789abcdef.part",
]  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"to_items_folder": False}, {"annotations": ["json"], "version": 1}])
def test_keys_that_are_no_file_names_fail_alone(box: Box, tmp_path: Path, options: dict[str, Any]) -> None:
    box.put({**dict.fromkeys(HOSTILE, b"evil"), "good": b"good"})
    report = box.run(tmp_path / "here/out", **options)
    assert report.added == 1
    assert {key for key, _ in report.errors} == set(HOSTILE)
    assert all(error for _, error in report.errors)
    assert b"evil" not in files(tmp_path / "here").values()
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["out"]


def test_the_longest_names_have_parts_too(box: Box, tmp_path: Path) -> None:
    keys = ["é" * 127, "e" * 255, "n" * 240]
    box.put(dict.fromkeys(keys, b"bytes"))
    box.over(Breaking({key: [2, *[0] * 50] for key in keys})).run(tmp_path)
    assert [is_part(name) for name in files(tmp_path)] == [True] * 3
    second = Breaking({})
    assert box.over(second).run(tmp_path).added == 3
    assert {offset for _, offset in second.opened} == {2}
    for key in keys:
        assert len(part_name(key, "0" * 16).encode()) <= 255
    assert part_name("n" * 250, "0" * 16) != part_name("n" * 251, "0" * 16)


def test_a_link_in_the_target_does_not_lead_out_of_it(box: Box, tmp_path: Path) -> None:
    box.put({"way/out": b"evil", "good": b"good"})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/items").mkdir(parents=True)
    (tmp_path / "out/items/way").symlink_to(tmp_path / "elsewhere")
    report = box.run(tmp_path / "out")
    assert (report.added, report.failed) == (1, 1)
    assert "leaves the folder" in report.errors[0][1]
    assert list((tmp_path / "elsewhere").iterdir()) == []


NFC, NFD = "é.txt", unicodedata.normalize("NFD", "é.txt")


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ("a.txt", "A.TXT", "the item 'a.txt' has this file's name already"),
        (NFC, NFD, "has this file's name already"),
        ("straße", "STRASSE", "has this file's name already"),
        ("a", "a/b", "the item 'a' is a file where this would need a folder"),
        ("a/b", "A", "the item 'a/b' has a folder of this name"),
    ],
)
def test_two_items_are_never_one_file(box: Box, tmp_path: Path, first: str, second: str, says: str) -> None:
    box.put({first: b"first"})
    box.put({second: b"second"})
    report = box.run(tmp_path)
    assert report.added == 1
    ((key, error),) = report.errors
    assert key == second
    assert says in error
    assert list(files(tmp_path).values()) == [b"first"], "the older one has the name"


def test_version_1_has_one_name_for_two_and_says_so(box: Box, tmp_path: Path) -> None:
    box.put({"a.jpg": b"1"})
    box.put({"a.png": b"2"})
    report = box.run(tmp_path, annotations=["json"], version=1)
    assert set(files(tmp_path)) == {"items/a.jpg", "items/a.png", "json/a.json"}, "both have their bytes"
    assert json.loads((tmp_path / "json/a.json").read_text())["filename"] == "/a.jpg"
    assert report.errors == [
        ("a.png", "'json/a.json' is not written: the item 'a.jpg' has this file's name already; names of version 2 tell them apart")
    ]  # fmt: skip
    assert box.run(tmp_path / "2", annotations=["json"]).failed == 0


def test_flat_names_meet(box: Box, tmp_path: Path) -> None:
    box.put({"x/a": b"1"})
    box.put({"y/a": b"2"})
    assert [key for key, _ in box.run(tmp_path, without_relative_path=True).errors] == ["y/a"]


names = st.lists(
    st.sampled_from(["a", "A", "é", "e\u0301", "..", "", ".", "ß", "SS"]), min_size=1, max_size=3
).map("/".join)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(names, min_size=2, max_size=6, unique=True))
def test_claimed_names_are_apart_on_every_file_system(
    tmp_path_factory: pytest.TempPathFactory, keys: list[str]
) -> None:
    given_names = Names(Path("/nowhere"))
    held: list[Path] = []
    for key in keys:
        with contextlib.suppress(InvalidInput):
            held.append(given_names.claim(key, key))

    def plain(path: Path) -> str:
        # As a file system does that keeps neither case nor composition.
        return unicodedata.normalize("NFD", unicodedata.normalize("NFD", str(path)).casefold())

    told = [plain(path) for path in held]
    assert len(set(told)) == len(told)
    for one in told:
        assert one.startswith("/nowhere/")
        assert not any(other.startswith(f"{one}/") for other in told), "no file is another's folder"


# -- links ---------------------------------------------------------------------------------------


def test_links_are_followed(box: Box, tmp_path: Path) -> None:
    with FakeHttp() as web:
        web.always((200, {"Content-Type": "image/png"}, picture()))
        uploader = box.agent.uploader(box.dataset)
        uploader.run(gather([Link(f"{web.url}/p/flower.png?signature=x", name="flower")]))
        refused = box.run(tmp_path)
        assert "private network; pass --allow-private" in refused.errors[0][1]
        assert files(tmp_path) == {}
        assert box.run(tmp_path, allow_private=True).added == 1
        assert files(tmp_path) == {"items/flower_link.json.png": picture()}, (
            "with the extension of the address, as the client"
        )
        asked = len(web.requests)
        assert box.run(tmp_path, allow_private=True).same == 1
        assert len(web.requests) == asked
        web.always((404, {}, b"no"))
        assert box.run(tmp_path / "2", allow_private=True).failed == 1
        assert files(tmp_path / "2") == {}


def test_links_to_items_have_their_bytes(agent: Agent, box: Box, tmp_path: Path) -> None:
    other = Box(agent, "other")
    other.put({"there.png": picture()})
    box.agent.uploader(box.dataset).run(gather([other.item("there.png")]))
    key = "there_link.json"
    assert box.run(tmp_path).added == 1
    assert files(tmp_path) == {f"items/{key}.png": picture()}
    assert box.run(tmp_path).same == 1
    assert agent.downloader(box.dataset).to_array(box.item(key)).shape == (20, 30, 3)
    # In a circle.
    found = box.item(key)
    store = agent.catalog.labels
    from syncagent.catalog.labels import Change

    info = {"type": "id", "ref": found.id, "datasetId": box.dataset.id}
    store.describe(
        box.dataset.id, [Change(found.id, system={"shebang": {"dltype": "link", "linkInfo": info}})]
    )
    assert "through too many others" in box.run(tmp_path / "2").errors[0][1]
    store.describe(
        box.dataset.id, [Change(found.id, system={"shebang": {"linkInfo": {**info, "ref": "f" * 24}}})]
    )
    assert "no item" in box.run(tmp_path / "2").errors[0][1]


# -- where the bytes are -------------------------------------------------------------------------


def test_bytes_beside_the_catalog(agent: Agent, tmp_path: Path) -> None:
    from syncagent.catalog.sql.catalog import SqlCatalog
    from syncagent.catalog.sql.datasets import Datasets

    catalog = cast(SqlCatalog, agent.catalog)
    Datasets(catalog).create(catalog.db.sql("SELECT id FROM project")[0][0], "plain", by="ann@example.com")
    found = catalog.dataset("plain")
    agent.uploader(found).run(gather(b"bytes", Named(remote_name="a/b")))
    assert agent.downloader(found).run(tmp_path / "out").added == 1
    assert files(tmp_path / "out") == {"items/a/b": b"bytes"}
    assert agent.downloader(found).run(tmp_path / "out").same == 1
    (tmp_path / "out/items/a/b").write_bytes(b"Bytes")
    assert agent.downloader(found).run(tmp_path / "out").failed == 1


def test_folders_are_no_items(box: Box, tmp_path: Path) -> None:
    from syncagent.catalog.sql.catalog import SqlCatalog
    from syncagent.catalog.sql.items import Items

    box.put({"a": b"bytes"})
    Items(cast(SqlCatalog, box.agent.catalog)).place(
        box.dataset.id, "made", storage="dir", by="ann@example.com"
    )
    report = box.agent.downloader(box.dataset).run(tmp_path, {"filter": {}})
    assert (report.found, report.added, report.failed) == (1, 1, 0)


def test_bytes_beside_the_catalog_are_read_from_any_place_on(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from syncagent.catalog.files import Files

    kept = Files(tmp_path / "files")
    digest, _ = kept.put(io.BytesIO(b"0123456789"))
    origin = HereOrigin(None, kept)
    item = cast(Item, SimpleNamespace(key="a", storage=f"file:{digest}"))
    assert b"".join(origin.chunks(item, 4)) == b"456789"
    assert b"".join(origin.chunks(item, 10)) == b""
    for storage in ("dir", None):
        with pytest.raises(NotFound, match="'a' has no bytes here"):
            list(origin.chunks(cast(Item, SimpleNamespace(key="a", storage=storage))))


def test_an_item_under_another_name_has_its_objects_bytes(box: Box, tmp_path: Path) -> None:
    from syncagent.catalog.sql.catalog import SqlCatalog
    from syncagent.catalog.sql.items import Items

    box.put({"a": b"bytes"})
    Items(cast(SqlCatalog, box.agent.catalog)).rename(box.item("a").id, "moved/b", by="ann@example.com")
    assert box.run(tmp_path).added == 1
    assert files(tmp_path)["items/moved/b"] == b"bytes"


def test_facts_know_one_write_from_another() -> None:
    one = Facts(5, None, "etag", None, "2026-01-02T03:04:05Z")
    assert one.token == Facts(5, "md5:x", "etag", "7", "").token, "a listing tells less than a look"
    for other in (Facts(6, None, "etag", None, ""), Facts(5, None, "other", None, "")):
        assert other.token != one.token
    assert Facts(5, None, None, None, "1").token != Facts(5, None, None, None, "2").token
    assert Facts(5, "md5:no base64!", None, None, "when").digest is None
    assert Facts(5, None, None, None, "when").seconds is None


# -- drawings ------------------------------------------------------------------------------------


def test_drawings_are_the_renderers(box: Box, tmp_path: Path) -> None:
    box.put({"a.png": picture(), "bare.png": picture(), "t.txt": b"text"})
    polygon = {"type": "segment", "coordinates": [[{"x": 15, "y": 5}, {"x": 28, "y": 5}, {"x": 20, "y": 18}]]}
    box.label("a.png", {**SQUARE, "metadata": {"system": {"objectId": "300"}}}, {**polygon, "label": "bike"})
    report = box.run(tmp_path, annotations=ALL, style=render.Style(thickness=1, alpha=0.5))
    (told,) = [one for one in exported(box.agent.catalog.labels, box.dataset.id) if one.key == "a.png"]
    told = type(told)(key="a.png", annotations=told.annotations, width=30, height=20)
    style = render.Style(thickness=1, alpha=0.5, colors={"car": "#ff0000", "bike": "#00ff00"})

    def read(folder: str) -> Any:
        with Image.open(tmp_path / folder / "a.png.png") as held:
            return np.asarray(held)

    assert (read("mask") == render.mask(told, style)).all()
    assert (read("instance") == render.instance(told, {"bike": 1, "car": 2})).all()
    assert (read("object_id") == render.object_id(told).pixels).all()
    assert read("object_id").max() == 300
    with Image.open(io.BytesIO(picture())) as plain:
        assert (read("img_mask") == np.asarray(render.on_image(plain, told, style))).all()
    assert report.notes == ["a.png: an annotation 'bike': it has no object id"]
    assert not [name for name in files(tmp_path) if "bare.png.png" in name or "t.txt.png" in name]


def test_a_turned_picture_is_drawn_upright(box: Box, tmp_path: Path) -> None:
    box.put({"a.jpg": picture((30, 20), turned=6, form="JPEG")})
    box.label("a.jpg", {"type": "box", "coordinates": [{"x": 2, "y": 22}, {"x": 18, "y": 28}]})
    for options in ({}, {"binaries": False}):
        box.run(tmp_path / str(len(options)), annotations=["mask", "on-image"], **options)
        with Image.open(tmp_path / str(len(options)) / "mask/a.jpg.png") as held:
            assert held.size == (20, 30)
            assert held.getpixel((10, 22)) == (255, 0, 0, 255)
        with Image.open(tmp_path / str(len(options)) / "img_mask/a.jpg.png") as held:
            assert (held.size, held.mode, held.getpixel((10, 22))) == ((20, 30), "RGB", (255, 0, 0))
    assert box.agent.downloader(box.dataset).to_array(box.item("a.jpg")).shape == (30, 20, 3)


def test_a_size_that_is_told_as_stored_does_not_count(box: Box, tmp_path: Path) -> None:
    """The platform tells it so, and the orientation beside it."""
    from syncagent.catalog.labels import Change

    box.put({"a.jpg": picture((30, 20), turned=6, form="JPEG")})
    system = {"width": 30, "height": 20, "exif": {"Orientation": 6}}
    box.agent.catalog.labels.describe(box.dataset.id, [Change(box.item("a.jpg").id, system=system)])
    box.label("a.jpg", {"type": "box", "coordinates": [{"x": 2, "y": 22}, {"x": 18, "y": 28}]})
    box.run(tmp_path, annotations=["mask"])
    with Image.open(tmp_path / "mask/a.jpg.png") as held:
        assert held.size == (20, 30)


def test_what_cannot_be_drawn_fails_alone(box: Box, tmp_path: Path) -> None:
    box.put(
        {
            "v.mp4": b"film",
            "t.txt": b"text",
            "broken.png": picture()[:50],
            "a.png": picture(),
            "class.txt": b"x",
        }
    )
    for key in ("v.mp4", "t.txt", "broken.png", "a.png"):
        box.label(key, SQUARE)
    box.label("class.txt", {"type": "class"})
    report = box.run(tmp_path, annotations=["json", "mask"])
    assert (report.added, report.failed) == (2, 3)
    assert {key: error.partition(";")[0] for key, error in report.errors} == {
        "v.mp4": "v.mp4: annotations are drawn over pictures only",
        "t.txt": "t.txt is no picture",
        "broken.png": "broken.png is not a sound picture",
    }
    assert {name for name in files(tmp_path) if name.startswith("json")} == {
        f"json/{key}.json" for key in ("v.mp4", "t.txt", "broken.png", "a.png", "class.txt")
    }, "their JSON is there nevertheless"


def test_subtitles_are_files_of_their_own(box: Box, tmp_path: Path) -> None:
    box.put({"v.mp4": b"film", "silent.mp4": b"film"})
    for text, language in (("hello", None), ("ciao", "it")):
        system = {"startTime": 1, "endTime": 2, "attributes": {"language": language} if language else {}}
        box.label(
            "v.mp4",
            {"type": "subtitle", "coordinates": {"text": text}, "metadata": {"system": system}},
            label="Text",
        )
    assert box.run(tmp_path / "2", annotations=["vtt"]).failed == 0
    assert box.run(tmp_path / "1", annotations=["vtt"], version=1).failed == 0
    second = {name: body for name, body in files(tmp_path / "2").items() if name.startswith("vtt")}
    first = {name: body for name, body in files(tmp_path / "1").items() if name.startswith("vtt")}
    assert set(second) == {"vtt/v.mp4.vtt", "vtt/v.mp4.it.vtt"}
    assert set(first) == {"vtt/v.vtt", "vtt/v.it.vtt"}
    assert b"00:00:01.000 --> 00:00:02.000\nhello" in second["vtt/v.mp4.vtt"]
    assert b"ciao" in first["vtt/v.it.vtt"]


def test_arrays(box: Box) -> None:
    deep = io.BytesIO()
    Image.fromarray(np.full((4, 6), 0xFF00, dtype=np.uint16)).save(deep, "PNG")
    box.put({"a.png": picture(), "deep.png": deep.getvalue(), "t.txt": b"text"})
    downloader = box.agent.downloader(box.dataset)
    array = downloader.to_array(box.item("a.png"))
    assert (array.shape, array.dtype, array.min()) == ((20, 30, 3), np.uint8, 255)
    assert set(downloader.to_array(box.item("deep.png")).ravel()) == {254}
    with pytest.raises(Unsupported, match=r"t\.txt is no picture"):
        downloader.to_array(box.item("t.txt"))


# -- what is said --------------------------------------------------------------------------------


def test_outcomes_and_progress(box: Box, tmp_path: Path) -> None:
    box.put({"a": b"12345", "b//c": b"1"})
    outcomes: list[Outcome] = []
    told: list[tuple[int, int]] = []
    report = box.agent.downloader(box.dataset).run(
        tmp_path,
        on_outcome=outcomes.append,
        on_progress=lambda now: told.append((now.added + now.failed, now.bytes)),
    )
    assert {(one.key, one.action, one.size) for one in outcomes} == {
        ("a", Action.ADDED, 5),
        ("b//c", Action.FAILED, None),
    }
    assert told[-1] == (2, 5)
    assert (report.found, report.size, report.running) == (2, 6, {})


def test_a_full_disk_is_an_error_of_the_item(box: Box, tmp_path: Path) -> None:
    box.put({"sub/a": b"1", "b": b"2"})
    (tmp_path / "items").mkdir()
    (tmp_path / "items/sub").write_text("in the way")
    report = box.run(tmp_path)
    assert (report.added, report.failed) == (1, 1)
    assert "sub" in report.errors[0][1]


def test_infos_of_stores_fit(box: Box) -> None:
    """What `now` compares with is what the catalog has, where nothing changed."""
    from syncagent.ingest.origin import facts_of

    box.put({"a": b"bytes"})
    found: ObjectInfo = box.bucket.stat("a")
    assert facts_of(box.item("a")) == facts_of(found)
