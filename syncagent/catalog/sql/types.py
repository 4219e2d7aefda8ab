"""An object's type by its name, where the store does not tell one."""

from __future__ import annotations

import mimetypes

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


def mimetype(key: str, told: str | None = None) -> str:
    """The type that the store tells, unless that says nothing; else the one of the name's suffix."""
    if told not in _SAYS_NOTHING:
        return str(told)
    return BY_SUFFIX[key.rpartition(".")[2]]
