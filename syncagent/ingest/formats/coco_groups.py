"""COCO's annotations by image, whatever their order in the file, in little memory."""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, TypeAlias

import msgspec
from msgspec import Struct

from syncagent.errors import InvalidInput

Id: TypeAlias = int | str
_HELD = 64 << 20  # bytes of text
_FILES = 64
_HEAD = struct.Struct("<?QI")


class _Image(Struct, gc=False):
    id: Id


class _OfImage(Struct, gc=False):
    image_id: Id


_image = msgspec.json.Decoder(_Image).decode
_of_image = msgspec.json.Decoder(_OfImage).decode


@dataclass(slots=True)
class Group:
    """An image and its annotations: the place of each in its array, and its text."""

    id: Id
    image: tuple[int, Any] | None = None
    annotations: list[tuple[int, Any]] = field(default_factory=list)


class Groups:
    """Annotations by image. More than `held` bytes of text are put into temporary files, each with some of the images."""

    def __init__(self, held: int = _HELD) -> None:
        self._left = held
        self._groups: dict[Id, Group] = {}
        self._files: list[IO[bytes]] = []

    def close(self) -> None:
        """Remove the temporary files."""
        for file in self._files:
            file.close()

    def add(self, raw: Any, place: int, *, is_image: bool) -> None:
        """Account for an image or an annotation.

        :param raw: its text.
        :raises msgspec.DecodeError: it does not tell its image. :raises InvalidInput: another image has the id.
        """
        if self._files:
            self._spool(raw, place, is_image)
            return
        _put(self._groups, raw, place, is_image)
        self._left -= len(memoryview(raw))
        if self._left < 0:
            for _ in range(_FILES):
                self._files.append(tempfile.TemporaryFile())  # noqa: SIM115  # see `close`
            for group in self._groups.values():
                if group.image is not None:
                    self._spool(group.image[1], group.image[0], True)
                for told, text in group.annotations:
                    self._spool(text, told, False)
            self._groups = {}

    def _spool(self, raw: Any, place: int, is_image: bool) -> None:
        key, text = _key(raw, is_image), memoryview(raw)
        file = self._files[zlib.crc32(str(key).encode()) % _FILES]
        file.write(_HEAD.pack(is_image, place, len(text)))
        file.write(text)

    def parts(self) -> Iterator[list[Group]]:
        """Some of the images at a time, in the order of the file; first of each part those that the file does not have.

        :raises InvalidInput: two images have the same id.
        """
        if not self._files:
            yield _sorted(self._groups)
        for file in self._files:
            file.seek(0)
            groups: dict[Id, Group] = {}
            data, at = memoryview(file.read()), 0
            while at < len(data):
                is_image, place, size = _HEAD.unpack_from(data, at)
                at += _HEAD.size + size
                _put(groups, data[at - size : at], place, is_image)
            yield _sorted(groups)


def _key(raw: Any, is_image: bool) -> Id:
    return _image(raw).id if is_image else _of_image(raw).image_id


def _put(groups: dict[Id, Group], raw: Any, place: int, is_image: bool) -> None:
    key = _key(raw, is_image)
    group = groups.get(key)
    if group is None:
        group = groups[key] = Group(key)
    if not is_image:
        group.annotations.append((place, raw))
    elif group.image is not None:
        raise InvalidInput(f"images {group.image[0]} and {place} have the same id {key}")
    else:
        group.image = (place, raw)


def _sorted(groups: Mapping[Id, Group]) -> list[Group]:
    return sorted(groups.values(), key=lambda group: -1 if group.image is None else group.image[0])
