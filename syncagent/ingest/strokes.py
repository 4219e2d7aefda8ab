"""Drawing on arrays: lines with soft edges, areas, and laying colours over each other.

Only what is touched is worked on: a line costs its length, an area its bounding box, never the whole picture. Numbers from files
are not trusted: what is not a number is left out, and memory stays bounded however far away a corner is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from syncagent.ingest.annotations import Ring
from syncagent.ingest.regions import Region

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_CHUNK = 1 << 20  # pixels looked at in one step
_FAR = 1e7  # pixels; corners farther away are taken to be there
_THINGS = 1 << 16  # drawn at once


# -- lines ---------------------------------------------------------------------------------------


def segments(line: Ring, *, closed: bool) -> Array:
    """The straight pieces of a flat run of corners: an array (n, 4) of x, y, x, y. One corner alone is a piece without length."""
    import numpy as np

    points = np.asarray(line, dtype=np.float64)
    points = points[: points.size // 2 * 2].reshape(-1, 2)
    ends = np.roll(points, -1, axis=0) if closed else points[1:]
    starts = points if closed or len(points) == 1 else points[:-1]
    return np.hstack([starts, ends if len(points) > 1 else points])


def covered(pieces: Array, radius: float, width: int, height: int) -> Iterator[tuple[Array, Array, Array]]:
    """Which pixels round-ended lines cover, and how much of each.

    :param pieces: (n, 4) of x, y, x, y; those with a corner that is not a number are left out; :param radius: half the
        thickness, in pixels.
    :return: places in the picture's rows laid end to end, the share from 1 to 255, and the piece's number; a bounded number at a
        time. A pixel comes once for each piece that touches it.
    """
    import numpy as np

    reach = radius + 0.5
    kept = np.flatnonzero(np.isfinite(pieces).all(axis=1))
    pieces = np.clip(pieces[kept], -_FAR, _FAR)
    low, high = np.minimum(pieces[:, :2], pieces[:, 2:]), np.maximum(pieces[:, :2], pieces[:, 2:])
    near = (high > -reach).all(axis=1) & (low < np.array([width, height]) + reach).all(axis=1)
    pieces, kept = pieces[near], kept[near]
    if not len(pieces):
        return
    # Each piece is walked along its longer side u; around its middle v some pixels are looked at.
    steep = np.abs(pieces[:, 3] - pieces[:, 1]) > np.abs(pieces[:, 2] - pieces[:, 0])
    turned = np.where(steep[:, None], pieces[:, [1, 0, 3, 2]], pieces)
    turned = np.where((turned[:, 0] > turned[:, 2])[:, None], turned[:, [2, 3, 0, 1]], turned)
    u, v, du, dv = turned[:, 0], turned[:, 1], turned[:, 2] - turned[:, 0], turned[:, 3] - turned[:, 1]
    slope = np.divide(dv, du, out=np.zeros_like(dv), where=du > 0)
    stretch = np.sqrt(1 + slope**2)
    first = np.maximum(np.floor(u - reach), 0).astype(np.int64)
    last = np.minimum(np.floor(u + du + reach), np.where(steep, height, width) - 1).astype(np.int64)
    count = np.maximum(last - first + 1, 0)
    rows = math.ceil(2 * reach * float(stretch.max())) + 1
    told = np.stack([u, v, u + du, slope, stretch])
    step = np.where(steep, width, 1), np.where(steep, 1, width), np.where(steep, width, height)
    walk = np.stack([first, *step])
    for batch in _batches(count * rows):
        which = np.repeat(np.arange(batch.start, batch.stop), count[batch])
        along = np.arange(which.size) - np.repeat(np.cumsum(count[batch]) - count[batch], count[batch])
        places, share, steps = _covered(told[:, which], walk[:, which], along, radius, rows)
        yield places, share, kept[which[steps]]


def _covered(told: Array, walk: Array, along: Array, radius: float, rows: int) -> tuple[Array, Array, Array]:
    """See `covered`: one step for each pixel of the longer sides, `rows` pixels across. The last is the step's number."""
    import numpy as np

    u, v, end, slope, stretch = told
    first, step_u, step_v, size = walk
    at = first + along
    middle = at + 0.5
    across = np.floor(v + slope * (np.clip(middle, u, end) - u) - rows / 2 + 0.5).astype(np.int64)
    # How far from the line the pixels are.
    below = (across + 0.5 - (v + slope * (middle - u))).astype(np.float32)
    beside = below[:, None] + np.arange(rows, dtype=np.float32)
    away = np.abs(beside) * (1 / stretch).astype(np.float32)[:, None]
    # Near an end: how far from that.
    from_start, past_end = (middle - u) * stretch, (middle - end) * stretch
    margin = 2 * radius + 2
    ends = np.flatnonzero((from_start < margin) | (past_end > -margin))
    shift = beside[ends] * (slope / stretch).astype(np.float32)[ends, None]
    before, after = from_start[ends].astype(np.float32)[:, None], past_end[ends].astype(np.float32)[:, None]
    beyond = np.maximum(np.maximum(-(before + shift), after + shift), 0)
    away[ends] = np.hypot(away[ends], beyond)
    share = np.float32(radius + 0.5) - away
    np.clip(share, 0, min(1.0, 2 * radius), out=share)
    whole = (share * 255 + 0.5).astype(np.uint8)
    seen = whole > 0
    if across.min() < 0 or (across + rows > size).any():
        place = across[:, None] + np.arange(rows)
        seen &= (place >= 0) & (place < size[:, None])
    flat = np.flatnonzero(seen)
    steps = flat // rows
    places = (at * step_u + across * step_v)[steps] + (flat - steps * rows) * step_v[steps]
    return places, whole.reshape(-1)[flat], steps


