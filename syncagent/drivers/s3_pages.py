"""Parses ListObjectsV2 pages: regular expressions, and an XML parser for what does not fit them."""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from syncagent.errors import InvalidInput, Transient
from syncagent.model import ObjectInfo
from syncagent.pages import SEPARATOR, Column, ObjectPage

# Possessive throughout: an entry fits or does not, and nothing is tried twice. One that does not is found as well, without a key.
_ENTRY = re.compile(
    r"<Contents>(?:<Key>([^<]*+)</Key><LastModified>([^<]{19})[^<]*+</LastModified>"
    r'<ETag>(?:&quot;|&#34;|")?+([^<&"]*+)(?:&quot;|&#34;|")?+</ETag>'
    r"(?:<ChecksumAlgorithm>[^<]*+</ChecksumAlgorithm>)*+(?:<ChecksumType>[^<]*+</ChecksumType>)?+"
    r"<Size>([0-9]++)</Size>(?:<Owner>(?:<(?:ID|DisplayName)>[^<]*+</(?:ID|DisplayName)>)*+</Owner>)?+"
    r"(?:<StorageClass>([^<]*+)</StorageClass>)?+</Contents>|)"
)
_COUNT = re.compile(r"<KeyCount>(\d+)</KeyCount>")
_TOKEN = re.compile(r"<NextContinuationToken>([^<]*)</NextContinuationToken>")
_TRUNCATED = re.compile(r"<IsTruncated>(true|false)</IsTruncated>")
_ESCAPED = re.compile(r"(?:[^%]++|%[0-9A-Fa-f]{2})*+").fullmatch
_CHECKS = "<Checksum"
# Characters: after a checksum there is no room in them for the end of an entry and the next one's time.
_SHORTER_THAN_AN_ENTRY = 90
_MD5_LENGTH = 32
_ETAG = ObjectInfo._fields.index("etag")


@dataclass(frozen=True, slots=True)
class Page:
    """One page: its objects, and the token of the next page or None."""

    objects: Sequence[ObjectInfo]
    token: str | None


def parse_page(body: bytes, resource: str) -> Page:
    """Read one page.

    :raises Transient: the page is cut off, or says something else than it holds.
    :raises InvalidInput: the page or a key in it is not what S3 may send.
    """
    try:
        text = body.decode("utf-8", errors="strict")
        return _parse_fast(text, resource) or _parse_slowly(text, resource)
    except ValueError as error:  # not UTF-8, or a size that is no number
        raise InvalidInput(
            f"a listing page of {resource} cannot be decoded",
            resource=resource,
            hint="the store does not follow S3's protocol",
        ) from error


def _parse_fast(text: str, resource: str) -> Page | None:
    """The page, or None for one that only the XML parser reads right."""
    if not text[-40:].rstrip().endswith("</ListBucketResult>"):
        return None
    # The head stands before the entries on S3, but not on every compatible store.
    first, last = text.find("<Contents>"), text.rfind("</Contents>")
    head = text if first < 0 else text[:first] + text[last:]
    truncated, token, count = _TRUNCATED.search(head), _TOKEN.search(head), _COUNT.search(head)
    raw, *rest = _columns(text, first) if first >= 0 else [()] * _ENTRY.groups
    if truncated is None or "" in raw or (count and int(count[1]) != len(raw)):
        return None
    if truncated[1] == "true" and not (token and token[1]):
        raise _cut_off(resource)
    joined = SEPARATOR.join(raw)
    if "&" in joined or (token and "&" in token[1]):  # entities and character references
        return None
    encoded = "<EncodingType>url</EncodingType>" in head
    keys: Column = _decode(raw, joined) if encoded else joined
    if SEPARATOR in text:  # no XML, but some stores send whatever a key holds
        keys = [unquote_plus(key, errors="strict") for key in raw] if encoded else raw
    objects = _objects(keys, *rest) if raw else []
    return Page(objects, token[1] if token and truncated[1] == "true" else None)


