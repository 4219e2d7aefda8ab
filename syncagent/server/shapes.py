"""JSON of the platform: entities with their links, and pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from syncagent.catalog.base import Item

Json = dict[str, Any]


def page(found: Sequence[Json], total: int, number: int, size: int) -> Json:
    """One page of a list."""
    pages = math.ceil(total / size) if size else 0
    return {
        "totalItemsCount": total,
        "totalPagesCount": pages,
        "hasNextPage": number + 1 < pages,
        "items": list(found),
    }


def item(found: Item, api: str) -> Json:
    """An item; `api` is the address of the API, without a slash at its end."""
    url = f"{api}/items/{found.id}"
    told = found.to_json()
    for name in ("createdAt", "updatedAt"):
        told[name] = _milliseconds(told[name])
    system = told["metadata"]["system"]
    return told | {
        "metadata": {
            **told["metadata"],
            "system": {name: value for name, value in system.items() if value is not None},
        },
        "annotated": bool(found.annotations),
        "url": url,
        "dataset": f"{api}/datasets/{found.dataset}",
        "stream": f"{url}/stream",
        "thumbnail": f"{url}/thumbnail",
        "annotations": f"{url}/annotations",
    }


def dataset(found: Json, api: str) -> Json:
    """A dataset."""
    url = f"{api}/datasets/{found['id']}"
    return {name: value for name, value in found.items() if name != "system"} | {
        "url": url,
        "items": f"{url}/items",
        "directoryTree": f"{url}/directoryTree",
        "isSyncing": False,
        "indexDriver": "v2",
        "accessLevel": "private",
    }


def annotation(found: Json, api: str) -> Json:
    """An annotation."""
    return found | {
        "url": f"{api}/annotations/{found['id']}",
        "item": f"{api}/items/{found['itemId']}",
        "dataset": f"{api}/datasets/{found['datasetId']}",
    }


def command(found: Json, api: str) -> Json:
    """A command."""
    return found | {"url": f"{api}/commands/{found['id']}"}


def linked(found: Json, api: str, kind: str) -> Json:
    """A recipe or an ontology."""
    return found | {"url": f"{api}/{kind}/{found['id']}"}


def _milliseconds(time: str) -> str:
    return f"{time[:-1]}.000Z" if len(time) == len("2026-01-01T00:00:00Z") else time
