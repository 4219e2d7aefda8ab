"""The first element of an XML document, and the size of an SVG. Entities are never expanded: a DTD ends the reading."""

from __future__ import annotations

import contextlib
import re
from typing import NamedTuple
from xml.parsers import expat

from syncagent.ingest.probe.facts import MediaInfo
from syncagent.ingest.probe.window import FIRST, Unreadable, Window

_LENGTH = re.compile(r"\s*([+]?[0-9]{0,9}(?:\.[0-9]{0,9})?)\s*(px|pt|pc|in|cm|mm|)\s*\Z")
_PIXELS = {"px": 1.0, "": 1.0, "pt": 96 / 72, "pc": 16.0, "in": 96.0, "cm": 96 / 2.54, "mm": 96 / 25.4}


class Root(NamedTuple):
    """An XML document's first element, or what its DOCTYPE says it is."""

    name: str
    """Without its namespace."""
    attributes: dict[str, str]
    doctype: bool


class _FoundError(Exception):
    pass


def root(head: bytes) -> Root | None:
    """The first element of a document that begins with `head`; None if that is not well-formed XML."""
    found: list[Root] = []

    def element(name: str, attributes: dict[str, str]) -> None:
        found.append(Root(name.rpartition(" ")[2], attributes, False))
        raise _FoundError

    def doctype(name: str, *_: object) -> None:
        found.append(Root(name.rpartition(":")[2], {}, True))
        raise _FoundError

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = element
    parser.StartDoctypeDeclHandler = doctype
    with contextlib.suppress(
        _FoundError, expat.ExpatError, ValueError, LookupError
    ):  # the last: an unknown encoding
        parser.Parse(head, False)
    return found[0] if found else None


def svg(window: Window) -> MediaInfo:
    """Size of an SVG: the root's width and height, else its viewBox."""
    first = root(window.at(0, FIRST))
    if first is None:
        raise Unreadable("its SVG element is not at the beginning")
    if first.doctype:
        raise Unreadable("an SVG with a DOCTYPE is not read")
    width, height = _pixels(first.attributes.get("width")), _pixels(first.attributes.get("height"))
    if not (width and height):
        box = re.split(r"[\s,]+", first.attributes.get("viewBox", "").strip())
        if len(box) == 4:
            width, height = _pixels(box[2]), _pixels(box[3])
    if not (width and height):
        raise Unreadable("an SVG without a size")
    return MediaInfo(width=width, height=height)


def _pixels(length: str | None) -> int | None:
    match = _LENGTH.match(length or "")
    if not match or not match[1].strip("+."):
        return None
    return round(float(match[1]) * _PIXELS[match[2]]) or None
