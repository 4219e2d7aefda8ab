"""Parses List Blobs pages: a strict regular expression, and an XML parser for what does not fit it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import unquote
from xml.etree import ElementTree
from xml.sax.saxutils import unescape

from syncagent.errors import Transient
from syncagent.model import ObjectInfo

_BLOB = re.compile(
    r'<Blob><Name( Encoded="true")?+>([^<]*+)</Name>(?:<(?:VersionId|IsCurrentVersion)>[^<]*+</[A-Za-z]++>)*+'
    r"<Properties>(?:<Creation-Time>[^<]*+</Creation-Time>)?+<Last-Modified>([^<]*+)</Last-Modified>"
    r'<Etag>"?+([^<"]*+)"?+</Etag>(?:<ResourceType>file</ResourceType>)?+<Content-Length>([0-9]++)</Content-Length>'
    r"<Content-Type>([^<]*+)</Content-Type>"
    r"(?:<Content-(?:Encoding|Language|CRC64)(?: ?/>|>[^<]*+</Content-(?:Encoding|Language|CRC64)>))*+"
    r"(?:<Content-MD5 ?/>|<Content-MD5>([^<]*+)</Content-MD5>)?+"
    r"(?:<(?!AccessTier>|/Blob>)[^>]*+>[^<]*+)*+(?:<AccessTier>([^<]*+)</AccessTier>)?+"
    r"(?:<(?!/Blob>)[^>]*+>[^<]*+)*+</Blob>"
)
_MARKER = re.compile(r"<NextMarker>([^<]*)</NextMarker>")
_ENTITIES = {"&quot;": '"', "&apos;": "'", "&#xD;": "\r", "&#xA;": "\n", "&#x9;": "\t"}
_DIFFERENT = re.compile("[\ue000-\U0010ffff]")
_new = tuple.__new__


@dataclass(frozen=True, slots=True)
class Page:
    """One page: its objects, and the marker of the next page or None."""

    objects: list[ObjectInfo]
    marker: str | None


def parse_page(body: bytes, resource: str) -> Page:
    """Read one page.

    :raises Transient: the page is cut off.
    """
    text = body.decode("utf-8-sig", errors="strict")
    if not text[-60:].rstrip().endswith("</EnumerationResults>"):
        raise _cut_off(resource)
    if "&#" in text or ">directory<" in text:
        return _parse_slowly(body, resource)
    rows = _BLOB.findall(text)
    if len(rows) != text.count("<Blob>"):
        return _parse_slowly(body, resource)
    objects = [
        _new(
            ObjectInfo,
            (
                unquote(name, errors="strict")
                if encoded
                else unescape(name, _ENTITIES)
                if "&" in name
                else name,
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
    return Page(objects, unescape(marker[1], _ENTITIES) if marker and marker[1] else None)


def iso(modified: str) -> str:
    """``Tue, 24 Nov 2026 01:02:03 GMT`` as ISO 8601."""
    return f"{_day(modified[5:16])}T{modified[17:25]}Z"


@lru_cache(maxsize=4096)
def _day(day: str) -> str:
    return datetime.strptime(day, "%d %b %Y").replace(tzinfo=UTC).strftime("%Y-%m-%d")


def _parse_slowly(body: bytes, resource: str) -> Page:
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise Transient(
            f"the listing of {resource} holds a document type, which Azure never sends", resource=resource
        )
    try:
        root = ElementTree.fromstring(body)  # noqa: S314  # document types were refused above
    except ElementTree.ParseError as error:
        raise _cut_off(resource) from error
    objects = []
    for blob in root.iter("Blob"):
        name, properties = blob.find("Name"), blob.find("Properties")
        if name is None or properties is None:
            raise _cut_off(resource)
        if properties.findtext("ResourceType") == "directory":
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
    return Page(objects, root.findtext("NextMarker") or None)


def in_byte_order(pages: Iterator[list[ObjectInfo]]) -> Iterator[list[ObjectInfo]]:
    """Pages in UTF-8 byte order, from pages in UTF-16 order, which is how a server may sort.

    The two orders differ only from U+E000 on. Keys that share all before their first such character are
    neighbours in both, so it is enough to hold such a run back and to sort it.
    """
    run: list[ObjectInfo] = []
    stem: str | None = None
    for page in pages:
        if stem is None and _DIFFERENT.search("".join([found.key for found in page])) is None:
            yield page
            continue
        ready: list[ObjectInfo] = []
        for found in page:
            odd = _DIFFERENT.search(found.key)
            its_stem = found.key[: odd.start()] if odd else None
            if its_stem != stem:
                ready += sorted(run)
                run, stem = [], its_stem
            if odd:
                run.append(found)
            else:
                ready.append(found)
        if ready:
            yield ready
    if run:
        yield sorted(run)


def _cut_off(resource: str) -> Transient:
    return Transient(f"a listing page of {resource} is cut off", resource=resource, hint="run it again")
