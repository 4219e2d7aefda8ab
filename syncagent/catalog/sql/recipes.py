"""Recipes and ontologies: the platform's JSON documents."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from syncagent.catalog.labels import stable_color
from syncagent.catalog.sql.catalog import SqlCatalog
from syncagent.catalog.sql.items import Json
from syncagent.catalog.wire import time
from syncagent.errors import InvalidInput, NotFound

Kind = Literal["recipe", "ontology"]
_OURS = ("id", "url", "createdAt", "updatedAt")


class Recipes:
    """Recipes and ontologies by id, and of a project."""

    def __init__(self, catalog: SqlCatalog) -> None:
        self._catalog = catalog
        self._db = catalog.db

    def create(self, kind: Kind, project: str, data: Mapping[str, Any]) -> Json:
        """Store a document; its id is new."""
        n_id = secrets.token_hex(12)
        kept = {name: value for name, value in data.items() if name not in _OURS}
        given = {
            "id": n_id, "kind": kind, "project": project, "now": self._catalog.now(), "data": json.dumps(kept)
        }  # fmt: skip
        if not self._db.change("create_recipe", given):
            raise NotFound(f"no project {project!r}", resource=project)
        return self.get(kind, n_id)

    def get(self, kind: Kind, public_id: str) -> Json:
        """One document.

        :raises NotFound: there is none.
        """
        for row in self._db.query("recipe", {"kind": kind, "id": public_id}):
            return _json(row)
        raise NotFound(f"no {kind} {public_id!r}", resource=public_id)

    def default(self, project: str, name: str) -> str:
        """Make a recipe with an empty ontology for a dataset of this name; its id."""
        ontology = self.create(
            "ontology", project, {"title": f"{name} ontology", "roots": [], "metadata": {"attributes": []}}
        )
        recipe = {
            "title": f"{name} recipe",
            "ontologyIds": [ontology["id"]],
            "metadata": {"system": {}},
            "uiSettings": {},
        }
        return str(self.create("recipe", project, recipe)["id"])

    def list(self, kind: Kind, projects: Sequence[str]) -> list[Json]:
        """Those of some projects, oldest first."""
        return [
            _json(row)
            for row in self._db.query("recipes_of", {"kind": kind, "projects": self._db.array(projects)})
        ]

    def change(self, kind: Kind, public_id: str, data: Mapping[str, Any]) -> Json:
        """Replace what `data` names; null means nothing, as the platform's client sends whole entities."""
        with self._db.transaction():
            old = self.get(kind, public_id)
            new = {name: value for name, value in data.items() if name not in _OURS and value is not None}
            kept = {name: value for name, value in old.items() if name not in (*_OURS, "projectIds")} | new
            given = {"kind": kind, "id": public_id, "now": self._catalog.now(), "data": json.dumps(kept)}
            self._db.change("change_recipe", given)
        return self.get(kind, public_id)

    def delete(self, kind: Kind, public_id: str) -> None:
        """Forget one.

        :raises NotFound: there is none.
        """
        if not self._db.change("delete_recipe", {"kind": kind, "id": public_id}):
            raise NotFound(f"no {kind} {public_id!r}", resource=public_id)


def put_label(roots: list[Json], node: Mapping[str, Any], *, create: bool, change: bool = True) -> int:
    """Put a label into an ontology's tree, by its dotted ``tag``.

    :param create: make what is not there, its parents too; :param change: give one that is there what `node` says.
    Returns how many were made.
    :raises NotFound: it is not there, and is not to be made.
    :raises InvalidInput: it has no tag, or a colour that is none.
    """
    tag = node.get("tag")
    if not isinstance(tag, str) or not tag:
        raise InvalidInput("a label needs a tag", resource="tag")
    color = node.get("color")
    if color is not None and not (isinstance(color, str) and color.startswith("#")):
        raise InvalidInput(f"the colour of label {tag!r} must be written #rrggbb", resource=tag)
    children, here, made = roots, None, 0
    *above, last = tag.split(".")
    for name in [*above, last]:
        here = next((one for one in children if one["value"]["tag"] == name), None)
        if here is None:
            if not create:
                raise NotFound(f"no label {tag!r}", resource=tag)
            here = {"value": {"tag": name, "displayLabel": name, "color": stable_color(tag), "attributes": [],
                              "displayData": {}}, "children": []}  # fmt: skip
            children.append(here)
            made += 1
        children = here["children"]
    if here is not None and (change or made):
        given = {
            name: value
            for name, value in node.items()
            if name not in {"tag", "children"} and value is not None
        }
        here["value"] |= given
    return made


def flat_labels(roots: Sequence[Json], above: str = "") -> Iterator[Json]:
    """The labels of an ontology's tree, parents first, each with its dotted ``tag``."""
    for node in roots:
        tag = f"{above}{node['value']['tag']}"
        yield {**node["value"], "tag": tag}
        yield from flat_labels(node.get("children") or [], f"{tag}.")


def _json(row: Sequence[Any]) -> Json:
    n_id, project, data, created, updated = row
    return {
        **json.loads(data),
        "id": n_id,
        "projectIds": [project],
        "createdAt": time(created),
        "updatedAt": time(updated),
    }
