"""Wires settings to catalogs, buckets and reconcilers. The only place that does."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path

from syncagent.catalog import Dataset, Store, open_catalog
from syncagent.config import Settings
from syncagent.drivers import Bucket, describe, open_bucket, parse_url
from syncagent.errors import ConfigError, NotFound
from syncagent.model import DriverSpec
from syncagent.reconcile import Reconciler


class Agent:
    """What every front door (CLI, handlers, server) holds."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._buckets: list[Bucket] = []
        self._opened = False

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @cached_property
    def catalog(self) -> Store:
        """The catalog, opened on first use."""
        key = self.settings.secret_key
        self._opened = True
        return open_catalog(
            self.settings.catalog,
            secret_key=key.get_secret_value() if key else None,
            secret_key_file=self.settings.secret_key_file,
            timeout=self.settings.catalog_timeout,
        )

    def bucket(self, spec: DriverSpec) -> Bucket:
        """Open a driver's bucket with the integration that its record names."""
        integration = self.catalog.integration(spec.integration) if spec.integration else None
        bucket = open_bucket(spec, integration)
        self._buckets.append(bucket)
        return bucket

    def spec(self, target: str, integration: str | None = None) -> DriverSpec:
        """The driver of a URL, a folder or a dataset's name. Nothing is stored."""
        if is_location(target) or (Path(target).is_dir() and not self._dataset(target)):
            return replace(parse_url(target), integration=integration)
        return self.catalog.dataset(target).driver

    def resolve(self, target: str, *, name: str | None = None, integration: str | None = None) -> Dataset:
        """The dataset of a name, or of a URL or folder; the latter is made on first use.

        :raises NotFound: no such dataset. :raises ConfigError: the name mirrors something else.
        """
        known = None if is_location(target) else self._dataset(target)
        if known:
            return known
        if not is_location(target) and not Path(target).is_dir():
            return self.catalog.dataset(target)  # raises, naming those there are
        spec = replace(parse_url(target), integration=integration)
        url = describe(spec)
        if name is None:
            for dataset in self.catalog.datasets():
                if describe(dataset.driver) == url:
                    return dataset
        chosen = name or default_name(spec)
        taken = self._dataset(chosen)
        if taken and describe(replace(taken.driver, region=spec.region)) != url:
            raise ConfigError(
                f"dataset {chosen!r} mirrors {describe(taken.driver)}",
                resource=chosen,
                hint=f"name the one for {url} with --dataset",
            )
        return taken or self.catalog.ensure_dataset(chosen, spec)

    def reconciler(self, dataset: Dataset) -> Reconciler:
        """What keeps this dataset equal to its bucket."""
        return Reconciler(self.catalog, dataset, self.bucket(dataset.driver), workers=self.settings.workers)

    def _dataset(self, name: str) -> Dataset | None:
        try:
            return self.catalog.dataset(name)
        except NotFound:
            return None

    def close(self) -> None:
        """Close what was opened."""
        for bucket in self._buckets:
            bucket.close()
        if self._opened:
            self.catalog.close()


def is_location(target: str) -> bool:
    """Whether a word is certainly a URL or a path, and no dataset's name."""
    return "://" in target or target in {".", ".."} or target.startswith(("/", "./", "../", "~"))


def default_name(spec: DriverSpec) -> str:
    """The dataset's name when none is given: the folder's own, or bucket and path."""
    if spec.type == "file":
        return Path(spec.bucket).name or "root"
    bucket = spec.bucket.rpartition("/")[2]
    return f"{bucket}/{spec.path}" if spec.path else bucket
