"""Annotations, recipes, ontologies and commands."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body

from syncagent.catalog.sql.recipes import put_label
from syncagent.errors import InvalidInput, NotFound
from syncagent.server import shapes
from syncagent.server.auth import Who
from syncagent.server.platform import Platform
from syncagent.server.routes.common import Api, Json, JsonBody, On, part

router = APIRouter(tags=["annotations"])


@router.post("/items/{item}/annotations", summary="Annotate an item")
def annotate(on: On, who: Who, api: Api, item: str, body: Annotated[list[Json] | Json, Body()]) -> list[Json]:
    found = on.items.get(item)
    _may(on, who, found.dataset, "annotation.write")
    on.writable(found.dataset)
    made = on.annotations.add(item, body if isinstance(body, list) else [body], by=who.email)
    return [shapes.annotation(one, api) for one in made]


@router.get("/annotations/{annotation}", summary="One annotation")
def get(on: On, who: Who, api: Api, annotation: str) -> Json:
    return shapes.annotation(_annotation(on, who, annotation, "dataset.read"), api)


@router.put("/annotations/{annotation}", summary="Change an annotation")
def change(on: On, who: Who, api: Api, annotation: str, body: JsonBody) -> Json:
    on.writable(_annotation(on, who, annotation, "annotation.write")["datasetId"])
    return shapes.annotation(on.annotations.change(annotation, body, by=who.email), api)


@router.delete("/annotations/{annotation}", summary="Delete an annotation")
def delete(on: On, who: Who, annotation: str) -> Json:
    on.writable(_annotation(on, who, annotation, "annotation.write")["datasetId"])
    on.annotations.delete(annotation)
    return {"id": annotation}


def _may(on: Platform, who: Who, dataset: str, action: str) -> None:
    who.may(action, on.datasets.get(dataset, counted=False)["projects"][0])


def _annotation(on: Platform, who: Who, annotation: str, action: str) -> Json:
    found = on.annotations.get(annotation)
    _may(on, who, found["datasetId"], action)
    return found


# -- recipes and ontologies ----------------------------------------------------------------------


def _page(found: list[Json], offset: int, size: int) -> Json:
    size = max(1, min(size, 1000))
    return shapes.page(found[offset * size : (offset + 1) * size], len(found), offset, size)


@router.get("/recipes", summary="Recipes of a project")
def recipes(on: On, who: Who, api: Api, projects: str, pageOffset: int = 0, pageSize: int = 1000) -> Json:  # noqa: N803
    who.may("dataset.read", projects)
    found = [shapes.linked(one, api, "recipes") for one in on.recipes.list("recipe", [projects])]
    return _page(found, pageOffset, pageSize)


@router.post("/recipes", summary="Create a recipe")
def create_recipe(on: On, who: Who, api: Api, body: JsonBody) -> Json:
    project = _project(who, body)
    return shapes.linked(on.recipes.create("recipe", project, {"ontologyIds": [], **body}), api, "recipes")


@router.get("/recipes/{recipe}", summary="One recipe")
def recipe(on: On, who: Who, api: Api, recipe: str) -> Json:
    return shapes.linked(_document(on, who, "recipe", recipe, "dataset.read"), api, "recipes")


@router.patch("/recipes/{recipe}", summary="Change a recipe")
def change_recipe(on: On, who: Who, api: Api, recipe: str, body: JsonBody) -> Json:
    _document(on, who, "recipe", recipe, "dataset.write")
    return shapes.linked(on.recipes.change("recipe", recipe, body), api, "recipes")


@router.delete("/recipes/{recipe}", summary="Delete a recipe")
def delete_recipe(on: On, who: Who, recipe: str) -> Json:
    _document(on, who, "recipe", recipe, "dataset.write")
    on.recipes.delete("recipe", recipe)
    return {"id": recipe}


@router.post("/recipes/{recipe}/clone", summary="Copy a recipe with its ontologies")
def clone_recipe(on: On, who: Who, api: Api, recipe: str, body: JsonBody) -> Json:
    found = _document(on, who, "recipe", recipe, "dataset.write")
    project = found["projectIds"][0]
    ontologies = found["ontologyIds"]
    if not body.get("shallow"):
        copied = [on.recipes.get("ontology", str(one)) for one in ontologies]
        ontologies = [on.recipes.create("ontology", project, one)["id"] for one in copied]
    made = on.recipes.create("recipe", project, {**found, "ontologyIds": ontologies})
    return shapes.linked(made, api, "recipes")


@router.get("/ontologies", summary="Ontologies of a project")
def ontologies(
    on: On, who: Who, api: Api, projects: str, ids: str | None = None, pageOffset: int = 0, pageSize: int = 1000  # noqa: N803
) -> Json:  # fmt: skip
    who.may("dataset.read", projects)
    wanted = set(ids.split(",")) if ids else None
    found = [
        shapes.linked(one, api, "ontologies")
        for one in on.recipes.list("ontology", [projects])
        if wanted is None or one["id"] in wanted
    ]
    return _page(found, pageOffset, pageSize)


@router.post("/ontologies", summary="Create an ontology")
def create_ontology(on: On, who: Who, api: Api, body: JsonBody) -> Json:
    project = _project(who, body)
    attributes = [a for a in body.get("attributes") or [] if isinstance(a, dict)]
    made = {"roots": [], **body, "metadata": {"attributes": attributes, **part(body, "metadata")}}
    return shapes.linked(on.recipes.create("ontology", project, made), api, "ontologies")


@router.get("/ontologies/{ontology}", summary="One ontology")
def ontology(on: On, who: Who, api: Api, ontology: str) -> Json:
    return shapes.linked(_document(on, who, "ontology", ontology, "dataset.read"), api, "ontologies")


@router.put("/ontologies/{ontology}", summary="Replace an ontology")
def change_ontology(on: On, who: Who, api: Api, ontology: str, body: JsonBody) -> Json:
    _document(on, who, "ontology", ontology, "dataset.write")
    given = {name: value for name, value in body.items() if name != "labels"}
    return shapes.linked(on.recipes.change("ontology", ontology, given), api, "ontologies")


@router.delete("/ontologies/{ontology}", summary="Delete an ontology")
def delete_ontology(on: On, who: Who, ontology: str) -> Json:
    _document(on, who, "ontology", ontology, "dataset.write")
    on.recipes.delete("ontology", ontology)
    return {"id": ontology}


@router.patch("/ontologies/{ontology}/labels", summary="Add or change labels")
def labels(on: On, who: Who, api: Api, ontology: str, body: JsonBody) -> Json:
    with on.catalog.db.transaction():
        found = _document(on, who, "ontology", ontology, "dataset.write")
        roots = found.get("roots") or []
        for node in body.get("labelsNode") or []:
            put_label(roots, node, create=bool(body.get("upsert")))
        return shapes.linked(on.recipes.change("ontology", ontology, {"roots": roots}), api, "ontologies")


@router.patch("/ontologies/{ontology}/attributes", summary="Add or change attributes")
def attributes(on: On, who: Who, api: Api, ontology: str, body: JsonBody) -> Json:
    with on.catalog.db.transaction():
        found = _document(on, who, "ontology", ontology, "dataset.write")
        known = {one["key"]: one for one in part(found, "metadata").get("attributes") or []}
        for one in body.get("items") or []:
            key = one.get("key")
            if not isinstance(key, str) or not key:
                raise InvalidInput("an attribute needs a key", resource="key")
            if key not in known and not body.get("upsert"):
                raise NotFound(f"no attribute {key!r}", resource=key)
            known[key] = {**known.get(key, {}), **one}
        return _with_attributes(on, api, found, list(known.values()))


@router.delete("/ontologies/{ontology}/attributes", summary="Delete attributes")
def delete_attributes(on: On, who: Who, api: Api, ontology: str, body: JsonBody) -> Json:
    with on.catalog.db.transaction():
        found = _document(on, who, "ontology", ontology, "dataset.write")
        gone = set(body.get("keys") or [])
        kept = [one for one in part(found, "metadata").get("attributes") or [] if one["key"] not in gone]
        return _with_attributes(on, api, found, kept)


def _with_attributes(on: Platform, api: str, found: Json, told: list[Json]) -> Json:
    metadata = {**part(found, "metadata"), "attributes": told}
    return shapes.linked(
        on.recipes.change("ontology", found["id"], {"metadata": metadata}), api, "ontologies"
    )


def _document(on: Platform, who: Who, kind: Any, public_id: str, action: str) -> Json:
    found = on.recipes.get(kind, public_id)
    who.may(action, found["projectIds"][0])
    return found


def _project(who: Who, body: Json) -> str:
    projects = body.get("projectIds")
    if not isinstance(projects, list) or not projects:
        raise InvalidInput("the request names no project", resource="projectIds")
    who.may("dataset.write", str(projects[0]))
    return str(projects[0])


# -- commands ------------------------------------------------------------------------------------


@router.get("/commands", summary="Commands of mine")
def commands(on: On, who: Who, api: Api) -> list[Json]:
    return [shapes.command(one, api) for one in on.commands.list(who.email)]


@router.get("/commands/{command}", summary="How far a command is")
def command(on: On, who: Who, api: Api, command: str) -> Json:
    return shapes.command(_command(on, who, command), api)


@router.post("/commands/{command}/abort", summary="Stop a command")
def abort(on: On, who: Who, api: Api, command: str) -> Json:
    _command(on, who, command)
    return shapes.command(on.commands.end(command, "aborted"), api)


def _command(on: Platform, who: Who, command: str) -> Json:
    found = on.commands.get(command)
    if found["creator"] != who.email:
        raise NotFound(f"no command {command!r}", resource=command)
    return found
