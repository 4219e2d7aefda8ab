"""A store's own report of what a bucket held, in a listing's place. See docs/scale.md.

A report is a hint with a date: it is rolled up over hours, and delivered hours later. It says which keys to
look at; what it says of them is believed of those only about which the catalog says the same.
"""

from __future__ import annotations

import hashlib
import importlib
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from syncagent.drivers import open_bucket
from syncagent.drivers.bucket import Bucket, Page
from syncagent.drivers.spool import Record, Spool
from syncagent.errors import ConfigError, InvalidInput, NotFound, SyncAgentError, Unsupported
from syncagent.model import Integration, ObjectInfo

# driver type -> module
_FORMATS = {"s3": "syncagent.drivers.s3_inventory"}
_PIECE = 1 << 20
_MANIFEST = "manifest.json"


class Report(Protocol):
    """One complete report."""

    bucket: str
    """Whose objects it tells, as `DriverSpec.bucket` names it."""
    taken_at: str
    """When it was begun: UTC, ISO 8601 to the second, ending in ``Z``."""
    records: int | None
    """How many objects it says that it holds, where it says so."""

    def rows(self, folder: Path) -> Iterator[list[Record]]:
        """Batches of the bucket's current objects by full key, in any order, perhaps some twice.

        The fingerprint is the driver's own; it is empty where the row lacks what that needs.

        :param folder: for one file at a time.
        :raises InvalidInput: a file is not what the manifest says, or lacks columns that are needed.
        """
        ...


@dataclass(frozen=True, slots=True)
class File:
    """A file of a report, as its manifest names it."""

    key: str
    """Relative to the bucket that the report was opened in."""
    md5: str
    """Hexadecimal digits, lower case."""
    size: int | None
    """Bytes; None where the manifest does not say."""


class Inventory(Bucket):
    """A bucket as a report tells it: `list` reads the report, everything else asks the bucket itself.

    :param stored: where the report's files are.
    """

    def __init__(self, bucket: Bucket, stored: Bucket, report: Report) -> None:
        super().__init__(bucket.driver, bucket.spec, url=stored.url)
        self.stored = stored
        self.report = report
        self._of = bucket.url

    @property
    def seeks(self) -> bool:
        """Never: a report has no order."""
        return False

    def _driver_pages(self, after: str | None, until: str | None, alone: bool) -> Generator[Page, None, None]:
        with tempfile.TemporaryDirectory(prefix="syncagent-") as name:
            folder = Path(name)
            spool, prefix = Spool(folder), self._prefix
            for rows in self.report.rows(folder):
                spool.add([row for row in rows if row[0].startswith(prefix)] if prefix else rows)
            empty = True
            for page in spool.pages():
                empty = False
                yield [ObjectInfo(*record) for record in page]
            if empty:
                # Every item of the catalog would be looked at for nothing.
                raise InvalidInput(
                    f"the inventory of {self.report.taken_at} holds no object of {self._of}",
                    resource=self.url,
                    hint="check the prefix in the report's configuration, or sync without --inventory",
                )

    def close(self) -> None:
        """Release the report's connections; the bucket's are its owner's."""
        self.stored.close()


def open_inventory(url: str, bucket: Bucket, integration: Integration | None = None) -> Inventory:
    """Open a report of a bucket by its manifest, its folder, or its configuration's folder.

    :param url: of any driver, or a folder's path: a copy serves as well.
    :param integration: credentials for `url`; None for the SDK's own default chain.
    :raises NotFound: there is no complete report. :raises InvalidInput: it is damaged, or of another bucket.
    :raises Unsupported: no reports of the bucket's store are known.
    """
    kind = bucket.spec.type
    if kind not in _FORMATS:
        raise Unsupported(
            f"no inventories of {kind} buckets are known",
            resource=bucket.url,
            hint="sync without --inventory",
        )
    stored, manifest = _locate(url, integration)
    try:
        report: Report = importlib.import_module(_FORMATS[kind]).open_report(stored, manifest)
        if report.bucket != bucket.spec.bucket:
            raise ConfigError(
                f"the inventory is of {report.bucket!r}, the dataset of {bucket.spec.bucket!r}",
                resource=url,
                hint="give the report of the dataset's own bucket",
            )
    except BaseException:
        stored.close()
        raise
    return Inventory(bucket, stored, report)


def _locate(url: str, integration: Integration | None) -> tuple[Bucket, str | None]:
    """The configuration's folder, and the manifest's key in it; None where the newest is asked for."""
    location, mark, query = (
        url.partition("?") if "://" in url else (str(Path(url).expanduser().absolute()), "", "")
    )
    location = location.removesuffix("/")
    if not location.endswith(".json"):
        bucket = open_bucket(location + mark + query, integration)
        try:
            bucket.stat(_MANIFEST)
        except NotFound:
            return bucket, None
        except BaseException:
            bucket.close()
            raise
        bucket.close()
        location += f"/{_MANIFEST}"
    folder, _, name = location.rpartition("/")
    above, _, dated = folder.rpartition("/")
    if not above or above.endswith(("//", ":/")):  # the manifest is at the top of a bucket
        return open_bucket(folder + mark + query, integration), unquote(
            name
        ) if mark or "://" in url else name
    key = f"{dated}/{name}"
    return open_bucket(above + mark + query, integration), unquote(key) if "://" in url else key


def fetch(bucket: Bucket, file: File, path: Path) -> None:
    """Copy a file of a report to disk, and check that it is the one that the manifest names.

    :raises InvalidInput: it is not. :raises NotFound: it is not there.
    """
    digest, size = hashlib.md5(usedforsecurity=False), 0
    with bucket.open(file.key) as stream, path.open("wb") as copy:
        while piece := stream.read(_PIECE):
            digest.update(piece)
            size += copy.write(piece)
    if digest.hexdigest() != file.md5 or (file.size is not None and size != file.size):
        raise damaged(file.key, "its checksum is not the manifest's")


def damaged(name: str, why: str) -> SyncAgentError:
    """The error for a file of a report that cannot be used."""
    return InvalidInput(
        f"{name} of the inventory cannot be used: {why}",
        resource=name,
        hint="copy the report again, or use another day's",
    )
