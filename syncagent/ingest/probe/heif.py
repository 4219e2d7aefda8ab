"""Size, orientation and EXIF of HEIC and AVIF files, by their boxes: no decoder is needed, and none reads the pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from syncagent.ingest.probe.boxes import Box, boxes, first, inside
from syncagent.ingest.probe.exif import exif
from syncagent.ingest.probe.facts import MediaInfo
from syncagent.ingest.probe.window import Spent, Unreadable, Window

_MOST_BYTES = 32 * 1024  # of one table of items
# (quarter turns to the left, mirror axis) -> EXIF orientation
_ORIENTATIONS = {
    (0, None): None, (1, None): 8, (2, None): 3, (3, None): 6,
    (0, 0): 4, (1, 0): 5, (2, 0): 2, (3, 0): 7,
    (0, 1): 2, (1, 1): 7, (2, 1): 4, (3, 1): 5,
}  # fmt: skip


class _Bytes:
    """Big-endian numbers one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self, width: int) -> int:
        if self.at + width > len(self.data):
            raise Unreadable("a table of items that is too short")
        self.at += width
        return int.from_bytes(self.data[self.at - width : self.at], "big")


def heif(window: Window) -> MediaInfo:
    """Facts of the primary image.

    EXIF's own orientation is left aside: a HEIF is turned by its ``irot`` and ``imir`` boxes only.
    """
    meta = first(window, 0, window.size, b"meta")
    if meta is None:
        raise Unreadable("no meta box")
    inner = meta._replace(start=meta.start + 4)
    primary = inside(window, inner, b"pitm")
    properties = inside(window, inner, b"iprp")
    if primary is None or properties is None:
        raise Unreadable("no primary image")
    table = _table(window, primary)
    version = table.number(4) >> 24
    size, orientation = _shape(window, properties, table.number(4 if version else 2))
    facts = _exif(window, inner)
    return dataclasses.replace(facts, width=size[0], height=size[1], orientation=orientation).upright()


def _table(window: Window, box: Box) -> _Bytes:
    if box.end - box.start > _MOST_BYTES:
        raise Spent("its table of items is too long")
    return _Bytes(window.exactly(box.start, box.end - box.start))


def _shape(window: Window, properties: Box, item: int) -> tuple[tuple[int, int], int | None]:
    """Size as stored, and orientation, of an item."""
    container, links = inside(window, properties, b"ipco"), inside(window, properties, b"ipma")
    if container is None or links is None:
        raise Unreadable("no image properties")
    listed = list(boxes(window, container.start, container.end))
    size, turns, mirror = None, 0, None
    for index in _links(_table(window, links), item):
        if not 1 <= index <= len(listed):
            continue
        box = listed[index - 1]
        if box.kind == b"ispe":
            data = window.exactly(box.start + 4, 8)
            size = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:], "big")
        elif box.kind == b"irot":
            turns = window.exactly(box.start, 1)[0] & 3
        elif box.kind == b"imir":
            mirror = window.exactly(box.start, 1)[0] & 1
    if size is None or not all(size):
        raise Unreadable("an image without a size")
    return size, _ORIENTATIONS[turns, mirror]


def _links(table: _Bytes, item: int) -> list[int]:
    """Numbers of the properties of an item."""
    head = table.number(4)
    wide, long = head & 1, head >> 24 > 0
    for _ in range(table.number(4)):
        found = table.number(4 if long else 2)
        indices = [
            table.number(2 if wide else 1) & (0x7FFF if wide else 0x7F) for _ in range(table.number(1))
        ]
        if found == item:
            return indices
    return []


def _exif(window: Window, meta: Box) -> MediaInfo:
    try:
        item = next(_exif_items(window, meta), None)
        place = None if item is None else _location(window, meta, item)
        if place is None:
            return MediaInfo()
        start, length = place
        skip = int.from_bytes(window.exactly(start, 4), "big")
        if skip > length - 4:
            raise Unreadable("no sound header")
        return exif(window, start + 4 + skip, length - 4 - skip)
    except Unreadable as why:
        return MediaInfo(reason=f"EXIF: {why}")


def _exif_items(window: Window, meta: Box) -> Iterator[int]:
    info = inside(window, meta, b"iinf")
    if info is None:
        return
    long = window.exactly(info.start, 1)[0] > 0
    for entry in boxes(window, info.start + (8 if long else 6), info.end):
        data = window.exactly(entry.start, min(14, entry.end - entry.start))
        width = {2: 2, 3: 4}.get(data[0]) if data else None
        if width and data[6 + width : 10 + width] == b"Exif":
            yield int.from_bytes(data[4 : 4 + width], "big")


def _location(window: Window, meta: Box, item: int) -> tuple[int, int] | None:
    """Where the bytes of an item are, and how many; None if they are in more than one piece, or in another item."""
    place = inside(window, meta, b"iloc")
    if place is None:
        return None
    table = _table(window, place)
    version = table.number(4) >> 24
    sizes = table.number(2)
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    for _ in range(table.number(4 if version == 2 else 2)):
        found = table.number(4 if version == 2 else 2)
        method = table.number(2) & 15 if version else 0
        table.number(2)  # in which file: only this one is read
        base = table.number(base_size)
        count = table.number(2)
        start = length = 0
        for _ in range(count):
            table.number(index_size)
            start, length = base + table.number(offset_size), table.number(length_size)
        if found == item and count == 1 and method in (0, 1):
            data = inside(window, meta, b"idat") if method else None
            return start + (data.start if data else 0), length
    return None
