"""Wires settings to catalogs, buckets and reconcilers. The only place that does."""

from __future__ import annotations

import contextlib
import logging
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import quote

from pydantic import SecretStr

from syncagent.catalog import Dataset, Store, open_catalog
from syncagent.drivers import Bucket, describe, open_bucket, parse_url
from syncagent.drivers.secrets import read_secret
from syncagent.errors import ConfigError, NotFound, SyncAgentError, Unsupported
from syncagent.model import DriverSpec, Integration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from syncagent.catalog import Item
    from syncagent.catalog.rest import Session
    from syncagent.catalog.sql.webhooks import Webhooks
    from syncagent.config import Settings
    from syncagent.drivers.inventory import Inventory
    from syncagent.drivers.wiring import Target as Wanted
    from syncagent.drivers.wiring import Wiring
    from syncagent.ingest.download import Downloader
    from syncagent.ingest.follow import Followed, Following
    from syncagent.ingest.origin import Origin
    from syncagent.ingest.probing import Probed
    from syncagent.ingest.upload import Target, Uploader
    from syncagent.reconcile import Reconciler


_log = logging.getLogger(__name__)


class Agent:
    """What every front door (CLI, handlers, server) holds."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._opened = ExitStack()
        self._buckets: list[Bucket] = []
        self._origins: dict[str, Origin] = {}
        self._unread: set[str] = set()

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @cached_property
    def catalog(self) -> Store:
        """The catalog, opened on first use."""
        key, (user, password) = self._secret(self.settings.secret_key), self._account()
        catalog = open_catalog(
            self.settings.catalog,
            secret_key=key.get_secret_value() if key else None,
            secret_key_file=self.settings.secret_key_file,
            timeout=self.settings.catalog_timeout,
            username=user,
            password=password,
            dataset_id=self.settings.dataset_id,
            pool=self.settings.catalog_pool,
            files=self.settings.files,
        )
        self._opened.callback(catalog.close)
        return catalog

    def _account(self) -> tuple[str | None, SecretStr | None]:
        """Of a catalog's server."""
        user = self.settings.dtlpy_username
        return read_secret(user) if user else None, self._secret(self.settings.dtlpy_password)

    def _secret(self, setting: SecretStr | None) -> SecretStr | None:
        """A secret, from where its setting says that it is."""
        return SecretStr(read_secret(setting.get_secret_value())) if setting else None

    def bucket(self, spec: DriverSpec) -> Bucket:
        """Open a driver's bucket with the integration that its record names."""
        if spec.type == "none":
            raise ConfigError(
                "the dataset has no bucket: its items were uploaded", hint="name another dataset"
            )
        bucket = open_bucket(spec, self._integration(spec))
        self._buckets.append(bucket)
        return bucket

    def _integration(self, spec: DriverSpec) -> Integration | None:
        """The credentials that a driver's record names; None for the cloud's own chain."""
        integration = self.catalog.integration(spec.integration) if spec.integration else None
        if integration is not None and not integration.options:
            raise Unsupported(
                f"the credentials {integration.name!r} stay where the catalog is",
                resource=integration.name,
                hint="leave --integration out, and give this machine its own, as for the cloud's command line",
            )
        return integration

    def wiring(self, dataset: Dataset, target: Wanted) -> Wiring:
        """What makes the events of a dataset's bucket come to a queue or a function. Close it at the end.

        :raises ConfigError: the dataset's store tells of no events, or not in that way.
        """
        from syncagent.drivers.wiring import open_wiring

        return open_wiring(dataset.driver, target, self._integration(dataset.driver))

    def shut(self, bucket: Bucket) -> None:
        """Close a bucket before the end: whoever runs for months opens many."""
        with contextlib.suppress(ValueError):
            self._buckets.remove(bucket)
        bucket.close()

    def spec(self, target: str, integration: str | None = None) -> DriverSpec:
        """The driver of a URL, a folder or a dataset's name. Nothing is stored."""
        if is_location(target) or (Path(target).is_dir() and not self._dataset(target)):
            return replace(parse_url(target), integration=integration)
        return self.catalog.dataset(target).driver

    def resolve(
        self, target: str, *, name: str | None = None, integration: str | None = None, create: bool = False
    ) -> Dataset:
        """The dataset of a name, or of a URL or folder.

        :param create: make the dataset of a URL or folder that none mirrors yet.
        :raises NotFound: no such dataset.
        :raises ConfigError: the name mirrors something else, or opens it with another integration.
        """
        known = None if is_location(target) else self._dataset(target)
        if known:
            if name not in (None, known.name):
                raise ConfigError(
                    f"{target!r} is a dataset already, so --dataset {name} cannot name it",
                    resource=target,
                    hint="leave --dataset out, or give the URL",
                )
            return _same_integration(known, integration)
        if not is_location(target) and not Path(target).is_dir():
            return self.catalog.dataset(target)  # raises, naming those there are
        spec = replace(parse_url(target), integration=integration)
        url = describe(spec)
        if name is None:
            for dataset in self.catalog.datasets():
                if dataset.driver.same_objects(spec):
                    return _same_settings(dataset, spec)
        chosen = name or default_name(spec)
        taken = self._dataset(chosen)
        if taken and not taken.driver.same_objects(spec):
            raise ConfigError(
                f"dataset {chosen!r} mirrors {describe(taken.driver)}",
                resource=chosen,
                hint=f"name the one for {url} with --dataset",
            )
        if taken:
            return _same_settings(taken, spec)
        if not create:
            raise NotFound(
                f"no dataset mirrors {url}", resource=url, hint=f"make one with 'syncagent sync {target}'"
            )
        # A bucket that cannot be opened gets no dataset: a mistyped folder would stay as an empty one.
        self.shut(self.bucket(spec))
        return self.catalog.ensure_dataset(chosen, spec)

    def reconciler(self, dataset: Dataset) -> Reconciler:
        """What keeps this dataset equal to its bucket."""
        return self._reconciler(self.catalog, dataset, self.bucket(dataset.driver))

    def inventory(self, url: str, of: Reconciler) -> Inventory:
        """A report of a reconciler's bucket, opened with the bucket's own credentials where it is in the same store."""
        from syncagent.drivers.inventory import open_inventory

        spec = of.dataset.driver
        same = (parse_url(url).type) == spec.type
        opened = open_inventory(url, of.bucket, self._integration(spec) if same else None)
        self._opened.callback(opened.close)
        return opened

    def following(self, dataset: Dataset) -> Following:
        """What a dataset says about its own annotation and metadata files."""
        from syncagent.ingest.follow import following

        return following(self.catalog.labels, dataset.id)

    def follow(self, dataset: Dataset, keys: Sequence[str] | None = None) -> Followed | None:
        """Take what the dataset's own files say, after a sweep or an event; None if it has no such files.

        :param keys: only these were settled; None looks at all.
        """
        if dataset.id in self._unread:
            return None
        wanted = bool(self.catalog.labels.settings(dataset.id).get("sources"))
        if find_spec("syncagent.ingest") is None:
            # A function's package without --labels asks once, and not at each event.
            self._unread.add(dataset.id)
            if wanted:
                _log.warning("label files are left to the next sweep: this package is without --labels")
            return None
        if not wanted:
            return None
        # The files' readers are loaded where a dataset has such files, and nowhere else.
        from syncagent.ingest.follow import Follower

        bucket = self.bucket(dataset.driver)
        try:
            return Follower(self.catalog.labels, dataset.id, bucket).catch_up(keys)
        finally:
            self.shut(bucket)

    def probe(
        self,
        dataset: Dataset,
        *,
        limit: int | None = None,
        on_progress: Callable[[Probed], None] | None = None,
    ) -> Probed:
        """Read the media facts of objects that changed since they were read last."""
        from syncagent.ingest.probing import probe_dataset

        bucket = self.bucket(dataset.driver)
        try:
            return probe_dataset(
                self.catalog.labels, dataset.id, bucket, workers=self.settings.workers, limit=limit,
                on_progress=on_progress,
            )  # fmt: skip
        finally:
            self.shut(bucket)

    def webhooks(self) -> Webhooks | None:
        """Whom to tell of datasets' items; None where that is the business of the catalog's server."""
        from syncagent.catalog.sql.catalog import SqlCatalog
        from syncagent.catalog.sql.webhooks import Webhooks

        return Webhooks(self.catalog) if isinstance(self.catalog, SqlCatalog) else None

    def uploader(self, dataset: Dataset, *, overwrite: bool = False) -> Uploader:
        """What uploads into a dataset: to its bucket, or beside the catalog where it has none."""
        from syncagent.ingest.upload import BucketTarget, Uploader

        if dataset.driver.type == "none":
            target: Target = self._files_target(dataset)
        else:
            target = BucketTarget(self.reconciler(dataset))
        return Uploader(
            target, self.catalog.labels, dataset.id, overwrite=overwrite, workers=self.settings.workers,
            facts=self.catalog.atomic,
        )  # fmt: skip

    def downloader(self, dataset: Dataset) -> Downloader:
        """What downloads from a dataset: from its bucket, from beside the catalog, or from the server that has it."""
        from syncagent.ingest.download import Downloader

        return Downloader(
            self._origin(dataset),
            self.catalog.labels,
            dataset.id,
            linked=self._linked,
            workers=self.settings.workers,
        )

    def _origin(self, dataset: Dataset) -> Origin:
        from syncagent.catalog.sql.catalog import SqlCatalog
        from syncagent.ingest.origin import EitherOrigin, HereOrigin, ServerOrigin

        if isinstance(self.catalog, SqlCatalog):
            bucket = None if dataset.driver.type == "none" else self.bucket(dataset.driver)
            return HereOrigin(bucket, self.catalog.files if self.catalog.has_folder else None)
        labels = self.catalog.labels
        server = ServerOrigin(self._streams, lambda key: labels.at(dataset.id, [key]).get(key))
        if dataset.driver.type not in {"s3", "gcs", "azureblob"}:
            return server  # a folder there is not a folder here
        try:
            return EitherOrigin(HereOrigin(self.bucket(dataset.driver), None), server)
        except SyncAgentError:  # its credentials are the server's own
            return server

    def _linked(self, item: str) -> tuple[Item, Origin]:
        """An item by its id, of whatever dataset, and where its bytes come from."""
        from syncagent.catalog.sql.catalog import SqlCatalog
        from syncagent.catalog.sql.items import Items
        from syncagent.ingest.origin import ServerOrigin, item_of

        if isinstance(self.catalog, SqlCatalog):
            found = Items(self.catalog).get(item)
            if found.dataset not in self._origins:
                self._origins[found.dataset] = self._origin(self.catalog.dataset(found.dataset))
            return found, self._origins[found.dataset]
        path = f"/items/{quote(item, safe='')}"
        return item_of(self._streams.get(path)), ServerOrigin(
            self._streams, lambda _: item_of(self._streams.get(path))
        )

    @cached_property
    def _streams(self) -> Session:
        """For bytes of a catalog's server: connections of their own, so that the catalog answers while they come."""
        from syncagent.catalog.rest import Session

        user, password = self._account()
        if not user or not password:
            raise ConfigError(
                "the catalog's server needs an account", hint="set DTLPY_USERNAME and DTLPY_PASSWORD"
            )
        session = Session(self.settings.catalog.removeprefix("dataloop+"), user, password)
        self._opened.callback(session.close)
        return session

    def _files_target(self, dataset: Dataset) -> Target:
        from syncagent.catalog.sql.catalog import SqlCatalog
        from syncagent.catalog.sql.items import Items
        from syncagent.ingest.content import Content, ContentTarget
        from syncagent.ingest.upload import ServerTarget

        if not isinstance(self.catalog, SqlCatalog):
            return ServerTarget(self._streams, self.catalog.labels, dataset.id)
        return ContentTarget(Content(Items(self.catalog), self.catalog.files, dataset.id, None))

    def planner(self, target: str, *, name: str | None = None, integration: str | None = None) -> Reconciler:
        """A reconciler to plan with. Stores nothing: what is not mirrored yet is compared with an empty catalog."""
        try:
            known = self.resolve(target, name=name, integration=integration)
        except NotFound:
            if not is_location(target) and not Path(target).is_dir():
                raise
        else:
            return self.reconciler(known)
        bucket = self.bucket(self.spec(target, integration))
        folder = self._opened.enter_context(TemporaryDirectory(prefix="syncagent-"))
        empty = open_catalog(str(Path(folder) / "empty.db"))
        self._opened.callback(empty.close)
        spec = replace(bucket.spec, integration=None)
        return self._reconciler(empty, empty.ensure_dataset(name or default_name(spec), spec), bucket)

    def _reconciler(self, catalog: Store, dataset: Dataset, bucket: Bucket) -> Reconciler:
        from syncagent.reconcile import Reconciler

        given = self.settings
        return Reconciler(
            catalog, dataset, bucket, workers=given.workers, listers=given.listers, processes=given.processes
        )

    def _dataset(self, name: str) -> Dataset | None:
        try:
            return self.catalog.dataset(name)
        except NotFound:
            return None

    def close(self) -> None:
        """Close what was opened, the last first."""
        while self._buckets:
            self._buckets.pop().close()
        self._opened.close()


