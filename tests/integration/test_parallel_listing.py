"""Sweeps by several workers over servers that speak S3's and Google's protocols: as by one, and each request in its range."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from syncagent import open_bucket, reconcile
from syncagent.drivers import gcs
from syncagent.drivers.bucket import Bucket
from tests.engine import assert_equal, reconciler
from tests.keys import NASTY
from tests.rigs.catalogs import open_at
from tests.rigs.gcs import GcsRig
from tests.rigs.s3 import S3Rig

KEYS = sorted(
    {*(key for key in NASTY if "\n" not in key and not key.endswith("/")), *(f"{n:05}" for n in range(2500))}
)


@pytest.fixture
def s3(s3_rig: S3Rig) -> Iterator[Bucket]:
    """2,500 numbers and the odd keys, in pages of 1,000, as moto has them."""
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    name = f"ranges-{uuid.uuid4().hex[:8]}"
    s3_rig.client.create_bucket(Bucket=name)
    for key in KEYS:  # not over HTTP, which takes ten times as long
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(name, key, b"x")
    with open_bucket(
        f"s3://{name}?endpoint={s3_rig.endpoint}&region=us-east-1", s3_rig.integration
    ) as bucket:
        yield bucket


@pytest.fixture
def google(gcs_rig: GcsRig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """300 numbers and the odd keys, in pages of 20."""
    monkeypatch.setattr(gcs, "_PAGE", 20)
    name = f"ranges-{uuid.uuid4().hex[:8]}"
    url = f"{gcs_rig.endpoint}/upload/storage/v1/b/{name}/o"
    with httpx.Client() as client:
        client.post(f"{gcs_rig.endpoint}/storage/v1/b?project=test", json={"name": name}).raise_for_status()
        for key in KEYS[:300] + [key for key in KEYS[300:] if not key.isdecimal()]:
            given = {"uploadType": "media", "name": key}
            client.post(url, params=given, content=b"x").raise_for_status()
    with open_bucket(f"gs://{name}?endpoint={gcs_rig.endpoint}") as bucket:
        yield bucket


@pytest.mark.parametrize("kind", ["s3", "google"])
def test_listed_by_many_as_by_one(
    request: pytest.FixtureRequest, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket: Bucket = request.getfixturevalue(kind)
    page = 1000 if kind == "s3" else 20
    monkeypatch.setattr(reconcile, "_HINT", page // 2)
    keys = [found.key for pages in bucket.list() for found in pages]
    assert len(keys) > 300
    with contextlib.closing(open_at(tmp_path / "catalog.db")) as catalog:
        of = reconciler(catalog, bucket, listers=4)
        assert of.sweep().added == len(keys)
        assert_equal(of)
        gone = keys[:: len(keys) // 10]
        for key in gone:
            bucket.driver.delete(key)
        bucket.driver.requests.clear()
        report = of.sweep()
        assert (report.listed, report.same, report.removed) == (len(keys) - len(gone),) * 2 + (len(gone),)
        assert_equal(of)
        # Each range begins where it is told to: at most one request more for each of them.
        assert (
            bucket.driver.requests["list"]
            <= len(keys) // page + 1 + len(catalog.quantiles(of.dataset.id, page // 2)) + 4
        )
