"""`sync --inventory` on fake-gcs-server and Azurite: a report older than the bucket, a catalog that is neither."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from syncagent.cli import cli
from syncagent.drivers import Bucket, open_bucket
from syncagent.drivers.inventory import open_inventory
from syncagent.errors import InvalidInput
from syncagent.model import Integration, ObjectInfo, Report
from syncagent.reconcile import Reconciler
from tests.engine import assert_equal
from tests.inventories import azure_report, azure_row, gcs_report, gcs_row
from tests.keys import NASTY
from tests.rigs.catalogs import open_at, url_of

if TYPE_CHECKING:
    from tests.conftest import Store

SAME = 30


@dataclass
class Made:
    """A mirrored bucket, and a bucket for its reports."""

    of: Reconciler
    stored: Bucket
    integration: Integration | None
    written: Callable[[str, str, Sequence[ObjectInfo]], Mapping[str, bytes]]
    lacks: Mapping[str, str]

    def put(self, **objects: str) -> None:
        for key, body in objects.items():
            self.of.bucket.put(key, io.BytesIO(body.encode()))

    def delete(self, *keys: str) -> None:
        for key in keys:
            self.of.bucket.driver.delete(key)

    def deliver(self, form: str = "parquet") -> None:
        """Write a report of the bucket as it is now."""
        found = [one for page in self.of.bucket.list() for one in page]
        for key, body in self.written(form, self.of.bucket.spec.bucket, found).items():
            self.stored.put(key, io.BytesIO(body))

    def swept(self, url: str = "") -> Report:
        inventory = open_inventory(url or self.stored.url, self.of.bucket, self.integration)
        try:
            return self.of.sweep(inventory=inventory)
        finally:
            inventory.close()


def gcs_written(form: str, bucket: str, found: Sequence[ObjectInfo]) -> Mapping[str, bytes]:
    rows = []
    for one in found:
        generation, _, metageneration = one.fingerprint.partition(".")
        row = gcs_row(one.key, bucket=bucket, generation=int(generation), metageneration=int(metageneration))
        rows.append(row | {"size": one.size, "updated": datetime.fromisoformat(one.modified)})
    half = len(rows) // 2
    return gcs_report(form, rows[half:], rows[:half], bucket=bucket)


def azure_written(form: str, bucket: str, found: Sequence[ObjectInfo]) -> Mapping[str, bytes]:
    account, _, container = bucket.partition("/")
    rows = [
        azure_row(one.key, container=container, etag=one.etag or "")
        | {"Content-Length": one.size, "Last-Modified": datetime.fromisoformat(one.modified)}
        for one in found
    ]
    half = len(rows) // 2
    return azure_report(form, rows[half:], rows[:half], account=f"http://127.0.0.1:10000/{account}")


@pytest.fixture(params=["gcs", "azure"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Made]:
    rig, name = request.getfixturevalue(f"{request.param}_rig"), f"inv-{uuid.uuid4().hex[:12]}"
    store: Store = rig.store(request.param, name)
    reports: Store = rig.store(request.param, f"{name}-reports")
    with (
        open_bucket(store.url, store.integration) as bucket,
        open_bucket(reports.url, reports.integration) as stored,
        open_at(tmp_path / "catalog.db") as catalog,
    ):
        of = Reconciler(catalog, catalog.ensure_dataset("data", bucket.spec), bucket, workers=4)
        written = {"gcs": gcs_written, "azure": azure_written}[request.param]
        yield Made(of, stored, store.integration, written, store.lacks)


def counts(told: Report) -> dict[str, int]:
    names = ("added", "changed", "moved", "removed", "failed", "same")
    return {name: count for name in names if (count := getattr(told, name))}


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_the_catalog_equals_the_bucket_not_the_report(made: Made, form: str) -> None:
    made.put(**{f"same/{n:04}": "1" for n in range(SAME)})
    made.put(changed="1", gone="1", twice="1", **{"moved/from": "a body of its own", "until then": "1"})
    made.of.sweep()
    # Between the catalog and the report.
    made.put(changed="22", new="1", twice="22", brief="1", **{"a+b c%": "1", "moved/to": "a body of its own"})
    made.delete("gone", "moved/from")
    made.deliver(form)
    # After the report: of one the catalog heard by an event, of others it did not.
    made.put(heard="1", twice="333")
    made.delete("brief", "until then")
    made.of.settle("heard")
    before = made.of.catalog.item(made.of.dataset.id, "moved/from").id

    told = made.swept()

    # What the report had before it was deleted agrees with the catalog, and is for events or the next sweep.
    assert counts(told) == {"added": 2, "changed": 2, "moved": 1, "removed": 1, "same": SAME + 2}
    assert made.of.catalog.item(made.of.dataset.id, "moved/to").id == before
    made.of.settle("until then")
    assert_equal(made.of)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_keys_that_agree_cost_no_request(made: Made, form: str) -> None:
    made.put(**{key: "1" for key in NASTY if key not in made.lacks and not key.endswith("/")})
    made.of.sweep()
    made.put(new="1")
    made.deliver(form)
    before = made.of.bucket.driver.requests.copy()
    told = made.swept()
    assert (told.added, told.changed, told.removed, told.failed) == (1, 0, 0, 0)
    # The page of a listing asks whether the bucket is there.
    assert made.of.bucket.driver.requests - before == {"head": 1, "list": 1}


def test_a_file_that_its_store_knows_to_be_another_is_refused(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.put(a="1")
    made.deliver("csv")
    stat = Bucket.stat

    def another(self: Bucket, key: str) -> ObjectInfo:
        found = stat(self, key)
        return found._replace(content_id="md5:AAAAAAAAAAAAAAAAAAAAAA==") if "manifest" not in key else found

    monkeypatch.setattr(Bucket, "stat", another)
    with pytest.raises(InvalidInput, match="its checksum is not the one that its store keeps"):
        made.swept()


def test_the_command(made: Made, tmp_path: Path) -> None:
    made.put(a="1", b="1")
    made.deliver()
    other = tmp_path / "other.db"
    command = ["--catalog", url_of(other), "sync", made.of.bucket.url, "--inventory", made.stored.url]
    if made.integration is not None:
        with open_at(other) as catalog:
            catalog.create_integration(made.integration)
        command += ["--integration", made.integration.name]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("+ a\n+ b\n2 added, 0 changed, 0 moved, 0 removed; 2 listed in ")
    assert "inventory of 2026-11-20T01:00:00Z; what changed" in done.stderr
