"""JSON of any size: the same whatever the window, whatever is nested in it."""

from __future__ import annotations

import io
import json
import re
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncagent.errors import InvalidInput
from syncagent.ingest.formats import stream

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5) | st.sampled_from(["},{", '"}, {"id', "]", "\\"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "a", "}, {"]), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip
elements = st.lists(
    st.dictionaries(st.sampled_from(["id", "b"]), values, min_size=1, max_size=3) | values, max_size=8
)
documents = st.fixed_dictionaries(
    {"first": elements, "skipped": values, "id": elements, "last": st.integers()}
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(documents, st.sampled_from([1, 2, 7, 64, 1 << 20]), st.sampled_from([None, 1]))
def test_arrays_are_read_as_they_stand(document: dict[str, Any], window: int, indent: int | None) -> None:
    data = json.dumps(document, indent=indent).encode()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stream, "_WINDOW", window)
        found: dict[str, list[Any]] = {"first": [], "id": []}
        for name, batch in stream.arrays(io.BytesIO(data), "f", {"first": object, "id": object}):
            found[name] += batch
    assert found == {"first": document["first"], "id": document["id"]}


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(elements, st.integers(0, 400), st.sampled_from([1, 16, 1 << 20]))
def test_what_is_cut_off_is_an_error(told: list[Any], at: int, window: int) -> None:
    data = json.dumps(told).encode()
    with pytest.MonkeyPatch.context() as patched, pytest.raises(InvalidInput, match=r"f"):
        patched.setattr(stream, "_WINDOW", window)
        list(stream.arrays(io.BytesIO(data[: at % len(data)]), "f", {"": object}))


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'[{"a":' + b"[" * 100_000,
        b'{"x":' * 100_000,
        b'{"x":' + b"[" * 9999 + b"]" * 9999 + b"}",
    ],
)
def test_what_is_nested_too_deeply_is_an_error(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        list(stream.arrays(io.BytesIO(data), "f", {"": object, "a": object}))
    for read in (
        lambda: stream.document(data, "f", dict),
        lambda: list(stream.lines(io.BytesIO(data), "f", dict)),
    ):
        with pytest.raises(InvalidInput):
            read()


def test_elements_that_look_like_what_they_hold_are_gone_through_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = [{"id": n, "of": [{"id": k, "x": "y" * 50} for k in range(30)]} for n in range(400)]
    monkeypatch.setattr(stream, "_WINDOW", 1 << 14)
    counted = 0
    real = stream._Reader._counted_end

    def count(self: Any) -> int | None:
        nonlocal counted
        counted += len(self._held) - self._at
        return real(self)

    monkeypatch.setattr(stream._Reader, "_counted_end", count)
    data = json.dumps(told).encode()
    assert [one for _, batch in stream.arrays(io.BytesIO(data), "f", {"": dict}) for one in batch] == told
    assert counted < 3 * len(data)


def rest_of(data: bytes) -> list[tuple[str, list[Any]]]:
    return list(stream.arrays(io.BytesIO(data), "f.json", {"images": object}))


@pytest.mark.parametrize("value", [b"1", b'"1', b"t"])
def test_a_value_that_is_passed_over_is_no_larger_than_a_record(
    monkeypatch: pytest.MonkeyPatch, value: bytes
) -> None:
    monkeypatch.setattr(stream, "MAX_RECORD", 2 << 20)
    with pytest.raises(InvalidInput, match=r"f\.json: byte 8: larger than 2 MiB"):
        rest_of(b'{"info":' + value + b"1" * (5 << 20) + b',"images":[]}')


@pytest.mark.parametrize("text", [b"x", b"\\n", b"\\\\", b'\\"'])
def test_a_long_text_that_is_passed_over_takes_neither_time_nor_memory(text: bytes) -> None:
    told = text * ((16 << 20) // len(text))
    data = io.BytesIO(b'{"images":[1],"info":"' + told + b'","last":{"' + told[: 4 << 20] + b'":[]}}')
    tracemalloc.start()
    try:
        started = time.process_time()
        found = list(stream.arrays(data, "f", {"images": object}))
        seconds, peak = time.process_time() - started, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == [("images", [1])]
    assert seconds < 2
    assert peak < 24 << 20


@pytest.mark.parametrize("window", [1, 2, 3, 5])
@pytest.mark.parametrize("text", ['a"b', "a\\", '\\"', "\\\\", "", '"', 'x\\\\"y"'])
def test_a_text_ends_where_it_ends_whatever_the_window(
    monkeypatch: pytest.MonkeyPatch, window: int, text: str
) -> None:
    monkeypatch.setattr(stream, "_WINDOW", window)
    data = json.dumps({text: text, "images": [text]}).encode()
    assert [one for _, batch in rest_of(data) for one in batch] == [text]
    for at in range(1, len(data) - 1):
        with pytest.raises(InvalidInput):
            rest_of(data[:at])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"a": }', "byte 6: expected a value, found '}'"),
        (b'{"a": ', "byte 6: the file is cut off"),
        (b'{"a": "x', "byte 6: the file is cut off in a text"),
        (b"{1: 2}", "byte 1: expected '\"', found '1'"),
    ],
)
def test_what_is_no_value_is_told_by_its_place(data: bytes, said: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(said)):
        rest_of(data)


def test_the_mark_of_utf8_before_lines_is_passed_over() -> None:
    told = list(stream.lines(io.BytesIO(b'\xef\xbb\xbf{"a": 1}\n{"a": 2}\n'), "f", dict))
    assert told == [(1, {"a": 1}), (2, {"a": 2})]
