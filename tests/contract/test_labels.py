"""The contract of metadata, annotations, labels and mirrored files, over every catalog."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from syncagent.catalog import Store, open_catalog
from syncagent.catalog.labels import Awaited, Change, Entry, Facts, LabelStore, Stale, Taken, state_of
from syncagent.catalog.sql.postgres import PostgresCatalog
from syncagent.errors import InvalidInput, NotFound, Unsupported
from syncagent.model import DriverSpec
from tests.engine import Clock, info
from tests.keys import NASTY
from tests.rigs.catalogs import open_at
from tests.rigs.postgres import server
from tests.rigs.served import EMAIL, PASSWORD, BadNetwork, Served

SPEC = DriverSpec(type="memory", bucket="labels-box", name="box")
KINDS = ["sqlite", "postgres", "served", "afar", "platform"]
EVERY = pytest.mark.parametrize("kind", KINDS)
OURS = pytest.mark.parametrize("kind", KINDS[:4])


class Made:
    """A catalog to test, and the embedded one behind it, where the rows are made."""

    def __init__(self, kind: str, folder: Path, stack: ExitStack) -> None:
        self.clock = Clock()
        if kind == "sqlite":
            self.behind = open_at(folder / "catalog.db", clock=self.clock)
        if kind == "postgres":
            self.behind = PostgresCatalog(server().schema(), clock=self.clock)
        if kind in {"sqlite", "postgres"}:
            stack.callback(self.behind.close)
            self.store: Store = self.behind
        else:
            served = stack.enter_context(
                Served(folder / "catalog.db", self.clock, extension=kind != "platform")
            )
            self.behind = served.catalog
            url = stack.enter_context(BadNetwork(served.url)).url if kind == "afar" else served.url
            self.store = open_catalog(f"dataloop+{url}", username=EMAIL, password=SecretStr(PASSWORD))
            stack.callback(self.store.close)
        self.dataset = self.behind.ensure_dataset("data", SPEC).id
        recipe = self.behind.labels
        recipe.add_labels(self.dataset, [{"tag": "first"}])  # on the platform every dataset has a recipe

    @property
    def labels(self) -> LabelStore:
        return self.store.labels

    def put(self, *keys: str, version: str = "1") -> None:
        """Objects are there, as a sweep would find them."""
        found = [info(key, version)._replace(content_type=None) for key in keys]
        known = set(self.behind.insert_new(self.dataset, found))
        for one in found:
            if one.key in known:
                row = self.behind.get(self.dataset, one.key)
                assert row is not None
                self.behind.settle(self.dataset, one.key, one, expect_rev=row.rev)

    def drop(self, key: str) -> None:
        row = self.behind.get(self.dataset, key)
        assert row is not None
        self.behind.settle(self.dataset, key, None, expect_rev=row.rev)

    def id(self, key: str) -> str:
        return self.behind.item(self.dataset, key).id

    def told(self, key: str) -> list[tuple[str, str]]:
        """Label and id of an item's annotations."""
        found = self.labels.annotations_of(self.dataset, [self.id(key)]).get(self.id(key), [])
        return [(one["label"], one["id"]) for one in found]

    def names(self, key: str) -> list[str]:
        return [label for label, _ in self.told(key)]

    def take(self, key: str, *entries: Entry, **more: Any) -> Any:
        row = self.behind.get(self.dataset, key)
        assert row is not None
        return self.labels.take(self.dataset, Stale(key, row.fingerprint), entries, **more)


