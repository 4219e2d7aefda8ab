"""Shared fixtures: a scrubbed environment, emulators started once, buckets over every driver."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_CATALOG = "SYNCAGENT_TEST_CATALOG"  # see tests/rigs/catalogs.py
for _name in list(os.environ):
    if _name != _CATALOG and _name.startswith(
        ("AWS_", "SYNCAGENT_", "GOOGLE_", "AZURE_", "STORAGE_EMULATOR", "DTLPY_")
    ):
        del os.environ[_name]
# Hundreds of processes are started, and each would compile what it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["SYNCAGENT_TEST_NO_BACKOFF"] = "1"
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"

from syncagent import open_bucket  # noqa: E402
from syncagent.drivers import Bucket  # noqa: E402
from syncagent.model import Integration  # noqa: E402


@dataclass(frozen=True)
class Store:
    """One store that the contract suite runs over.

    `url` takes a fresh bucket's name; `make` creates that bucket; `lacks` lists the keys that this
    emulator cannot hold, with the reason, so that a deviation is written down and not skipped silently.
    """

    name: str
    url: str
    integration: Integration | None
    lacks: dict[str, str]

    def open(self, suffix: str = "") -> Bucket:
        head, mark, query = self.url.partition("?")
        return open_bucket(head + suffix + mark + query, self.integration)


@pytest.fixture(scope="session", autouse=_CATALOG in os.environ)
def _beside_the_catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where catalogs on PostgreSQL have what SQLite has beside its file."""
    folder = tmp_path_factory.mktemp("beside")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SYNCAGENT_FILES", str(folder))
        patched.setenv("SYNCAGENT_SECRET_KEY_FILE", str(folder / "key"))
        yield


@pytest.fixture(autouse=_CATALOG in os.environ)
def _beside_this_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNCAGENT_FILES", str(tmp_path / "beside"))


STORES = ["memory", "memory-prefixed", "memory-unsorted", "local", "s3", "s3-prefixed", "gcs", "azure"]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A fresh, empty bucket on each store in turn."""
    name = f"test-{uuid.uuid4().hex[:20]}"
    kind = request.param
    if kind == "memory":
        return Store(kind, f"memory://{name}", None, {})
    if kind == "memory-prefixed":
        return Store(kind, f"memory://{name}/some/folder", None, {"k" * 1024: "longer than a key may be"})
    if kind == "memory-unsorted":
        return Store(kind, f"memory://{name}?sorted=no", None, {})
    if kind == "local":
        (tmp_path / "bucket").mkdir()
        return Store(kind, str(tmp_path / "bucket"), None, {})
    rig = request.getfixturevalue(
        {"s3": "s3_rig", "gcs": "gcs_rig", "azure": "azure_rig"}[kind.partition("-")[0]]
    )
    return rig.store(kind, name)


@pytest.fixture
def bucket(store: Store) -> Iterator[Bucket]:
    with store.open() as opened:
        yield opened


# Each emulator has a module of its own, with a session fixture that starts it on a free loopback port.
pytest_plugins = [
    f"tests.rigs.{name}"
    for name in (
        "s3",
        "gcs",
        "ministack",
        "pubsub",
        "azure",
        "servicebus",
        "server",
        "packages",
        "functions_framework",
    )
]
