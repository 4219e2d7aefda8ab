"""TIFF directories, and the EXIF in them, read value by value.

Pillow reads a directory whole, with the maker's notes and the tables of strips, which in an ordinary camera file are
most of it: a JPEG with 40 KB of notes took 40 KiB by Pillow and 12 KiB here.
"""

from __future__ import annotations

import dataclasses
import re
import struct
from datetime import datetime
from typing import NamedTuple

from syncagent.ingest.probe.facts import MediaInfo
from syncagent.ingest.probe.window import Unreadable, Window

_MOST_ENTRIES = 512
_MOST_VALUES = 64
_MOST_CHILDREN = 8
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_CODES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_WIDTH, _HEIGHT, _ORIENTATION, _SUBFILE, _CHILDREN = 256, 257, 274, 254, 330
_EXIF, _GPS, _TAKEN, _OFFSET = 0x8769, 0x8825, 0x9003, 0x9011


class _Entry(NamedTuple):
    kind: int
    values: int
    at: int
    """Where its value is, counted in the window."""


Directory = dict[int, _Entry]


class Tiff:
    """A TIFF structure of `length` bytes at `start` of a window; offsets in it count from its start."""

    def __init__(self, window: Window, start: int, length: int) -> None:
        self._window, self._start, self._end = window, start, start + length
        head = window.exactly(start, 8)
        self._order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        version = self._unpack("H", head[2:4])[0] if self._order else 0
        if version not in (42, 43):
            raise Unreadable("no sound TIFF header")
        self._big = version == 43
        first = window.exactly(start + 8, 8) if self._big else head[4:8]
        self.first: int = self._unpack("Q" if self._big else "I", first)[0]

    def directory(self, offset: int) -> Directory:
        """Entries of the directory at `offset`, by tag."""
        at = self._start + offset
        counted, width = ("Q", 8) if self._big else ("H", 2)
        count = min(self._unpack(counted, self._bytes(at, width))[0], _MOST_ENTRIES)
        size, row = (20, "HHQ") if self._big else (12, "HHI")
        table = self._bytes(at + width, count * size)
        found: Directory = {}
        for number in range(count):
            entry = table[number * size : (number + 1) * size]
            tag, kind, values = self._unpack(row, entry[: struct.calcsize("<" + row)])
            room = 8 if self._big else 4
            place = at + width + (number + 1) * size - room
            if _SIZES.get(kind, 1) * values > room:
                place = self._start + self._unpack("Q" if self._big else "I", entry[-room:])[0]
            found.setdefault(tag, _Entry(kind, values, place))
        return found

    def numbers(self, entry: _Entry | None) -> list[float]:
        """Values of an entry, the first few of many; nothing for one that has no numbers. A division by 0 is left out."""
        if entry is None or (entry.kind not in _CODES and entry.kind not in (5, 10)):
            return []
        count = min(entry.values, _MOST_VALUES)
        data = self._bytes(entry.at, _SIZES[entry.kind] * count)
        if entry.kind in _CODES:
            return list(self._unpack(str(count) + _CODES[entry.kind], data))
        parts = self._unpack(f"{2 * count}{'I' if entry.kind == 5 else 'i'}", data)
        return [a / b for a, b in zip(parts[::2], parts[1::2], strict=True) if b]

    def integer(self, entry: _Entry | None) -> int:
        """The first value of an entry, 0 if it has none."""
        return int(next(iter(self.numbers(entry)), 0))

    def text(self, entry: _Entry | None) -> str:
        """An entry's ASCII, the first few characters of many."""
        if entry is None or entry.kind != 2:
            return ""
        data = self._bytes(entry.at, min(entry.values, _MOST_VALUES))
        return data.partition(b"\0")[0].decode("ascii", "replace").strip()

    def _bytes(self, at: int, length: int) -> bytes:
        if not self._start <= at <= self._end - length:
            raise Unreadable("a TIFF directory points outside")
        return self._window.exactly(at, length)

    def _unpack(self, code: str, data: bytes) -> tuple[int, ...]:
        return struct.unpack(self._order + code, data)


def exif(window: Window, start: int, length: int) -> MediaInfo:
    """Orientation, time and place of the EXIF at `start`; none of it, and a reason, where it is not sound."""
    if window.at(start, 6) == b"Exif\0\0":
        start, length = start + 6, length - 6
    try:
        tiff = Tiff(window, start, length)
        return _facts(tiff, tiff.directory(tiff.first))
    except Unreadable as why:
        return MediaInfo(reason=f"EXIF: {why}")


def tiff(window: Window) -> MediaInfo:
    """Size, orientation, time and place of a TIFF, or of a camera's raw file that is one."""
    read = Tiff(window, 0, window.size)
    main = read.directory(read.first)
    pixels = main
    if (
        read.integer(main.get(_SUBFILE)) & 1
    ):  # a thumbnail comes first, as in DNG: the picture is one of its children
        for child in read.numbers(main.get(_CHILDREN))[:_MOST_CHILDREN]:
            entries = read.directory(int(child))
            if not read.integer(entries.get(_SUBFILE)) & 1:
                pixels = entries
                break
    width, height = read.integer(pixels.get(_WIDTH)), read.integer(pixels.get(_HEIGHT))
    if not (width > 0 and height > 0):
        raise Unreadable("a TIFF without a size")
    try:
        facts = _facts(read, main)
    except Unreadable as why:
        facts = MediaInfo(reason=f"EXIF: {why}")
    return dataclasses.replace(facts, width=width, height=height).upright()


def _facts(tiff: Tiff, main: Directory) -> MediaInfo:
    orientation = tiff.integer(main.get(_ORIENTATION))
    taken, latitude, longitude = None, None, None
    if pointer := tiff.integer(main.get(_EXIF)):
        camera = tiff.directory(pointer)
        taken = _time(tiff.text(camera.get(_TAKEN)), tiff.text(camera.get(_OFFSET)))
    if pointer := tiff.integer(main.get(_GPS)):
        place = tiff.directory(pointer)
        latitude = _degrees(tiff.numbers(place.get(2)), tiff.text(place.get(1)), "S", 90)
        longitude = _degrees(tiff.numbers(place.get(4)), tiff.text(place.get(3)), "W", 180)
    if latitude is None or longitude is None:
        latitude = longitude = None
    return MediaInfo(
        orientation=orientation if 1 <= orientation <= 8 else None,
        taken_at=taken,
        latitude=latitude,
        longitude=longitude,
    )


def _time(told: str, offset: str) -> str | None:
    found = re.fullmatch(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d:\d\d:\d\d)", told, re.ASCII)
    if not found:
        return None
    iso = f"{found[1]}-{found[2]}-{found[3]}T{found[4]}"
    if re.fullmatch(r"Z|[+-](0\d|1[0-4]):[0-5]\d", offset, re.ASCII):
        iso += offset
    try:
        datetime.fromisoformat(iso)
    except ValueError:  # 0000:00:00 is what cameras write whose clock was never set
        return None
    return iso


def _degrees(parts: list[float], side: str, negative: str, most: int) -> float | None:
    """Degrees, minutes and seconds as one number."""
    if len(parts) != 3:  # a part that is 0/0 is how cameras say that they do not know
        return None
    degrees = parts[0] + parts[1] / 60 + parts[2] / 3600
    if not 0 <= degrees <= most:
        return None
    return round(-degrees if side.upper().startswith(negative) else degrees, 7)
