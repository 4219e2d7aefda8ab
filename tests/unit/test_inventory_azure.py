"""Reports of Azure Blob Inventory: what is read of them, and what is wrong with others."""

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
from tests.inventories import AZURE_FIELDS, MODIFIED, RUN, azure_report, azure_row, azure_signed, written
from tests.keys import NASTY
from tests.rigs.catalogs import open_at

FORMATS = ["csv", "parquet"]
FOLDER = f"{RUN}/Rule_1"
KNOWN = "0x8DC0FFEE0000001:4:2026-11-01T02:03:05Z"


def az_bucket(path: str = "", scope: Scope = Scope.FOLDER) -> Bucket:
    spec = DriverSpec(type="azureblob", bucket="acct/photos", path=path, scope=scope)
    return Bucket(MemoryDriver(), spec, url="az://acct/photos")


def opened(where: Path | str, bucket: Bucket | None = None) -> Inventory:
    return open_inventory(str(where), bucket or az_bucket())


def told(inventory: Inventory) -> dict[str, str]:
    keys = [found for page in inventory.list() for found in page]
    assert [found.key for found in keys] == sorted({found.key for found in keys})
    return {found.key: found.fingerprint for found in keys}


@pytest.mark.parametrize("form", FORMATS)
def test_every_key_and_its_fingerprint_as_a_listing_tells_them(tmp_path: Path, form: str) -> None:
    names = [key for key in reversed([*NASTY, "a+b", "a%2Bb", "photos/a"]) if not key.endswith("/")]
    rows = [azure_row(key, etag='"0x8DC0FFEE0000001"') for key in names]
    half = len(rows) // 2
    inventory = opened(written(tmp_path, azure_report(form, rows[:half], rows[half:])))
    assert inventory.report.taken_at == "2026-11-20T01:00:00Z"
    assert told(inventory) == dict.fromkeys(names, KNOWN)


def test_a_csv_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    files = changed({**CSV, FILE: b"\xef\xbb\xbf" + CSV[FILE]}, lambda m: m["files"][0].update(size=SIZE + 3))
    assert told(opened(written(tmp_path, files))) == {"b": KNOWN, "c": KNOWN}


@pytest.mark.parametrize("form", FORMATS)
def test_other_containers_are_not_the_datasets(tmp_path: Path, form: str) -> None:
    rows = [azure_row("a"), azure_row("b", container="photos2"), azure_row("photos/c", container="films")]
    assert told(opened(written(tmp_path, azure_report(form, rows)))) == {"a": KNOWN}


@pytest.mark.parametrize("form", FORMATS)
def test_of_versions_only_the_current_ones(tmp_path: Path, form: str) -> None:
    fields = [*AZURE_FIELDS, "VersionId", "IsCurrentVersion", "Snapshot", "Deleted", "hdi_isfolder"]
    rows = [
        azure_row("kept", etag="old", VersionId="2026-10-01T00:00:00.0Z", IsCurrentVersion=False),
        azure_row("kept", VersionId="2026-11-01T00:00:00.0Z", IsCurrentVersion=True),
        azure_row("gone", VersionId="2026-10-01T00:00:00.0Z"),
        azure_row("without versions"),
        azure_row("without versions", etag="snap", Snapshot="2026-11-02T00:00:00.0Z"),
        azure_row("deleted", Deleted=True),
        azure_row("folder", hdi_isfolder=True),
        azure_row("no folder", hdi_isfolder=False, Deleted=False),
    ]
    filters = {"includeSnapshots": True, "includeBlobVersions": True, "includeDeleted": True}
    found = told(opened(written(tmp_path, azure_report(form, rows, fields=fields, filters=filters))))
    assert found == {"kept": KNOWN, "without versions": KNOWN, "no folder": KNOWN}


@pytest.mark.parametrize("form", FORMATS)
def test_a_row_without_what_a_fingerprint_needs_agrees_with_nothing(tmp_path: Path, form: str) -> None:
    rows = [azure_row("a") | {"ETag": None}, azure_row("b") | {"Content-Length": None}, azure_row("c")]
    assert told(opened(written(tmp_path, azure_report(form, rows)))) == {"a": "", "b": "", "c": KNOWN}


@pytest.mark.parametrize("form", FORMATS)
def test_the_path_selects_and_folder_markers_are_no_items(tmp_path: Path, form: str) -> None:
    empty = {"Content-Length": 0}
    rows = [azure_row("in/a"), azure_row("in/sub/") | empty, azure_row("in/full/"), azure_row("inner/b")]
    folder = written(tmp_path, azure_report(form, rows))
    assert list(told(opened(folder, az_bucket("in")))) == ["a", "full/"]
    assert list(told(opened(folder, az_bucket("in", Scope.PREFIX)))) == ["in/a", "in/full/", "inner/b"]


