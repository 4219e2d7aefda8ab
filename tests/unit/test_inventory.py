"""Reports of S3 Inventory: what is read of them, what is not, and the sweep that goes by them."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet
import pytest

from syncagent.catalog.sql.sqlite import SqliteCatalog
from syncagent.drivers import Bucket
from syncagent.drivers.inventory import Inventory, open_inventory
from syncagent.drivers.memory import MemoryDriver
from syncagent.drivers.spool import Spool
from syncagent.errors import AccessDenied, ConfigError, InvalidInput, NotFound, SyncAgentError, Unsupported
from syncagent.model import DriverSpec, ObjectInfo, Scope
from syncagent.reconcile import Reconciler
from tests.engine import assert_equal, drop, put
from tests.keys import NASTY

FORMATS = ["CSV", "Parquet", "ORC"]
SCHEMA = [
    "Bucket", "Key", "VersionId", "IsLatest", "IsDeleteMarker", "Size", "LastModifiedDate", "ETag", "StorageClass",
]  # fmt: skip
NAMES = {"LastModifiedDate": "last_modified_date", "ETag": "e_tag", "VersionId": "version_id", "IsLatest": "is_latest",
         "IsDeleteMarker": "is_delete_marker", "StorageClass": "storage_class"}  # fmt: skip
BEGAN = datetime(2026, 11, 20, 1, tzinfo=UTC)
DATED = "2026-11-20T01-00Z"
ETAG = "0123456789abcdef0123456789abcdef"


def row(
    key: str, size: int | None = 4, etag: str | None = ETAG, *, second: int = 5, **more: Any
) -> dict[str, Any]:
    modified = datetime(2026, 11, 1, 2, 3, second, tzinfo=UTC)
    return {"Bucket": "photos", "Key": key, "Size": size, "LastModifiedDate": modified, "ETag": etag,
            "StorageClass": "STANDARD", **more}  # fmt: skip


def data_file(form: str, rows: list[dict[str, Any]], schema: list[str]) -> bytes:
    """A data file as S3 writes it."""
    if form == "CSV":
        text = io.StringIO()
        writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
        for one in rows:
            cells = {**one, "Key": quote_plus(one["Key"], safe="/"),
                     "LastModifiedDate": one["LastModifiedDate"].strftime("%Y-%m-%dT%H:%M:%S.000Z")}  # fmt: skip
            told = [cells.get(name) for name in schema]
            writer.writerow(["" if v is None else str(v).lower() if isinstance(v, bool) else v for v in told])
        return gzip.compress(text.getvalue().encode())
    types = {"Size": pa.int64(), "LastModifiedDate": pa.timestamp("ms", "UTC"), "IsLatest": pa.bool_(), "IsDeleteMarker": pa.bool_()}  # fmt: skip
    table = pa.table({
        NAMES.get(name, name.lower()): pa.array([one.get(name) for one in rows], types.get(name, pa.string()))
        for name in schema
    })  # fmt: skip
    out = io.BytesIO()
    if form == "Parquet":
        pyarrow.parquet.write_table(table, out, compression="snappy", row_group_size=3)
    else:
        pyarrow.orc.write_table(table, out, compression="zlib")
    return out.getvalue()


def report(
    form: str,
    *files: list[dict[str, Any]],
    schema: list[str] | None = None,
    dated: str = DATED,
    bucket: str = "photos",
) -> dict[str, bytes]:
    """A report's files by key relative to its configuration's folder."""
    schema = schema or [name for name in SCHEMA if any(name in one for rows in files for one in rows)]
    made: dict[str, bytes] = {}
    listed = []
    for number, rows in enumerate(files):
        body, name = data_file(form, rows, schema), f"data/{dated}-{number}.{form.lower()}"
        made[name] = body
        md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
        listed.append({"key": f"inv/photos/daily/{name}", "size": len(body), "MD5checksum": md5})
    manifest = {
        "sourceBucket": bucket, "destinationBucket": "arn:aws:s3:::reports", "version": "2016-11-30",
        "creationTimestamp": str(int(BEGAN.timestamp() * 1000)), "fileFormat": form,
        "fileSchema": ", ".join(schema) if form == "CSV" else "message s3.inventory { … }", "files": listed,
    }  # fmt: skip
    return made | signed(json.dumps(manifest).encode(), dated)


def signed(manifest: bytes, dated: str = DATED) -> dict[str, bytes]:
    md5 = hashlib.md5(manifest, usedforsecurity=False).hexdigest()
    return {f"{dated}/manifest.json": manifest, f"{dated}/manifest.checksum": md5.encode()}


def written(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, body in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return folder


class Written(MemoryDriver):
    """A bucket whose objects have S3's fingerprints."""

    def _s3(self, found: ObjectInfo) -> ObjectInfo:
        etag = hashlib.md5(self.body(found.key), usedforsecurity=False).hexdigest()
        return found._replace(
            fingerprint=f"{etag}:{found.size}:2026-11-01T02:03:05", etag=etag, content_id=etag
        )

    def body(self, key: str) -> bytes:
        with super().open(key) as stream:
            return stream.read()

    def list(
        self, prefix: str = "", *, after: str | None = None, until: str | None = None
    ) -> Iterator[list[ObjectInfo]]:
        for page in super().list(prefix, after=after, until=until):
            yield [self._s3(found) for found in page]

    def stat(self, key: str) -> ObjectInfo:
        return self._s3(super().stat(key))


