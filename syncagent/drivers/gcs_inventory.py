"""Inventory reports of Google's Storage Insights: in CSV and Parquet, as they are delivered to a bucket.

    FOLDER/CONFIGURATION_2026-11-20T01:00_0.csv, …_1.csv
    FOLDER/CONFIGURATION_2026-11-20T01:00_manifest.json

The configuration is a UUID, and those of several buckets may deliver to one folder. The manifest is written
last. It has no checksum and none of its shards, but their number and the number of rows.
"""

from __future__ import annotations

import re
from typing import Any

from syncagent.drivers.bucket import Bucket
from syncagent.drivers.inventory_files import (
    File,
    Report,
    base_name,
    damaged,
    foreign,
    format_of,
    missing,
    unsigned,
)
from syncagent.drivers.inventory_rows import Csv, Layout, Rule, moment, plain
from syncagent.errors import ConfigError, NotFound

IN_FOLDERS = False
_MANIFEST = re.compile(
    r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})_(\d{4}-\d\d-\d\dT[\d:.-]+Z?)_manifest\.json"
)
_FORMATS = ("CSV", "Parquet")
_LAYOUT = Layout(
    "Google",
    key="name",
    size="size",
    modified="updated",
    fingerprint=("generation", "metageneration"),
    joined=".",
    # Of older generations, and of what is kept for a while after a delete.
    rules=(Rule("timeDeleted", frozenset({""}), needed=True),),
    remedy="add {} to its fields: 'gcloud storage insights inventory-reports update --metadata-fields=…'",
)


def open_report(stored: Bucket, manifest: str | None, of: Bucket) -> Report:
    """Open the report of a manifest, or the bucket's newest; see `inventory.open_inventory`.

    :param stored: the folder that reports are delivered to. :param manifest: the key there; None for the newest.
    """
    manifest, told = _newest(stored, of) if manifest is None else (manifest, unsigned(stored, manifest))
    try:
        config, bucket = _config(told), _bucket(told)
        began = moment(str(told["snapshot_time"]))
        names = [base_name(name) for name in told["report_shards_file_names"]]
        records = int(told["records_processed"])
        if not began or int(told["shard_count"]) != len(set(names)) or len(set(names)) != len(names):
            raise ValueError("shards")
        how = _csv(config)
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(manifest, "it is not as Google writes it") from error
    if bucket not in {None, of.spec.bucket}:
        raise foreign(str(bucket), of.spec.bucket)
    forms = {format_of(name.rpartition(".")[2], _FORMATS, stored) for name in names} or {"CSV"}
    if len(forms) > 1:
        raise damaged(manifest, "its shards are of several formats")
    return Report(
        f"{began}Z", _LAYOUT, stored, _files(stored, manifest, names), forms.pop(), records=records, csv=how
    )


def _newest(stored: Bucket, of: Bucket) -> tuple[str, dict[str, Any]]:
    """The newest manifest of this bucket's reports; it is written last."""
    found = [
        (named[2], named[1], one.key)
        for page in stored.list()
        for one in page
        if (named := _MANIFEST.fullmatch(one.key))
    ]
    others: set[str] = set()  # configurations of other buckets
    for _, config, key in sorted(found, reverse=True):
        if config in others:
            continue
        told = unsigned(stored, key)
        bucket = _bucket(told)
        if bucket is None and len({config for _, config, _ in found}) > 1:
            raise ConfigError(
                f"reports of several configurations are in {stored.url}, and do not say of which bucket",
                resource=stored.url,
                hint="name the manifest of one",
            )
        if bucket in {None, of.spec.bucket}:
            return key, told
        others.add(config)
    raise NotFound(
        f"there is no inventory report of {of.spec.bucket} in {stored.url}",
        resource=stored.url,
        hint="name a …_manifest.json, or the folder that reports are delivered to",
    )


def _files(stored: Bucket, manifest: str, names: list[str]) -> tuple[File, ...]:
    """The shards as they lie beside the manifest: each that it names, and no others of this report."""
    stem = manifest.removesuffix("manifest.json")
    shard = re.compile(re.escape(stem) + r"\d+\.(?:csv|parquet)", re.IGNORECASE)
    folder = manifest[: manifest.rfind("/") + 1]
    there = {one.key: one for page in stored.list(after=stem, until=f"{stem}\U0010ffff") for one in page}
    for key in there:
        if shard.fullmatch(key) and key[len(folder) :] not in names:
            raise damaged(key, "the manifest does not name it")
    files = []
    for name in names:
        if (one := there.get(f"{folder}{name}")) is None:
            raise missing(stored, f"{folder}{name}")
        files.append(File((one.key,), None, one.size))
    return tuple(files)


def _config(told: dict[str, Any]) -> dict[str, Any]:
    return _within(told, "report_config") or {}


def _bucket(told: dict[str, Any]) -> str | None:
    """Whose objects a report tells, where it says so."""
    filters = _within(_config(told), "object_metadata_report_options", "storage_filters")
    named = _within(filters, "bucket")
    return str(named).rpartition("/")[2] if named else None


def _csv(config: dict[str, Any]) -> Csv:
    options = _within(config, "csv_options") or {}
    fields = _within(config, "object_metadata_report_options", "metadata_fields")
    has_header = _within(options, "header_required")
    header = None if has_header or not fields else tuple(str(name) for name in fields)
    delimiter = _within(options, "delimiter") or ","
    if len(delimiter) != 1:
        raise ValueError("a delimiter of several characters")
    return Csv(header, delimiter)


def _within(told: Any, *names: str) -> Any:
    """A value inside objects, whose names come as in the API (``csvOptions``) or as in its messages (``csv_options``)."""
    for name in names:
        if not isinstance(told, dict):
            return None
        told = next((value for key, value in told.items() if plain(key) == plain(name)), None)
    return told
