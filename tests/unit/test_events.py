"""Parsers of events: every envelope and kind has a recorded payload, and whatever else comes is told as none."""

from __future__ import annotations

import ast
import base64
import contextlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncagent.handlers import azure_events, gcs_events, local_events, s3_events
from syncagent.handlers.events import BadEvent, Event, Kind, Parsed
from tests.keys import NASTY

FOLDER = Path(__file__).parents[1] / "events"
MODULES: dict[str, ModuleType] = {"s3": s3_events, "gcs": gcs_events, "azure": azure_events}
PROVIDERS = {"s3": "s3", "gcs": "gcs", "azure": "azureblob"}


def files(cloud: str, *, bad: bool = False) -> list[Path]:
    found = (FOLDER / cloud / "bad" if bad else FOLDER / cloud).iterdir()
    return sorted(path for path in found if path.suffix in {".json", ".txt"} and path.stem != "expected")


def parse(cloud: str, text: str) -> Parsed:
    if cloud != "gcs":
        return MODULES[cloud].parse(text)  # type: ignore[no-any-return]
    told = json.loads(text)
    return gcs_events.parse(told["body"], told["attributes"])


def expected(cloud: str) -> dict[str, Any]:
    return json.loads((FOLDER / cloud / "expected.json").read_text())  # type: ignore[no-any-return]


def each(*, bad: bool = False) -> list[Any]:
    return [
        pytest.param(cloud, path, id=f"{cloud}-{path.stem}")
        for cloud in MODULES
        for path in files(cloud, bad=bad)
    ]


@pytest.mark.parametrize(("cloud", "path"), each())
def test_a_recorded_payload_holds_what_is_expected(cloud: str, path: Path) -> None:
    found, told = parse(cloud, path.read_text()), expected(cloud)[path.stem]
    assert [[event.bucket, event.key, event.kind.value, event.name] for event in found.events] == told[
        "events"
    ]
    assert found.ignored == told["ignored"]
    assert {event.provider for event in found.events} <= {PROVIDERS[cloud]}


@pytest.mark.parametrize(("cloud", "path"), each(bad=True))
def test_what_is_no_event_is_told_as_none(cloud: str, path: Path) -> None:
    with pytest.raises(BadEvent) as told:
        parse(cloud, path.read_text())
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("cloud", MODULES)
def test_no_expectation_is_without_its_file(cloud: str) -> None:
    assert set(expected(cloud)) == {path.stem for path in files(cloud)}


@pytest.mark.parametrize("cloud", MODULES)
def test_every_name_in_a_table_has_a_file(cloud: str) -> None:
    seen: Counter[str] = Counter()
    for path in files(cloud):
        found = parse(cloud, path.read_text())
        seen.update(event.name for event in found.events)
        seen.update(found.ignored)
    if cloud == "azure":
        seen["blobTrigger"] = 1  # no payload: see below
    names = MODULES[cloud].NAMES
    for name, kind in names.items():
        if name.endswith(":*"):  # a member of the family that has no line of its own
            assert any(one.startswith(name[:-1]) and one not in names for one in seen), name
        else:
            assert name in seen, f"{name} ({kind}) has no recorded payload"


def lines(code: CodeType) -> Iterator[int]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from (
                line for _, _, line in constant.co_lines() if line and line != constant.co_firstlineno
            )
            yield from lines(constant)


@pytest.mark.parametrize("cloud", MODULES)
def test_every_branch_of_a_parser_has_a_file(cloud: str) -> None:
    module = MODULES[cloud]
    assert module.__file__
    source = Path(module.__file__).read_text()
    seen: set[int] = set()

    def note(frame: FrameType, what: str, _: Any) -> Any:
        if frame.f_code.co_filename != module.__file__:
            return None
        seen.add(frame.f_lineno)
        return note

    before = sys.gettrace()
    sys.settrace(note)
    try:
        for path in [*files(cloud), *files(cloud, bad=True)]:
            with contextlib.suppress(BadEvent):
                parse(cloud, path.read_text())
    finally:
        sys.settrace(before)
    wanted = set(lines(compile(source, module.__file__, "exec")))
    for node in ast.walk(ast.parse(source)):  # without a payload of their own; see below
        if isinstance(node, ast.FunctionDef) and node.name in {"validation", "trigger"}:
            wanted -= set(range(node.lineno, (node.end_lineno or 0) + 1))
    shown = source.splitlines()
    missed = [f"{line}: {shown[line - 1].strip()}" for line in sorted(wanted - seen)]
    assert not missed, "no recorded payload comes here:\n" + "\n".join(missed)


# -- keys ----------------------------------------------------------------------------------------


def rewritten(told: Any, change: Callable[[str], str]) -> Any:
    """A payload with every text changed, also in the JSON and the Base64 that are texts in it."""
    if isinstance(told, dict):
        return {name: rewritten(value, change) for name, value in told.items()}
    if isinstance(told, list):
        return [rewritten(value, change) for value in told]
    if not isinstance(told, str):
        return told
    if told.startswith(("{", "[")):
        return json.dumps(rewritten(json.loads(told), change))
    try:
        inner = base64.b64decode(told, validate=True).decode()
        if not inner.startswith("{"):
            return change(told)
        return base64.b64encode(rewritten(inner, change).encode()).decode()
    except ValueError:
        return change(told)


