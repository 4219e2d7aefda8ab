"""The commands over a server's catalog, as a person types them, with a bucket on moto's server."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

import pytest

from tests.rigs.s3 import S3Rig, s3_rig
from tests.rigs.server import EMAIL, PASSWORD, ServerRig, server_rig
from tests.rigs.typed import typed

__all__ = ["s3_rig", "server_rig"]


class Machine:
    """One that has an account at the server, credentials for the bucket, and nothing else."""

    def __init__(self, folder: Path, url: str, **variables: str) -> None:
        self.folder = folder
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SYNCAGENT_"))
        }
        self.env = {
            **clean, "HOME": str(folder), "SYNCAGENT_CATALOG": f"dataloop+{url}", "DTLPY_USERNAME": EMAIL,
            "DTLPY_PASSWORD": PASSWORD, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", **variables,
        }  # fmt: skip

    def __call__(self, *words: str, code: int = 0, **variables: str) -> str:
        done = typed(words, self.folder, {**self.env, **variables})
        assert done.code == code, f"{words}: {done.code}\n{done.out}\n{done.err}"
        assert PASSWORD not in done.out + done.err
        return done.out + done.err


@pytest.fixture
def machine(server_rig: ServerRig, tmp_path: Path) -> Machine:
    return Machine(tmp_path, server_rig.url)


@pytest.fixture
def box(s3_rig: S3Rig) -> str:
    name = f"remote-{uuid.uuid4().hex[:12]}"
    s3_rig.client.create_bucket(Bucket=name)
    for number in range(30):
        s3_rig.client.put_object(Bucket=name, Key=f"raw/{number:02}.jpg", Body=f"bytes {number}".encode())
    return name


def test_every_verb_of_a_mirror_works_over_the_server(machine: Machine, s3_rig: S3Rig, box: str) -> None:
    url = f"s3://{box}?endpoint={s3_rig.endpoint}&region=us-east-1"
    assert machine("plan", url).count("\n+ ") + 1 >= 20
    assert "30 added" in machine("sync", url)
    assert "equal: 30 objects" in machine("check", url)
    (line,) = [json.loads(text) for text in machine("datasets", "ls", "--json").splitlines() if box in text]
    assert (line["name"], line["items"]) == (box, 30)
    assert len(machine("items", box, "--prefix", "raw/0").splitlines()) == 10
    assert len(machine("ls", box).splitlines()) == 30
    found = json.loads(machine("item", box, "raw/03.jpg", "--json"))
    assert found["filename"] == "/raw/03.jpg"

    s3_rig.client.put_object(Bucket=box, Key="raw/03.jpg", Body=b"other")
    s3_rig.client.delete_object(Bucket=box, Key="raw/04.jpg")
    assert "2 differences" in machine("check", box, code=1)
    assert machine("settle", box, "raw/03.jpg", "raw/04.jpg").splitlines() == [
        "* raw/03.jpg",
        "- raw/04.jpg",
    ]
    assert "raw/04.jpg" in machine("trash", "ls", box)
    assert json.loads(machine("item", box, "raw/03.jpg", "--json"))["id"] == found["id"]
    assert " done " in machine("runs", box)
    assert machine("trash", "empty", box, "--yes") == "1 forgotten\n"


def test_a_renamed_folder_keeps_its_labels(
    machine: Machine, s3_rig: S3Rig, box: str, server_rig: ServerRig
) -> None:
    from pydantic import SecretStr

    from syncagent.catalog import open_catalog

    url = f"s3://{box}?endpoint={s3_rig.endpoint}&region=us-east-1"
    machine("sync", url, "--quiet")
    catalog = open_catalog(f"dataloop+{server_rig.url}", username=EMAIL, password=SecretStr(PASSWORD))
    dataset = catalog.dataset(box)
    catalog.annotate(dataset.id, "raw/07.jpg", {"label": "cat", "type": "class"})
    for number in range(30):
        key = f"raw/{number:02}.jpg"
        s3_rig.client.copy_object(Bucket=box, Key=f"clean/{number:02}.jpg", CopySource=f"{box}/{key}")
        s3_rig.client.delete_object(Bucket=box, Key=key)
    assert "30 moved" in machine("sync", box)
    assert [one["label"] for one in catalog.annotations(dataset.id, "clean/07.jpg")] == ["cat"]
    catalog.close()


def test_one_dataset_by_its_id(machine: Machine, s3_rig: S3Rig, box: str) -> None:
    url = f"s3://{box}?endpoint={s3_rig.endpoint}&region=us-east-1"
    machine("sync", url, "--quiet")
    (line,) = [json.loads(text) for text in machine("datasets", "ls", "--json").splitlines() if box in text]
    only = {"DATASET_ID": line["id"]}
    assert len(machine("datasets", "ls", **only).splitlines()) == 2  # with the table's head
    assert "0 added, 0 changed, 0 moved, 0 removed; 30 listed" in machine("sync", url, **only)
    assert "0 added, 0 changed, 0 moved, 0 removed; 30 listed" in machine("sync", line["id"], **only)
    other = machine("sync", f"{url}&path=x".replace("?", "/raw?"), code=2, **only)
    assert "DATASET_ID names another dataset" in other or "unknown" in other


def test_what_is_wrong_is_told_in_one_line(machine: Machine, box: str) -> None:
    assert machine("items", "nowhere", code=4).count("\n") == 1
    assert "set DTLPY_USERNAME" in machine("datasets", "ls", code=2, DTLPY_PASSWORD="")
    assert "does not accept the password of" in machine(
        "datasets", "ls", code=6, DTLPY_PASSWORD="not it at all"
    )
    assert "in the clear" in machine(
        "datasets", "ls", code=2, SYNCAGENT_CATALOG="dataloop+http://example.com"
    )
    (machine.folder / "photos").mkdir()
    assert "could not read it" in machine("sync", "./photos", code=2)
    assert "only an embedded catalog" in machine("serve", code=2)
