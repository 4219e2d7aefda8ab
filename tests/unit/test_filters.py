"""The query language: what is read, what is refused, and what its SQL finds in real catalogs."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from syncagent.catalog.filters import All, Condition, Either, Expression, Op, Query, parse_query
from syncagent.catalog.sql.annotations import Annotations
from syncagent.catalog.sql.catalog import SqlCatalog
from syncagent.catalog.sql.items import Items
from syncagent.catalog.sql.postgres import PostgresCatalog
from syncagent.catalog.sql.sqlite import SqliteCatalog
from syncagent.errors import InvalidInput, SyncAgentError
from syncagent.model import DriverSpec, ObjectInfo
from tests.rigs.postgres import server

ROWS: dict[str, dict[str, Any]] = {
    "a.jpg": {"n": 1, "tags": ["x", "y"], "deep": {"k": "v", "list": [1, 2]}},
    "b.txt": {"n": 2, "tags": ["x"], "flag": True},
    "f/c.jpg": {"n": 3.5, "tags": [], "flag": False, "text": "7"},
    "f/g/d.png": {"tags": "x", "refs": [{"id": "1", "type": "task"}, {"id": "2", "type": "job"}]},
    "fg/e*.jpg": {"n": -1, "null": None},
    "f/[x]?.txt": {},
    "f/g/h/é 日本.txt": {"n": 10, "text": "10 apples"},
}


def postgres(folder: Path) -> SqlCatalog:
    return PostgresCatalog(server().schema(), clock=lambda: 1_800_000_000)


def sqlite(folder: Path) -> SqlCatalog:
    return SqliteCatalog(folder / "catalog.db", clock=lambda: 1_800_000_000)


KINDS = {"sqlite": sqlite, "postgres": postgres}


class Found:
    """Runs queries over the rows of a catalog."""

    def __init__(self, catalog: SqlCatalog, dataset: str, ids: dict[str, str]) -> None:
        self.catalog, self.dataset, self.ids = catalog, dataset, ids

    def items(self, query: Query) -> list[str]:
        items, total = Items(self.catalog).page(self.dataset, query)
        assert total >= len(items)
        return [item.key for item in items]

    def labels(self, query: Query) -> list[str]:
        return [one["label"] for one in Annotations(self.catalog).page(self.dataset, query)[0]]


def filled(catalog: SqlCatalog) -> Found:
    dataset = catalog.ensure_dataset("data", DriverSpec(type="memory", bucket="box", name="box")).id
    found = [
        ObjectInfo(key, key, len(key) * 10, "2026-01-01T00:00:00Z", key)
        for key in sorted(ROWS, key=str.encode)
    ]
    catalog.insert_new(dataset, found)
    by_key = {}
    for key, user in ROWS.items():
        catalog.set_user_metadata(dataset, key, user)
        by_key[key] = catalog.item(dataset, key).id
    labels = Annotations(catalog)
    labels.add(by_key["a.jpg"], [{"type": "box", "label": "cat"}, {"type": "point", "label": "dog"}], by="me")
    labels.add(
        by_key["b.txt"], [{"type": "box", "label": "dog", "metadata": {"user": {"sure": 0.5}}}], by="you"
    )
    return Found(catalog, dataset, by_key)


@pytest.fixture(scope="module")
def catalog_made(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[SqlCatalog, str, dict[str, str]]]:
    with sqlite(tmp_path_factory.mktemp("filters")) as catalog:
        found = filled(catalog)
        yield catalog, found.dataset, found.ids


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    with KINDS[request.param](tmp_path_factory.mktemp("filters")) as catalog:
        yield filled(catalog)


def find(made: Found, where: Any, **more: Any) -> list[str]:
    return made.items(parse_query({"filter": where, "resource": "items", **more}))


J, T = "a.jpg", "b.txt"
C, D, E, X, U = "f/c.jpg", "f/g/d.png", "fg/e*.jpg", "f/[x]?.txt", "f/g/h/é 日本.txt"


@pytest.mark.parametrize(
    ("where", "keys"),
    [
        ({}, {J, T, C, D, E, X, U}),
        ({"filename": "/a.jpg"}, {J}),
        ({"filename": {"$eq": "/f/c.jpg"}}, {C}),
        ({"filename": "/**"}, {J, T, C, D, E, X, U}),
        ({"filename": "/*"}, {J, T}),
        ({"filename": "/f/**"}, {C, D, X, U}),
        ({"filename": "/f/*"}, {C, X}),
        ({"filename": "/f*"}, {C, D, E, X, U}),
        ({"filename": "*.jpg"}, {J, C, E}),
        ({"filename": "*/g/*"}, {D, U}),
        ({"filename": "/f/[x]?.txt"}, {X}),
        ({"filename": "/f/[x]*"}, {X}),
        ({"filename": "*[x]?*"}, {X}),
        ({"filename": {"$ne": "/a.jpg"}}, {T, C, D, E, X, U}),
        ({"filename": {"$in": ["/a.jpg", "/f/g/**", "/none"]}}, {J, D, U}),
        ({"filename": {"$nin": ["/a.jpg", "/f/**"]}}, {T, E}),
        ({"filename": {"$gt": "/f/g"}}, {D, E, U}),
        ({"dir": "/"}, {J, T}),
        ({"dir": "/f"}, {C, X}),
        ({"dir": "/f/"}, {C, X}),
        ({"dir": "/f/*"}, {D, U}),
        ({"dir": "/f/**"}, {D, U}),
        ({"dir": "*g"}, {D, E}),
        ({"dir": {"$in": ["/f/g", "/fg"]}}, {D, E}),
        ({"name": "d.png"}, {D}),
        ({"name": "é*"}, {U}),
        ({"name": "*É*"}, set()),
        ({"type": "dir"}, set()),
        ({"hidden": False}, {J, T, C, D, E, X, U}),
        ({"annotated": True}, {J, T}),
        ({"annotated": "completed"}, {J, T}),
        ({"annotated": False}, {C, D, E, X, U}),
        ({"annotationsCount": {"$gte": 2}}, {J}),
        ({"metadata.system.mimetype": "image/*"}, {J, C, D, E}),
        ({"metadata.system.mimetype": "image/png"}, {D}),
        ({"metadata.system.size": {"$gt": "80"}}, {D, E, X, U}),
        ({"metadata.system.size": "50"}, {J, T}),
        ({"metadata.user.n": 3.5}, {C}),
        ({"metadata.user.n": "2"}, {T}),
        ({"metadata.user.n": {"$gt": 1}}, {T, C, U}),
        ({"metadata.user.n": {"$lt": "0"}}, {E}),
        ({"metadata.user.n": {"$in": [1, 2, "10", "nothing"]}}, {J, T, U}),
        ({"metadata.user.n": {"$nin": [1, 2, 10]}}, {C, D, E, X}),
        ({"metadata.user.n": {"$ne": 1}}, {T, C, D, E, X, U}),
        ({"metadata.user.tags": "x"}, {J, T, D}),
        ({"metadata.user.tags": ["x", "y"]}, {J}),
        ({"metadata.user.tags": []}, {C, E, X, U}),
        ({"metadata.user.flag": True}, {T}),
        ({"metadata.user.flag": False}, {C}),
        ({"metadata.user.flag": {"$exists": True}}, {T, C}),
        ({"metadata.user.null": {"$exists": True}}, set()),
        ({"metadata.user.null": None}, {J, T, C, D, E, X, U}),
        ({"metadata.user.flag": None}, {J, D, E, X, U}),
        ({"metadata.user.text": 7}, set()),
        ({"metadata.user.text": "7"}, {C}),
        ({"metadata.user.text": "*apples"}, {U}),
        ({"metadata.user.deep.k": "v"}, {J}),
        ({"metadata.user.deep.list": 2}, {J}),
        ({"metadata.user.deep": "v"}, set()),
        ({"metadata.user.refs": {"$match": {"id": "1", "type": "task"}}}, {D}),
        ({"metadata.user.refs": {"$match": {"id": "1", "type": "job"}}}, set()),
        ({"metadata.user.deep": {"$match": {"k": "v"}}}, {J}),
        ({"createdAt": {"$gt": "2026-01-01"}}, {J, T, C, D, E, X, U}),
        ({"createdAt": {"$lt": "2027-01-15T08:00:00.000Z"}}, set()),
        ({"createdAt": "2027-01-15T10:00:00+02:00"}, {J, T, C, D, E, X, U}),
        ({"$or": [{"name": "a.jpg"}, {"name": "b.txt"}], "$and": [{"metadata.user.n": 1}]}, {J}),
        ({"$and": [{"$or": [{"name": "a.jpg"}, {"$and": [{"dir": "/f"}, {"name": "c*"}]}]}]}, {J, C}),
        ({"metadata.user.n": {"$gt": 0, "$lt": 3}}, {J, T}),
        ({"$or": []}, {J, T, C, D, E, X, U}),
    ],
    ids=str,
)
def test_what_a_filter_finds(made: Found, where: dict[str, Any], keys: set[str]) -> None:
    assert set(find(made, where)) == keys


def test_ids(made: Found) -> None:
    ids = made.ids
    first, *others = [item for _, item in sorted(ids.items(), key=lambda pair: pair[1])]
    by_id = {item: key for key, item in ids.items()}
    assert find(made, {"id": first}) == [by_id[first]]
    assert find(made, {"id": {"$gt": first}}, sort={"id": "ascending"}) == [by_id[one] for one in others]
    assert find(made, {"id": {"$lte": first}}) == [by_id[first]]
    assert set(find(made, {"id": {"$in": [first, others[0], "nonsense"]}})) == {
        by_id[first],
        by_id[others[0]],
    }
    assert find(made, {"id": "f" * 24}) == find(made, {"id": "' OR 1=1 --"}) == []
    assert (
        len(find(made, {"id": {"$gt": "0" * 24}})) == len(find(made, {"id": {"$lt": "g" * 24}})) == len(ROWS)
    )


JOIN = {"on": {"resource": "annotations", "local": "itemId", "forigen": "id"}}


@pytest.mark.parametrize(
    ("where", "keys"),
    [
        ({"$and": [{"label": "dog"}]}, {J, T}),
        ({"$and": [{"label": "dog"}, {"type": "box"}]}, {T}),
        ({"$and": [{"label": {"$ne": "dog"}}]}, {J}),
        ({"$and": [{"metadata.user.sure": {"$lt": 1}}]}, {T}),
        ({"$or": [{"creator": "you"}, {"label": "cat"}]}, {J, T}),
        ({"$and": []}, {J, T, C, D, E, X, U}),
    ],
    ids=str,
)
def test_items_by_their_annotations(made: Any, where: dict[str, Any], keys: set[str]) -> None:
    assert set(find(made, {}, join={**JOIN, "filter": where})) == keys


def test_annotations_by_their_items(made: Found) -> None:
    ids = made.ids

    def labels(where: Any, join: Any = None) -> list[str]:
        body = {
            "filter": where,
            "resource": "annotations",
            "sort": {"label": "descending", "id": "ascending"},
        }
        if join:
            body["join"] = {"on": {"resource": "items"}, "filter": join}
        return made.labels(parse_query(body))

    assert labels({}) == ["dog", "dog", "cat"]
    assert labels({"itemId": ids[T]}) == ["dog"]
    assert labels({}, {"metadata.system.mimetype": "image*"}) == ["dog", "cat"]
    assert labels({}, {"metadata.user.flag": True}) == ["dog"]
    found = Annotations(made.catalog).of(made.dataset, ids[J])
    assert labels({"annotationId": {"$in": [found[0]["id"]]}}) == ["cat"]


def test_sorting_and_paging(made: Any) -> None:
    in_order = sorted(ROWS, key=str.encode)
    assert find(made, {}, sort={"filename": "ascending"}) == in_order
    assert find(made, {}, sort={"filename": "descending"}, pageSize=2, page=1) == in_order[::-1][2:4]
    assert find(made, {"dir": "/f"}, sort={"name": "descending"}) == [C, X]
    assert find(made, {}, sort={"metadata.system.size": "ascending", "name": "descending"})[:2] == [T, J]
    by_number = find(made, {"metadata.user.n": {"$exists": True}}, sort={"metadata.user.n": "ascending"})
    assert by_number == [E, J, T, C, U]
    assert find(made, {}, pageSize=0) == []
    assert find(made, {}, page=99) == []


@pytest.mark.parametrize(
    "body",
    [
        {"filter": []},
        {"filter": "x"},
        {"filter": {"$and": {}}},
        {"filter": {"$nor": []}},
        {"filter": {"name": {"$regex": "x"}}},
        {"filter": {"name": {}}},
        {"filter": {"name": {"$in": "x"}}},
        {"filter": {"name": {"$exists": "yes"}}},
        {"filter": {"name": {"$gt": None}}},
        {"filter": {"name": {"$gt": [1]}}},
        {"filter": {"metadata.user.x": float("nan")}},
        {"filter": {"metadata.user.x": 1 << 70}},
        {"filter": {"metadata.user.x": "\0"}},
        {"filter": {"metadata.user.x": "\ud800"}},
        {"filter": {"metadata.user.x": "y" * 20_000}},
        {"filter": {"metadata.user.x": {"$in": [1] * 20_000}}},
        {"filter": {'metadata.user."); DROP TABLE item; --': 1}},
        {"filter": {"metadata..x": 1}},
        {"filter": {"": 1}},
        {"filter": {"$and": [{"name": "x"}] * 2000}},
        {"resource": "secrets"},
        {"sort": ["name"]},
        {"sort": {"name": "up"}},
        {"page": -1},
        {"page": 1 << 60},
        {"pageSize": "many"},
        {"pageSize": True},
        {"join": "x"},
        {"join": {"on": {"resource": "items"}, "filter": {}}},
        {"update": []},
    ],
    ids=lambda body: str(body)[:60],
)
def test_hostile_queries_are_refused_in_one_line(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_query({"filter": {}, "resource": "items", **body})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_deep_filters_are_refused() -> None:
    nested: Any = {"name": "x"}
    for _ in range(5000):
        nested = {"$and": [nested]}
    with pytest.raises(InvalidInput, match="nested deeper than 20"):
        parse_query({"filter": nested, "resource": "items"})


@pytest.mark.parametrize(
    "where", [{"no_such_field": 1}, {"metadata.other.x": 1}, {"createdAt": {"$gt": "yesterday"}}]
)
def test_what_does_not_fit_the_fields_is_refused(made: Any, where: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        find(made, where)


def test_sql_in_values_and_names_is_only_text(made: Any) -> None:
    for text in ("'; DROP TABLE item; --", "' OR '1'='1", "%", "_", "\\", "$.x", ":p0", "?1"):
        assert find(made, {"name": text}) == find(made, {"metadata.user.text": text}) == []
        assert find(made, {f"metadata.user.{text.replace(chr(92), '')}x": 1}) == []
    assert len(find(made, {})) == len(ROWS)


def test_queries_use_the_indexes(catalog_made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Found(*catalog_made)
    catalog = made.catalog

    def plan(where: Any, monkeypatch: pytest.MonkeyPatch, **more: Any) -> str:
        plans: list[str] = []
        run = catalog.db.sql

        def explained(statement: str, parameters: Any = ()) -> Any:
            rows = run(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.append(" | ".join(row[3] for row in rows))
            return run(statement, parameters)

        with monkeypatch.context() as patched:
            patched.setattr(catalog.db, "sql", explained)
            find(made, where, **more)
        return "\n".join(plans[:2])  # the count, the page

    assert "item_key (dataset=? AND driver=? AND key=?)" in plan({"filename": "/a.jpg"}, monkeypatch)
    folder = plan({"dir": "/f"}, monkeypatch, sort={"name": "ascending"})
    assert "item_key (dataset=? AND driver=? AND key>? AND key<?)" in folder and "TEMP B-TREE" not in folder
    assert "item_key (dataset=? AND driver=? AND key>? AND key<?)" in plan({"filename": "/f/**"}, monkeypatch)
    following = plan({"id": {"$gt": catalog.public_id(3)}}, monkeypatch, sort={"id": "ascending"})
    assert "item_order (dataset=? AND rowid>?)" in following and "TEMP B-TREE" not in following
    first = plan({"$and": [{"hidden": False}, {"type": "file"}]}, monkeypatch, sort={"id": "ascending"})
    assert first.startswith("SEARCH i USING COVERING INDEX item_type") and "TEMP B-TREE" not in first
    typed = plan({"metadata.system.mimetype": "image/png", "hidden": False, "type": "file"}, monkeypatch)
    assert typed.startswith("SEARCH i USING COVERING INDEX item_type (dataset=? AND content_type=?")
    joined = plan({}, monkeypatch, join={**JOIN, "filter": {"label": "cat"}})
    assert "annotation_label (dataset=? AND label=?" in joined


# -- random filters, against a plain reading of the tree ------------------------------------------


def holds(tree: Expression, row: dict[str, Any]) -> bool:
    match tree:
        case All(parts):
            return all(holds(part, row) for part in parts)
        case Either(parts):
            return any(holds(part, row) for part in parts)
        case Condition(name, op, value):
            told = row.get(name)
            values = told if isinstance(told, list) else [told]
            match op:
                case Op.EQ:
                    return any(fits(one, value) for one in values)
                case Op.NE:
                    return not any(fits(one, value) for one in values)
                case Op.IN:
                    return any(fits(one, wanted) for one in values for wanted in value)
                case Op.NIN:
                    return not any(fits(one, wanted) for one in values for wanted in value)
                case Op.EXISTS:
                    return (told is not None) == value
                case Op.GT:
                    return any(type(one) is int and one > value for one in values)
                case _:
                    return any(type(one) is int and one <= value for one in values)


def fits(one: Any, value: Any) -> bool:
    if isinstance(value, str) and isinstance(one, str):
        return re.fullmatch(".*".join(map(re.escape, re.split(r"\*+", value))), one) is not None
    return type(one) is type(value) and one == value


def random_tree(dice: random.Random, depth: int = 0) -> dict[str, Any]:
    if depth < 3 and dice.random() < 0.4:
        return {
            dice.choice(["$and", "$or"]): [random_tree(dice, depth + 1) for _ in range(dice.randint(1, 3))]
        }
    texts = ["a", "b", "ab", "a*", "*b", "*", "c*d", "", "a b"]
    match dice.randrange(5):
        case 0:
            return {f"metadata.user.{dice.choice('st')}": dice.choice(texts)}
        case 1:
            return {f"metadata.user.{dice.choice('st')}": {dice.choice(["$ne", "$eq"]): dice.choice(texts)}}
        case 2:
            return {
                f"metadata.user.{dice.choice('st')}": {dice.choice(["$in", "$nin"]): dice.sample(texts, 2)}
            }
        case 3:
            return {f"metadata.user.{dice.choice('nst')}": {"$exists": dice.choice([True, False])}}
        case _:
            return {"metadata.user.n": {dice.choice(["$gt", "$lte"]): dice.randint(-2, 3)}}


def test_random_filters_find_what_a_plain_reading_finds(tmp_path: Path) -> None:
    dice = random.Random(20261124)
    rows: dict[str, dict[str, Any]] = {}
    for number in range(60):
        user: dict[str, Any] = {}
        for name in "st":
            if dice.random() < 0.7:
                words = [dice.choice(["a", "b", "ab", "acd", "", "a b"]) for _ in range(dice.randint(1, 3))]
                user[name] = words if dice.random() < 0.5 else words[0]
        if dice.random() < 0.7:
            user["n"] = dice.randint(-3, 4)
        rows[f"{number:02}"] = user
    flat = {
        key: {f"metadata.user.{name}": value for name, value in user.items()} for key, user in rows.items()
    }
    trees = [random_tree(dice) for _ in range(400)]
    for kind in KINDS.values():
        with kind(tmp_path) as catalog:
            dataset = catalog.ensure_dataset("data", DriverSpec(type="memory", bucket="box", name="box")).id
            catalog.insert_new(dataset, [ObjectInfo(key, key, 1, "", key) for key in rows])
            for key, user in rows.items():
                catalog.set_user_metadata(dataset, key, user)
            found, sizes = Found(catalog, dataset, {}), set()
            for tree in trees:
                query = parse_query({"filter": tree, "resource": "items"})
                wanted = {key for key, row in flat.items() if holds(query.where, row)}
                assert set(found.items(query)) == wanted, query.where
                sizes.add(len(wanted))
            assert len(sizes) > 20, "the filters differ"


def test_random_junk_is_refused_and_never_a_bug(made: Any) -> None:
    dice = random.Random(7)
    atoms: list[Any] = [
        None,
        True,
        1,
        -1.5,
        "x",
        "*",
        [],
        {},
        "$and",
        [1, "a"],
        {"$gt": 1},
        {"a": {"b": 1}},
        "9" * 400,
    ]
    names = [
        "$and",
        "$or",
        "name",
        "filename",
        "dir",
        "id",
        "createdAt",
        "metadata.user.a",
        "annotated",
        "hidden",
    ]
    refused = 0
    for _ in range(2000):
        where: Any = {
            dice.choice(names): dice.choice(
                [*atoms, {dice.choice([op.value for op in Op]): dice.choice(atoms)}]
            )
        }
        if dice.random() < 0.3:
            where = {dice.choice(["$and", "$or"]): [where, dice.choice(atoms)]}
        try:
            find(made, where, sort={dice.choice(names[2:]): "ascending"})
        except SyncAgentError as error:
            assert isinstance(error, InvalidInput), (where, error)
            refused += 1
    assert 200 < refused < 1900
