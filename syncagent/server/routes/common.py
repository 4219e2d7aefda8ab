"""What every route needs: who calls, the platform behind it, and the address it was called by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, cast

from fastapi import Body, Depends, Request

from syncagent.catalog.filters import Query, parse_query
from syncagent.errors import InvalidInput
from syncagent.server.platform import Platform

Json = dict[str, Any]
JsonBody = Annotated[Json, Body()]


def _platform(request: Request) -> Platform:
    return cast(Platform, request.app.state.platform)


def _api(request: Request) -> str:
    return f"{str(request.base_url).rstrip('/')}/api/v1"


On = Annotated[Platform, Depends(_platform)]
Api = Annotated[str, Depends(_api)]


def text(body: Mapping[str, Any], name: str) -> str:
    """A text that the body must hold.

    :raises InvalidInput: it does not.
    """
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"the request lacks {name!r}", resource=name)
    return value


def part(body: Mapping[str, Any], name: str) -> Json:
    """An object that the body may hold.

    :raises InvalidInput: it holds something else there.
    """
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInput(f"{name!r} must be an object", resource=name)
    return value


def everything(query: Any) -> Query:
    """A query of items as it stands in clone, export and split requests."""
    given = query if isinstance(query, Mapping) else {}
    return parse_query({"filter": {}, "resource": "items", **given})


def key_of(filename: str) -> str:
    """The key of a `filename`, with or without its first slash; decoded and normalised by nobody.

    :raises InvalidInput: it names no file.
    """
    key = filename.removeprefix("/")
    if not key or "\0" in key:
        raise InvalidInput(f"{filename!r} is no path of an item", resource=filename)
    return key
