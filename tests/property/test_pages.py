"""A page by column is the list of its objects, whatever they hold and however it came about."""

from __future__ import annotations

import marshal
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from syncagent.drivers import processes
from syncagent.model import ObjectInfo
from syncagent.pages import SEPARATOR, Keys, ObjectPage, keys_of, last_key

TEXT = st.text(st.sampled_from(f"ab\0\n\ud800{SEPARATOR}") | st.characters(), max_size=3)
SOME = st.none() | TEXT
OBJECT = st.builds(
    ObjectInfo,
    TEXT,
    TEXT,
    st.integers(0, 2**63 - 1),
    TEXT,
    SOME,
    SOME,
    SOME,
    SOME,
    st.sampled_from(["COLD", None]),
)
OBJECTS = st.lists(OBJECT, max_size=6) | st.builds(lambda one, n: [one] * n, OBJECT, st.integers(0, 4))


def sent(page: ObjectPage) -> ObjectPage:
    """It, as another process gets it."""
    size, columns = page.packed()
    parted, texts = processes._parted(columns)
    parted, sizes = marshal.loads(marshal.dumps((parted, list(map(len, texts)))))  # noqa: S302  # our own
    return ObjectPage(size, processes._filled(parted, sizes, memoryview(b"".join(texts))))


@given(OBJECTS)
def test_it_is_its_objects(objects: list[ObjectInfo]) -> None:
    for page in (ObjectPage.of(objects), sent(ObjectPage.of(objects)), sent(sent(ObjectPage.of(objects)))):
        assert page == objects
        assert objects == page
        assert (len(page), bool(page), list(keys_of(page))) == (len(objects), bool(objects), keys_of(objects))
        assert not objects or page[0] == objects[0]
        assert [page[at] for at in range(-len(objects), len(objects))] == objects + objects
        for at in range(9):
            values = [found[at] for found in objects]
            assert list(page.column(at)) == values
            assert page.shared(at) in ((values[0],) if len(set(values)) == 1 else None, None)
            text = page.text(at)
            assert text is None or text.split(SEPARATOR) == values
    assert all(type(found) is ObjectInfo for found in sent(ObjectPage.of(objects)))


@given(OBJECTS, st.sampled_from([ObjectPage.of, lambda objects: sent(ObjectPage.of(objects))]), st.slices(6))
def test_its_keys_are_those_of_its_objects(
    objects: list[ObjectInfo], made: Callable[[list[ObjectInfo]], ObjectPage], cut: slice
) -> None:
    def of(page: ObjectPage) -> Keys:
        keys = keys_of(page)
        assert isinstance(keys, Keys)
        return keys

    known = keys_of(objects)
    # Each of a page on which nothing was asked for before.
    assert [of(made(objects))[at] for at in range(-len(known), len(known))] == [*known, *known]
    assert list(of(made(objects))[cut]) == known[cut]
    assert (len(of(made(objects))), list(of(made(objects)))) == (len(known), known)
    if objects:
        assert last_key(made(objects)) == last_key(objects) == known[-1]


@example(["", "", "", "00", "0"], 4, False)  # one is longer than a part
@example(["\ud800", "b"], 1, False)
@given(st.lists(TEXT, min_size=1, max_size=60), st.integers(1, 20), st.booleans())
def test_some_keys_are_from_all_over(keys: list[str], count: int, split: bool) -> None:
    page = sent(ObjectPage.of([ObjectInfo(key, "", 0, "", None, None, None) for key in keys]))
    if split:
        page.column(0)
    some = list(Keys(page).some(count))
    assert some[0] == keys[0]
    assert len(some) <= 2 * count
    at = iter(keys)
    assert all(one in at for one in some), "in their order"
    if len(set(map(len, keys))) == 1:  # else a long one may stand for all
        assert len(some) >= min(count, len(keys)) - 1


@given(OBJECTS, st.slices(6))
def test_a_slice_is_of_the_same_objects(objects: list[ObjectInfo], cut: slice) -> None:
    for page in (ObjectPage.of(objects), sent(ObjectPage.of(objects))):
        assert page[cut] == objects[cut]
        assert sent(page[cut]) == objects[cut]


@given(st.lists(st.tuples(OBJECTS, st.sampled_from(["list", "page", "sent"])), max_size=4))
def test_pages_are_joined(parts: list[tuple[list[ObjectInfo], str]]) -> None:
    forms = {"list": list, "page": ObjectPage.of, "sent": lambda one: sent(ObjectPage.of(one))}
    joined = ObjectPage.joined([forms[form](objects) for objects, form in parts])
    assert joined == [found for objects, _ in parts for found in objects]
    assert sent(ObjectPage.of(joined)) == joined


@pytest.mark.parametrize("keys", [["a"], ["ab", "cd"], ["x", "", "yz"], ["", ""]])
def test_the_ends_of_a_text(keys: list[str]) -> None:
    """As a parser makes a page: also of one object."""
    columns = [SEPARATOR.join(keys), *[("x",)] * 8]
    for at in (0, -1):
        assert ObjectPage(len(keys), columns).value(0, at) == keys[at]
    assert list(Keys(ObjectPage(len(keys), columns)).some(1)) == keys[:1]


def test_one_column_may_be_another() -> None:
    page = ObjectPage(2, ["a\x01b", ("1", "2"), [5, 6], ("now",), "x\x01y", (None,), 4, (None,), (None,)])
    objects = [ObjectInfo("a", "1", 5, "now", "x", None, "x"), ObjectInfo("b", "2", 6, "now", "y", None, "y")]
    assert page == sent(page) == page[:] == objects
    assert page[1:] == objects[1:]
    assert ObjectPage.joined([page, page]) == objects + objects
    assert page.replaced(0, ["c", "d"]) == [
        one._replace(key=key) for one, key in zip(objects, "cd", strict=True)
    ]
    assert page.replaced(4, ["z", "z"])[0] == objects[0]._replace(etag="z")


def test_two_pages_differ_where_an_object_does() -> None:
    one, other = ObjectInfo("a", "1", 5, "now"), ObjectInfo("a", "2", 5, "now")
    assert ObjectPage.of([one]) != ObjectPage.of([other])
    assert ObjectPage.of([one]) != [one, one]
    assert ObjectPage.of([one]) != 1
    with pytest.raises(TypeError):
        hash(ObjectPage.of([one]))