def _columns(text: str, first: int) -> list[tuple[str, ...]]:
    """Key, time, etag, size and class of all entries, by column; an entry without a key is one that does not fit.

    Mostly what stands between etag and size (checksums) is as long everywhere as in the first entry, and is passed over then.
    """
    sample = _ENTRY.match(text, first)
    if sample is not None and sample[5] is not None:
        quote = text[sample.end(3) : text.index("<", sample.end(3))]
        between = sample.start(4) - sample.end(3) - len(f"{quote}</ETag><Size>")
        if between <= _SHORTER_THAN_AN_ENTRY:
            found = list(zip(*_alike(quote, between).findall(text), strict=True))
            if "" not in found[0]:
                return found
    return list(zip(*_ENTRY.findall(text), strict=True))


@lru_cache(maxsize=32)
def _alike(quote: str, between: int) -> re.Pattern[str]:
    """Finds what `_ENTRY` does, in entries with such quotes, and so many characters of checksums between etag and size."""
    checks = f"{_CHECKS}.{{{between - len(_CHECKS)}}}" if between else ""
    return re.compile(
        r"(?s)<Contents>(?:<Key>([^<]*+)</Key><LastModified>([^<]{19})[^<]*+</LastModified>"
        rf'<ETag>{quote}([^<&"]*+){quote}</ETag>{checks}<Size>([0-9]++)</Size>'
        "<StorageClass>([^<]*+)</StorageClass></Contents>|)"
    )


def _objects(
    keys: Column,
    modified: tuple[str, ...],
    etags: tuple[str, ...],
    sizes: tuple[str, ...],
    classes: tuple[str, ...],
) -> ObjectPage:
    """Column by column: this runs for every object of every listing, and so is done in C as far as it goes."""
    stamps = list(map(":".join, zip(etags, sizes, modified, strict=True)))
    hashes: Column = _ETAG
    if set(map(len, etags)) != {_MD5_LENGTH}:
        hashes = [etag if len(etag) == _MD5_LENGTH else None for etag in etags]
    if not all(classes):
        classes = tuple(name or "STANDARD" for name in classes)
    joined = f"{f'Z{SEPARATOR}'.join(modified)}Z"
    times: Column = joined if joined.count(SEPARATOR) < len(etags) else [f"{at}Z" for at in modified]
    return ObjectPage(
        len(etags),
        [keys, stamps, list(map(int, sizes)), times, etags, (None,), hashes, (None,), classes],
    )


def _decode(keys: Sequence[str], joined: str) -> Column:
    """Decode the keys of a page once, all together: one pass over a long string beats a thousand short ones."""
    if "%" not in joined and "+" not in joined:
        return joined
    # What date-partitioned keys are full of goes first: often that is all. A per cent sign always begins an escape,
    # so replacing one cannot make another. By parts, because that is quicker than `replace` for many of them.
    joined = "=".join(joined.replace("+", " ").split("%3D"))
    if "%" not in joined:
        return joined
    joined = joined.replace("%20", " ")
    if "%" not in joined:
        return joined
    if "%01" in joined or not _ESCAPED(joined):
        return [unquote_plus(key, errors="strict") for key in keys]
    # Quoted-printable differs in the sign alone, and the library decodes it in C.
    quoted = joined.replace("=", "=3D").replace("%", "=").encode()
    return binascii.a2b_qp(quoted).decode("utf-8", errors="strict")


def _parse_slowly(text: str, resource: str) -> Page:
    # A NUL would let expat read the text as UTF-16, past this check.
    if "<!DOCTYPE" in text or "<!ENTITY" in text or "\0" in text:
        raise Transient(
            f"the listing of {resource} holds a document type, which S3 never sends", resource=resource
        )
    try:
        root = ElementTree.fromstring(text)  # noqa: S314  # no document type; text leaves no other encoding
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
    told = value(root, "IsTruncated").lower()
    truncated = told == "true"
    # A page that does not say whether it is the last must not pass for the last.
    if told not in {"true", "false"} or (count and int(count) != len(objects)) or (truncated and not token):
        raise _cut_off(resource)
    return Page(objects, token if truncated else None)


def _cut_off(resource: str) -> Transient:
    return Transient(f"a listing page of {resource} is cut off", resource=resource, hint="run it again")