def _same_integration(dataset: Dataset, integration: str | None) -> Dataset:
    if integration not in (None, dataset.driver.integration):
        raise ConfigError(
            f"dataset {dataset.name!r} opens its bucket with"
            f" {dataset.driver.integration or 'the default credentials'}, not with {integration!r}",
            resource=dataset.name,
            hint="leave --integration out, or give the new one a name with --dataset",
        )
    return dataset


def _same_settings(dataset: Dataset, spec: DriverSpec) -> Dataset:
    """The dataset, if its driver opens the bucket in the way that the URL asks for."""
    kept = dataset.driver
    asked = {name: getattr(spec, name) for name in ("region", "storage_class", "allow_external_delete")}
    have = {name: getattr(kept, name) for name in asked} | dict(kept.options)
    for name, value in {**asked, **spec.options}.items():
        if value and value != have.get(name):
            raise ConfigError(
                f"dataset {dataset.name!r} opens its bucket without {name}={value}",
                resource=dataset.name,
                hint="leave the parameter out, or give the new one a name with --dataset",
            )
    return _same_integration(dataset, spec.integration)


def is_location(target: str) -> bool:
    """Whether a word is certainly a URL or a path, and no dataset's name."""
    return "://" in target or target in {".", ".."} or target.startswith(("/", "./", "../", "~"))


def default_name(spec: DriverSpec) -> str:
    """The dataset's name when none is given: the folder's own, or bucket and path."""
    if spec.type == "file":
        return Path(spec.bucket).name or "root"
    bucket = spec.bucket.rpartition("/")[2]
    return f"{bucket}/{spec.path}" if spec.path else bucket
