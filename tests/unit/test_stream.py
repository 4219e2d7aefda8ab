"""JSON of any size: the same whatever the window, whatever is nested in it."""

from __future__ import annotations

import io
import json
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
