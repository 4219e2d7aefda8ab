"""syncagent keeps a dataset catalog equal to a bucket, without copying a byte.

::

    >>> from syncagent import open_bucket, open_catalog, Reconciler
    >>> bucket = open_bucket("./photos")
    >>> catalog = open_catalog("sqlite:///catalog.db")
    >>> dataset = catalog.ensure_dataset("photos", bucket.spec)
    >>> Reconciler(catalog, dataset, bucket).sweep().added
    2
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["Reconciler", "__version__", "open_bucket", "open_catalog"]

if TYPE_CHECKING:
    from syncagent.catalog import open_catalog
    from syncagent.drivers import open_bucket
    from syncagent.reconcile import Reconciler


def __getattr__(name: str) -> object:
    # Lazily, so that importing one handler does not load what it does not use.
    if name == "open_bucket":
        from syncagent.drivers import open_bucket

        return open_bucket
    if name == "open_catalog":
        from syncagent.catalog import open_catalog

        return open_catalog
    if name == "Reconciler":
        from syncagent.reconcile import Reconciler

        return Reconciler
    raise AttributeError(name)
