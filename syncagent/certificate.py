"""A certificate: what a check saw of the bucket, range by range, to be held and verified again.

It is a JSON file; docs/scale.md tells each field. It is no signature: whoever may write the
file may write another one. What was cut off, damaged or edited in one place is refused, because its ranges must cover all
keys, and its totals must be their sum.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import time
from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import add, itemgetter
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from syncagent import __version__
from syncagent.catalog.base import Catalog
from syncagent.digest import ALGORITHM, Digest, digest_of
from syncagent.drivers.bucket import Bucket
from syncagent.drivers.parallel import Piece
from syncagent.drivers.partition import Partition, Range
from syncagent.errors import InvalidInput

VERSION = 1
_ID = re.compile(r"[0-9a-f]{24}\Z")
_HEX = re.compile(r"[0-9a-f]{32}\Z")
_LONE = re.compile("[\ud800-\udfff]")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\Z")
_encode = json.JSONEncoder(separators=(", ", ": ")).encode  # ASCII: no program on the way can spoil a key
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """What was seen of the keys with ``after < key <= until``; None stands for the beginning, and for the end."""

    after: str | None
    until: str | None
    listed_from: str
    """Nothing of it was asked for before. Times are UTC, by the clock of the machine that checked."""
    listed_to: str
    """By then all of it had been read."""
    digest: Digest
    """Of the bucket's objects, and of the catalog's live rows as well where there are no differences."""
    differences: int
    """How many keys differed."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A check of a whole dataset. Its parts are in the order of their keys, without gaps.

    :raises ValueError: they are not.
    """

    dataset: str
    """Id."""
    name: str
    source: str
    """URL of the bucket, without credentials."""
    started: str
    ended: str
    requests: Mapping[str, int]
    """Sent to the bucket, by kind."""
    parts: Sequence[Part]
    syncagent: str = __version__

    def __post_init__(self) -> None:
        if not self.parts or self.parts[0].after is not None or self.parts[-1].until is not None:
            raise ValueError("its ranges do not cover all keys")
        for one, following in zip(self.parts, self.parts[1:], strict=False):
            if one.until is None or one.until != following.after:
                raise ValueError(f"its ranges do not meet at {one.until!r:.80}")
            if one.after is not None and one.after >= one.until:
                raise ValueError(f"its ranges are out of order at {one.until!r:.80}")

    @property
    def digest(self) -> Digest:
        """Of everything."""
        return reduce(add, (part.digest for part in self.parts))

    @property
    def differences(self) -> int:
        """How many keys differed between bucket and catalog."""
        return sum(part.differences for part in self.parts)

    def dumps(self) -> str:
        """The certificate as JSON; one line for each range, so that two of them can be compared by diff."""
        head = {
            "certificate": VERSION,
            "syncagent": self.syncagent,
            "algorithm": ALGORITHM,
            "dataset": {"id": self.dataset, "name": self.name},
            "source": self.source,
            "started": self.started,
            "ended": self.ended,
            "requests": dict(sorted(self.requests.items())),
            "equal": not self.differences,
            "differences": self.differences,
            **_told(self.digest),
        }
        lines = [f"  {_encode(name)}: {_encode(value)},\n" for name, value in head.items()]
        ranges = [
            {
                "after": part.after,
                "until": part.until,
                "listed_from": part.listed_from,
                "listed_to": part.listed_to,
                **_told(part.digest),
                "differences": part.differences,
            }
            for part in self.parts
        ]
        body = ",\n".join(f"    {_encode(one)}" for one in ranges)
        return f'{{\n{"".join(lines)}  "ranges": [\n{body}\n  ]\n}}\n'


def sorted_parts(parts: Sequence[Part]) -> list[Part]:
    """Parts in the order of their keys."""
    return sorted(parts, key=lambda part: (part.after is not None, part.after or ""))


def moment(seconds: float | None = None) -> str:
    """UTC to the microsecond, of Unix seconds; default now."""
    told = datetime.fromtimestamp(time.time() if seconds is None else seconds, UTC)
    return f"{told:%Y-%m-%dT%H:%M:%S.%f}Z"


def _told(digest: Digest) -> dict[str, Any]:
    return {"count": digest.count, "digest": digest.hex}


# -- files ---------------------------------------------------------------------------------------


class Draft:
    """A file that appears whole, and only once there is something to write; for its owner alone, as keys are nobody else's business.

    It is opened at once: who cannot write there learns it before the listing and not after it.

    :raises InvalidInput: something other than a file is there. :raises OSError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_file():
            raise InvalidInput(f"{path} is no file", resource=str(path), hint="name one")
        self._path = path
        # The name is one that a listing of a local folder passes over.
        self._part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
        self._file = os.fdopen(
            os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii"
        )

    def write(self, certificate: Certificate) -> None:
        """Put the certificate in its place."""
        self._file.write(certificate.dumps())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self._path)

    def close(self) -> None:
        """Leave nothing behind but what was written."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._part.unlink(missing_ok=True)


def read(path: Path) -> Certificate:
    """The certificate of a file, checked.

    :raises InvalidInput: it is none, or not a sound one. :raises OSError: it cannot be read.
    """
    data = path.read_bytes()
    try:
        return _certificate(json.loads(data))
    except (ValueError, RecursionError) as error:
        why = str(error) if type(error) is ValueError else "it is not JSON"
        raise InvalidInput(
            f"{path} is no sound certificate: {why}",
            resource=str(path),
            hint="use the file as 'syncagent check --certificate' wrote it",
        ) from error


def _certificate(told: Any) -> Certificate:
    if type(told) is not dict or "certificate" not in told:
        _refuse("it has no field 'certificate'")
    version = _field(told, "certificate", int)
    if version != VERSION:
        _refuse(f"it has version {version}, and this syncagent knows {VERSION}")
    if (algorithm := _field(told, "algorithm", str)) != ALGORITHM:
        _refuse(f"it was made with the algorithm {algorithm!r:.80}, and this syncagent knows {ALGORITHM!r}")
    dataset = _field(told, "dataset", dict)
    if not _ID.match(_field(dataset, "id", str)):
        _refuse("a dataset's id has 24 hexadecimal digits")
    requests = _field(told, "requests", dict)
    made = Certificate(
        dataset=_field(dataset, "id", str),
        name=_field(dataset, "name", str),
        source=_field(told, "source", str),
        started=_time(told, "started"),
        ended=_time(told, "ended"),
        requests={kind: _count(requests, kind) for kind in requests},
        parts=[_part(one) for one in _field(told, "ranges", list)],
        syncagent=_field(told, "syncagent", str),
    )
    for name, value in (("count and digest", _digest(told)), ("differences", _count(told, "differences"))):
        if value != (made.digest if isinstance(value, Digest) else made.differences):
            _refuse(f"its {name} are not what its ranges add up to")
    if _field(told, "equal", bool) != (not made.differences):
        _refuse("'equal' does not agree with its differences")
    return made


def _part(told: Any) -> Part:
    if type(told) is not dict:
        _refuse("one of its ranges is no object")
    return Part(
        after=_bound(told, "after"),
        until=_bound(told, "until"),
        listed_from=_time(told, "listed_from"),
        listed_to=_time(told, "listed_to"),
        digest=_digest(told),
        differences=_count(told, "differences"),
    )


def _field(told: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = told.get(name)
    if type(value) is not kind:  # exactly: True is an int
        _refuse(f"its field {name!r:.80} is missing or wrong")
    if kind is str and _LONE.search(str(value)):
        _refuse(f"its field {name!r:.80} is not valid Unicode")
    return value


def _bound(told: Mapping[str, Any], name: str) -> str | None:
    return None if name in told and told[name] is None else _field(told, name, str)


def _count(told: Mapping[str, Any], name: str) -> int:
    count = _field(told, name, int)
    if count < 0:
        _refuse(f"its field {name!r:.80} is negative")
    return count


def _digest(told: Mapping[str, Any]) -> Digest:
    if not _HEX.match(text := _field(told, "digest", str)):
        _refuse("a digest has 32 hexadecimal digits")
    return Digest(_count(told, "count"), int(text, 16))


def _time(told: Mapping[str, Any], name: str) -> str:
    if not _TIME.match(text := _field(told, name, str)):
        _refuse(f"its field {name!r} is no time in UTC")
    return text


def _refuse(why: str) -> NoReturn:
    raise ValueError(why)


# -- looking again -------------------------------------------------------------------------------


def pieces(
    bucket: Bucket, listers: int, hints: Sequence[str] = (), *, processes: int | None = 0
) -> Generator[Piece, None, None]:
    """Everything that a bucket holds, by several workers where the store can; see `Bucket.crew`."""
    if listers > 1 and bucket.parallel:
        with contextlib.closing(
            bucket.crew(Partition(listers, hints), listers, processes=processes).pieces()
        ) as found:
            yield from found
        return
    whole = Range(None, None, None)
    for page in bucket.list():
        yield Piece(whole, page, ended=False, until=None)
    yield Piece(whole, [], ended=True, until=None)


def of_catalog(certificate: Certificate, catalog: Catalog) -> Iterator[Digest]:
    """The digest of each part, as the catalog has it now. Reads no bucket."""
    for part in certificate.parts:
        yield catalog.digest(certificate.dataset, after=part.after, until=part.until)


def of_bucket(
    certificate: Certificate, bucket: Bucket, listers: int, *, processes: int | None = 0
) -> list[Digest]:
    """The digest of each part, as the bucket has it now. Lists all of it.

    :raises SyncAgentError: the listing broke.
    """
    ends = [part.until for part in certificate.parts if part.until is not None]
    found = [Digest()] * len(certificate.parts)
    with contextlib.closing(pieces(bucket, listers, ends, processes=processes)) as listed:
        for piece in listed:
            objects = piece.objects
            while objects:
                at = bisect_left(ends, objects[0].key)
                cut = len(objects)
                if at < len(ends):
                    cut = bisect_right(objects, ends[at], key=itemgetter(0))
                found[at] += digest_of(objects[:cut])
                objects = objects[cut:]
    return found