def _batches(costs: Array) -> Iterator[slice]:
    """Runs of things that cost at most `_CHUNK` together, or one that costs more."""
    import numpy as np

    total = np.cumsum(costs)
    start = 0
    while start < costs.size:
        before = int(total[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(total, before + _CHUNK, side="right")))
        yield slice(start, stop)
        start = stop


# -- the canvas ----------------------------------------------------------------------------------


class Canvas:
    """An RGBA picture that is drawn on. Colours are not premultiplied. `finish` when all is told.

    :param pixels: uint8 (height, width, 4), drawn on in place.
    """

    def __init__(self, pixels: Array) -> None:
        import numpy as np

        self.pixels = pixels
        self.height, self.width = pixels.shape[:2]
        self._flat = pixels.reshape(-1, 4)
        self._words = pixels.reshape(-1).view(np.uint32)
        # Lines wait until something else is drawn: a hundred at once cost little more than one.
        self._things: list[tuple[int, int, int]] = []
        self._alpha = 1.0
        self._pieces: dict[float, list[tuple[int, Array]]] = {}
        self._areas: list[tuple[int, Array]] = []

    @classmethod
    def empty(cls, width: int, height: int) -> Canvas:
        """A transparent one."""
        import numpy as np

        return cls(np.zeros((height, width, 4), dtype=np.uint8))

    def area(self, region: Region, rgb: Sequence[int], alpha: float) -> None:
        """Lay a colour over some pixels. :param alpha: from 0, nothing, to 1."""
        import numpy as np

        self.finish()
        if alpha == 1:
            rows = slice(region.top, region.top + region.inside.shape[0])
            columns = slice(region.left, region.left + region.inside.shape[1])
            words = self._words.reshape(self.height, self.width)[rows, columns]
            np.copyto(words, _word(rgb), where=region.inside)
            return
        places = self._places(region)
        self._blend(places, np.full(places.size, 255, dtype=np.uint8), np.array(rgb, dtype=np.float32), alpha)

    def lines(
        self,
        strokes: Sequence[tuple[Array, float]],
        rgb: tuple[int, int, int],
        alpha: float,
        fill: Region | None = None,
    ) -> None:
        """Lay lines over the picture, and an area below them: where they meet, as if they were one thing.

        :param strokes: pieces and half their thickness, see `covered`.
        """
        if alpha != self._alpha or len(self._things) >= _THINGS:
            self.finish()
        if fill is not None and alpha == 1:
            self.area(fill, rgb, 1)
            fill = None
        self._alpha = alpha
        thing = len(self._things)
        self._things.append(rgb)
        if fill is not None:
            self._areas.append((thing, self._places(fill)))
        for pieces, radius in strokes:
            self._pieces.setdefault(radius, []).append((thing, pieces))

    def shares(self, share: Array, top: int, left: int, rgb: Sequence[int], alpha: float) -> None:
        """Lay a colour over a rectangle by shares, uint8 (h, w), cut off at the picture's edges."""
        import numpy as np

        self.finish()
        share = share[max(-top, 0) : self.height - top, max(-left, 0) : self.width - left]
        y, x = np.nonzero(share)
        places = (y + max(top, 0)) * self.width + (x + max(left, 0))
        self._blend(places, share[y, x], np.array(rgb, dtype=np.float32), alpha)

    def finish(self) -> None:
        """Draw the lines that wait."""
        import numpy as np

        if not self._things:
            return
        colors = np.array(self._things, dtype=np.float32)
        touched = self._touched(len(colors))
        self._things, self._pieces, self._areas = [], {}, []
        whole = touched >> 8
        places, things, share = whole // len(colors), whole % len(colors), (touched & 255).astype(np.uint8)
        if not places.size:
            return
        # Things lie over each other in their order: first what touches each pixel first, and so on.
        new = np.append(True, places[1:] != places[:-1])
        starts = np.flatnonzero(new)
        turn = np.arange(places.size) - np.repeat(starts, np.diff(np.append(starts, places.size)))
        order = np.argsort(turn.astype(np.min_scalar_type(turn.max())), kind="stable")
        start = 0
        for count in np.bincount(turn).tolist():
            now = order[start : start + count]
            self._blend(places[now], share[now], colors[things[now]], self._alpha)
            start += count

    def _touched(self, things: int) -> Array:
        """Each pixel that a waiting thing touches, once: place, thing and share in one number, ascending."""
        import numpy as np

        found = [((places * things + thing) << 8) | 255 for thing, places in self._areas]
        held, most = sum(one.size for one in found), 2 * self.width * self.height + _CHUNK
        for radius, told in self._pieces.items():
            owner = np.repeat([thing for thing, _ in told], [len(pieces) for _, pieces in told])
            pieces = np.concatenate([pieces for _, pieces in told])
            for places, share, which in covered(pieces, radius, self.width, self.height):
                found.append(((places * things + owner[which]) << 8) | share)
                held += places.size
                if held > most:  # a scribble, which comes over the same pixels again and again
                    found = [_largest(np.concatenate(found))]
                    held, most = found[0].size, max(most, 2 * found[0].size)
        return _largest(np.concatenate([*found, np.zeros(0, dtype=np.int64)]))

    def _places(self, region: Region) -> Array:
        import numpy as np

        y, x = np.nonzero(region.inside)
        places: Array = (y + region.top) * self.width + (x + region.left)
        return places

    def _blend(self, places: Array, share: Array, rgb: Array, alpha: float) -> None:
        """Lay colours over pixels, none of which comes twice. :param rgb: float32, one (3) or one each (n, 3)."""
        import numpy as np

        if alpha == 1:
            full, soft = np.flatnonzero(share == 255), np.flatnonzero(share != 255)
            word = np.full((*rgb.shape[:-1], 4), 255, dtype=np.uint8)
            word[..., :3] = rgb
            words = word.view(np.uint32)[..., 0]
            self._words[places[full]] = words[full] if rgb.ndim > 1 else words
            places, share, rgb = places[soft], share[soft], rgb[soft] if rgb.ndim > 1 else rgb
        if not places.size:
            return
        old = self._flat[places].astype(np.float32)
        over = share * np.float32(alpha / 255)
        under = old[:, 3] * (1 - over) / 255
        whole = over + under
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.nan_to_num(over / whole)[:, None]
        new = old
        new[:, :3] += (rgb - old[:, :3]) * part
        new[:, 3] = whole * 255
        self._flat[places] = (new + 0.5).astype(np.uint8)


def _largest(touched: Array) -> Array:
    """Of several shares of a pixel the largest, in order."""
    import numpy as np

    touched.sort()
    whole = touched >> 8
    kept: Array = touched[np.append(whole[1:] != whole[:-1], True)[: touched.size]]
    return kept


def _word(rgb: Sequence[int]) -> Any:
    import numpy as np

    return np.array([*rgb, 255], dtype=np.uint8).view(np.uint32)[0]


def paint_lines(numbers: Array, pieces: Array, radius: float, number: int) -> None:
    """Give a number to the pixels that lines cover by half or more."""
    height, width = numbers.shape
    flat = numbers.reshape(-1)
    for places, share, _ in covered(pieces, radius, width, height):
        flat[places[share >= 128]] = number
