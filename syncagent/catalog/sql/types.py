"""An object's type by its name, where the store does not tell one."""

from __future__ import annotations

import mimetypes

from syncagent.model import ObjectInfo
from syncagent.pages import SEPARATOR, ObjectPage

UNKNOWN = "application/octet-stream"
_SAYS_NOTHING = {None, "", UNKNOWN, "binary/octet-stream"}


class _Types(dict[str, str]):
    """Type by what follows a key's last dot; forty million keys have few of those."""

    def __missing__(self, suffix: str) -> str:
        kind, encoding = mimetypes.guess_type(f"name.{suffix.lower()}") if "/" not in suffix else (None, None)
        found = f"application/{encoding}" if encoding else kind or UNKNOWN
        if len(self) < 10_000:
            self[suffix] = found
        return found


BY_SUFFIX = _Types()

_TYPE = ObjectInfo._fields.index("content_type")


def typed(page: ObjectPage) -> ObjectPage:
    """The same objects, each with a type: the names tell those that the listing does not."""
    if not page:
        return page
    told = page.shared(_TYPE)
    if told is not None and told != (None,):
        return page
    keys = page.column(0)
    if told is not None:
        # Mostly all names end alike, which one look at their text shows.
        suffix, text = keys[-1].rpartition(".")[2], page.text(0)
        if text is not None and f"{text}{SEPARATOR}".count(f".{suffix}{SEPARATOR}") == len(page):
            return page.replaced(_TYPE, (BY_SUFFIX[suffix],))
    types = [
        BY_SUFFIX[key.rpartition(".")[2]] if one is None else one
        for key, one in zip(keys, page.column(_TYPE), strict=True)
    ]
    return page.replaced(_TYPE, types)


def mimetype(key: str, told: str | None = None) -> str:
    """The type that the store tells, unless that says nothing; else the one of the name's suffix."""
    if told not in _SAYS_NOTHING:
        return str(told)
    return BY_SUFFIX[key.rpartition(".")[2]]
