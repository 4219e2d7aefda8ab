"""Parses ListObjectsV2 pages: a strict regular expression, and an XML parser for what does not fit it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_plus
from xml.etree import ElementTree
from xml.sax.saxutils import unescape

from syncagent.errors import Transient
from syncagent.model import ObjectInfo

_ENTRY = re.compile(
    r"<Contents><Key>([^<]*)</Key><LastModified>(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)[^<]*Z</LastModified>"
    r'<ETag>(?:&quot;|&#34;|")?([^<&"]*)(?:&quot;|&#34;|")?</ETag>'
    r"(?:<Checksum[A-Za-z]+>[^<]*</Checksum[A-Za-z]+>)*<Size>(\d+)</Size>"
    r"(?:<Owner>(?:<(?:ID|DisplayName)>[^<]*</(?:ID|DisplayName)>)*</Owner>)?"
    r"(?:<StorageClass>([^<]*)</StorageClass>)?</Contents>"
)
_COUNT = re.compile(r"<KeyCount>(\d+)</KeyCount>")
_TOKEN = re.compile(r"<NextContinuationToken>([^<]*)</NextContinuationToken>")
_TRUNCATED = re.compile(r"<IsTruncated>(true|false)</IsTruncated>")
_ESCAPES = re.compile(r"%(..)")
_ENTITIES = {"&quot;": '"', "&apos;": "'", "&#34;": '"', "&#39;": "'"}
_MD5_LENGTH = 32
_new = tuple.__new__


@dataclass(frozen=True, slots=True)
class Page:
    """One page: its objects, and the token of the next page or None."""

    objects: list[ObjectInfo]
    token: str | None


def parse_page(body: bytes, resource: str) -> Page:
    """Read one page.

    :raises Transient: the page is cut off, or says something else than it holds.
    """
    text = body.decode("utf-8", errors="strict")
    rows = _ENTRY.findall(text)
    if not text.rstrip().endswith("</ListBucketResult>") or len(rows) != text.count("<Contents>"):
        return _parse_slowly(body, resource)
    # The head stands before the entries on S3, but not on every compatible store.
    first, last = text.find("<Contents>"), text.rfind("</Contents>")
    head = text if first < 0 else text[:first] + text[last:]
    truncated, token, count = _TRUNCATED.search(head), _TOKEN.search(head), _COUNT.search(head)
    if truncated is None or (count is not None and int(count[1]) != len(rows)):
        return _parse_slowly(body, resource)
    if truncated[1] == "true" and token is None:
        raise _cut_off(resource)
    keys = _decode([row[0] for row in rows], url="<EncodingType>url</EncodingType>" in head)
    objects = [
        _new(
            ObjectInfo,
            (key, f"{etag}:{size}:{modified}", int(size), f"{modified}Z", etag, None,
             etag if len(etag) == _MD5_LENGTH else None, None, storage or "STANDARD"),
        )
        for key, (_, modified, etag, size, storage) in zip(keys, rows, strict=True)
    ]  # fmt: skip
    return Page(objects, unescape(token[1], _ENTITIES) if token and truncated[1] == "true" else None)


def _decode(keys: list[str], *, url: bool) -> list[str]:
    """Decode the keys of a page once, all together: one pass over a long string beats a thousand short ones."""
    joined = "\0".join(keys)
    if not url:
        return [unescape(key, _ENTITIES) for key in keys] if "&" in joined else keys
    if "%" not in joined and "+" not in joined:
        return keys
    codes = set(_ESCAPES.findall(joined))
    if "00" in codes:
        return [unquote_plus(key, errors="strict") for key in keys]
    if any(code > "7F" or not code.isalnum() for code in map(str.upper, codes)):
        return unquote_plus(joined, errors="strict").split("\0")
    # A per cent sign always begins an escape, so replacing one cannot make another, if %25 comes last.
    joined = joined.replace("+", " ")
    for code in sorted(codes, key=lambda code: code == "25"):
        joined = joined.replace(f"%{code}", chr(int(code, 16)))
    return joined.split("\0")


def _parse_slowly(body: bytes, resource: str) -> Page:
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise Transient(
            f"the listing of {resource} holds a document type, which S3 never sends", resource=resource
        )
    try:
        root = ElementTree.fromstring(body)  # noqa: S314  # document types were refused above
    except ElementTree.ParseError as error:
        raise _cut_off(resource) from error
    space = root.tag[: root.tag.index("}") + 1] if "}" in root.tag else ""

    def value(parent: ElementTree.Element, name: str) -> str:
        return parent.findtext(space + name) or ""

    url = value(root, "EncodingType") == "url"
    objects = []
    for entry in root.iter(f"{space}Contents"):
        key, modified = value(entry, "Key"), value(entry, "LastModified")[:19]
        etag, size = value(entry, "ETag").strip('"'), value(entry, "Size")
        if not (key and modified and size.isdigit()):
            raise _cut_off(resource)
        objects.append(
            ObjectInfo(
                unquote_plus(key, errors="strict") if url else key,
                f"{etag}:{size}:{modified}",
                int(size),
                f"{modified}Z",
                etag,
                None,
                etag if len(etag) == _MD5_LENGTH else None,
                None,
                value(entry, "StorageClass") or "STANDARD",
            )
        )
    count, token = value(root, "KeyCount"), value(root, "NextContinuationToken")
    truncated = value(root, "IsTruncated") == "true"
    if (count and int(count) != len(objects)) or (truncated and not token):
        raise _cut_off(resource)
    return Page(objects, token if truncated else None)


def _cut_off(resource: str) -> Transient:
    return Transient(f"a listing page of {resource} is cut off", resource=resource, hint="run it again")
