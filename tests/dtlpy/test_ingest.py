"""The same files through the platform's client and through syncagent: the same items, labels and files."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from syncagent.ingest.annotate import exported
from tests.rigs.catalogs import open_at
from tests.rigs.s3 import S3Rig
from tests.rigs.server import EMAIL, PASSWORD, ServerRig
from tests.rigs.typed import typed

HERE = Path(__file__).parent


def client(rig: ServerRig, script: str, home: Path, **variables: str) -> dict[str, Any]:
    """What a script of dtlpy prints last, as JSON."""
    paths = f"{HERE / 'exchange'}{os.pathsep}{HERE / 'scripts'}"
    done = rig.client(HERE / "exchange" / script, home, PYTHONPATH=paths, **variables)
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


class Shell:
    """The command line over the server's catalog."""

    def __init__(self, rig: ServerRig, folder: Path) -> None:
        self._folder = folder
        self._env = {
            **os.environ, "SYNCAGENT_HOME": str(folder), "SYNCAGENT_CATALOG": f"dataloop+{rig.url}", "DTLPY_USERNAME": EMAIL,
            "DTLPY_PASSWORD": PASSWORD, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
        }  # fmt: skip

    def __call__(self, *words: str | Path) -> str:
        done = typed(words, self._folder, self._env)
        assert done.code == 0, done.out + done.err
        return done.out


@pytest.fixture
def shell(server_rig: ServerRig, tmp_path: Path) -> Shell:
    return Shell(server_rig, tmp_path)


@pytest.fixture
def bucket(s3_rig: S3Rig) -> str:
    name = f"ingest-{uuid.uuid4().hex[:12]}"
    s3_rig.client.create_bucket(Bucket=name)
    return name


def boxes(*labels: str) -> dict[str, Any]:
    told = [
        {
            "type": "box",
            "label": label,
            "coordinates": [{"x": 1 + n, "y": 2}, {"x": 9 + n, "y": 8}],
            "metadata": {},
        }
        for n, label in enumerate(labels)
    ]
    return {"annotations": told, "metadata": {"user": {"from": "json"}, "system": {"mine": 1}}}


def told(rig: ServerRig, dataset: str) -> dict[str, Any]:
    """All that a dataset's items say, but for ids, times and who did it."""
    with open_at(rig.folder / "catalog.db") as catalog:
        found = {}
        labels = {one.key: one.annotations for one in exported(catalog.labels, dataset)}
        for item in catalog.labels.find(dataset):
            plain = [(a.label, a.geometry) for a in labels[item.key]]
            found[item.key] = (
                item.size,
                item.mimetype,
                item.user,
                item.system,
                item.description,
                plain,
                item.content_id,
            )
        return found


def test_the_same_uploads_give_the_same_items(
    server_rig: ServerRig, s3_rig: S3Rig, shell: Shell, bucket: str, tmp_path: Path
) -> None:
    from PIL import Image

    source, labels = tmp_path / "in", tmp_path / "labels"
    (source / "sub").mkdir(parents=True)
    (labels / "sub").mkdir(parents=True)
    Image.new("RGB", (30, 20), "red").save(source / "a.png")
    (source / "sub/b.txt").write_text("b")
    (source / "sub/c d+é%20#.txt").write_text("text of c")
    (labels / "a.json").write_text(json.dumps(boxes("car", "dog")))
    (labels / "sub/b.json").write_text(json.dumps(boxes("word")))
    theirs = client(server_rig, "uploads.py", tmp_path, BUCKET=bucket, S3=s3_rig.endpoint, LABELS=str(labels))

    second = f"{bucket}-ours"
    s3_rig.client.create_bucket(Bucket=second)
    target = f"s3://{second}?endpoint={s3_rig.endpoint}&region=us-east-1"
    shell("upload", "in/*", target, "--to", "/star", "--annotations", labels)
    shell("upload", "in", target, "--metadata", '{"k": [1, {"deep": "é"}]}')
    shell("upload", "in", target, "--to", "types", "--types", ".png")
    shell("upload", "in/a.png", target, "--to", "/one", "--name", "other name.png", "--description", "told")
    shell(
        "upload",
        "in/a.png",
        target,
        "--to",
        "json",
        "--annotations",
        labels / "a.json",
        "--metadata",
        "from-json",
    )
    shell("upload", target, "--link", "https://example.com/flower.jpg", "--name", "flower_link.json")
    shell("upload", "in/sub/b.txt", target, "--to", "/twice", "--name", "x.txt")
    shell("upload", "in/sub/c d+é%20#.txt", target, "--to", "/twice", "--name", "x.txt", "--overwrite")
    shell("upload", "in/a.png", target, "--to", "/twice", "--name", "x.txt")

    with open_at(server_rig.folder / "catalog.db") as catalog:
        mine = catalog.dataset(second).id
    first, other = told(server_rig, theirs["dataset"]), told(server_rig, mine)
    assert sorted(first) == sorted(other)
    for key, wanted in first.items():
        assert other[key] == wanted, key


