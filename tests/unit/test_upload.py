"""Uploads: what is gathered, what is sent, what is said, and what happens when something goes wrong."""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from syncagent.agent import Agent
from syncagent.catalog import Dataset
from syncagent.config import load
from syncagent.drivers.memory import MemoryDriver
from syncagent.errors import InvalidInput, NotFound, SyncAgentError, Transient
from syncagent.ingest.gather import FROM_JSON, Link, Options, gather, manifest
from syncagent.ingest.upload import Uploaded, Uploader
from syncagent.model import Action, DriverSpec, Outcome, Scope
from tests.rigs.catalogs import url_of


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    monkeypatch.setenv("SYNCAGENT_TEST_NO_BACKOFF", "1")
    with Agent(load(catalog=url_of(tmp_path / "catalog.db"))) as one:
        yield one


@pytest.fixture
def dataset(agent: Agent) -> Dataset:
    name = f"up-{uuid.uuid4().hex}"
    return agent.catalog.ensure_dataset("data", DriverSpec(type="memory", bucket=name, name=name))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "in"
    for name in ("a.jpg", "sub/b.JPG", "sub/c d+é%20#.txt", "sub/deep/.hidden"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}")
    return root


def keys(what: Any, **options: Any) -> list[str]:
    return [one.key for one in gather(what, Options(**options))]


def run(agent: Agent, dataset: Dataset, what: Any, *, overwrite: bool = False, **options: Any) -> Uploaded:
    return agent.uploader(dataset, overwrite=overwrite).run(gather(what, Options(**options)))


def read(agent: Agent, dataset: Dataset, key: str) -> bytes:
    return agent.bucket(dataset.driver).read_bytes(key, limit=1 << 20)


# -- what is gathered ----------------------------------------------------------------------------


def test_paths_are_named_as_the_platforms_client_names_them(folder: Path) -> None:
    inside = ["a.jpg", "sub/b.JPG", "sub/c d+é%20#.txt", "sub/deep/.hidden"]
    assert keys(folder / "a.jpg") == ["a.jpg"]
    assert keys(str(folder / "a.jpg"), remote_path="/x/", remote_name="y/z.jpg") == ["x/y/z.jpg"]
    assert keys(folder) == [f"in/{name}" for name in inside]
    assert keys(f"{folder}/*", remote_path="r") == [f"r/{name}" for name in inside]
    assert keys(folder, file_types=[".jpg"]) == ["in/a.jpg", "in/sub/b.JPG"]
    assert keys([folder / "a.jpg", folder / "sub/b.JPG"]) == ["a.jpg", "b.JPG"]
    assert keys("https://example.com/p/flower%20red.jpg?sig=1") == ["flower red.jpg"]
    assert keys(b"bytes", remote_name="x.bin") == ["x.bin"]
    with (folder / "a.jpg").open("rb") as file:
        assert keys(file) == ["a.jpg"], "an absolute local path is nobody's business in the dataset"