@pytest.fixture
def made(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    monkeypatch.setenv("SYNCAGENT_TEST_NO_BACKOFF", "1")
    monkeypatch.setenv("SYNCAGENT_HOME", str(tmp_path / "home"))
    with ExitStack() as stack:
        yield Made(kind, tmp_path, stack)


def box(label: str, left: float = 1, **more: Any) -> dict[str, Any]:
    corners = [{"x": left, "y": 2, "z": 0}, {"x": left + 9, "y": 20, "z": 0}]
    return {
        "type": "box",
        "label": label,
        "coordinates": corners,
        "metadata": {"system": {}, "user": {}},
        **more,
    }


def below(label: str, parent: str, **more: Any) -> dict[str, Any]:
    return box(label, metadata={"system": {"parentId": parent}, "user": {}}, **more)


# -- items and metadata --------------------------------------------------------------------------


@EVERY
def test_items_by_key_whatever_the_key(made: Made) -> None:
    made.put(*NASTY, "x*y", "xay")
    found = made.labels.at(made.dataset, [*NASTY, "x*y", "gone"])
    assert set(found) == {*NASTY, "x*y"}
    assert all(item.key == key for key, item in found.items())
    everything = list(made.labels.find(made.dataset))
    assert {item.key for item in everything} == {*NASTY, "x*y", "xay"}
    assert [item.id for item in everything] == sorted(item.id for item in everything)
    query = {"filter": {"$and": [{"filename": "/xay"}]}}
    assert [item.key for item in made.labels.find(made.dataset, query)] == ["xay"]


@EVERY
def test_items_by_stem(made: Made) -> None:
    made.put("a.json", "a.jpg", "a.b.jpg", "a/b.jpg", "a", "ab.jpg", "c/d.tar.gz", "Ä.png")
    found = made.labels.stems(made.dataset, ["a", "c/d.tar", "c/d", "Ä", "none"])
    assert {stem: [item.key for item in items] for stem, items in found.items()} == {
        "a": ["a.jpg", "a", "a.json"], "c/d.tar": ["c/d.tar.gz"], "Ä": ["Ä.png"],
    }  # fmt: skip


@EVERY
def test_metadata_is_merged_and_null_removes(made: Made) -> None:
    made.put("a", "b")
    ids = [made.id("a"), made.id("b")]
    assert (
        made.labels.describe(made.dataset, [Change(one, user={"x": 1, "deep": {"y": [1, 2]}}) for one in ids])
        == 2
    )
    changes = [Change(ids[0], user={"x": None, "deep": {"y": [3], "z": "é"}}, description="words")]
    assert made.labels.describe(made.dataset, [*changes, Change("f" * 24, user={"x": 1})]) == 1
    found = made.labels.at(made.dataset, ["a", "b"])
    assert (found["a"].user, found["a"].description) == ({"deep": {"y": [3], "z": "é"}}, "words")
    assert found["b"].user == {"x": 1, "deep": {"y": [1, 2]}}


# -- annotations ---------------------------------------------------------------------------------


@EVERY
def test_annotations_are_added_to_many_items_at_once(made: Made) -> None:
    made.put("a", "b", "c")
    a, b, c = (made.id(key) for key in "abc")
    ids = made.labels.annotate(made.dataset, [(a, [box("car"), box("dog")]), (b, []), (c, [box("cat")])])
    assert [len(one) for one in ids] == [2, 0, 1]
    found = made.labels.annotations_of(made.dataset, [a, b, c])
    assert {item: [(one["label"], one["id"]) for one in told] for item, told in found.items()} == {
        a: [("car", ids[0][0]), ("dog", ids[0][1])], c: [("cat", ids[2][0])],
    }  # fmt: skip
    assert found[a][0]["coordinates"] == box("car")["coordinates"]
    assert made.labels.at(made.dataset, ["a"])["a"].annotations == 2
    assert made.labels.unannotate(made.dataset, [ids[0][0], "f" * 24]) == 1
    assert made.names("a") == ["dog"]
    assert made.labels.at(made.dataset, ["a"])["a"].annotations == 1


@EVERY
def test_parents_are_named_by_the_ids_of_the_batch(made: Made) -> None:
    made.put("a")
    given = [below("hand", "p1", id="p2"), box("person", id="p1"), below("finger", "p2")]
    ((hand, person, finger),) = made.labels.annotate(made.dataset, [(made.id("a"), given)])
    parents = {
        one["id"]: one["metadata"]["system"].get("parentId")
        for one in made.labels.annotations_of(made.dataset, [made.id("a")])[made.id("a")]
    }
    assert parents == {hand: person, person: None, finger: hand}
    ((late,),) = made.labels.annotate(made.dataset, [(made.id("a"), [below("ring", finger)])])
    assert made.behind.labels.annotations_of(made.dataset, [made.id("a")])[made.id("a")][-1]["id"] == late


@OURS
def test_a_batch_with_a_wrong_one_adds_nothing(made: Made) -> None:
    made.put("a", "b")
    a, b = made.id("a"), made.id("b")
    with pytest.raises(NotFound, match="parent"):
        made.labels.annotate(made.dataset, [(a, [box("car")]), (b, [below("x", "nobody")])])
    with pytest.raises(InvalidInput, match="no type or no label"):
        made.labels.annotate(made.dataset, [(a, [box("car")]), (b, [{"type": "box"}])])
    with pytest.raises(NotFound, match="no item"):
        made.labels.annotate(made.dataset, [(a, [box("car")]), ("f" * 24, [box("x")])])
    with pytest.raises(InvalidInput, match="below itself"):
        made.labels.annotate(made.dataset, [(a, [below("x", "me", id="me")])])
    with pytest.raises(InvalidInput, match="below itself"):
        circle = [below("x", "2", id="1"), below("y", "3", id="2"), below("z", "1", id="3")]
        made.labels.annotate(made.dataset, [(a, circle)])
    assert made.told("a") == made.told("b") == []


@EVERY
def test_labels_are_added_once_with_their_parents(made: Made) -> None:
    made.labels.add_labels(made.dataset, [{"tag": "animal.cat", "color": "#010203"}, {"tag": "car"}])
    before = {one["tag"]: one["color"] for one in made.labels.labels(made.dataset)}
    assert list(before) == ["first", "animal", "animal.cat", "car"]
    assert before["animal.cat"] == "#010203"
    assert (
        made.labels.add_labels(
            made.dataset, [{"tag": "animal.cat", "color": "#ffffff"}, {"tag": "animal.dog"}]
        )
        == 1
    )
    after = {one["tag"]: one["color"] for one in made.labels.labels(made.dataset)}
    assert list(after) == ["first", "animal", "animal.cat", "animal.dog", "car"]
    assert before.items() <= after.items(), "what is there is left as it is"


# -- facts ---------------------------------------------------------------------------------------


@OURS
def test_facts_are_of_one_write_of_the_object(made: Made) -> None:
    made.put("a.bin", "b")
    found = made.labels.unprobed(made.dataset)
    assert [item.key for item, _ in found] == ["a.bin", "b"]
    (a, stamp), (b, _) = found
    facts = [Facts(a.id, stamp, {"width": 5, "size": 999}, "image/png"), Facts(b.id, "older", {"width": 1})]
    assert made.labels.set_facts(made.dataset, facts) == 1
    assert [item.key for item, _ in made.labels.unprobed(made.dataset)] == ["b"]
    assert made.labels.unprobed(made.dataset, after=b.id) == []
    item = made.labels.at(made.dataset, ["a.bin"])["a.bin"]
    assert (item.system["width"], item.mimetype, item.size) == (5, "image/png", a.size)
    row = made.behind.get(made.dataset, "a.bin")
    assert row is not None
    made.behind.settle(made.dataset, "a.bin", info("a.bin", "1"), expect_rev=row.rev)
    assert made.labels.at(made.dataset, ["a.bin"])["a.bin"].mimetype == "image/png", (
        "the same write is the same type"
    )
    made.put("a.bin", version="2")
    assert [item.key for item, _ in made.labels.unprobed(made.dataset)] == ["a.bin", "b"]
    made.labels.set_facts(
        made.dataset, [Facts(a.id, made.labels.unprobed(made.dataset)[0][1], {"mediaError": "no"})]
    )
    assert "width" not in made.labels.at(made.dataset, ["a.bin"])["a.bin"].system, (
        "facts of the older write are gone"
    )


# -- mirrored files ------------------------------------------------------------------------------


@OURS
def test_settings_are_kept_as_they_are(made: Made) -> None:
    assert made.labels.settings(made.dataset) == {}
    made.labels.set_settings(made.dataset, {"probe": True, "sources": [{"prefix": "labels/"}]})
    made.labels.set_settings(made.dataset, {"sources": []})
    assert made.labels.settings(made.dataset) == {"sources": []}


@OURS
def test_files_are_stale_until_they_are_taken(made: Made) -> None:
    made.put("l/a.json", "l/b.JSON", "l/c.txt", "la.json", "m.json")

    def stale(prefix: str = "l/") -> list[str]:
        return [one.key for one in made.labels.stale(made.dataset, prefix, [".json"])]

    assert stale() == ["l/a.json", "l/b.JSON"]
    assert stale("") == ["l/a.json", "l/b.JSON", "la.json", "m.json"]
    assert [
        one.key for one in made.labels.stale(made.dataset, "l/", [".json"], after="l/a.json", limit=1)
    ] == ["l/b.JSON"]
    made.take("l/a.json")
    assert stale() == ["l/b.JSON"]
    made.take("l/b.JSON", error="not JSON")
    assert stale() == []
    made.put("l/b.JSON", version="2")
    made.drop("l/a.json")
    assert [(one.key, one.fingerprint is None) for one in made.labels.stale(made.dataset, "l/", [".json"])] == [
        ("l/a.json", True), ("l/b.JSON", False),
    ]  # fmt: skip
    old = Stale("l/b.JSON", "not what it is now")
    assert made.labels.take(made.dataset, old, [Entry("a", False, [box("x")])]) is None
    assert stale() == ["l/a.json", "l/b.JSON"]


@OURS
@pytest.mark.parametrize("first", ["file", "item"])
@pytest.mark.parametrize("stem", [False, True])
def test_a_file_and_its_item_come_in_either_order(made: Made, first: str, stem: bool) -> None:
    entry = Entry("p/a" if stem else "p/a.jpg", stem, [box("car", id="1"), box("dog", id="2")], {"k": 1})
    if first == "item":
        made.put("p/a.jpg")
    made.put("l/a.json")
    taken = made.take("l/a.json", entry)
    if first == "file":
        assert (taken.annotations, taken.waiting) == (0, 1)
        assert made.labels.match(made.dataset) == 0
        made.put("p/a.jpg", "q/a.jpg")
        assert made.labels.match(made.dataset, ["q/a.jpg"]) == 0
        assert made.labels.match(made.dataset, ["p/a.jpg"]) == 1
        assert made.labels.match(made.dataset) == 0
    else:
        assert (taken.annotations, taken.waiting) == (2, 0)
    assert made.names("p/a.jpg") == ["car", "dog"]
    item = made.labels.at(made.dataset, ["p/a.jpg"])["p/a.jpg"]
    assert (item.user, item.annotations) == ({"k": 1}, 2)


@OURS
def test_a_changed_file_replaces_what_it_said_and_nothing_else(made: Made) -> None:
    made.put("a.jpg", "b.jpg", "l.json")
    made.labels.annotate(made.dataset, [(made.id("a.jpg"), [box("by hand")])])
    made.take("l.json", Entry("a.jpg", False, [box("car", id="1"), box("dog", id="2")]),
              Entry("b.jpg", False, [box("bus", id="3")]))  # fmt: skip
    ids = dict(made.told("a.jpg"))
    made.put("l.json", version="2")
    made.take("l.json", Entry("a.jpg", False, [box("truck", id="1"), box("cat", id="4")]))
    after = dict(made.told("a.jpg"))
    assert set(after) == {"by hand", "truck", "cat"}
    assert after["truck"] == ids["car"], "a record keeps its annotation"
    assert made.told("b.jpg") == []
    assert made.labels.at(made.dataset, ["b.jpg"])["b.jpg"].annotations == 0
    made.drop("l.json")
    made.take("l.json")
    assert made.names("a.jpg") == ["by hand"]
    made.put("l.json", version="3")
    made.take("l.json", Entry("a.jpg", False, [box("truck", id="1")]))
    assert dict(made.told("a.jpg"))["truck"] == ids["car"], "it comes back from the trash under its id"


@OURS
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_people_did_to_a_files_annotations_stays(made: Made, overwrite: bool) -> None:
    from syncagent.catalog.sql.annotations import Annotations

    made.put("a.jpg", "l.json")
    records = [box("car", id="1"), box("dog", id="2"), box("cat", id="3")]
    made.take("l.json", Entry("a.jpg", False, records))
    ids = dict(made.told("a.jpg"))
    people = Annotations(made.behind)
    people.change(ids["car"], {"label": "taxi"}, by="ann@example.com")
    people.delete(ids["dog"])
    made.put("l.json", version="2")
    taken = made.take("l.json", Entry("a.jpg", False, [*records, box("new", id="4")]), overwrite=overwrite)
    if overwrite:
        assert sorted(made.names("a.jpg")) == ["car", "cat", "dog", "new"]
    else:
        assert sorted(made.names("a.jpg")) == ["cat", "new", "taxi"]
        assert taken.kept == 2


@OURS
def test_a_file_that_cannot_be_read_changes_nothing(made: Made) -> None:
    made.put("a.jpg", "l.json")
    made.take("l.json", Entry("a.jpg", False, [box("car")], {"k": 1}))
    made.put("l.json", version="2")
    made.take("l.json", error="l.json: record 3: no label")
    assert made.names("a.jpg") == ["car"]
    assert made.labels.stale(made.dataset, "", [".json"]) == []


@OURS
def test_metadata_of_a_file_goes_with_it_unless_people_changed_it(made: Made) -> None:
    made.put("a.jpg", "l.json")
    made.take("l.json", Entry("a.jpg", False, user={"city": "Rome", "n": 1, "same": 1}))
    made.labels.describe(made.dataset, [Change(made.id("a.jpg"), user={"n": 2, "mine": True})])
    made.put("l.json", version="2")
    made.take("l.json", Entry("a.jpg", False, user={"same": 1, "new": 0}))
    assert made.labels.at(made.dataset, ["a.jpg"])["a.jpg"].user == {
        "n": 2,
        "mine": True,
        "same": 1,
        "new": 0,
    }
    made.drop("l.json")
    made.take("l.json")
    assert made.labels.at(made.dataset, ["a.jpg"])["a.jpg"].user == {"n": 2, "mine": True}


@OURS
def test_a_name_that_several_items_share_waits(made: Made) -> None:
    made.put("a.jpg", "a.png", "l.json")
    taken = made.take("l.json", Entry("a", True, [box("car")]))
    assert (taken.ambiguous, taken.waiting) == (("a",), 1)
    made.drop("a.png")
    assert made.labels.match(made.dataset, ["a.png"]) == 1
    assert made.names("a.jpg") == ["car"]


@OURS
def test_labels_of_an_item_that_left_for_good_come_from_the_file_again(made: Made) -> None:
    made.put("a.jpg", "l.json")
    made.take("l.json", Entry("a.jpg", False, [box("car")]))
    made.drop("a.jpg")
    made.put("a.jpg", version="2")
    assert made.names("a.jpg") == ["car"], "out of the trash with them"
    made.drop("a.jpg")
    made.store.empty_trash(made.dataset)
    made.put("a.jpg", version="3")
    assert made.told("a.jpg") == []
    assert [one.key for one in made.labels.stale(made.dataset, "", [".json"])] == ["l.json"]
    made.take("l.json", Entry("a.jpg", False, [box("car")]))
    assert made.names("a.jpg") == ["car"]


@pytest.mark.parametrize("kind", ["sqlite"])
def test_any_history_of_files_and_items_ends_in_what_the_files_say(made: Made) -> None:
    """Files and items come, change and go in random order; a person edits nothing. At the end all agrees."""
    rng = random.Random(7)
    items, files = [f"i{n}.jpg" for n in range(4)], [f"l{n}.json" for n in range(3)]
    for _ in range(30):
        says: dict[str, list[Entry]] = {}
        there: set[str] = set()
        for step in range(25):
            key = rng.choice([*items, *files])
            if rng.random() < 0.3 and made.behind.get(made.dataset, key) is not None:
                made.drop(key)
                there.discard(key)
                says.pop(key, None)
            else:
                made.put(key, version=f"{step}-{rng.random()}")
                there.add(key)
                if key in files:
                    says[key] = [
                        Entry(
                            item,
                            False,
                            [box(f"{key}{rng.randint(0, 2)}", id=str(n)) for n in range(rng.randint(0, 3))],
                        )
                        for item in rng.sample(items, rng.randint(0, 3))
                    ]
            if rng.random() < 0.5:
                settle_files(made, says, rng.choice)
        settle_files(made, says, None)
        for item in there & set(items):
            wanted = sorted(
                one["label"]
                for entries in says.values()
                for e in entries
                if e.key == item
                for one in e.annotations
            )
            assert sorted(made.names(item)) == wanted
            assert made.labels.at(made.dataset, [item])[item].annotations == len(wanted)
        for key in [*items, *files]:
            if made.behind.get(made.dataset, key) is not None:
                made.drop(key)


@OURS
@pytest.mark.parametrize("stem", [True, False])
def test_a_file_that_needs_its_item_is_stale_when_it_came(made: Made, stem: bool) -> None:
    def stale() -> list[str]:
        return [one.key for one in made.labels.stale(made.dataset, "", [".json"])]

    awaited = Awaited("p/a" if stem else "p/a.jpg", stem, None)
    made.put("l.json")
    taken = made.take("l.json", error="l.json: no size", awaited=awaited)
    assert taken == Taken()
    made.put("p/b.jpg")
    assert made.labels.wake(made.dataset, ["p/b.jpg"]) == []
    assert made.labels.wake(made.dataset) == []
    assert stale() == []
    made.put("p/a.jpg")
    assert made.take("l.json", error="l.json: no size", awaited=awaited) is None, "it came meanwhile"
    for _ in range(2):  # a redelivery finds it, too
        assert made.labels.wake(made.dataset, ["p/a.jpg"]) == ["l.json"]
        assert stale() == ["l.json"]
    seen = state_of(made.labels.at(made.dataset, ["p/a.jpg"])["p/a.jpg"])
    made.take("l.json", error="l.json: no size", awaited=awaited._replace(seen=seen))
    assert (made.labels.wake(made.dataset, ["p/a.jpg"]), stale()) == ([], [])
    made.put("p/a.jpg", version="2")
    assert made.labels.wake(made.dataset) == []
    assert stale() == ["l.json"]
    made.take("l.json", Entry("p/a.jpg", False, [box("car")]))
    made.put("p/a.jpg", version="3")
    made.labels.wake(made.dataset)
    assert (stale(), made.names("p/a.jpg")) == ([], ["car"])


@OURS
def test_two_entries_of_a_file_may_name_one_item_without_its_extension(made: Made) -> None:
    made.put("a.jpg", "l.json")
    taken = made.take("l.json", Entry("a", True, [box("car")]), Entry("a", True, [box("dog")]))
    assert (taken.annotations, taken.ambiguous) == (2, ())


@pytest.mark.parametrize("kind", ["sqlite"])
def test_more_files_wait_than_are_looked_at_at_once(made: Made) -> None:
    for n in range(1100):
        made.put(f"l{n:04}.json")
        made.take(f"l{n:04}.json", error="no size", awaited=Awaited(f"a{n % 3}", True, None))
    made.put("a1.jpg", "a2.jpg")
    woken = made.labels.wake(made.dataset, ["a1.jpg", "a0.jpg"])
    assert sorted(woken) == [f"l{n:04}.json" for n in range(1100) if n % 3 == 1]
    made.labels.wake(made.dataset)
    ((stale,),) = made.behind.db.sql("SELECT count(*) FROM source_file WHERE fingerprint = ''")
    assert stale == sum(n % 3 > 0 for n in range(1100))


@OURS
def test_a_list_of_classes_makes_files_stale_that_it_is_read_with(made: Made) -> None:
    made.put("a.jpg")
    for key in ("l/a.json", "l/bad.json", "l/other.json", "m.json", "l/names.json"):
        made.put(key)
    entry = Entry("a.jpg", False, [box("car")])
    for key in ("l/a.json", "m.json"):
        made.take(key, entry)
    made.take("l/bad.json", error="class 0 has no name")
    made.take("l/other.json")
    made.take("l/names.json", lists="l/")
    found = [one.key for one in made.labels.stale(made.dataset, "", [".json"])]
    assert found == ["l/a.json", "l/bad.json"], "not another list, which would make this one stale again"
    assert made.names("a.jpg") == ["car", "car"], "what they gave stays until they are read"


def settle_files(made: Made, says: dict[str, list[Entry]], choose: Callable[..., Any] | None) -> None:
    stale = made.labels.stale(made.dataset, "", [".json"])
    for file in stale if choose is None else [choose(stale)] if stale else []:
        made.labels.take(made.dataset, file, says.get(file.key, []))
    made.labels.match(made.dataset)


@pytest.mark.parametrize("kind", ["platform"])
def test_the_platform_says_what_it_cannot_do(made: Made) -> None:
    made.put("a")
    for call in (
        lambda: made.labels.unprobed(made.dataset),
        lambda: made.labels.stale(made.dataset, "", [".json"]),
        lambda: made.labels.set_settings(made.dataset, {}),
        lambda: made.labels.take(made.dataset, Stale("a", None), []),
        lambda: made.labels.set_facts(made.dataset, []),
    ):
        with pytest.raises(Unsupported, match="the platform has no place"):
            call()
    assert made.labels.match(made.dataset) == 0
    assert made.labels.wake(made.dataset) == []
    assert made.labels.settings(made.dataset) == {}


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize("batch", [1, 2, 1000])
def test_a_file_may_tell_of_an_item_in_several_places(
    made: Made, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr("syncagent.catalog.sql.sources._BATCH", batch)
    made.put("a.jpg", "b.jpg", "l.json")
    entries = [Entry("a.jpg", False, [box("1", id="1")]), Entry("b.jpg", False, [box("2", id="2")]),
               Entry("a.jpg", False, [box("3", id="3"), box("3", id="3")])]  # fmt: skip
    made.take("l.json", *entries)
    before = made.told("a.jpg")
    assert [label for label, _ in before] == ["1", "3", "3"]
    made.put("l.json", version="2")
    taken = made.take("l.json", *entries)
    assert sorted(made.told("a.jpg")) == sorted(before)
    assert (taken.annotations, made.names("b.jpg")) == (4, ["2"])
