"""Secrets that stay in a cloud's store, or a file, until they are used: ``aws-secret://…``, ``gcp-secret://…``, ``azure-secret://…``.

A setting holds such a reference in a secret's place. ``#field`` takes one field of a secret that is a JSON object.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from syncagent.errors import AccessDenied, ConfigError, NotFound, SyncAgentError, Transient
from syncagent.retry import retrying

_STORES = {
    "aws-secret": "syncagent.drivers.s3_secrets",
    "gcp-secret": "syncagent.drivers.gcs_secrets",
    "azure-secret": "syncagent.drivers.azure_secrets",
}
_SECONDS = 10.0


def is_reference(text: str) -> bool:
    """Whether a setting names a secret, and is none itself."""
    return text.partition("://")[0] in {*_STORES, "file"}


def read_secret(reference: str) -> str:
    """The secret that a reference names; other texts are given back as they are.

    :raises ConfigError: the reference is wrong, the SDK is not installed, or the secret has no such field.
    :raises NotFound: there is no such secret. :raises AccessDenied: reading it is not allowed.
    :raises Transient: the store cannot be reached for now.
    """
    if not is_reference(reference):
        return reference
    parts = urlsplit(reference)
    name, field = unquote(parts.netloc + parts.path), unquote(parts.fragment)
    options = {
        key: unquote(value) for key, _, value in (one.partition("=") for one in parts.query.split("&") if one)
    }
    if parts.scheme == "file":
        secret = _file(Path(unquote(parts.path)))
    else:
        try:
            store = importlib.import_module(_STORES[parts.scheme])
            unknown = sorted(set(options) - set(store.OPTIONS))
            if unknown or not name:
                raise ConfigError(
                    f"{parts.scheme}:// has no parameter {unknown[0]!r}" if unknown else f"{reference} names no secret",
                    resource=name, hint=store.FORM,
                )  # fmt: skip
            secret = store.read(name, options)
        except ModuleNotFoundError as missing:
            raise ConfigError(
                f"{parts.scheme}:// needs the package {missing.name}", resource=name,
                hint=f"pip install 'syncagent[{parts.scheme.removesuffix('-secret')}]'",
            ) from missing  # fmt: skip
    return _field(secret, field, name) if field else secret


def fetch(
    url: str, token: str | None, name: str, permission: str, params: Mapping[str, str] | None = None
) -> Any:
    """The JSON of a store that answers over HTTP.

    :raises SyncAgentError: see `read_secret`. No answer is quoted.
    """

    def once() -> Any:
        try:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            answer = httpx.get(url, headers=headers, params=params, timeout=_SECONDS)
        except httpx.HTTPError as error:
            raise Transient(f"the store of secret {name} cannot be reached", resource=name) from error
        if answer.status_code == 404:
            raise NotFound(f"no such secret: {name}", resource=name)
        if answer.status_code in {401, 403}:
            raise denied(name, permission)
        if answer.status_code == 429 or answer.status_code >= 500:
            raise Transient(f"the store of secret {name} is busy ({answer.status_code})", resource=name)
        try:
            told = answer.json()
        except ValueError:
            told = None
        if answer.status_code != 200 or not isinstance(told, dict):
            raise SyncAgentError(f"the store of secret {name} answered {answer.status_code}", resource=name)
        return told

    return retrying(once, attempts=4)()


def denied(name: str, permission: str) -> AccessDenied:
    """The error of a secret that may not be read."""
    return AccessDenied(
        f"not allowed: {permission} on secret {name}", resource=name,
        hint="give it to the identity that this process runs as", permission=permission,
    )  # fmt: skip


def _file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}", resource=str(path)) from None
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{path} is no readable text", resource=str(path)) from None


def _field(secret: str, field: str, name: str) -> str:
    try:
        told = json.loads(secret)
    except ValueError:
        told = None
    value = told.get(field) if isinstance(told, dict) else None
    if not isinstance(value, str):  # the secret is not quoted
        raise ConfigError(f"secret {name} is no JSON object with a text {field!r}", resource=name)
    return value