def s3_bucket(path: str = "", scope: Scope = Scope.FOLDER) -> Bucket:
    return Bucket(
        Written(), DriverSpec(type="s3", bucket="photos", path=path, scope=scope), url="s3://photos"
    )


def opened(where: Path | str, bucket: Bucket | None = None) -> Inventory:
    return open_inventory(str(where), bucket or s3_bucket())


def told(inventory: Inventory) -> dict[str, str]:
    keys = [found for page in inventory.list() for found in page]
    assert [found.key for found in keys] == sorted({found.key for found in keys})
    return {found.key: found.fingerprint for found in keys}


# -- reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_every_key_and_its_fingerprint_as_a_listing_tells_them(tmp_path: Path, form: str) -> None:
    rows = [row(key) for key in reversed([*NASTY, "a+b", "a b", "a%2Bb"]) if not key.endswith("/")]
    half = len(rows) // 2
    inventory = opened(written(tmp_path, report(form, rows[:half], rows[half:])))
    assert inventory.report.taken_at == "2026-11-20T01:00:00Z"
    assert told(inventory) == {one["Key"]: f"{ETAG}:4:2026-11-01T02:03:05" for one in rows}


@pytest.mark.parametrize("form", FORMATS)
def test_of_versions_only_the_current_ones_that_are_no_delete_markers(tmp_path: Path, form: str) -> None:
    old = {"IsLatest": False, "IsDeleteMarker": False, "VersionId": "1"}
    now = {"IsLatest": True, "IsDeleteMarker": False, "VersionId": "2"}
    rows = [row("kept", 3, "old", **old), row("kept", **now), row("gone", **old),
            row("gone", None, None, **{**now, "IsDeleteMarker": True})]  # fmt: skip
    assert told(opened(written(tmp_path, report(form, rows)))) == {"kept": f"{ETAG}:4:2026-11-01T02:03:05"}


@pytest.mark.parametrize("form", FORMATS)
def test_a_row_without_what_a_fingerprint_needs_agrees_with_nothing(tmp_path: Path, form: str) -> None:
    found = told(
        opened(written(tmp_path, report(form, [row("a", etag=None), row("b", size=None), row("c")])))
    )
    assert found == {"a": "", "b": "", "c": f"{ETAG}:4:2026-11-01T02:03:05"}


@pytest.mark.parametrize("form", FORMATS)
def test_the_path_selects_and_folder_markers_are_no_items(tmp_path: Path, form: str) -> None:
    folder = written(
        tmp_path,
        report(form, [row("in/a"), row("in/sub/", 0), row("in/full/", 1), row("inner/b"), row("in/", 0)]),
    )
    assert list(told(opened(folder, s3_bucket("in")))) == ["a", "full/"]
    assert list(told(opened(folder, s3_bucket("in", Scope.PREFIX)))) == ["in/a", "in/full/", "inner/b"]


def test_a_csvs_columns_stand_where_its_schema_says(tmp_path: Path) -> None:
    schema = ["ETag", "Key", "LastModifiedDate", "Bucket", "Size"]
    assert told(opened(written(tmp_path, report("CSV", [row("k")], schema=schema)))) == {
        "k": f"{ETAG}:4:2026-11-01T02:03:05"
    }