@pytest.mark.parametrize("when", ["2026-11-01T02:03:05.6780000Z", "2026-11-01 02:03:05Z", "Sun, 01 Nov 2026 02:03:05 GMT"])  # fmt: skip
def test_times_in_a_csv(tmp_path: Path, when: str) -> None:
    rows = [azure_row("a", **{"Last-Modified": when})]
    assert told(opened(written(tmp_path, azure_report("csv", rows)))) == {"a": KNOWN}


def test_times_in_parquet_may_be_milliseconds(tmp_path: Path) -> None:
    rows = [azure_row("a", **{"Last-Modified": int(MODIFIED.timestamp() * 1000)})]
    assert told(opened(written(tmp_path, azure_report("parquet", rows)))) == {"a": KNOWN}


def test_manifest_report_folder_and_container_are_the_same_report(tmp_path: Path) -> None:
    written(tmp_path, azure_report("csv", [azure_row("old")], run="2026/11/19/01-00-00"))
    written(tmp_path, azure_report("csv", [azure_row("new")]))
    unfinished = azure_report("csv", [azure_row("later")], run="2026/11/21/01-00-00", status="Pending")
    del unfinished["2026/11/21/01-00-00/Rule_1/Rule_1-manifest.checksum"]
    written(tmp_path, unfinished)
    written(tmp_path, azure_report("csv", [], run="2026/11/22/01-00-00", status="Failed"))
    places = (tmp_path, tmp_path / "2026/11/20", tmp_path / RUN, tmp_path / FOLDER)
    for where in (*places, tmp_path / FOLDER / "Rule_1-manifest.json", f"file://{tmp_path}/{FOLDER}/"):
        assert list(told(opened(where))) == ["new"], where
    with pytest.raises(NotFound, match="not complete"):
        opened(tmp_path / "2026/11/21/01-00-00/Rule_1/Rule_1-manifest.json")
    with pytest.raises(InvalidInput, match="not complete: its status is Failed"):
        opened(tmp_path / "2026/11/22/01-00-00/Rule_1/Rule_1-manifest.json")


@pytest.mark.parametrize("filters", [
    {"prefixMatch": ["films"]}, {"prefixMatch": ["photos/in/sub"]}, {"excludePrefix": ["photos/in/x"]},
    {"excludePrefix": ["pho"]}, {"creationTime": {"lastNDays": 7}}, {"prefixMatch": ["photos/inner"]},
])  # fmt: skip
def test_the_newest_report_is_one_of_all_objects(tmp_path: Path, filters: dict[str, Any]) -> None:
    written(tmp_path, azure_report("csv", [azure_row("in/a")], filters={"prefixMatch": ["zoo", "photos/in"]}))
    later = {"run": "2026/11/22/01-00-00", "rule": "Narrow"}
    written(tmp_path, azure_report("csv", [azure_row("x")], filters=filters, **later))
    written(tmp_path, azure_report("csv", [azure_row("x")], run="2026/11/23/01-00-00", rule="Containers",
                                   ruleDefinition={"objectType": "container", "format": "csv"}))  # fmt: skip
    assert list(told(opened(tmp_path, az_bucket("in")))) == ["a"]
    with pytest.raises(NotFound, match="no complete inventory report of all of az://acct/photos"):
        opened(tmp_path)  # of the whole container there is none


def test_a_named_manifest_may_be_of_a_part(tmp_path: Path) -> None:
    written(tmp_path, azure_report("csv", [azure_row("in/a")], filters={"prefixMatch": ["photos/in"]}))
    assert list(told(opened(tmp_path / FOLDER / "Rule_1-manifest.json"))) == ["in/a"]


# -- hostile ---------------------------------------------------------------------------------------


def changed(files: dict[str, bytes], change: Callable[[dict[str, Any]], object]) -> dict[str, bytes]:
    """Another manifest, with a checksum that fits."""
    manifest = json.loads(files[f"{FOLDER}/Rule_1-manifest.json"])
    change(manifest)
    return {**files, **azure_signed(json.dumps(manifest).encode())}


