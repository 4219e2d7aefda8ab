"""S3 Inventory: reports in CSV, Parquet and ORC, as S3 delivers them to a bucket.

    CONFIGURATION/2026-11-20T01-00Z/manifest.json, manifest.checksum
    CONFIGURATION/data/….csv.gz

The checksum is written last, and is of the manifest, which has one of each file.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus

from syncagent.drivers.bucket import Bucket
from syncagent.drivers.inventory_files import (
    File,
    Report,
    base_name,
    check_version,
    damaged,
    foreign,
    format_of,
    signed,
)
from syncagent.drivers.inventory_rows import Csv, Layout, Rule
from syncagent.errors import NotFound

IN_FOLDERS = True
"""A report's manifest is in a folder of its own, beside the folder of the data."""
_DATED = re.compile(r"(\d{4}-\d\d-\d\dT\d\d-\d\dZ)/manifest\.checksum")
_MD5 = re.compile(r"[0-9a-f]{32}")
_FORMATS = ("CSV", "Parquet", "ORC")
_VERSION = "2016-11-30"


def _decoded(key: str) -> str:
    """A CSV's keys are encoded as in forms, as those of a listing are. Decoded here, and nowhere after."""
    return unquote_plus(key, errors="strict") if "%" in key or "+" in key else key


_LAYOUT = Layout(
    "S3",
    key="Key",
    size="Size",
    modified="LastModifiedDate",
    fingerprint=("ETag", "Size", "LastModifiedDate"),
    joined=":",
    rules=(
        Rule("IsLatest", frozenset({"true"})),
        Rule("IsDeleteMarker", frozenset({"", "false"})),
    ),
    decoded=_decoded,
    remedy="add {} to the optional fields of its configuration",
)


def open_report(stored: Bucket, manifest: str | None, of: Bucket) -> Report:
    """Open the report of a manifest, or the newest complete one; see `inventory.open_inventory`.

    :param stored: its configuration's folder. :param manifest: the key there; None for the newest.
    """
    if manifest is None:
        manifest = f"{_newest(stored)}/manifest.json"
    checksum = f"{manifest.removesuffix('.json')}.checksum"
    told = signed(stored, manifest, checksum)
    folder = manifest[: manifest.rfind("/") + 1]
    try:
        bucket = str(told["sourceBucket"])
        began = datetime.fromtimestamp(int(told["creationTimestamp"]) / 1000, UTC)
        form, schema = str(told["fileFormat"]), str(told.get("fileSchema", ""))
        files = tuple(_file(one, folder) for one in told["files"])
    except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
        raise damaged("manifest.json", "it is not as S3 writes it") from error
    check_version(told.get("version"), _VERSION, stored)
    if bucket != of.spec.bucket:
        raise foreign(bucket, of.spec.bucket)
    return Report(
        began.strftime("%Y-%m-%dT%H:%M:%SZ"),
        _LAYOUT,
        stored,
        files,
        format_of(form, _FORMATS, stored),
        csv=Csv(tuple(name.strip() for name in schema.split(",")), packed=True),
    )


def _newest(stored: Bucket) -> str:
    """The folder of the newest report that is complete: its checksum is written last."""
    newest = ""
    # Reports are called by their dates, and sort before the folders data and hive.
    for page in stored.list(until="a"):
        for found in page:
            if (dated := _DATED.fullmatch(found.key)) and dated[1] > newest:
                newest = dated[1]
    if not newest:
        raise NotFound(
            f"there is no complete S3 Inventory report in {stored.url}",
            resource=stored.url,
            hint="name a manifest.json, or the folder that holds the dated ones",
        )
    return newest


def _file(told: dict[str, Any], folder: str) -> File:
    """Where S3 puts it, or beside the manifest, where a person may have copied it.

    The manifest's own key is not followed: it names a place in another bucket once the report was copied.
    """
    name, md5, size = base_name(told["key"]), str(told["MD5checksum"]).lower(), told.get("size")
    if not _MD5.fullmatch(md5):
        raise ValueError("no checksum")
    return File((f"data/{name}", f"{folder}{name}"), md5, None if size is None else int(size))