@pytest.mark.parametrize(
    ("what", "options", "says"),
    [
        (b"bytes", {}, "without a name"),
        (io.BytesIO(b""), {}, "needs a name"),
        (7, {}, "int is nothing"),
        ("https://example.com/", {}, "ends in no file name"),
    ],
)
def test_what_cannot_be_named_is_refused(what: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        list(gather(what, Options(**options)))


def test_missing_files_are_named(folder: Path) -> None:
    with pytest.raises(NotFound, match=r"gone\.jpg"):
        list(gather(folder / "gone.jpg"))
    with pytest.raises(InvalidInput, match="is a folder"):
        list(gather(folder, Options(remote_name="x")))
    with pytest.raises(NotFound, match="no such annotation file"):
        list(gather(folder / "a.jpg", Options(annotations=folder / "none.json")))
    with pytest.raises(NotFound, match="no such folder of annotations"):
        list(gather(folder, Options(annotations=folder / "none")))


def test_annotation_files_of_both_versions_are_found(folder: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    for name in ("a.json", "sub/b.JPG.json", "sub/b.json"):
        (labels / name).parent.mkdir(parents=True, exist_ok=True)
        (labels / name).write_text("{}")

    def found(version: int) -> dict[str, str]:
        options = Options(annotations=labels, version=version)  # type: ignore[arg-type]
        return {
            one.key: one.annotations.relative_to(labels).as_posix()
            for one in gather(f"{folder}/*", options)
            if one.annotations
        }

    assert found(2) == {"a.jpg": "a.json", "sub/b.JPG": "sub/b.JPG.json"}
    assert found(1) == {"a.jpg": "a.json", "sub/b.JPG": "sub/b.json"}


def test_a_dataframe_or_a_manifest_names_many(folder: Path) -> None:
    class Frame:  # what is used of pandas.DataFrame
        columns = ("local_path",)

        def to_dict(self, kind: str) -> list[dict[str, Any]]:
            assert kind == "records"
            gap = float("nan")
            return [
                {"local_path": str(folder / "a.jpg"), "remote_name": gap, "item_metadata": {"user": {"n": 1}}},
                {"local_path": str(folder / "sub/b.JPG"), "remote_path": "/x", "remote_name": "y.jpg", "item_metadata": gap},
            ]  # fmt: skip

    first, second = gather(Frame())
    assert (first.key, first.user, second.key, dict(second.user)) == ("a.jpg", {"n": 1}, "x/y.jpg", {})
    table = folder / "table.csv"
    table.write_text(
        'local_path,remote_path,item_metadata,item_description\na.jpg,/x,"{""user"": {""k"": [1]}}",words\n'
        "gone.jpg,,,\nsub/b.JPG,,{not json,\n"
    )
    good, gone, wrong = manifest(table)
    assert (good.key, good.user, good.description) == ("x/a.jpg", {"k": [1]}, "words")
    assert isinstance(gone.error, NotFound)
    assert isinstance(wrong.error, InvalidInput)
    assert "line 4: item_metadata is no JSON" in str(wrong.error)
    (folder / "rows.jsonl").write_text('{"local_path": "a.jpg"}\n{"local_path": "a.jpg", "colour": 1}\n')
    assert [str(one.error) for one in manifest(folder / "rows.jsonl") if one.error] == [
        f"{folder / 'rows.jsonl'}: line 2: unknown column 'colour'; known are "
        + ", ".join(sorted(_columns()))
    ]


def _columns() -> set[str]:
    from syncagent.ingest.gather import _COLUMNS

    return _COLUMNS


def test_a_parquet_manifest(folder: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(
        pa.table({"local_path": ["a.jpg", None], "remote_name": ["x", None]}), folder / "t.parquet"
    )
    first, second = manifest(folder / "t.parquet")
    assert first.key == "x"
    assert "row 2: has no local_path" in str(second.error)
    (folder / "bad.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(InvalidInput, match=r"bad\.parquet"):
        list(manifest(folder / "bad.parquet"))


# -- what is sent --------------------------------------------------------------------------------


def test_a_folder_is_uploaded_and_uploaded_again(agent: Agent, dataset: Dataset, folder: Path) -> None:
    report = run(agent, dataset, folder, metadata={"k": 1}, description="words")
    assert (report.added, report.changed, report.same, report.failed) == (4, 0, 0, 0)
    assert report.bytes == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    found = agent.catalog.labels.at(dataset.id, ["in/a.jpg", "in/sub/c d+é%20#.txt"])
    assert {(item.description, json.dumps(item.user)) for item in found.values()} == {("words", '{"k": 1}')}
    assert read(agent, dataset, "in/sub/c d+é%20#.txt") == "text of sub/c d+é%20#.txt".encode()
    (folder / "a.jpg").write_text("other")
    again = run(agent, dataset, folder)
    assert (again.added, again.same, again.bytes) == (0, 4, 0)
    assert read(agent, dataset, "in/a.jpg") == b"text of a.jpg"
    item = found["in/a.jpg"]
    changed = run(agent, dataset, folder, overwrite=True)
    assert (changed.changed, changed.same, changed.bytes) == (1, 3, 5), "the same bytes are not sent again"
    assert read(agent, dataset, "in/a.jpg") == b"other"
    assert agent.catalog.labels.at(dataset.id, ["in/a.jpg"])["in/a.jpg"].id == item.id


def test_arrays_links_and_items(agent: Agent, dataset: Dataset) -> None:
    import numpy as np
    from PIL import Image

    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    pixels[:, :, 0] = 200
    assert run(agent, dataset, pixels, remote_name="a.png").added == 1
    with Image.open(io.BytesIO(read(agent, dataset, "a.png"))) as picture:
        assert (picture.size, picture.getpixel((0, 0))) == ((6, 4), (200, 0, 0))
    run(agent, dataset, pixels[:, :, 0] > 0, remote_name="mask.png")
    for wrong, name in ((pixels.astype(float), "x.png"), (pixels, "x.gif"), (np.zeros(3, np.uint8), "x.png")):
        with pytest.raises(InvalidInput):
            run(agent, dataset, wrong, remote_name=name)
    run(agent, dataset, Link("https://example.com/flower.jpg"))
    item = agent.catalog.labels.at(dataset.id, ["flower_link.json"])["flower_link.json"]
    info = {"type": "url", "ref": "https://example.com/flower.jpg", "mimetype": "image"}
    assert item.system["shebang"] == {"dltype": "link", "linkInfo": info}
    assert json.loads(read(agent, dataset, item.key))["metadata"]["linkInfo"] == info
    run(agent, dataset, item)
    made = agent.catalog.labels.at(dataset.id, ["flower_link.json", "flower_link_link.json"])
    assert [one.system["shebang"]["linkInfo"]["type"] for one in made.values()] == ["url"]


def annotation_file(path: Path, *labels: str, user: dict[str, Any] | None = None) -> None:
    boxes = [
        {"type": "box", "label": label, "coordinates": [{"x": n, "y": 1}, {"x": n + 5, "y": 9}]}
        for n, label in enumerate(labels)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"annotations": boxes, "metadata": {"user": user or {}}}))


def test_annotations_and_metadata_from_the_files(
    agent: Agent, dataset: Dataset, folder: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels"
    annotation_file(labels / "a.json", "car", "dog", user={"city": "Rome"})
    annotation_file(labels / "sub/b.JPG.json", "car")
    report = run(agent, dataset, f"{folder}/*", annotations=labels, metadata=FROM_JSON)
    assert (report.added, report.annotations, report.failed) == (4, 3, 0)
    a = agent.catalog.labels.at(dataset.id, ["a.jpg"])["a.jpg"]
    assert (a.annotations, a.user) == (2, {"city": "Rome"})
    assert [one["tag"] for one in agent.catalog.labels.labels(dataset.id)] == ["car", "dog"]
    again = run(agent, dataset, f"{folder}/*", annotations=labels)
    assert (again.same, again.annotations) == (4, 0)
    (folder / "a.jpg").write_text("new bytes")
    annotation_file(labels / "a.json", "car", "dog", "cat")
    over = run(agent, dataset, f"{folder}/*", annotations=labels, overwrite=True)
    assert (over.changed, over.annotations) == (1, 1), "what the item has already is not added again"


def test_what_an_interrupted_run_did_not_say_is_said_by_the_next(
    agent: Agent, dataset: Dataset, folder: Path, tmp_path: Path
) -> None:
    run(agent, dataset, folder / "a.jpg")  # killed after the object and the item, say
    annotation_file(tmp_path / "a.json", "car")
    report = run(agent, dataset, folder / "a.jpg", annotations=tmp_path / "a.json", metadata={"k": 1})
    assert (report.same, report.annotations) == (1, 1)
    assert agent.catalog.labels.at(dataset.id, ["a.jpg"])["a.jpg"].user == {"k": 1}


def test_one_bad_file_does_not_stop_the_rest(
    agent: Agent, dataset: Dataset, folder: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels"
    annotation_file(labels / "a.json", "car")
    (labels / "sub").mkdir()
    (labels / "sub/b.JPG.json").write_text("{broken")
    outcomes: list[Outcome] = []
    uploads = gather([folder, folder / "a.jpg", folder / "a.jpg"], Options(annotations=labels))
    report = agent.uploader(dataset).run(uploads, on_outcome=outcomes.append)
    assert (report.added, report.failed) == (4, 2)
    assert sorted(key for key, _ in report.errors) == ["a.jpg", "in/sub/b.JPG"]
    assert any("b.JPG.json" in error for _, error in report.errors)
    assert any("another file has this name" in error for _, error in report.errors)
    assert {one.action for one in outcomes} == {Action.ADDED, Action.FAILED}


class Flaky(MemoryDriver):
    """A store that loses every first put, and keeps fewer bytes of every second."""

    def __init__(self) -> None:
        super().__init__()
        self.puts: dict[str, int] = {}
        self.guard = threading.Lock()

    def put(self, key: str, body: BinaryIO, **more: Any) -> Any:
        with self.guard:
            self.puts[key] = self.puts.get(key, 0) + 1
            turn = self.puts[key]
        if turn == 1:
            body.read(3)
            raise Transient("the connection broke")
        if turn == 2:
            return super().put(key, io.BytesIO(body.read()[:-1]), **more)
        return super().put(key, body, **more)


def test_a_put_that_failed_or_arrived_damaged_is_sent_again(
    agent: Agent, dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from syncagent.drivers import Bucket
    from syncagent.ingest.upload import BucketTarget
    from syncagent.reconcile import Reconciler

    flaky = Flaky()
    bucket = Bucket(flaky, DriverSpec(type="memory", bucket="x", scope=Scope.FOLDER), url="memory://x")
    target = BucketTarget(Reconciler(agent.catalog, dataset, bucket))
    report = Uploader(target, agent.catalog.labels, dataset.id).run(gather(f"{folder}/*"))
    assert (report.added, report.failed) == (4, 0)
    assert set(flaky.puts.values()) == {3}
    assert bucket.read_bytes("a.jpg", limit=100) == b"text of a.jpg"


def test_an_item_that_a_person_deleted_comes_back_with_its_upload(
    agent: Agent, dataset: Dataset, folder: Path
) -> None:
    from syncagent.catalog.sql.catalog import SqlCatalog
    from syncagent.catalog.sql.items import Items

    run(agent, dataset, folder / "a.jpg")
    items = Items(cast(SqlCatalog, agent.catalog))
    items.dismiss(agent.catalog.labels.at(dataset.id, ["a.jpg"])["a.jpg"].id, by="ann@example.com")
    assert agent.catalog.labels.at(dataset.id, ["a.jpg"]) == {}
    run(agent, dataset, folder / "a.jpg")
    assert agent.catalog.labels.at(dataset.id, ["a.jpg"])["a.jpg"].size == 13


def test_a_dataset_without_a_bucket_keeps_bytes_beside_the_catalog(
    agent: Agent, folder: Path, tmp_path: Path
) -> None:
    from syncagent.catalog.sql.catalog import SqlCatalog
    from syncagent.catalog.sql.datasets import Datasets

    catalog = cast(SqlCatalog, agent.catalog)
    project = catalog.db.sql("SELECT id FROM project")[0][0]
    Datasets(catalog).create(project, "plain", by="ann@example.com")
    found = catalog.dataset("plain")
    assert run(agent, found, folder, metadata={"k": 1}).added == 4
    digest = hashlib.sha256(b"text of a.jpg").hexdigest()
    assert (catalog.files.root / f"{digest[:2]}/{digest[2:]}").read_bytes() == b"text of a.jpg"
    assert run(agent, found, folder, overwrite=True).same == 4
    assert catalog.labels.at(found.id, ["in/a.jpg"])["in/a.jpg"].user == {"k": 1}


@pytest.mark.parametrize("rig", ["s3_rig", "gcs_rig", "azure_rig"])
def test_uploads_into_each_cloud(
    rig: str, request: pytest.FixtureRequest, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = request.getfixturevalue(rig).store(rig.partition("_")[0], f"up-{uuid.uuid4().hex[:12]}")
    (folder / "large.bin").write_bytes(bytes(range(256)) * 40_000)  # more than one part
    with Agent(load(catalog=url_of(tmp_path / "catalog.db"))) as agent:
        if store.integration is not None:
            agent.catalog.create_integration(store.integration)
        name = store.integration.name if store.integration else None
        found = agent.resolve(store.url, integration=name, create=True)
        report = run(agent, found, f"{folder}/*")
        assert (report.added, report.failed) == (5, 0), report.errors
        digest = hashlib.sha256((folder / "large.bin").read_bytes())
        with agent.bucket(found.driver).open("large.bin") as stream:
            assert hashlib.sha256(stream.read()).digest() == digest.digest()
        assert list(agent.reconciler(found).check()) == [], "items and objects agree without a sweep"


def test_errors_are_ours(agent: Agent, dataset: Dataset, folder: Path) -> None:
    (folder / "a.jpg").chmod(0)
    uploads = list(gather(folder / "a.jpg"))
    (folder / "a.jpg").unlink()
    report = agent.uploader(dataset).run(uploads)
    assert report.failed == 1
    assert "cannot read" in report.errors[0][1]
    with pytest.raises(SyncAgentError):
        agent.uploader(dataset).run(gather(folder / "gone"))


def test_a_stream_that_is_read_twice_is_hashed_once() -> None:
    from syncagent.ingest.upload import Checked

    body = Checked(io.BytesIO(b"0123456789"))
    assert body.read(4) == b"0123"
    assert (body.seek(2), body.tell(), body.seekable()) == (2, 2, True)
    assert body.read() == b"23456789"
    assert body.size == 10
    body.seek(0)
    assert body.read(100) == b"0123456789"
    assert body.size == 10


def test_the_example_of_the_docs_uploads_an_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    page = (Path(__file__).parents[2] / "docs/ingest.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.setenv("SYNCAGENT_CATALOG", url_of(tmp_path / "catalog.db"))
    (tmp_path / "photos").mkdir()
    with Agent(load()) as agent:
        agent.resolve(str(tmp_path / "photos"), create=True)
    exec(code, {"pixels": np.zeros((4, 6, 3), dtype=np.uint8)})  # noqa: S102  # it is ours
    assert capsys.readouterr().out == "1 []\n"
    assert (tmp_path / "photos/2026/a.png").read_bytes().startswith(b"\x89PNG")