CSV = azure_report("csv", [azure_row("b"), azure_row("c")])
FILE = f"{FOLDER}/Rule_1.csv"
SIZE = len(CSV[FILE])
WITH_ALL = {"includeSnapshots": True, "includeBlobVersions": True, "includeDeleted": True}
BROKEN: dict[str, tuple[dict[str, bytes], type[SyncAgentError], str]] = {
    "checksum": ({**CSV, f"{FOLDER}/Rule_1-manifest.checksum": b"0" * 32}, InvalidInput, "checksum is another one"),
    "missing file": ({n: b for n, b in CSV.items() if n != FILE}, NotFound, "'.*Rule_1.csv' of the inventory is not in"),
    "truncated": ({**CSV, FILE: CSV[FILE][:-9]}, InvalidInput, f"has {SIZE - 9} bytes, and should have {SIZE}"),
    "longer": ({**CSV, FILE: CSV[FILE] + b"\n"}, InvalidInput, f"has {SIZE + 1} bytes"),
    "header only": (changed({**CSV, FILE: b""}, lambda m: m["files"][0].update(size=0)), InvalidInput, "holds no object"),
    "up": (changed(CSV, lambda m: m["files"][0].update(blob="x/..")), InvalidInput, "not as Azure writes it"),
    "out of the folder": (changed({**CSV, "secret.csv": CSV[FILE]}, lambda m: m["files"][0].update(blob="../../../../../secret.csv")), NotFound, "secret.csv' of the inventory is not in"),
    "a file twice": (changed(CSV, lambda m: m["files"].append(m["files"][0])), InvalidInput, "not as Azure writes it"),
    "no size": (changed(CSV, lambda m: m["files"][0].pop("size")), InvalidInput, "not as Azure writes it"),
    "no time": (changed(CSV, lambda m: m.update(inventoryStartTime="")), InvalidInput, "not as Azure writes it"),
    "version": (changed(CSV, lambda m: m.update(version="2.0")), Unsupported, "version '2.0' is not known, only 1.0"),
    "format": (changed(CSV, lambda m: m["ruleDefinition"].update(format="avro")), Unsupported, "configure CSV or Parquet"),
    "other account": (changed(CSV, lambda m: m.update(endpoint="https://other.blob.core.windows.net")), ConfigError, "of 'other', the dataset of 'acct'"),
    "no endpoint": (changed(CSV, lambda m: m.update(endpoint="")), InvalidInput, "not as Azure writes it"),
    "no JSON": ({**CSV, **azure_signed(b"{")}, InvalidInput, "not JSON"),
    "a list": ({**CSV, **azure_signed(b"[]")}, InvalidInput, "not a manifest"),
    "other container": (azure_report("csv", [azure_row("a", container="films")]), InvalidInput, "holds no object"),
    "other rule": (azure_report("csv", [azure_row("a")], filters={"prefixMatch": ["films"]}), NotFound, "report of all of"),
    "nothing": ({"x.csv": b""}, NotFound, "report of all of"),
    "no ETag": (azure_report("csv", [azure_row("a")], fields=["Name", "Last-Modified", "Content-Length"]), InvalidInput, "lacks ETag.*add ETag to the schemaFields"),
    "names only": (azure_report("parquet", [azure_row("a")], fields=["Name"]), InvalidInput, "lacks Content-Length, Last-Modified, ETag"),
    "versions untold": (azure_report("csv", [azure_row("a")], filters=WITH_ALL), InvalidInput, "lacks Snapshot, IsCurrentVersion, Deleted"),
    "size": (azure_report("csv", [azure_row("a", **{"Content-Length": "four"})]), InvalidInput, "not CSV"),
    "date": (azure_report("csv", [azure_row("a", **{"Last-Modified": "yesterday"})]), InvalidInput, "not CSV"),
    "no Parquet": ({**changed(azure_report("parquet", [azure_row("a")]), lambda m: m["files"][0].update(size=8)), f"{FOLDER}/Rule_1.parquet": b"PAR1PAR1"}, InvalidInput, "not Parquet"),
    "no name": (azure_report("parquet", [azure_row("")]), InvalidInput, "not Parquet"),
    "zero rows": (azure_report("parquet", []), InvalidInput, "holds no object"),
    "zero files": (azure_report("csv"), InvalidInput, "holds no object"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_report_says_what_is_wrong_and_nothing_is_done(tmp_path: Path, name: str) -> None:
    files, kind, words = BROKEN[name]
    bucket = az_bucket()
    put(bucket, "a")
    with open_at(tmp_path / "catalog.db") as catalog:
        of = Reconciler(catalog, catalog.ensure_dataset("data", bucket.spec), bucket)
        of.sweep()
        drop(bucket, "a")
        with pytest.raises(kind, match=words) as caught:
            of.sweep(inventory=opened(written(tmp_path / "report", files), bucket))
        assert "\n" not in str(caught.value)
        assert catalog.count(of.dataset.id) == 1


def test_a_named_manifest_of_another_rule_is_refused(tmp_path: Path) -> None:
    written(tmp_path, azure_report("csv", [azure_row("a")], filters={"prefixMatch": ["films"]}))
    with pytest.raises(ConfigError, match="of 'Rule_1', the dataset of 'acct/photos'"):
        opened(tmp_path / FOLDER / "Rule_1-manifest.json")


def test_a_key_that_stands_there_twice_is_the_one_modified_last(tmp_path: Path) -> None:
    newer = azure_row("k", **{"Last-Modified": MODIFIED.replace(second=9)})
    rows = [newer], [azure_row("k", etag="old")]
    assert told(opened(written(tmp_path, azure_report("csv", *rows)))) == {"k": KNOWN.replace("05Z", "09Z")}
