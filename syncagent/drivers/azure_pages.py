"""Parses List Blobs pages: a strict regular expression, and an XML parser for what does not fit it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from urllib.parse import unquote
from xml.etree import ElementTree
from xml.sax.saxutils import unescape

from syncagent.errors import InvalidInput, SyncAgentError, Transient
from syncagent.model import ObjectInfo

_BLOB = re.compile(
    r'<Blob><Name( Encoded="true")?+>([^<]++)</Name>(?:<(?:VersionId|IsCurrentVersion)>[^<]*+</[A-Za-z]++>)*+'
    r"<Properties>(?:<Creation-Time>[^<]*+</Creation-Time>)?+<Last-Modified>([^<]*+)</Last-Modified>"
    r'<Etag>"?+([^<"&]*+)"?+</Etag>(?:<ResourceType>file</ResourceType>)?+<Content-Length>([0-9]++)</Content-Length>'
    r"<Content-Type>([^<&]*+)</Content-Type>"
    r"(?:<Content-(?:Encoding|Language|CRC64)(?: ?/>|>[^<]*+</Content-(?:Encoding|Language|CRC64)>))*+"
    r"(?:<Content-MD5 ?/>|<Content-MD5>([^<]*+)</Content-MD5>)?+"
    r"(?:<(?!AccessTier>|/Blob>)[^>]*+>[^<]*+)*+(?:<AccessTier>([^<]*+)</AccessTier>)?+"
    r"(?:<(?!/Blob>)[^>]*+>[^<]*+)*+</Blob>"
)
_MARKER = re.compile(r"<NextMarker>([^<]*)</NextMarker>")
_ENTITIES = {"&quot;": '"', "&apos;": "'", "&#xD;": "\r", "&#xA;": "\n", "&#x9;": "\t"}
# UTF-16 writes characters beyond the first plane with units below these, UTF-8 with bytes above them.
_DIFFERENT = re.compile("[\ue000-\U0010ffff]")
_ASTRAL = re.compile("[\U00010000-\U0010ffff]")
_HELD = 200_000
_new = tuple.__new__


@dataclass(frozen=True, slots=True)
class Page:
    """One page: its objects, and the marker of the next page or None."""

    objects: list[ObjectInfo]
    marker: str | None
    tree: bool = False
    """The account has a hierarchical namespace, and lists in the order of its tree."""


def parse_page(body: bytes, resource: str) -> Page:
    """Read one page.

    :raises Transient: the page is cut off, or is something else.
    :raises InvalidInput: it holds what is not UTF-8.
    """
    try:
        if not body[-60:].rstrip().endswith(b"</EnumerationResults>"):  # before: a character may be cut, too
            raise _cut_off(resource)
        text = body.decode("utf-8-sig", errors="strict")
        return _parse_fast(text) or _parse_slowly(text, resource)
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"a key in the listing of {resource} cannot be decoded", resource=resource
        ) from error
    except ValueError as error:  # a date or a number that is none
        raise _cut_off(resource) from error


def _parse_fast(text: str) -> Page | None:
    """The page, or None if it is not of the usual form."""
    tree = "<ResourceType>" in text
    if "&#" in text or "\r" in text or "<!" in text or (tree and ">directory<" in text):
        return None
    rows = _BLOB.findall(text)
    if not rows or len(rows) != text.count("</Blob>"):  # "nothing is there" is believed of whole XML only
        return None
    objects = [
        _new(
            ObjectInfo,
            (
                _key(name, encoded) if encoded or "&" in name else name,
                f"{etag}:{size}:{(when := iso(modified))}",
                int(size),
                when,
                etag,
                None,
                f"md5:{md5}" if md5 else None,
                kind or None,
                tier or None,
            ),
        )
        for encoded, name, modified, etag, size, kind, md5, tier in rows
    ]
    marker = _MARKER.search(text, text.rfind("</Blobs>") if "</Blobs>" in text else 0)
    return Page(objects, unescape(marker[1], _ENTITIES) if marker and marker[1] else None, tree)


def _key(name: str, encoded: str) -> str:
    key = unescape(name, _ENTITIES)
    return unquote(key, errors="strict") if encoded else key


def iso(modified: str) -> str:
    """``Tue, 24 Nov 2026 01:02:03 GMT`` as ISO 8601."""
    return f"{_day(modified[5:16])}T{modified[17:25]}Z"


@lru_cache(maxsize=4096)
def _day(day: str) -> str:
    return datetime.strptime(day, "%d %b %Y").replace(tzinfo=UTC).strftime("%Y-%m-%d")


def _parse_slowly(text: str, resource: str) -> Page:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise Transient(
            f"the listing of {resource} holds a document type, which Azure never sends", resource=resource
        )
    try:
        root = ElementTree.fromstring(text)  # noqa: S314  # document types were refused above
    except ElementTree.ParseError as error:
        raise _cut_off(resource) from error
    objects, tree = [], False
    for blob in root.iter("Blob"):
        name, properties = blob.find("Name"), blob.find("Properties")
        if name is None or properties is None:
            raise _cut_off(resource)
        kind = properties.findtext("ResourceType")
        tree = tree or kind is not None
        if kind == "directory":
            continue
        key = name.text or ""
        size, modified = (
            properties.findtext("Content-Length") or "",
            properties.findtext("Last-Modified") or "",
        )
        if not (key and size.isdigit() and modified):
            raise _cut_off(resource)
        etag, md5 = (properties.findtext("Etag") or "").strip('"'), properties.findtext("Content-MD5")
        objects.append(
            ObjectInfo(
                unquote(key, errors="strict") if name.get("Encoded") == "true" else key,
                f"{etag}:{size}:{iso(modified)}",
                int(size),
                iso(modified),
                etag,
                None,
                f"md5:{md5}" if md5 else None,
                properties.findtext("Content-Type") or None,
                properties.findtext("AccessTier") or None,
            )
        )
    return Page(objects, root.findtext("NextMarker") or None, tree)


def common_order(key: str) -> str:
    """The beginning of a key up to where UTF-8 and UTF-16 sort differently.

    What lies on one side of it in one order lies on the same side in the other.
    """
    odd = _DIFFERENT.search(key)
    return key[: odd.start()] if odd else key


def in_byte_order(pages: Iterator[list[ObjectInfo]], resource: str) -> Iterator[list[ObjectInfo]]:
    """Pages in UTF-8 byte order, from pages in UTF-16 order, which is how a server may sort.

    The two orders differ only about characters beyond the first plane. What must come before a key with such
    a character shares all that stands before it, and follows directly: it is enough to hold that run back, and
    to sort it.

    :raises SyncAgentError: the run is too long to hold.
    """
    run: list[ObjectInfo] = []
    stem = ""
    for page in pages:
        if not run and _ASTRAL.search("".join([found.key for found in page])) is None:
            yield page
            continue
        ready: list[ObjectInfo] = []
        for found in page:
            if run and not found.key.startswith(stem):
                ready += sorted(run, key=itemgetter(0))
                run = []
            if run:
                run.append(found)
            elif odd := _ASTRAL.search(found.key):
                stem = found.key[: odd.start()]
                run.append(found)
            else:
                ready.append(found)
        if len(run) > _HELD:
            raise SyncAgentError(
                f"{resource} holds too many keys like {run[0].key!r} to sort them in memory",
                resource=resource,
                hint="open it with ?sorted=no, so that syncagent sorts on disk",
            )
        if ready:
            yield ready
    if run:
        yield sorted(run, key=itemgetter(0))


def _cut_off(resource: str) -> Transient:
    return Transient(f"a listing page of {resource} is cut off", resource=resource, hint="run it again")
