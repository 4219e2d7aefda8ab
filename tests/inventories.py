"""Inventory reports as Google and Azure write them; S3's are in tests/unit/test_inventory.py."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

Row = dict[str, Any]

CONFIG = "fc95c52f-157a-494f-af4a-d4a53a69ba66"
SNAPSHOT = "2026-11-20T01:00"
GCS_FIELDS = [
    "project", "bucket", "name", "location", "size", "timeCreated", "timeDeleted", "updated", "storageClass", "etag",
    "crc32c", "md5Hash", "generation", "metageneration", "contentType",
]  # fmt: skip
RUN = "2026/11/20/01-00-00"
AZURE_FIELDS = ["Name", "Creation-Time", "Last-Modified", "ETag", "Content-Length", "BlobType", "AccessTier"]
MODIFIED = datetime(2026, 11, 1, 2, 3, 5, 678_000, tzinfo=UTC)


def gcs_row(
    name: str, *, bucket: str = "photos", generation: int = 1_700_000_000_000_001, **more: Any
) -> Row:
    """An object of Google's, as a shard tells it."""
    return {"project": 67890, "bucket": bucket, "name": name, "location": "us-west1", "size": 4, "timeCreated": MODIFIED,
            "timeDeleted": None, "updated": MODIFIED, "storageClass": "STANDARD", "etag": "CLa=", "crc32c": "AAAAAA==",
            "md5Hash": "rL0Y20zC+Fzt72VPzMSk2A==", "generation": generation, "metageneration": 2,
            "contentType": "image/jpeg", **more}  # fmt: skip


def azure_row(name: str, *, container: str = "photos", etag: str = "0x8DC0FFEE0000001", **more: Any) -> Row:
    """A blob, as a file tells it."""
    return {"Name": f"{container}/{name}", "Creation-Time": MODIFIED, "Last-Modified": MODIFIED, "ETag": etag,
            "Content-Length": 4, "BlobType": "BlockBlob", "AccessTier": "Hot", **more}  # fmt: skip


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03}Z"
    return "" if value is None else str(value).lower() if isinstance(value, bool) else value


def data_file(
    form: str, rows: Sequence[Row], fields: Sequence[str], *, header: bool = True, delimiter: str = ","
) -> bytes:
    """A shard."""
    if form == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n", delimiter=delimiter)
        if header:
            writer.writerow(fields)
        writer.writerows([_cell(row.get(name)) for name in fields] for row in rows)
        return text.getvalue().encode()
    kinds: dict[type, pa.DataType] = {int: pa.int64(), datetime: pa.timestamp("ms", "UTC"), bool: pa.bool_()}
    columns = {}
    for name in fields:
        cells = [row.get(name) for row in rows]
        kind = next((kinds.get(type(cell), pa.string()) for cell in cells if cell is not None), pa.string())
        columns[name] = pa.array(cells, kind)
    out = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), out, compression="snappy", row_group_size=3)
    return out.getvalue()


def gcs_report(
    form: str,
    *shards: Sequence[Row],
    bucket: str | None = "photos",
    fields: Sequence[str] = GCS_FIELDS,
    config: str = CONFIG,
    snapshot: str = SNAPSHOT,
    header: bool = True,
    delimiter: str = ",",
    **more: Any,
) -> dict[str, bytes]:
    """A report's files by name, as Storage Insights writes them to one folder.

    :param more: of the manifest; None leaves a field out.
    """
    stem = f"{config}_{snapshot}_"
    files = {
        f"{stem}{number}.{form}": data_file(form, rows, fields, header=header, delimiter=delimiter)
        for number, rows in enumerate(shards)
    }
    options = {"csv_options": {"delimiter": delimiter, "header_required": header, "record_separator": "\n"}}
    filters = {"storage_filters": {"bucket": bucket}} if bucket else {}
    manifest = {
        "report_config": {
            "name": f"projects/67890/locations/us-west1/reportConfigs/{config}",
            "object_metadata_report_options": {
                "metadata_fields": list(fields),
                "storage_destination_options": {"bucket": "reports", "destination_path": "inv"},
                **filters,
            },
            **(options if form == "csv" else {"parquet_options": {}}),
        },
        "records_processed": sum(map(len, shards)),
        "snapshot_time": f"{snapshot}:00Z",
        "shard_count": len(shards),
        "report_shards_file_names": list(files),
        **more,
    }
    told = {name: value for name, value in manifest.items() if value is not None}
    return {**files, f"{stem}manifest.json": json.dumps(told).encode()}


def azure_report(
    form: str,
    *files: Sequence[Row],
    account: str = "acct",
    fields: Sequence[str] = AZURE_FIELDS,
    filters: Mapping[str, Any] | None = None,
    rule: str = "Rule_1",
    run: str = RUN,
    **more: Any,
) -> dict[str, bytes]:
    """A report's files by key relative to the container, as Blob Inventory writes them."""
    folder = f"{run}/{rule}/"
    made = {
        f"{folder}{rule}{f'_{number}' if len(files) > 1 else ''}.{form}": data_file(form, rows, fields)
        for number, rows in enumerate(files)
    }
    host = account if "://" in account else f"https://{account}.blob.core.windows.net"
    manifest = {
        "destinationContainer": "reports",
        "endpoint": host,
        "files": [{"blob": key, "size": len(body)} for key, body in made.items()],
        "inventoryCompletionTime": "2026-11-20T03:10:00Z",
        "inventoryStartTime": "2026-11-20T01:00:00Z",
        "ruleDefinition": {
            "filters": {"blobTypes": ["blockBlob"], **(filters or {})},
            "format": form,
            "objectType": "blob",
            "schedule": "daily",
            "schemaFields": list(fields),
        },
        "ruleName": rule,
        "status": "Succeeded",
        "summary": {"objectCount": sum(map(len, files)), "totalObjectSize": 4},
        "version": "1.0",
        **more,
    }
    return made | azure_signed(json.dumps(manifest).encode(), f"{folder}{rule}-manifest")


def azure_signed(manifest: bytes, stem: str = f"{RUN}/Rule_1/Rule_1-manifest") -> dict[str, bytes]:
    """A manifest and its checksum."""
    md5 = hashlib.md5(manifest, usedforsecurity=False).hexdigest()
    return {f"{stem}.json": manifest, f"{stem}.checksum": md5.encode()}


def written(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Files in a folder."""
    for name, body in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return folder