def replaced(cloud: str, key: str) -> Callable[[str], str]:
    """What puts a key where the recorded one is, encoded by the rule of that place."""
    pairs = {
        "s3": [("red+flower.jpg", quote_plus(key)), ("red+%20 flower.jpg", key)],
        "gcs": [("in/red +%20flower.jpg", key)],
        "azure": [
            ("/blobServices/default/containers/testcontainer/blobs/in/red +%20flower.jpg",
             f"/blobServices/default/containers/testcontainer/blobs/{key}"),
            ("https://my-storage-account.blob.core.windows.net/testcontainer/in/red%20%2B%2520flower.jpg",
             f"https://my-storage-account.blob.core.windows.net/testcontainer/{quote(key)}"),
        ],
    }  # fmt: skip
    known = dict(pairs[cloud])
    return lambda text: known.get(text, text)


@pytest.mark.parametrize("key", NASTY, ids=ascii)
@pytest.mark.parametrize("cloud", MODULES)
def test_every_key_comes_through_every_envelope_as_it_is(cloud: str, key: str) -> None:
    recorded = {"red flower.jpg", "red+%20 flower.jpg", "in/red +%20flower.jpg"}
    through = 0
    for path in files(cloud):
        before = [event.key for event in parse(cloud, path.read_text()).events]
        text = path.read_text()
        told = json.loads(text) if path.suffix == ".json" else text.strip("\ufeff\n")
        changed = rewritten(told, replaced(cloud, key))
        after = parse(cloud, json.dumps(changed) if path.suffix == ".json" else changed).events
        assert [event.key for event in after] == [key if one in recorded else one for one in before], (
            path.stem
        )
        through += key in {event.key for event in after}
    assert through >= 20


# -- whatever comes ------------------------------------------------------------------------------

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
RECORDED = {cloud: [path.read_text() for path in files(cloud) if path.suffix == ".json"] for cloud in MODULES}


def places(told: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for name, value in (
        told.items() if isinstance(told, dict) else enumerate(told) if isinstance(told, list) else ()
    ):
        yield from places(value, (*path, name))


def changed(told: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(told) if isinstance(told, dict) else list(told)
    copy[path[0]] = changed(told[path[0]], path[1:], value)
    return copy


@pytest.mark.parametrize("cloud", MODULES)
@given(data=st.data())
def test_a_damaged_payload_is_parsed_or_told(cloud: str, data: st.DataObject) -> None:
    told = json.loads(data.draw(st.sampled_from(RECORDED[cloud])))
    for _ in range(data.draw(st.integers(1, 3))):
        told = changed(told, data.draw(st.sampled_from(list(places(told)))), data.draw(ANY))
    attributes = told.get("attributes") if cloud == "gcs" and isinstance(told, dict) else None
    try:
        if cloud == "gcs" and isinstance(told, dict):
            found = gcs_events.parse(told.get("body"), attributes if isinstance(attributes, dict) else None)
        else:
            found = MODULES[cloud].parse(told)
    except BadEvent:
        return
    for event in found.events:
        assert event.bucket
        assert event.key
        assert isinstance(event.key, str)


@pytest.mark.parametrize("parser", [*(module.parse for module in MODULES.values()), local_events.parse])
@given(body=ANY | st.binary(max_size=30))
def test_anything_is_parsed_or_told(parser: Callable[[Any], Parsed], body: Any) -> None:
    for told in (body, json.dumps(body) if not isinstance(body, bytes) else body):
        with contextlib.suppress(BadEvent):
            parser(told)


# -- single rules --------------------------------------------------------------------------------


def test_a_type_that_is_no_text_is_no_event() -> None:
    with pytest.raises(BadEvent):
        s3_events.parse('{"Type": []}')


def test_times_are_read_as_the_clouds_write_them() -> None:
    put = parse("s3", (FOLDER / "s3/eventbridge-created.json").read_text()).events[0]
    blob = parse("azure", (FOLDER / "azure/queue-plain.json").read_text()).events[0]
    assert put.at == 1_636_675_200
    assert blob.at == pytest.approx(1_498_502_460.958410)  # seven digits
    assert (put.id, put.size, blob.size) == ("N4N7GDK58NMKJ12R", 5, 524288)


def test_a_webhooks_handshake_has_its_code() -> None:
    handshake = (FOLDER / "azure/grid-handshake.json").read_text()
    assert azure_events.validation(handshake) == "512d38b6-c7b8-40c8-89fe-f46f9e9622b6"
    assert azure_events.validation((FOLDER / "azure/grid-of-two.json").read_text()) is None
    with pytest.raises(BadEvent):
        azure_events.validation(
            [{"eventType": "Microsoft.EventGrid.SubscriptionValidationEvent", "data": {}}]
        )


def test_a_blob_trigger_names_its_blob() -> None:
    uri = "https://account.blob.core.windows.net/box/a%20b"
    assert azure_events.trigger("box/in/a b%", uri) == Event(
        "azureblob", "account/box", "in/a b%", Kind.CREATED, "blobTrigger"
    )
    emulator = azure_events.trigger("box/a", "http://127.0.0.1:10000/devstoreaccount1/box/a")
    assert emulator.bucket == "devstoreaccount1/box"
    for name, address in (("box", uri), ("box/a", None), (None, uri), ("/a", uri)):
        with pytest.raises(BadEvent):
            azure_events.trigger(name, address)
