"""Boxes of ISO base media files: MP4, QuickTime, HEIF, AVIF, JPEG 2000."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from syncagent.ingest.probe.window import CutOff, Unreadable, Window

_MOST = 512  # in one box; a film in fragments has more, and all that matters is in its first


class Box(NamedTuple):
    kind: bytes
    start: int
    """Of its content."""
    end: int


def boxes(window: Window, start: int, end: int) -> Iterator[Box]:
    """The boxes from `start` to `end`, one after the other; their content is passed over.

    :raises CutOff: the object ends before a box does that is not the last.
    """
    for _ in range(_MOST):
        if start + 8 > end:
            return
        if start + 8 > window.size:
            raise CutOff(f"cut off after {window.size} bytes")
        head = window.at(start, 16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        content = start + 8
        if size == 1:
            size, content = int.from_bytes(head[8:16], "big"), start + 16
        last = start + size if size else end
        if last < content or len(head) < 8:
            raise Unreadable(f"a box of {size} bytes")
        yield Box(kind, content, min(last, end))
        start = last
    raise Unreadable(f"more than {_MOST} boxes")


def first(window: Window, start: int, end: int, kind: bytes) -> Box | None:
    """The first box of a kind."""
    return next((box for box in boxes(window, start, end) if box.kind == kind), None)


def inside(window: Window, box: Box, *path: bytes) -> Box | None:
    """The first box at a path of kinds inside another."""
    found: Box | None = box
    for kind in path:
        if found is None:
            return None
        found = first(window, found.start, found.end, kind)
    return found
