"""Which items a command is about: the options, and the query of the platform that they make."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from syncagent.cli import output
from syncagent.cli.root import Function, option
from syncagent.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from syncagent.catalog import Item
    from syncagent.catalog.labels import LabelStore

Json = dict[str, Any]


def query_options(function: Function) -> Function:
    """``--prefix``, ``--label``, ``--query``."""
    wrap: list[Callable[[Any], Any]] = [
        option("--prefix", default="", help="Only items whose key starts with this."),
        option("--label", multiple=True, help="Only items with an annotation of this label; several: of any of them."),
        option("--query", metavar="JSON", help="Only items that this query of the platform finds, as dtlpy's Filters prepare it."),
    ]  # fmt: skip
    for one in reversed(wrap):
        function = one(function)
    return function


def note_slash(prefix: str) -> None:
    """Say that keys have no first slash: the platform's paths do, and a prefix of one finds nothing."""
    if prefix.startswith("/"):
        output.note(
            f"--prefix {output.printable(prefix)}: keys begin without '/', as in {output.printable(prefix[1:])!r}"
        )


def item_at(store: LabelStore, dataset: str, key: str) -> Item:
    """The item of a key, or of a path as the platform writes it: ``/a.jpg``.

    :raises NotFound: there is none.
    """
    bare = key.removeprefix("/")
    found = store.at(dataset, [key, bare])
    if key not in found and bare not in found:
        raise NotFound(f"no item {key!r} in the dataset", resource=key)
    return found[key] if key in found else found[bare]


def query_of(prefix: str, label: tuple[str, ...], query: str | None) -> Json:
    """The query that the options make.

    :raises InvalidInput: ``--query`` is no JSON object.
    """
    told: Json = {"filter": {}}
    if query is not None:
        try:
            told = json.loads(query)
        except ValueError as error:
            raise InvalidInput(f"--query is no JSON: {error}", resource="--query") from None
        if not isinstance(told, dict):
            raise InvalidInput("--query must be a JSON object", resource="--query")
        if "filter" not in told:
            told = {"filter": told}
    note_slash(prefix)
    conditions: list[Json] = [{"type": "file"}]
    if told["filter"]:
        conditions.append(told["filter"])
    if prefix:
        last = ord(prefix[-1]) + 1
        after = prefix[:-1] + chr(0xE000 if last == 0xD800 else min(last, 0x10FFFF))
        conditions += [{"filename": {"$gte": f"/{prefix}"}}, {"filename": {"$lt": f"/{after}"}}]
    told["filter"] = {"$and": conditions}
    if label:
        if "join" in told:
            raise InvalidInput("--label and a join in --query exclude each other", resource="--label")
        told["join"] = {
            "on": {"resource": "annotations", "local": "itemId", "forigen": "id"},
            "filter": {"$and": [{"label": {"$in": list(label)}}]},
        }
    return {name: told[name] for name in ("filter", "join") if name in told}