FORMATS = {"coco": "polygons", "yolo": "boxes", "voc": "boxes"}


@pytest.mark.parametrize("form", FORMATS)
def test_the_clients_converter_and_ours_agree(
    form: str, server_rig: ServerRig, s3_rig: S3Rig, shell: Shell, bucket: str, tmp_path: Path
) -> None:
    """Both ways, on what both can hold."""
    from PIL import Image

    source, labels = tmp_path / "in", tmp_path / "labels"
    source.mkdir()
    labels.mkdir()
    for n in range(3):
        Image.new("RGB", (64, 48), "red").save(source / f"{n}.jpg")
        annotations = boxes("car", "dog", "car")["annotations"][: n + 1]
        if FORMATS[form] == "polygons":
            ring = [{"x": x, "y": y} for x, y in ((2, 1), (30, 4), (20.5, 40), (3, 25))]
            annotations.append({"type": "segment", "label": "dog", "coordinates": [ring]})
        (labels / f"{n}.json").write_text(json.dumps({"annotations": annotations}))
    target = f"s3://{bucket}?endpoint={s3_rig.endpoint}&region=us-east-1"
    shell("upload", "in/*", target, "--annotations", labels)
    shell("sync", target, "--dataset", f"{bucket}-back", "--quiet")
    shell("probe", f"{bucket}-back")
    shell("annotations", "export", bucket, "ours", "--format", form)
    with open_at(server_rig.folder / "catalog.db") as catalog:
        first, second = catalog.dataset(bucket).id, catalog.dataset(f"{bucket}-back").id
        catalog.labels.add_labels(second, [{"tag": "car"}, {"tag": "dog"}])
    answer = client(
        server_rig, "converter.py", tmp_path, FORM=form, FIRST=first, SECOND=second, OURS=str(tmp_path / "ours"), THEIRS=str(tmp_path / "theirs"),
    )  # fmt: skip
    assert answer["errors"] == []

    def said(dataset: str) -> dict[str, Any]:
        with open_at(server_rig.folder / "catalog.db") as catalog:
            return {
                one.key: sorted((a.label, repr(_rounded(a.geometry))) for a in one.annotations)
                for one in exported(catalog.labels, dataset)
            }

    assert said(second) == said(first), "the client reads our files as we wrote them"
    shell("sync", target, "--dataset", f"{bucket}-third", "--quiet")
    shell("probe", f"{bucket}-third")
    shell("annotations", "import", f"{bucket}-third", answer["file"], "--format", form)
    with open_at(server_rig.folder / "catalog.db") as catalog:
        third = catalog.dataset(f"{bucket}-third").id
    assert said(third) == said(first), "we read the client's files as it wrote them"


def _rounded(geometry: Any) -> Any:
    """Without what is lost when a number is written relative to the picture."""
    import msgspec

    told = msgspec.to_builtins(geometry)
    return type(geometry).__name__, json.loads(
        json.dumps(told), parse_float=lambda text: round(float(text), 3)
    )
