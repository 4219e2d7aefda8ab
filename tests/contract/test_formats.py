"""The contract of annotation formats, over every one of them. What each carries: `tests/profiles`."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncagent.errors import ConfigError, InvalidInput, Unsupported
from syncagent.ingest.annotations import Annotation, Labelled
from syncagent.ingest.formats import NAMES, Context, Files, Format, Losses, NewFiles, NewFolder, Zip, get
from tests import labelled
from tests.profiles import Profile, profile

EVERY = pytest.mark.parametrize("name", NAMES)
SOME = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
FEW = settings(SOME, max_examples=15)


def written(
    form: Format, items: Sequence[Labelled], about: Profile, losses: Losses | None = None
) -> dict[str, bytes]:
    out = NewFiles()
    form.write(iter(items), out, labels=about.labels, losses=losses)
    return out.files


def read(form: Format, files: dict[str, bytes], context: Context) -> list[Labelled]:
    """Items sorted by key, put together where several files tell of one."""
    found: dict[str, Labelled] = {}
    for item in form.read(Files(files), context):
        before = found[item.key].annotations if item.key in found else ()
        found[item.key] = msgspec.structs.replace(item, annotations=(*before, *item.annotations))
    return [found[key] for key in sorted(found)]


@EVERY
def test_what_is_written_reads_the_same(name: str) -> None:
    form, about = profile(name)

    @SOME
    @given(about.items)
    def same(items: list[Labelled]) -> None:
        before = msgspec.msgpack.encode(items)
        found = read(form, written(form, items, about), about.context)
        assert found == sorted(map(about.seen, items), key=lambda item: item.key)
        assert msgspec.msgpack.encode(items) == before, "its input was changed"

    same()


@EVERY
def test_a_zip_reads_as_its_files_do(name: str) -> None:
    form, about = profile(name)

    @FEW
    @given(about.items)
    def same(items: list[Labelled]) -> None:
        files = written(form, items, about)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as out:
            for file, data in files.items():
                out.writestr(file, data)
        assert list(form.read(Zip(packed), about.context)) == list(form.read(Files(files), about.context))

    same()


@EVERY
def test_what_it_cannot_hold_is_refused_or_listed(name: str) -> None:
    form, about = profile(name)
    for kind, geometry in labelled.every_geometry.items():
        if kind in form.holds:
            continue

        @FEW
        @given(labelled.annotations(geometry, labels=[about.labels[0].name]))
        def refused(annotation: Annotation) -> None:
            item = Labelled(key="folder/a.jpg", width=64, height=48, fps="10", annotations=(annotation,))
            with pytest.raises(Unsupported, match=r"folder/a\.jpg.*cannot hold.*--lossy"):
                written(form, [item], about)
            told: list[str] = []
            losses = Losses(allowed=True, tell=told.append)
            files = written(form, [item], about, losses)
            assert sum(losses.counts.values()) == len(told) >= 1
            assert all("folder/a.jpg" in line for line in told)
            left = [one for item in read(form, files, about.context) for one in item.annotations]
            assert left == []

        refused()


@EVERY
def test_a_cut_off_file_is_an_error_that_names_it(name: str) -> None:
    form, about = profile(name)

    @SOME
    @given(about.items, st.data())
    def cut(items: list[Labelled], data: st.DataObject) -> None:
        files = written(form, items, about)
        file = data.draw(st.sampled_from(sorted(files)))
        at = data.draw(st.integers(0, max(0, len(files[file].rstrip()) - 1)))
        try:
            read(form, {**files, file: files[file][:at]}, about.context)
        except InvalidInput as error:
            assert error.resource
        else:
            assert not about.cut, f"{file} cut at {at} of {len(files[file])} bytes read as if it were whole"

    cut()


@EVERY
def test_noise_is_an_error_and_nothing_else(name: str) -> None:
    form, about = profile(name)

    @SOME
    @given(about.items, st.data())
    def noise(items: list[Labelled], data: st.DataObject) -> None:
        files = written(form, items, about)
        file = data.draw(st.sampled_from(sorted(files)))
        spoiled = bytearray(files[file])
        for _ in range(data.draw(st.integers(1, 4))):
            if spoiled:
                spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
        try:
            read(form, {**files, file: bytes(spoiled)}, about.context)
        except InvalidInput as error:
            assert error.resource

    noise()


@EVERY
@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\0\1\2",
        b"{}",
        b"[]",
        b"null",
        b"[[[",
        b'"',
        b"<a/>",
        b"1 2 3",
        "ÿ".encode("latin-1"),
        b"a,b\n1,2",
    ],
)
def test_junk_is_an_error_or_tells_of_nothing(name: str, junk: bytes) -> None:
    form, about = profile(name)
    for suffix in form.suffixes:
        try:
            found = [
                one
                for item in form.read(Files({f"a{suffix}": junk}), about.context)
                for one in item.annotations
            ]
        except InvalidInput:
            continue
        assert found == []


BOMB = b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "boom"><!ENTITY c "&b;&b;&b;">]><annotations><a>&c;</a></annotations>"""
OUTSIDE = b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>"""


@EVERY
@pytest.mark.parametrize("bomb", [BOMB, OUTSIDE])
def test_entities_are_refused(name: str, bomb: bytes) -> None:
    form, about = profile(name)
    if not about.xml:
        assert ".xml" not in form.suffixes
        return
    with pytest.raises(InvalidInput, match=r"entit|DOCTYPE|DTD"):
        list(form.read(Files({"a.xml": bomb}), about.context))


@EVERY
def test_files_stay_in_their_folder(name: str, tmp_path: object) -> None:
    from pathlib import Path

    form, about = profile(name)
    root = Path(str(tmp_path)) / "out"
    item = Labelled(key="../../escaped.jpg", width=64, height=48, fps="10")
    try:
        form.write([item], NewFolder(root), labels=about.labels)
    except InvalidInput as error:
        assert "escaped" in str(error)
    outside = [path for path in Path(str(tmp_path)).rglob("*") if not path.is_relative_to(root)]
    assert outside == []


def test_an_unknown_format_names_a_likely_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'dataloop'"):
        get("dataloup")
