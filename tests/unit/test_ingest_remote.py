"""Uploads, annotation files and metadata over a server's catalog, and over the platform's API alone."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncagent.agent import Agent
from syncagent.catalog import Dataset
from syncagent.catalog.sql.datasets import Datasets
from syncagent.catalog.sql.recipes import Recipes
from syncagent.config import load
from syncagent.errors import ConfigError, Unsupported
from syncagent.ingest.annotate import exported, import_annotations
from syncagent.ingest.formats import Files, Folder, NewFiles, get
from syncagent.ingest.gather import Options, gather
from syncagent.model import DriverSpec
from tests.rigs.served import EMAIL, PASSWORD, Served


class Remote:
    def __init__(self, server: Served, agent: Agent, dataset: Dataset, *, platform: bool) -> None:
        self.server, self.agent, self.dataset, self.platform = server, agent, dataset, platform


@pytest.fixture(params=["served", "platform"])
def remote(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Remote]:
    monkeypatch.setenv("SYNCAGENT_TEST_NO_BACKOFF", "1")
    monkeypatch.setenv("SYNCAGENT_HOME", str(tmp_path / "home"))
    platform = request.param == "platform"
    with Served(tmp_path / "server.db", extension=not platform) as server:
        name = f"remote-{uuid.uuid4().hex}"
        made = server.catalog.ensure_dataset("data", DriverSpec(type="memory", bucket=name, name=name))
        server.catalog.labels.add_labels(made.id, [{"tag": "first"}])
        settings = load(
            catalog=f"dataloop+{server.url}", dtlpy_username=EMAIL, dtlpy_password=PASSWORD, workers=2
        )
        with Agent(settings) as agent:
            yield Remote(server, agent, agent.catalog.dataset("data"), platform=platform)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from PIL import Image

    root = tmp_path / "in"
    root.mkdir()
    for n, name in enumerate(("a.png", "b*.png", "c d.png")):
        Image.new("RGB", (10 + n, 7)).save(root / name)
        told = {
            "annotations": [
                {"type": "box", "label": f"l{n}", "coordinates": [{"x": 1, "y": 1}, {"x": 5, "y": 5}]}
            ]
        }
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{name}.json").write_text(json.dumps(told))
    return root


def test_uploads_into_a_dataset_without_a_bucket(remote: Remote, folder: Path, tmp_path: Path) -> None:
    """The server keeps their bytes."""
    datasets = Datasets(remote.server.catalog)
    project = datasets.get(remote.dataset.id)["projects"][0]
    recipe = Recipes(remote.server.catalog).default(project, "plain")
    data = {"metadata": {"system": {"recipes": [recipe]}}}
    made = datasets.create(project, "plain", by=EMAIL, data=data)
    plain = remote.agent.catalog.dataset("plain")
    assert (plain.id, plain.driver.type) == (made["id"], "none")

    def run(*, overwrite: bool = False) -> tuple[int, int, int, int]:
        options = Options(annotations=tmp_path / "labels", metadata={"k": 1})
        uploader = remote.agent.uploader(plain, overwrite=overwrite)
        report = uploader.run(gather(f"{folder}/*", options))
        assert report.errors == []
        return report.added, report.changed, report.same, report.annotations

    assert run() == (3, 0, 0, 3)
    assert run() == (0, 0, 3, 0)
    (folder / "a.png").write_bytes((folder / "c d.png").read_bytes())
    assert run(overwrite=True)[1] == (3 if remote.platform else 1)
    target = tmp_path / "out"
    remote.agent.downloader(plain).run(target)
    for path in folder.iterdir():
        assert next(target.rglob(path.name)).read_bytes() == path.read_bytes()
    with pytest.raises(ConfigError, match="no bucket"):
        remote.agent.reconciler(plain)
    # The other commands know such datasets too.
    assert [item.key for item in remote.agent.catalog.items(plain.id)] == ["a.png", "b*.png", "c d.png"]
    assert remote.agent.catalog.count(plain.id) == 3
    assert remote.agent.catalog.runs() == []
    assert remote.agent.catalog.quarantined() == []
    assert remote.agent.catalog.stats()["datasets"] == 2
    assert [driver.type for driver in remote.agent.catalog.drivers()] == ["memory"]


def test_uploads_with_annotations_and_metadata(remote: Remote, folder: Path, tmp_path: Path) -> None:
    options = Options(annotations=tmp_path / "labels", metadata={"k": 1}, remote_path="up")

    def run() -> tuple[int, int, int]:
        report = remote.agent.uploader(remote.dataset).run(gather(f"{folder}/*", options))
        assert report.errors == []
        return report.added, report.same, report.annotations

    assert run() == (3, 0, 3)
    assert run() == (0, 3, 0)
    items = {item.key: item for item in remote.server.catalog.items(remote.dataset.id)}
    assert list(items) == ["up/a.png", "up/b*.png", "up/c d.png"]
    for item in items.values():
        assert (item.user["k"], item.annotations, item.mimetype) == (1, 1, "image/png")
    if not remote.platform:
        assert [item.system["width"] for item in items.values()] == [10, 11, 12]
    tags = sorted(one["tag"] for one in remote.server.catalog.labels.labels(remote.dataset.id))
    assert tags == ["first", "l0", "l1", "l2"]


def test_annotations_in_and_out_again(remote: Remote, folder: Path, tmp_path: Path) -> None:
    remote.agent.uploader(remote.dataset).run(gather(f"{folder}/*"))
    store = remote.agent.catalog.labels
    for added in (3, 0):
        found = get("dataloop").read(Folder(tmp_path / "labels"))
        report = import_annotations(store, remote.dataset.id, found)
        assert (report.items, report.added, report.same, report.missing) == (3, added, 3 - added, 0)
    out = NewFiles()
    get("dataloop").write(exported(store, remote.dataset.id), out)
    back = {one.key: [a.label for a in one.annotations] for one in get("dataloop").read(Files(out.files))}
    assert back == {"a.png": ["l0"], "b*.png": ["l1"], "c d.png": ["l2"]}


def test_label_files_in_the_bucket_are_followed_where_the_catalog_is_ours(
    remote: Remote, folder: Path
) -> None:
    store = remote.agent.catalog.labels
    settings = {"sources": [{"prefix": "labels/", "format": "dataloop"}]}
    if remote.platform:
        with pytest.raises(Unsupported, match="use a catalog of your own"):
            store.set_settings(remote.dataset.id, settings)
        assert remote.agent.follow(remote.dataset) is None
        return
    store.set_settings(remote.dataset.id, settings)
    told = {"filename": "/x/a.png", "annotations": [{"type": "class", "label": "cat"}]}
    labels = folder / "a.json"
    labels.write_text(json.dumps(told))
    remote.agent.uploader(remote.dataset).run(gather(labels, Options(remote_path="labels")))
    report = remote.agent.follow(remote.dataset)
    assert report is not None
    assert (report.files, report.waiting) == (1, 1)
    remote.agent.uploader(remote.dataset).run(gather(folder / "a.png", Options(remote_path="x")))
    report = remote.agent.follow(remote.dataset, ["x/a.png"])
    assert report is not None
    assert report.matched == 1
    assert store.at(remote.dataset.id, ["x/a.png"])["x/a.png"].annotations == 1
