"""Inventory reports of Storage Insights: what is read of them, and what is wrong with others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from syncagent.drivers import Bucket
from syncagent.drivers.inventory import Inventory, open_inventory
from syncagent.drivers.memory import MemoryDriver
from syncagent.errors import ConfigError, InvalidInput, NotFound, SyncAgentError, Unsupported
from syncagent.model import DriverSpec, Scope
from syncagent.reconcile import Reconciler
from tests.engine import drop, put
from tests.inventories import CONFIG, GCS_FIELDS, MODIFIED, SNAPSHOT, data_file, gcs_report, gcs_row, written
from tests.keys import NASTY
from tests.rigs.catalogs import open_at

FORMATS = ["csv", "parquet"]
STEM = f"{CONFIG}_{SNAPSHOT}_"
OTHER = "00000000-1111-2222-3333-444444444444"
KNOWN = "1700000000000001.2"


def gcs_bucket(path: str = "", scope: Scope = Scope.FOLDER) -> Bucket:
    return Bucket(
        MemoryDriver(), DriverSpec(type="gcs", bucket="photos", path=path, scope=scope), url="gs://photos"
    )


def opened(where: Path | str, bucket: Bucket | None = None) -> Inventory:
    return open_inventory(str(where), bucket or gcs_bucket())


def told(inventory: Inventory) -> dict[str, str]:
    keys = [found for page in inventory.list() for found in page]
    assert [found.key for found in keys] == sorted({found.key for found in keys})
    return {found.key: found.fingerprint for found in keys}


@pytest.mark.parametrize("form", FORMATS)
def test_every_key_and_its_fingerprint_as_a_listing_tells_them(tmp_path: Path, form: str) -> None:
    rows = [gcs_row(key) for key in reversed([*NASTY, "a+b", "a%2Bb"]) if not key.endswith("/")]
    half = len(rows) // 2
    inventory = opened(written(tmp_path, gcs_report(form, rows[:half], rows[half:])))
    assert inventory.report.taken_at == "2026-11-20T01:00:00Z"
    assert told(inventory) == {one["name"]: KNOWN for one in rows}
    found = next(one for page in inventory.list() for one in page)
    assert (found.size, found.modified) == (4, "2026-11-01T02:03:05Z")


@pytest.mark.parametrize("form", FORMATS)
def test_older_and_deleted_generations_are_no_objects(tmp_path: Path, form: str) -> None:
    rows = [gcs_row("kept", generation=1, timeDeleted=MODIFIED), gcs_row("kept", generation=2),
            gcs_row("gone", timeDeleted=MODIFIED)]  # fmt: skip
    assert told(opened(written(tmp_path, gcs_report(form, rows)))) == {"kept": "2.2"}


@pytest.mark.parametrize("form", FORMATS)
def test_the_path_selects_and_folder_markers_are_no_items(tmp_path: Path, form: str) -> None:
    rows = [gcs_row("in/a"), gcs_row("in/sub/", size=0), gcs_row("in/full/"), gcs_row("inner/b"), gcs_row("in/", size=0)]  # fmt: skip
    folder = written(tmp_path, gcs_report(form, rows))
    assert list(told(opened(folder, gcs_bucket("in")))) == ["a", "full/"]
    assert list(told(opened(folder, gcs_bucket("in", Scope.PREFIX)))) == ["in/a", "in/full/", "inner/b"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_row_without_a_generation_agrees_with_nothing(tmp_path: Path, form: str) -> None:
    rows = [gcs_row("a") | {"metageneration": None}, gcs_row("b")]
    assert told(opened(written(tmp_path, gcs_report(form, rows)))) == {"a": "", "b": KNOWN}


def test_a_key_that_stands_there_twice_is_the_one_updated_last(tmp_path: Path) -> None:
    newer = gcs_row("k", generation=7, updated=MODIFIED.replace(second=9))
    rows = [newer, gcs_row("a")], [gcs_row("k", generation=6)]
    assert told(opened(written(tmp_path, gcs_report("csv", *rows)))) == {"a": KNOWN, "k": "7.2"}


@pytest.mark.parametrize("delimiter", [",", ";", "|", "\t"])
@pytest.mark.parametrize("header", [True, False])
def test_a_csv_as_its_configuration_says(tmp_path: Path, header: bool, delimiter: str) -> None:
    rows = [gcs_row("a,b;c|d\t"), gcs_row('q"\n')]
    folder = written(tmp_path, gcs_report("csv", rows, [], header=header, delimiter=delimiter))
    assert told(opened(folder)) == {"a,b;c|d\t": KNOWN, 'q"\n': KNOWN}


def test_a_configuration_that_does_not_mention_its_header(tmp_path: Path) -> None:
    files = gcs_report("csv", [gcs_row("a")])
    manifest = json.loads(files[f"{STEM}manifest.json"])
    del manifest["report_config"]["csv_options"]
    files[f"{STEM}manifest.json"] = json.dumps(manifest).encode()
    assert list(told(opened(written(tmp_path, files)))) == ["a"]


def test_times_may_be_text_as_sql_writes_it(tmp_path: Path) -> None:
    row = gcs_row("a", updated="2026-11-01 02:03:05.678 UTC")
    for form in FORMATS:
        inventory = opened(written(tmp_path / form, gcs_report(form, [row])))
        assert [one.modified for page in inventory.list() for one in page] == ["2026-11-01T02:03:05Z"]


def test_manifest_and_folder_are_the_same_report(tmp_path: Path) -> None:
    written(tmp_path, gcs_report("csv", [gcs_row("old")], snapshot="2026-11-19T01:00"))
    written(tmp_path, gcs_report("csv", [gcs_row("new")]))
    unfinished = gcs_report("csv", [gcs_row("later")], snapshot="2026-11-21T01:00")
    del unfinished[f"{CONFIG}_2026-11-21T01:00_manifest.json"]
    written(tmp_path, unfinished)
    for where in (tmp_path, tmp_path / f"{STEM}manifest.json", f"file://{tmp_path}/"):
        assert list(told(opened(where))) == ["new"], where
    assert list(told(opened(tmp_path / f"{CONFIG}_2026-11-19T01:00_manifest.json"))) == ["old"]


def test_of_several_buckets_reports_the_own_one_is_taken(tmp_path: Path) -> None:
    written(tmp_path, gcs_report("csv", [gcs_row("mine")]))
    later = gcs_report("csv", [gcs_row("x")], bucket="films", config=OTHER, snapshot="2026-11-22T01:00")
    written(tmp_path, later)
    assert list(told(opened(tmp_path))) == ["mine"]
    silent = gcs_report("csv", [gcs_row("x")], bucket=None, config=OTHER, snapshot="2026-11-23T01:00")
    written(tmp_path, silent)
    with pytest.raises(ConfigError, match="several configurations"):
        opened(tmp_path)


def test_one_configuration_need_not_say_its_bucket(tmp_path: Path) -> None:
    assert list(told(opened(written(tmp_path, gcs_report("csv", [gcs_row("a")], bucket=None))))) == ["a"]


# -- hostile ---------------------------------------------------------------------------------------


def changed(files: dict[str, bytes], change: Callable[[dict[str, Any]], object]) -> dict[str, bytes]:
    manifest = json.loads(files[f"{STEM}manifest.json"])
    change(manifest)
    return {**files, f"{STEM}manifest.json": json.dumps(manifest).encode()}


def without(*names: str) -> list[str]:
    return [name for name in GCS_FIELDS if name not in names]


CSV = gcs_report("csv", [gcs_row("b")], [gcs_row("c")])
SHARD = f"{STEM}0.csv"
BROKEN: dict[str, tuple[dict[str, bytes], type[SyncAgentError], str]] = {
    "missing shard": ({n: b for n, b in CSV.items() if n != SHARD}, NotFound, "'.*_0.csv' of the inventory is not in"),
    "extra shard": ({**CSV, f"{STEM}2.csv": b""}, InvalidInput, "_2.csv of the inventory cannot be used: the manifest does not name it"),
    "cut between rows": ({**CSV, SHARD: data_file("csv", [], GCS_FIELDS)}, InvalidInput, "hold 1 rows, and its manifest says 2"),
    "rows too many": ({**CSV, SHARD: data_file("csv", [gcs_row("x")] * 5, GCS_FIELDS)}, InvalidInput, "hold 6 rows, and its manifest says 2"),
    "cut in a row": ({**CSV, SHARD: CSV[SHARD][:-20]}, InvalidInput, "not CSV as Google writes it"),
    "no shard at all": ({**CSV, SHARD: b""}, InvalidInput, "hold 1 rows"),
    "cut Parquet": ({n: b[:-9] if n.endswith("parquet") else b for n, b in gcs_report("parquet", [gcs_row("a")]).items()}, InvalidInput, "not Parquet as Google"),
    "shard count": (changed(CSV, lambda m: m.update(shard_count=3)), InvalidInput, "not as Google writes it"),
    "a shard twice": (changed(CSV, lambda m: m.update(report_shards_file_names=[SHARD, SHARD])), InvalidInput, "not as Google writes it"),
    "another folder": (changed(CSV, lambda m: m.update(report_shards_file_names=["../0.csv", f"{STEM}1.csv"])), InvalidInput, "does not name it"),
    "up": (changed(CSV, lambda m: m.update(report_shards_file_names=["..", f"{STEM}1.csv"])), InvalidInput, "not as Google writes it"),
    "of two formats": (changed(CSV, lambda m: m.update(report_shards_file_names=["a.parquet", SHARD])), InvalidInput, "several formats"),
    "of a third": (changed(CSV, lambda m: m.update(report_shards_file_names=["a.avro", "b.avro"])), Unsupported, "configure CSV or Parquet"),
    "no time": (changed(CSV, lambda m: m.update(snapshot_time="today")), InvalidInput, "not as Google writes it"),
    "no count": (changed(CSV, lambda m: m.pop("records_processed")), InvalidInput, "not as Google writes it"),
    "no JSON": ({**CSV, f"{STEM}manifest.json": b"{"}, InvalidInput, "not JSON"),
    "a list": ({**CSV, f"{STEM}manifest.json": b"[]"}, InvalidInput, "not a manifest"),
    "other bucket": (gcs_report("csv", [gcs_row("a")], bucket="films"), NotFound, "no inventory report of photos"),
    "nothing": ({"x.csv": b""}, NotFound, "no inventory report of photos"),
    "no generation": (gcs_report("csv", [gcs_row("a")], fields=without("generation")), InvalidInput, "lacks generation"),
    "no deletions": (gcs_report("parquet", [gcs_row("a")], fields=without("timeDeleted", "metageneration")), InvalidInput, "lacks metageneration, timeDeleted"),
    "size": ({**CSV, SHARD: CSV[SHARD].replace(b",4,", b",four,")}, InvalidInput, "not CSV"),
    "raw bytes": ({**CSV, SHARD: CSV[SHARD].replace(b",b,", b",\xff,")}, InvalidInput, "not CSV"),
    "no name": (gcs_report("csv", [gcs_row("")]), InvalidInput, "not CSV"),
    "no name in Parquet": (gcs_report("parquet", [gcs_row("")]), InvalidInput, "not Parquet"),
    "another zone": (gcs_report("csv", [gcs_row("a", updated="2026-11-01T02:03:05+05:00")]), InvalidInput, "not CSV"),
    "another type": (gcs_report("parquet", [gcs_row("a", size="four")]), InvalidInput, "not Parquet"),
    "zero rows": (gcs_report("parquet", []), InvalidInput, "holds no object"),
    "zero shards": (gcs_report("csv"), InvalidInput, "holds no object"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_report_says_what_is_wrong_and_nothing_is_done(tmp_path: Path, name: str) -> None:
    files, kind, words = BROKEN[name]
    bucket = gcs_bucket()
    put(bucket, "a")
    with open_at(tmp_path / "catalog.db") as catalog:
        of = Reconciler(catalog, catalog.ensure_dataset("data", bucket.spec), bucket)
        of.sweep()
        drop(bucket, "a")
        with pytest.raises(kind, match=words) as caught:
            of.sweep(inventory=opened(written(tmp_path / "report", files), bucket))
        assert "\n" not in str(caught.value)
        assert catalog.count(of.dataset.id) == 1


def test_a_named_manifest_of_another_bucket_is_refused(tmp_path: Path) -> None:
    written(tmp_path, gcs_report("csv", [gcs_row("a")], bucket="films"))
    with pytest.raises(ConfigError, match="of 'films', the dataset of 'photos'"):
        opened(tmp_path / f"{STEM}manifest.json")
