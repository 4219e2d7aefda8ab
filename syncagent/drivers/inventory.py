"""A store's own report of what a bucket held, in a listing's place. See docs/scale.md.

A report is a hint with a date: it is rolled up over hours, and delivered hours later. It says which keys to
look at; what it says of them is believed of those only about which the catalog says the same.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Generator
from pathlib import Path
from urllib.parse import unquote

from syncagent.drivers import open_bucket
from syncagent.drivers.bucket import Bucket, Page
from syncagent.drivers.inventory_files import Report
from syncagent.drivers.spool import Spool
from syncagent.errors import InvalidInput, NotFound, Unsupported
from syncagent.model import Integration, ObjectInfo

# driver type -> module
_FORMATS = {
    "s3": "syncagent.drivers.s3_inventory",
    "gcs": "syncagent.drivers.gcs_inventory",
    "azureblob": "syncagent.drivers.azure_inventory",
}
_MANIFEST = "manifest.json"


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
    module = importlib.import_module(_FORMATS[kind])
    stored, manifest = _locate(url, integration, in_folders=module.IN_FOLDERS)
    try:
        report: Report = module.open_report(stored, manifest, bucket)
    except BaseException:
        stored.close()
        raise
    return Inventory(bucket, stored, report)


def _locate(url: str, integration: Integration | None, *, in_folders: bool) -> tuple[Bucket, str | None]:
    """A folder, and the manifest's key in it; None where the newest is asked for.

    :param in_folders: manifests have folders of their own, and the one above is wanted.
    """
    location, mark, query = (
        url.partition("?") if "://" in url else (str(Path(url).expanduser().absolute()), "", "")
    )
    location = location.removesuffix("/")
    if not location.endswith(".json"):
        bucket = open_bucket(location + mark + query, integration)
        if not in_folders:
            return bucket, None
        try:
            bucket.stat(_MANIFEST)
        except NotFound:
            return bucket, None
        except BaseException:
            bucket.close()
            raise
        bucket.close()
        location += f"/{_MANIFEST}"
    folder, _, key = location.rpartition("/")
    above, _, dated = folder.rpartition("/")
    if in_folders and above and not above.endswith(("//", ":/")):  # else it is at the top of a bucket
        folder, key = above, f"{dated}/{key}"
    return open_bucket((folder or "/") + mark + query, integration), unquote(key) if "://" in url else key