def test_a_key_that_stands_there_twice_is_the_one_modified_last(tmp_path: Path) -> None:
    rows = [row("k", etag="new", second=9)], [row("k", etag="old", second=5), row("a")]
    assert told(opened(written(tmp_path, report("CSV", *rows))))["k"] == "new:4:2026-11-01T02:03:09"


def test_manifest_report_folder_and_configuration_are_the_same_report(tmp_path: Path) -> None:
    written(tmp_path, report("CSV", [row("old")], dated="2026-11-19T01-00Z"))
    written(tmp_path, report("CSV", [row("new")]))
    unfinished = report("CSV", [row("later")], dated="2026-11-21T01-00Z")
    del unfinished["2026-11-21T01-00Z/manifest.checksum"]
    written(tmp_path, unfinished)
    for where in (
        tmp_path,
        tmp_path / DATED,
        tmp_path / DATED / "manifest.json",
        f"file://{tmp_path}/{DATED}/",
    ):
        assert list(told(opened(where))) == ["new"], where
    assert list(told(opened(tmp_path / "2026-11-19T01-00Z"))) == ["old"]
    with pytest.raises(NotFound, match="not complete"):
        opened(tmp_path / "2026-11-21T01-00Z" / "manifest.json")


def test_data_files_may_lie_beside_the_manifest(tmp_path: Path) -> None:
    files = {name.replace("data/", f"{DATED}/"): body for name, body in report("CSV", [row("k")]).items()}
    assert list(told(opened(written(tmp_path, files)))) == ["k"]


# -- hostile ---------------------------------------------------------------------------------------


def altered(files: dict[str, bytes], change: Callable[[bytes], bytes]) -> dict[str, bytes]:
    """The first data file changed, with checksums that fit."""
    name = next(iter(files))
    manifest = json.loads(files[f"{DATED}/manifest.json"])
    body = change(files[name])
    manifest["files"][0] |= {
        "size": len(body),
        "MD5checksum": hashlib.md5(body, usedforsecurity=False).hexdigest(),
    }
    return {**files, name: body, **signed(json.dumps(manifest).encode())}


