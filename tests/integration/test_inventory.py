"""`sync --inventory` on moto's S3: a report older than the bucket, a catalog that is neither."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from syncagent.cli import cli
from syncagent.drivers import open_bucket
from syncagent.drivers.inventory import open_inventory
from syncagent.errors import SyncAgentError
from syncagent.model import Report
from syncagent.reconcile import Reconciler
from tests.engine import assert_equal
from tests.rigs.catalogs import open_at
from tests.rigs.s3 import S3Rig
from tests.unit.test_inventory import report, row

SAME = 60
Made = tuple[Reconciler, str]


@pytest.fixture
def made(s3_rig: S3Rig, tmp_path: Path) -> Iterator[Made]:
    """A mirrored bucket, and a bucket for its reports."""
    name = f"inv-{uuid.uuid4().hex[:12]}"
    for bucket in (name, f"{name}-reports"):
        s3_rig.client.create_bucket(Bucket=bucket)
    query = f"?endpoint={s3_rig.endpoint}&region=us-east-1"
    with (
        open_bucket(f"s3://{name}{query}", s3_rig.integration) as bucket,
        open_at(tmp_path / "catalog.db") as catalog,
    ):
        dataset = catalog.ensure_dataset("data", bucket.spec)
        yield Reconciler(catalog, dataset, bucket, workers=4), f"s3://{name}-reports/inv/{name}/daily{query}"


def put(rig: S3Rig, of: Reconciler, **objects: str) -> None:
    for key, body in objects.items():
        rig.client.put_object(Bucket=of.bucket.spec.bucket, Key=key, Body=body.encode())


def delete(rig: S3Rig, of: Reconciler, *keys: str) -> None:
    for key in keys:
        rig.client.delete_object(Bucket=of.bucket.spec.bucket, Key=key)


def deliver(rig: S3Rig, of: Reconciler, form: str = "Parquet") -> None:
    """Write a report of the bucket as it is now."""
    bucket = of.bucket.spec.bucket
    pages = rig.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    rows: list[dict[str, Any]] = [
        row(found["Key"], found["Size"], found["ETag"].strip('"')) | {"LastModifiedDate": found["LastModified"]}
        for page in pages for found in page.get("Contents", [])
    ]  # fmt: skip
    half = len(rows) // 2
    files = report(form, rows[half:], rows[:half], bucket=bucket)
    for key, body in files.items():
        rig.client.put_object(Bucket=f"{bucket}-reports", Key=f"inv/{bucket}/daily/{key}", Body=body)


def swept(rig: S3Rig, made: Made, **options: Any) -> Report:
    of, url = made
    inventory = open_inventory(url, of.bucket, rig.integration)
    try:
        return of.sweep(inventory=inventory, **options)
    finally:
        inventory.close()


def counts(told: Report) -> dict[str, int]:
    names = ("added", "changed", "moved", "removed", "failed", "same")
    return {name: count for name in names if (count := getattr(told, name))}


@pytest.mark.parametrize("form", ["CSV", "Parquet", "ORC"])
def test_the_catalog_equals_the_bucket_not_the_report(s3_rig: S3Rig, made: Made, form: str) -> None:
    of, _ = made
    put(s3_rig, of, **{f"same/{n:04}": "1" for n in range(SAME)})
    put(
        s3_rig, of, changed="1", gone="1", twice="1", **{"moved/from": "a body of its own", "until then": "1"}
    )
    of.sweep()
    # Between the catalog and the report.
    put(
        s3_rig,
        of,
        changed="22",
        new="1",
        twice="22",
        brief="1",
        **{"a+b c%": "1", "moved/to": "a body of its own"},
    )
    delete(s3_rig, of, "gone", "moved/from")
    deliver(s3_rig, of, form)
    # After the report: of one the catalog heard by an event, of others it did not.
    put(s3_rig, of, heard="1", twice="333")
    delete(s3_rig, of, "brief", "until then")
    of.settle("heard")
    before = of.catalog.item(of.dataset.id, "moved/from").id

    told = swept(s3_rig, made)

    # What the report had before it was deleted agrees with the catalog, and is for events or the next sweep.
    assert counts(told) == {"added": 2, "changed": 2, "moved": 1, "removed": 1, "same": SAME + 2}
    assert {row.key for row in of.catalog.scan(of.dataset.id) if row.fingerprint} >= {"until then", "heard"}
    assert of.catalog.item(of.dataset.id, "moved/to").id == before
    of.settle("until then")
    assert_equal(of)


def test_keys_that_agree_cost_no_request(s3_rig: S3Rig, made: Made) -> None:
    of, _ = made
    put(s3_rig, of, **{f"same/{n:04}": "1" for n in range(SAME)})
    of.sweep()
    put(s3_rig, of, new="1")
    deliver(s3_rig, of)
    before = of.bucket.driver.requests.copy()
    assert counts(swept(s3_rig, made)) == {"added": 1, "same": SAME}
    # The page of a listing asks whether the bucket is there.
    assert of.bucket.driver.requests - before == {"head": 1, "list": 1}
    assert counts(swept(s3_rig, made)) == {"same": SAME + 1}
    assert of.bucket.driver.requests - before == {"head": 1, "list": 2}


def test_a_report_never_removes_what_is_there(s3_rig: S3Rig, made: Made) -> None:
    of, _ = made
    put(s3_rig, of, first="1")
    deliver(s3_rig, of)
    put(s3_rig, of, **{f"later/{n:03}": "1" for n in range(40)})
    of.sweep()
    # Forty keys that the report lacks are no reason to refuse: they are looked at first.
    told = swept(s3_rig, made, max_deletes=0)
    assert told.refused is None
    assert counts(told) == {"same": 41}
    assert_equal(of)


def test_the_cap_counts_what_is_gone_after_looking(s3_rig: S3Rig, made: Made) -> None:
    of, _ = made
    put(s3_rig, of, a="1", b="1", c="1")
    of.sweep()
    delete(s3_rig, of, "b", "c")
    put(s3_rig, of, a="22", new="1")
    deliver(s3_rig, of)
    told = swept(s3_rig, made, max_deletes=1)
    assert told.refused == "2 items would be removed, more than the 1 allowed"
    assert counts(told) == {"added": 1, "changed": 1}
    assert counts(swept(s3_rig, made, max_deletes=2)) == {"removed": 2, "same": 2}
    assert_equal(of)


def test_an_interrupted_listing_does_not_go_on_from_a_report(s3_rig: S3Rig, made: Made) -> None:
    of, url = made
    put(s3_rig, of, **{f"k{n:03}": "1" for n in range(30)})
    deliver(s3_rig, of)

    def fail(_: object) -> None:
        raise KeyboardInterrupt

    inventory = open_inventory(url, of.bucket, s3_rig.integration)
    with pytest.raises(KeyboardInterrupt):
        of.sweep(inventory=inventory, on_progress=fail)
    inventory.close()
    assert of.catalog.runs(of.dataset.id)[0].state == "interrupted"
    told = of.sweep()
    assert told.resumed_after is None
    assert told.listed == 30
    assert_equal(of)


def test_a_bucket_that_is_gone_ends_the_sweep(s3_rig: S3Rig, made: Made) -> None:
    of, _ = made
    put(s3_rig, of, a="1", b="1", c="1")
    deliver(s3_rig, of)
    delete(s3_rig, of, "a", "b", "c")
    s3_rig.client.delete_bucket(Bucket=of.bucket.spec.bucket)
    with pytest.raises(SyncAgentError, match="no such bucket"):
        swept(s3_rig, made)
    assert of.catalog.quarantined(of.dataset.id) == []


def test_the_command(s3_rig: S3Rig, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of, url = made
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    put(s3_rig, of, a="1", b="1")
    deliver(s3_rig, of)

    def sync(*words: str) -> Result:
        return CliRunner().invoke(
            cli, ["--catalog", f"sqlite:///{tmp_path}/other.db", "sync", of.bucket.url, *words]
        )

    done = sync("--inventory", url)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("+ a\n+ b\n2 added, 0 changed, 0 moved, 0 removed; 2 listed in ")
    assert (
        "inventory of 2026-11-20T01:00:00Z; what changed since then is for events or the next sweep"
        in done.stderr
    )
