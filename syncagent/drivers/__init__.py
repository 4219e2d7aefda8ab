"""Drivers by URL: ``s3://bucket/path``, ``gs://…``, ``az://account/container/path``, or a folder."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from urllib.parse import quote, unquote

from syncagent.drivers.bucket import Bucket
from syncagent.errors import ConfigError
from syncagent.model import DriverSpec, Integration, Scope

__all__ = ["Bucket", "describe", "open_bucket", "parse_url"]

# scheme -> (driver type on the platform, module)
_BUILTIN = {
    "file": ("file", "syncagent.drivers.local"),
    "memory": ("memory", "syncagent.drivers.memory"),
    "s3": ("s3", "syncagent.drivers.s3"),
    "gs": ("gcs", "syncagent.drivers.gcs"),
    "az": ("azureblob", "syncagent.drivers.azure"),
}
_SCHEME_OF = {kind: scheme for scheme, (kind, _) in _BUILTIN.items()}
_COMMON = {
    "scope": "folder (default) or prefix",
    "region": "the bucket's region; discovered when not given",
    "endpoint": "another server that speaks the same protocol",
    "storage_class": "for uploads",
    "allow_delete": "yes lets syncagent delete objects; default no",
    "sorted": "no: the store does not list in byte order, so sort on disk",
}


def _module(scheme: str) -> ModuleType:
    if scheme in _BUILTIN:
        return importlib.import_module(_BUILTIN[scheme][1])
    from importlib.metadata import entry_points

    for entry in entry_points(group="syncagent.drivers"):
        if entry.name == scheme:
            return importlib.import_module(entry.module)
    known = ", ".join(sorted(_BUILTIN))
    raise ConfigError(
        f"unknown scheme {scheme}://", resource=scheme, hint=f"known are {known} and a folder's path"
    )


def parse_url(url: str) -> DriverSpec:
    """Read a URL into a `DriverSpec`.

    The path is percent-decoded once; everything after the first ``?`` is parameters. A string
    without ``://`` is a folder's path, taken as it is.

    :raises ConfigError: unknown scheme or parameter, credentials in the URL, no bucket.
    """
    if "://" not in url:
        return DriverSpec(type="file", bucket=str(Path(url).expanduser().absolute()))
    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    module = _module(scheme)
    if "@" in rest.partition("/")[0]:
        raise _credentials_in(f"the {scheme}:// URL")
    params = _params(url, scheme, query, {**_COMMON, **getattr(module, "OPTIONS", {})})
    if "@" in params.get("endpoint", ""):
        raise _credentials_in("the endpoint")
    if scheme == "file":
        bucket, path = unquote(rest), ""
        if not bucket.startswith("/"):
            raise ConfigError(f"{url} is not an absolute path", resource=url, hint="write file:///folder")
    else:
        depth = getattr(module, "BUCKET_SEGMENTS", 1)
        parts = rest.split("/", depth)
        if len(parts) < depth or not all(parts[:depth]):
            raise ConfigError(f"{url} names no bucket", resource=url, hint=getattr(module, "USAGE", ""))
        bucket, path = "/".join(parts[:depth]), unquote(parts[depth] if len(parts) > depth else "")
    scope = _scope(params.pop("scope", "folder"))
    return DriverSpec(
        type=_BUILTIN[scheme][0] if scheme in _BUILTIN else scheme,
        bucket=bucket,
        path=path.removesuffix("/") if scope is Scope.FOLDER else path,
        scope=scope,
        region=params.pop("region", None),
        endpoint=params.pop("endpoint", None),
        storage_class=params.pop("storage_class", None),
        allow_external_delete=_yes(params.pop("allow_delete", "no"), "allow_delete"),
        options=params,
    )


def _credentials_in(what: str) -> ConfigError:
    return ConfigError(
        f"{what} holds credentials",
        hint="credentials never stand in a URL: use the environment or 'syncagent integrations create'",
    )


def _params(url: str, scheme: str, query: str, known: Mapping[str, str]) -> dict[str, str]:
    params: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        name, _, value = pair.partition("=")
        if name not in known:
            raise ConfigError(
                f"unknown parameter {name!r} in a {scheme}:// URL",
                resource=url.partition("?")[0],
                hint=f"known are {', '.join(sorted(known))}",
            )
        params[name] = unquote(value)
    return params


def _scope(value: str) -> Scope:
    try:
        return Scope(value)
    except ValueError:
        raise ConfigError(f"scope={value} is neither folder nor prefix") from None


def _yes(value: str, name: str) -> bool:
    if value.lower() in {"yes", "true", "1"}:
        return True
    if value.lower() in {"no", "false", "0", ""}:
        return False
    raise ConfigError(f"{name}={value} is neither yes nor no")


def describe(spec: DriverSpec) -> str:
    """The URL that opens this driver again. Holds no secret, because a spec holds none."""
    scheme = _SCHEME_OF.get(spec.type, spec.type)
    params = dict(spec.options)
    if spec.scope is Scope.PREFIX:
        params["scope"] = "prefix"
    for name in ("region", "endpoint", "storage_class"):
        if value := getattr(spec, name):
            params[name] = value
    if spec.allow_external_delete:
        params["allow_delete"] = "yes"
    query = "&".join(f"{name}={quote(value, safe=':/')}" for name, value in sorted(params.items()))
    if scheme == "file":
        if not query and not re.search(r"://", spec.bucket):
            return spec.bucket
        return f"file://{quote(spec.bucket)}" + (f"?{query}" if query else "")
    path = f"/{quote(spec.path, safe='/')}" if spec.path else ""
    return f"{scheme}://{spec.bucket}{path}" + (f"?{query}" if query else "")


def open_bucket(where: str | DriverSpec, integration: Integration | None = None) -> Bucket:
    """Open a bucket by URL, folder path or driver record.

    :param integration: credentials; None for the SDK's own default chain.
    :raises ConfigError: the URL or the record is wrong, or the driver's package is not installed.
    :raises SyncAgentError: the store could not be reached, where the driver must ask it (a region, say).
    """
    spec = parse_url(where) if isinstance(where, str) else where
    scheme = _SCHEME_OF.get(spec.type, spec.type)
    module = _module(scheme)
    try:
        driver = module.open_driver(spec, integration)
    except ModuleNotFoundError as missing:
        extra = {"s3": "s3", "gs": "gcs", "az": "azure"}.get(scheme, scheme)
        raise ConfigError(
            f"the {scheme}:// driver needs the package {missing.name}",
            hint=f"pip install 'syncagent[{extra}]'",
        ) from missing
    bucket = Bucket(driver, spec, url=describe(spec))
    bucket.recipe = spec, integration
    return bucket
