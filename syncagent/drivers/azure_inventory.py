"""Azure Blob Inventory: reports in CSV and Parquet, as they are delivered to a container.

    2026/11/20/01-00-00/RULE/RULE.csv, …
    2026/11/20/01-00-00/RULE/RULE-manifest.json, RULE-manifest.checksum

The checksum is written last, and is of the manifest, which has the size of each file. A rule is about an account,
and those of several containers may deliver to one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

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
from syncagent.drivers.inventory_rows import Csv, Layout, Rule, moment
from syncagent.errors import InvalidInput, NotFound
from syncagent.model import Scope

IN_FOLDERS = False
_CHECKSUM = re.compile(r"(?:[\d/-]+/)?(?:([^/]+)/)?([^/]+)-manifest\.checksum")
_FORMATS = ("CSV", "Parquet")
_VERSION = "1.0"
_NO = frozenset({"", "false"})
_LAYOUT = Layout(
    "Azure",
    key="Name",
    size="Content-Length",
    modified="Last-Modified",
    fingerprint=("ETag", "Content-Length", "Last-Modified"),
    joined=":",
    ending="Z",
    rules=(
        Rule("Snapshot", frozenset({""})),
        # An account without versions leaves both empty.
        Rule("IsCurrentVersion", frozenset({"true"}), given="VersionId"),
        Rule("Deleted", _NO),
        Rule("hdi_isfolder", _NO),
    ),
    remedy="add {} to the schemaFields of its rule",
)
# Filter -> the column that tells what it lets in.
_LET_IN = {
    "includeSnapshots": "Snapshot",
    "includeBlobVersions": "IsCurrentVersion",
    "includeDeleted": "Deleted",
}


def open_report(stored: Bucket, manifest: str | None, of: Bucket) -> Report:
    """Open the report of a manifest, or the newest complete one of all objects; see `inventory.open_inventory`.

    :param stored: the container, or a folder in it. :param manifest: the key there; None for the newest.
    """
    manifest, told = _newest(stored, of) if manifest is None else (manifest, _manifest(stored, manifest))
    folder = manifest[: manifest.rfind("/") + 1]
    try:
        account = _account(str(told["endpoint"]))
        began = moment(str(told["inventoryStartTime"]))
        rule, status = told["ruleDefinition"], str(told["status"])
        kind, form, filters = str(rule["objectType"]), str(rule["format"]), rule.get("filters") or {}
        files = tuple(
            # The path is of the container that it was delivered to; it may have been copied.
            File((f"{folder}{base_name(one['blob'])}",), None, int(one["size"]))
            for one in told["files"]
        )
        if not began or len({file.keys for file in files}) != len(files):
            raise ValueError("files")
        within = kind.lower() == "blob" and _touches(filters, of)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(manifest, "it is not as Azure writes it") from error
    check_version(told.get("version"), _VERSION, stored)
    if status != "Succeeded":
        raise InvalidInput(
            f"the inventory {manifest!r} is not complete: its status is {status}",
            resource=manifest,
            hint="use another day's report",
        )
    own, _, container = of.spec.bucket.partition("/")
    if account != own:
        raise foreign(account, own)
    if not within:
        raise foreign(str(told.get("ruleName", "another container")), of.spec.bucket)
    return Report(
        f"{began}Z", _layout(filters, container), stored, files, format_of(form, _FORMATS, stored), csv=Csv()
    )


def _manifest(stored: Bucket, manifest: str) -> dict[str, Any]:
    return signed(stored, manifest, f"{manifest.removesuffix('.json')}.checksum")


def _newest(stored: Bucket, of: Bucket) -> tuple[str, dict[str, Any]]:
    """The newest manifest of a rule that covers the dataset; its checksum is written last."""
    found = [
        (one.key, named[2])
        for page in stored.list()
        for one in page
        if (named := _CHECKSUM.fullmatch(one.key)) and named[1] in {None, named[2]}
    ]
    others: set[str] = set()  # rules that leave out objects of the dataset
    for checksum, name in sorted(found, reverse=True):  # their paths are dates
        if name in others:
            continue
        manifest = f"{checksum.removesuffix('.checksum')}.json"
        told = _manifest(stored, manifest)
        if not _covers(told, of):
            others.add(name)
        elif told.get("status") == "Succeeded":
            return manifest, told
    raise NotFound(
        f"there is no complete inventory report of all of {of.url} in {stored.url}",
        resource=stored.url,
        hint="name a …-manifest.json, or the container that reports are delivered to",
    )


def _layout(filters: Mapping[str, Any], container: str) -> Layout:
    """With the columns needed that tell current blobs from what the rule lets in besides them."""
    telling = {column for name, column in _LET_IN.items() if filters.get(name)}
    rules = tuple(replace(rule, needed=rule.column in telling) for rule in _LAYOUT.rules)
    return replace(_LAYOUT, rules=rules, below=f"{container}/")


def _place(of: Bucket) -> str:
    """What the dataset's names begin with in a report: container, and the path in it."""
    container, path = of.spec.bucket.partition("/")[2], of.spec.path
    return f"{container}/{path}/" if path and of.spec.scope is Scope.FOLDER else f"{container}/{path}"


def _touches(filters: Mapping[str, Any], of: Bucket) -> bool:
    """Whether a rule is about any blobs of the dataset."""
    place, wanted = _place(of), filters.get("prefixMatch") or [""]
    return any(place.startswith(prefix) or prefix.startswith(place) for prefix in wanted)


def _covers(told: Mapping[str, Any], of: Bucket) -> bool:
    """Whether a rule is about all blobs of the dataset, their types aside."""
    rule = told.get("ruleDefinition")
    filters = rule.get("filters") or {} if isinstance(rule, dict) else None
    if not isinstance(rule, dict) or not isinstance(filters, dict):
        return False
    place = _place(of)
    wanted, left = filters.get("prefixMatch") or [""], filters.get("excludePrefix") or []
    return (
        str(rule.get("objectType", "")).lower() == "blob"
        and not filters.get("creationTime")  # the last days' only
        and any(place.startswith(str(prefix)) for prefix in wanted)
        and not any(place.startswith(str(prefix)) or str(prefix).startswith(place) for prefix in left)
    )


def _account(endpoint: str) -> str:
    """``https://ACCOUNT.blob.core.windows.net``, or as emulators have it ``http://127.0.0.1:10000/ACCOUNT``."""
    parts = urlsplit(endpoint)
    account = parts.path.strip("/") or (parts.hostname or "").partition(".")[0]
    if not account:
        raise ValueError("no account")
    return account
