"""A listing's key space in ranges: which there are, who may take one, and where one is split. No I/O, no threads.

A range is ``(lo, hi]``: it begins after `lo`, as `Driver.list` does, and includes `hi`. The ranges are disjoint and cover the space, always:
a split replaces one by two in one step. So many workers list one bucket, each page is listed by one of them, and no key is missed.

Where to split is a guess, and a wrong guess costs a request and no more. A catalog that knows the bucket gives the points (`hints`). Else they
are found while listing: a free worker takes the far part of the range that seems to have most left, cut where keys are known, or likely, to
go on. Design and figures: docs/scale.md.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from syncagent.pages import Keys

_LAST = chr(0x10FFFF)
_WORTH = 2.0  # pages that a range has to have left to be split where the catalog's keys say so
_WORTH_A_GUESS = 3.5  # the same where it is guessed: a guess may be wrong
_DEPTH = 6  # characters by which a position in a range is estimated
_SAMPLES = 16  # keys of a page that are learned from
_KNOWN = 200_000  # prefixes that are remembered
_ALIKE = 4  # prefixes that differ in digits only, from which on they tell what follows one more
# Pages that a range has had, for each time that nothing came there, to be cut beyond what is known.
_FARTHER = 4
_FRUITLESS = 4  # empty answers in a row, after which a range's splits are near ones
_SPARE, _SPARE_SHARE = 4, 0.06  # empty answers that are allowed: for each worker, and of all pages
_VAGUE = 0.03  # a share of a range below which nothing follows from it
_CLASSES = [
    frozenset(symbols)
    for symbols in (
        "0123456789", "0123456789abcdef", "0123456789ABCDEF", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "0123456789abcdefghijklmnopqrstuvwxyz", "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    )
]  # fmt: skip
_ANY = sorted(_CLASSES[5])
_DIGITS = str.maketrans("0123456789", "0" * 10)


@dataclass(slots=True, eq=False)
class Range:
    """A part of the key space that one worker lists."""

    lo: str | None
    """Exclusive; None for the beginning."""
    hi: str | None
    """Inclusive; None for the end. Another worker may lower it at any time."""
    cursor: str | None
    """The last key that was handed on; `lo` at first."""
    first: str | None = None
    """The first key that was found."""
    pages: int = 0
    parent: Range | None = None
    """Whose far part it was."""
    varied: int = 0
    """The first position at which the first and the last key of its last page differ."""
    split: int = 0
    """`pages` when it was split last."""
    since_hint: int = 0
    """Pages since a hint came by."""
    fruitless: int = 0
    """Its splits in a row whose far part was empty."""
    shy: bool = False
    """Too many were: it is split near its cursor, one position further left for each that pays."""
    reach: int = 1
    closed: set[str] = field(default_factory=set)
    """Prefixes after whose last character nothing more comes."""
    beyond: str = ""
    """The prefix, digits as zeros, after which it begins with a character that nothing like it goes on with."""
    since: float = field(default_factory=time.time)
    """Unix seconds. No worker asked for anything of it before, to list it."""


class Partition:
    """The ranges of one listing. Not safe for threads: its owner locks.

    :param workers: how many ranges are listed at once, at most.
    :param hints: keys that divide the space evenly, as a former listing saw it.
    :param ranges: what is left of an interrupted listing, as pairs of an exclusive and an inclusive bound; default everything.
    """

    def __init__(
        self,
        workers: int,
        hints: Iterable[str] = (),
        ranges: Sequence[tuple[str | None, str | None]] | None = None,
    ) -> None:
        self._workers = workers
        self._hints = sorted(set(hints))
        self._passed = 0
        self._next: dict[str, set[str]] = {}
        self._ends: dict[str, int] = {}  # how often nothing came beyond, by `Range.beyond`
        self._alike: dict[str, tuple[set[str], list[int]]] = {}
        self.live: list[Range] = []
        """Those that a worker has."""
        self.pages = self.empty = 0
        """Answers with keys, and without."""
        bounds = ranges if ranges is not None else self._evenly()
        self.waiting = [Range(lo, hi, lo) for lo, hi in reversed(bounds)]
        """Those that nobody has taken yet."""

    @property
    def expected(self) -> int:
        """Pages that there are at least, if the hints are true; 0 without hints."""
        return len(self._hints)

    def _evenly(self) -> list[tuple[str | None, str | None]]:
        step = len(self._hints) / self._workers
        points = sorted({self._hints[int(step * n)] for n in range(1, self._workers)}) if self._hints else []
        return list(zip([None, *points], [*points, None], strict=True))

    # -- workers ---------------------------------------------------------------------------------

    def take(self) -> Range | None:
        """A range for a free worker: a waiting one, or the far part of one that is being listed; None if it is not worth it now."""
        if self.waiting:
            taken = self.waiting.pop()
            self.live.append(taken)
            return taken
        guessing = self.empty < _SPARE * self._workers + _SPARE_SHARE * self.pages
        if guessing and not self._hints and (last := self._open_end()) is not None:
            beyond = str(last.cursor)[0] + _LAST
            if beyond > str(last.cursor):
                return self._split(last, beyond)
        by_need = sorted(
            ((self.left(one), -n, one) for n, one in enumerate(self.live)), reverse=True, key=_need
        )
        for left, _, one in by_need:
            if left < _WORTH:
                break
            if left < _WORTH_A_GUESS and not self._ahead(one):
                continue
            point = self._point(one, guessing)
            if point is not None:
                return self._split(one, point)
        return None

    def give_back(self, taken: Range) -> None:
        """A worker could not go on: another one will, from the cursor."""
        self.live.remove(taken)
        self.waiting.append(taken)

    def answered(self, taken: Range, keys: Sequence[str], more: bool) -> tuple[int, bool]:
        """Note a page of a range's listing.

        :param keys: ascending, all of them after the cursor; those beyond `hi`, as it is by now, belong to another range.
        :param more: whether the listing goes on after them.
        :return: how many keys are the range's, and whether it has ended.
        """
        hi = taken.hi
        cut = len(keys) if hi is None or not keys or keys[-1] <= hi else bisect_right(keys, hi)
        taken.pages += 1
        if taken.first is None:
            taken.first = keys[0] if cut else (taken.lo or "")
        if cut:
            if cut == len(keys) and isinstance(keys, Keys):
                samples = keys.some(_SAMPLES)
            else:
                samples = keys[: cut : max(1, cut // _SAMPLES)]
            self._learn_page(taken, keys[0], keys[cut - 1], samples)
        else:
            self._learn_nothing(taken)
        ended = cut < len(keys) or not more or (taken.hi is not None and bool(keys) and keys[-1] >= taken.hi)
        if ended:
            self.live.remove(taken)
        return cut, ended

    def ended(self, taken: Range) -> None:
        """Note that a range's listing has ended after the page that was answered last."""
        if taken.pages:
            self.live.remove(taken)
        else:
            self.answered(taken, [], more=False)

    def _split(self, one: Range, point: str) -> Range:
        """One step: nobody ever sees a gap, or a part twice."""
        if (one.cursor is not None and point <= one.cursor) or (one.hi is not None and point >= one.hi):
            raise AssertionError("a split point outside of its range")
        far = Range(
            point, one.hi, point, parent=one, shy=one.shy, reach=one.reach, beyond=self._beyond(point)
        )
        one.split, one.hi = one.pages, point
        self.live.append(far)
        return far

    # -- how much is left ------------------------------------------------------------------------

    def left(self, one: Range) -> float:
        """Pages that a range is believed to have left; 0 where nothing is known."""
        if not one.pages or one.cursor is None or one.first is None:
            return 0.0
        if self._passed:
            ahead = self._ahead(one)
            if ahead:
                return len(ahead) * self.pages / self._passed + one.since_hint
        base = _shared(one.first, one.hi) if one.hi is not None else 0
        share = self._share(one, base)
        by_share = one.pages * (1 - min(share, 1.0)) / share if share > _VAGUE else 0.0
        # What has run long will run on: the best that is known of an alphabet that fits no class.
        by_age = float(one.pages) if one.pages > one.split else 0.0
        if one.varied >= base and not self._regular(one.cursor[:base], one.cursor[base : base + 1]):
            return max(by_age, by_share) if by_age else 0.0
        if not one.shy and share > 0:
            return one.pages * (1 - min(share, 1.0)) / share
        return by_share if share > _VAGUE else by_age

    def _share(self, one: Range, base: int) -> float:
        """How much of a range is behind its cursor, as if keys were spread evenly over the plausible characters."""
        start = self._position(base, str(one.first))
        end = self._position(base, one.hi) if one.hi is not None else 1.0
        return (self._position(base, str(one.cursor)) - start) / (end - start) if end > start else 1.0

    def _position(self, base: int, key: str) -> float:
        value, width = 0.0, 1.0
        for at in range(base, min(base + _DEPTH, len(key))):
            symbols = self._symbols(key[:at])
            width /= len(symbols)
            value += bisect_left(symbols, key[at]) * width
        return value

    def _ahead(self, one: Range) -> Sequence[str]:
        """The hints that a range has still before it."""
        start = bisect_right(self._hints, one.cursor) if one.cursor is not None else 0
        end = bisect_left(self._hints, one.hi) if one.hi is not None else len(self._hints)
        return self._hints[start:end]

    # -- where to split --------------------------------------------------------------------------

    def _open_end(self) -> Range | None:
        """The last range, if its first characters come from no class: whatever comes after this one's is best asked for."""
        for one in self.live:
            if one.hi is None and one.pages > one.split and one.cursor and "" not in one.closed:
                return None if self._regular("", one.cursor[0]) else one
        return None

    def _point(self, one: Range, guessing: bool) -> str | None:
        """A point strictly inside what a range has left."""
        cursor, hi = one.cursor, one.hi
        if cursor is None:
            return None
        ahead = self._ahead(one)
        if ahead:
            # In a gap that the hints do not know of, everything after it is given away first.
            lost = one.since_hint > 2 + len(ahead) * self.pages / max(1, self._passed)
            return ahead[0] if lost else ahead[len(ahead) // 2]
        if not guessing:
            return None
        base = _shared(cursor, hi) if hi is not None else 0
        for at in range(base, min(len(cursor), one.varied + 1)):  # deeper, everything fits on a page
            below = None
            if hi is not None and at == base:
                if at >= len(hi):
                    continue
                below = hi[at]
            point = self._point_at(one, cursor, at, below)
            if point is not None and point > cursor and (hi is None or point < hi):
                return point
        return None

    def _beyond(self, point: str) -> str:
        """See `Range.beyond`; empty where a cut is not beyond what is known."""
        alike = self._alikes(point[:-1])
        return point[:-1].translate(_DIGITS) if alike and point[-1] > max(alike) else ""

    def _point_at(self, one: Range, cursor: str, at: int, below: str | None) -> str | None:
        prefix, char = cursor[:at], cursor[at]
        if prefix in one.closed:
            return None
        later = self._later(prefix, char, below)
        if not self._regular(prefix, char):
            if len(later) > 1:
                return prefix + later[len(later) // 2]
            # Nothing is known of what comes next: skip this subtree, if it is larger than a page or two.
            return cursor[: at + 1] + _LAST if at < one.varied - 1 or (at == 0 and one.varied) else None
        seen = len(self._next.get(prefix, ())) >= 2
        if not later and (char.isdigit() or len(self._alikes(prefix) or "") > 1):
            # Nothing like it goes on beyond. The largest of many counters does, and a range that runs on and on may be one's.
            past_end = self._ends.get(prefix.translate(_DIGITS), 0)
            beyond = min(
                (c for c in _closed(self._next.get(prefix, set()) | {char}) if c > char), default=None
            )
            if beyond is None or (below is not None and beyond >= below) or one.pages <= _FARTHER * past_end:
                return None
            return prefix + beyond
        if not later or not (seen or not one.shy or at >= one.varied - one.reach):
            return None
        near = one.shy and not seen and at < one.varied
        return prefix + (later[0] if near else later[len(later) // 2])

    # -- what follows what -----------------------------------------------------------------------

    def _alikes(self, prefix: str) -> set[str] | None:
        """What follows prefixes that differ from this one in digits only, if there were some: ``day=07/`` goes on as ``day=06/`` did."""
        found = self._alike.get(prefix.translate(_DIGITS))
        return found[0] if found and found[1][0] >= _ALIKE else None

    def _symbols(self, prefix: str) -> Sequence[str]:
        """Characters that may follow a prefix, ascending: those seen, and what else is of their class."""
        alike = self._alikes(prefix)
        if alike is not None:
            return sorted(alike)
        known = self._next.get(prefix)
        if not known:
            return _ANY
        return sorted(_closed(known))

    def _regular(self, prefix: str, char: str) -> bool:
        """Whether it is known, or can be guessed, what may follow a prefix."""
        if self._alikes(prefix) is not None:
            return True
        seen = self._next.get(prefix, set()) | set(char)
        return any(seen <= symbols for symbols in _CLASSES)

    def _later(self, prefix: str, char: str, below: str | None) -> list[str]:
        """Characters after `char`, and before `below`, that may follow a prefix."""
        alike = self._alikes(prefix)
        seen = self._next.get(prefix, set()) | {char}
        candidates = alike | seen if alike is not None else _closed(seen)
        return sorted(one for one in candidates if one > char and (below is None or one < below))

    def _learn_page(self, taken: Range, first: str, last: str, samples: Sequence[str]) -> None:
        self.pages += 1
        crossed = bisect_right(self._hints, last) - bisect_left(self._hints, first)
        self._passed += crossed
        taken.since_hint = 0 if crossed else taken.since_hint + 1
        taken.varied = _shared(first, last)
        taken.cursor = last
        if taken.parent is not None and taken.pages == 1:
            taken.parent.fruitless = 0
            taken.parent.reach += 1
            taken.reach = taken.parent.reach
        known = 0
        for key in (*samples, last):
            self._learn(key, known, taken.varied + 2)
            known = taken.varied  # of the first one, which all others begin like

    def _learn_nothing(self, taken: Range) -> None:
        self.empty += 1
        parent = taken.parent
        if parent is None or taken.pages > 1 or taken.lo is None:
            return
        if taken.beyond:
            self._ends[taken.beyond] = self._ends.get(taken.beyond, 0) + 1
        parent.fruitless += 1
        if taken.lo.endswith(_LAST):
            parent.closed.add(taken.lo[:-2])
        if parent.fruitless >= _FRUITLESS:
            parent.shy, parent.reach = True, 1
        elif parent.shy:
            parent.reach = max(1, parent.reach - 1)

    def _learn(self, key: str, start: int, depth: int) -> None:
        """Remember which characters follow the beginnings of a key: those of `start` characters to `depth`."""
        shape = None
        for at in range(start, min(depth, len(key))):
            known = self._next.get(key[:at])
            if known is not None and key[at] in known:
                continue
            shape = shape or key.translate(_DIGITS)
            if known is None and len(self._next) >= _KNOWN:
                return
            followers, prefixes = self._alike.setdefault(shape[:at], (set(), [0]))
            if known is None:
                known = self._next[key[:at]] = set()
                prefixes[0] += 1
            known.add(key[at])
            followers.add(key[at])


def _closed(seen: set[str]) -> AbstractSet[str]:
    """Characters, and all others of the smallest class that holds them; as they are, if none does."""
    return next((symbols for symbols in _CLASSES if seen <= symbols), seen)


def _need(entry: tuple[float, int, Range]) -> tuple[float, int]:
    return entry[:2]


def _shared(one: str, other: str) -> int:
    """How many characters two keys begin with alike."""
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    low, high = 0, most  # the first difference is in [low, high)
    while low < high:
        middle = (low + high) // 2
        if one[: middle + 1] == other[: middle + 1]:
            low = middle + 1
        else:
            high = middle
    return low
