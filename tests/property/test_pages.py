"""A page by column is the list of its objects, whatever they hold and however it came about."""

from __future__ import annotations

import marshal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncagent.model import ObjectInfo
from syncagent.pages import SEPARATOR, ObjectPage, keys_of

TEXT = st.text(st.sampled_from(f"ab\0\n{SEPARATOR}") | st.characters(), max_size=3)
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
    size, columns = marshal.loads(marshal.dumps(page.packed()))  # noqa: S302  # our own
    return ObjectPage(size, columns)


@given(OBJECTS)
def test_it_is_its_objects(objects: list[ObjectInfo]) -> None:
    for page in (ObjectPage.of(objects), sent(ObjectPage.of(objects)), sent(sent(ObjectPage.of(objects)))):
        assert page == objects
        assert objects == page
        assert (len(page), bool(page), list(keys_of(page))) == (len(objects), bool(objects), keys_of(objects))
        assert [page[at] for at in range(-len(objects), len(objects))] == objects + objects
        for at in range(9):
            values = [found[at] for found in objects]
            assert list(page.column(at)) == values
            assert page.shared(at) in ((values[0],) if len(set(values)) == 1 else None, None)
            text = page.text(at)
            assert text is None or text.split(SEPARATOR) == values
    assert all(type(found) is ObjectInfo for found in sent(ObjectPage.of(objects)))


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