CSV_FILE = report("CSV", [row("a"), row("b")])
BROKEN: dict[str, tuple[dict[str, bytes], type[SyncAgentError], str]] = {
    "checksum": ({**CSV_FILE, f"data/{DATED}-0.csv": b"other"}, InvalidInput, "checksum is not the manifest's"),
    "missing": ({n: b for n, b in CSV_FILE.items() if "data/" not in n}, NotFound, "copy it as well"),
    "truncated": (altered(CSV_FILE, lambda b: b[:-12]), InvalidInput, "not CSV as S3 writes it"),
    "no gzip": (altered(CSV_FILE, lambda _: b"plain"), InvalidInput, "not CSV as S3 writes it"),
    "width": (altered(CSV_FILE, lambda _: gzip.compress(b'"photos","k"\n')), InvalidInput, "not CSV"),
    "not UTF-8": (altered(CSV_FILE, lambda b: gzip.compress(gzip.decompress(b).replace(b'"a"', b'"%FF"'))), InvalidInput, "not CSV"),
    "raw bytes": (altered(CSV_FILE, lambda b: gzip.compress(gzip.decompress(b).replace(b'"a"', b'"\xff"'))), InvalidInput, "not CSV"),
    "size": (altered(CSV_FILE, lambda b: gzip.compress(gzip.decompress(b).replace(b'"4"', b'"four"'))), InvalidInput, "not CSV"),
    "no Parquet": (altered(report("Parquet", [row("a")]), lambda _: b"PAR1PAR1"), InvalidInput, "not Parquet"),
    "cut Parquet": (altered(report("Parquet", [row("a")]), lambda b: b[:-40]), InvalidInput, "not Parquet"),
    "no ORC": (altered(report("ORC", [row("a")]), lambda b: b[:-9]), InvalidInput, "not ORC"),
    "no ETag": (report("CSV", [row("a")], schema=["Bucket", "Key", "Size", "LastModifiedDate"]), InvalidInput, "lacks ETag"),
    "no dates": (report("Parquet", [row("a")], schema=["Bucket", "Key"]), InvalidInput, "lacks Size, LastModifiedDate, ETag"),
    "manifest": ({**CSV_FILE, f"{DATED}/manifest.json": b"{}"}, InvalidInput, "checksum is another one"),
    "no JSON": ({**CSV_FILE, **signed(b"{")}, InvalidInput, "not JSON"),
    "a list": ({**CSV_FILE, **signed(b"[]")}, InvalidInput, "not a manifest"),
    "no files": ({**CSV_FILE, **signed(b'{"sourceBucket": "photos"}')}, InvalidInput, "not as S3 writes it"),
    "other bucket": (report("CSV", [row("a")], bucket="films"), ConfigError, "'films', the dataset of 'photos'"),
    "version": ({**CSV_FILE, **signed(CSV_FILE[f"{DATED}/manifest.json"].replace(b"2016-11-30", b"2030-01-01"))}, Unsupported, "version '2030-01-01' is not known"),
    "format": ({**CSV_FILE, **signed(CSV_FILE[f"{DATED}/manifest.json"].replace(b'"CSV"', b'"XML"'))}, Unsupported, "configure CSV"),
    "nothing": ({"data/x": b""}, NotFound, "no complete S3 Inventory report"),
    "empty": (report("CSV", [], schema=SCHEMA), InvalidInput, "holds no object"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_report_says_what_is_wrong_and_nothing_is_done(tmp_path: Path, name: str) -> None:
    files, kind, words = BROKEN[name]
    bucket = s3_bucket()
    put(bucket, "a")
    with SqliteCatalog(tmp_path / "catalog.db") as catalog:
        of = Reconciler(catalog, catalog.ensure_dataset("data", bucket.spec), bucket)
        of.sweep()
        drop(bucket, "a")
        with pytest.raises(kind, match=words) as caught:
            of.sweep(inventory=opened(written(tmp_path / "report", files), bucket))
        assert "\n" not in str(caught.value)
        assert catalog.count(of.dataset.id) == 1


def test_a_key_that_cannot_be_looked_at_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3_bucket()
    for key in ("new", "secret", "doubtful", "hidden"):
        put(bucket, key)
    stat = bucket.stat

    def guarded(key: str) -> ObjectInfo:
        if key in {"secret", "hidden"}:
            raise AccessDenied(f"not allowed: s3:GetObject on {key!r}", resource=key)
        return stat(key)

    with SqliteCatalog(tmp_path / "catalog.db") as catalog:
        of = Reconciler(catalog, catalog.ensure_dataset("data", bucket.spec), bucket)
        of.settle("doubtful")
        of.settle("hidden")
        monkeypatch.setattr(bucket, "stat", guarded)
        rows = [row(key) for key in ("new", "secret", "doubtful", "hidden")]
        told = of.sweep(inventory=opened(written(tmp_path / "report", report("CSV", rows)), bucket))
        assert (told.added, told.same, told.failed, told.removed) == (1, 1, 2, 0)
        assert {one.key for one in catalog.quarantined(of.dataset.id)} == {"secret", "hidden"}
        monkeypatch.undo()
        of.sweep()
        assert_equal(of)


def test_stores_without_known_reports_are_told(tmp_path: Path) -> None:
    bucket = s3_bucket()
    bucket.spec = replace(bucket.spec, type="memory")
    with pytest.raises(Unsupported, match="no inventories of memory buckets"):
        opened(tmp_path, bucket)


# -- the sort --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("run", "fan"), [(1, 64), (1, 2), (7, 3), (1, 19), (5000, 2), (100_000, 2)])
def test_a_spool_gives_each_key_once_and_in_order(tmp_path: Path, run: int, fan: int) -> None:
    spool = Spool(tmp_path, run=run, fan=fan)
    keys = [f"{n * 7919 % 10_007:05}" for n in range(min(9000, run * 200))] + ["\ufffd", "\U0001f600", "é"]
    for start in range(0, len(keys), 500):
        spool.add((key, "x", 1, str(start)) for key in keys[start : start + 500])
    spool.add([(keys[0], "newer", 1, "9"), (keys[1], "older", 1, "")])
    found = [record for page in spool.pages() for record in page]
    assert [record[0] for record in found] == sorted(keys, key=str.encode)
    assert {record[1] for record in found if record[0] == keys[0]} == {"newer"}
    assert {record[1] for record in found if record[0] == keys[1]} == {"x"}
