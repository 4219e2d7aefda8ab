"""Masks: run lengths in COCO's compressed text, arrays of pixels, the platform's PNG.

The run lengths are coded and decoded by numpy alone, every bound checked: text from a file is not trusted with a C library's
memory. The text's format: https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c (``rleToString``).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from syncagent.errors import InvalidInput
from syncagent.ingest.annotations import Mask, Polygon, Ring, rgb

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    Pixels = NDArray[np.bool_]

MAX_PIXELS = 400_000_000
_URL = "data:image/png;base64,"


def encode(pixels: Pixels) -> Mask:
    """The mask of an array (height, width), True inside."""
    import numpy as np

    height, width = pixels.shape
    flat = np.asarray(pixels, dtype=bool).ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = np.concatenate(([0] if flat.size and flat[0] else [], edges, [flat.size])).astype(np.int64)
    return from_runs(np.diff(ends, prepend=0), width, height)


def from_runs(runs: Sequence[int] | NDArray[Any], width: int, height: int) -> Mask:
    """The mask of run lengths, outside and inside in turn, down the columns.

    :raises InvalidInput: they are not as many pixels as the picture has.
    """
    import numpy as np

    told = np.asarray(runs, dtype=np.int64)
    _sound(told, width, height)
    # From the fourth run on, each is told by its difference from the last but one.
    values = told.copy()
    values[3:] -= told[1:-2]
    parts = []
    for _ in range(13):
        low, rest = values & 0x1F, values >> 5
        more = np.where(low & 0x10, rest != -1, rest != 0)
        parts.append((low | (more << 5)) + 48)
        values = np.where(more, rest, 0)
        if not more.any():
            break
    used = np.ones((len(parts), told.size), dtype=bool)
    for digit in range(1, len(parts)):
        used[digit] = used[digit - 1] & ((parts[digit - 1] - 48) & 0x20 != 0)
    text = np.stack(parts).astype(np.uint8).T[used.T]
    return Mask(width, height, text.tobytes())


def runs(mask: Mask) -> NDArray[Any]:
    """Run lengths, outside and inside in turn, down the columns.

    :raises InvalidInput: the text is no run lengths of a picture of this size.
    """
    import numpy as np

    text = np.frombuffer(mask.counts, dtype=np.uint8).astype(np.int64) - 48
    if text.size and (text.min() < 0 or text.max() > 63 or text[-1] & 0x20):
        raise InvalidInput("the mask's run lengths are not COCO's compressed text")
    ends = np.flatnonzero((text & 0x20) == 0)
    if not ends.size:
        return _sound(np.zeros(0, dtype=np.int64), mask.width, mask.height)
    starts = np.concatenate(([0], ends[:-1] + 1))
    if (ends - starts).max() > 11:
        raise InvalidInput("the mask's run lengths are too long")
    digit = np.arange(text.size) - np.repeat(starts, ends - starts + 1)
    values = np.add.reduceat((text & 0x1F) << (5 * digit), starts)
    values -= np.where(text[ends] & 0x10, np.int64(1) << (5 * (ends - starts + 1)), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return _sound(values, mask.width, mask.height)


def _sound(told: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    if width < 0 or height < 0 or width * height > MAX_PIXELS:
        raise InvalidInput(f"a mask of {width} x {height} pixels is too large")
    if (told.size and (told.min() < 0 or told.max() > MAX_PIXELS)) or int(told.sum()) != width * height:
        raise InvalidInput(f"the mask's run lengths are not {width} x {height} pixels")
    return told


def decode(mask: Mask) -> Pixels:
    """The pixels, an array (height, width), True inside.

    :raises InvalidInput: see `runs`.
    """
    import numpy as np

    lengths = runs(mask)
    inside = np.arange(lengths.size) % 2 == 1
    return np.repeat(inside, lengths).reshape((mask.height, mask.width), order="F")


def area(mask: Mask) -> int:
    """How many pixels are inside."""
    return int(runs(mask)[1::2].sum())


def bounds(mask: Mask) -> tuple[float, float, float, float] | None:
    """Left, top, right, bottom of what is inside, right and bottom being the first pixel outside; None if nothing is."""
    import numpy as np

    lengths = runs(mask)
    last = np.cumsum(lengths)
    inside = np.flatnonzero(lengths[1::2]) * 2 + 1
    if not inside.size:
        return None
    first, end = last[inside] - lengths[inside], last[inside]
    left, right = int(first[0]) // mask.height, int(end[-1] - 1) // mask.height + 1
    # A run that goes on in the next column has a pixel in the first row and one in the last.
    around = bool(((end - 1) // mask.height > first // mask.height).any())
    top = 0 if around else int((first % mask.height).min())
    bottom = mask.height if around else int(((end - 1) % mask.height).max()) + 1
    return float(left), float(top), float(right), float(bottom)


def to_url(mask: Mask, color: str = "#ffffff") -> str:
    """The platform's form: an RGBA picture as a ``data:`` URL, the label's colour inside (white if it is none), transparent outside."""
    import numpy as np
    from PIL import Image

    inside = decode(mask)
    picture = np.zeros((mask.height, mask.width, 4), dtype=np.uint8)
    told = rgb(color)
    picture[inside] = (*(0xFFFFFF if told is None else told).to_bytes(3, "big"), 255)
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG", compress_level=1)
    return _URL + base64.b64encode(out.getvalue()).decode()


def from_url(url: str) -> Mask:
    """The mask of the platform's picture: inside is what is more opaque than half.

    :raises InvalidInput: it is no such picture.
    """
    if not url.startswith(_URL):
        raise InvalidInput("the mask is no PNG in a data: URL")
    try:
        data = base64.b64decode(url[len(_URL) :], validate=True)
    except binascii.Error as error:
        raise InvalidInput("the mask's PNG is not base64") from error
    return from_png(data)


def from_png(data: bytes) -> Mask:
    """The mask of a PNG's opacity; of its brightness, where it has none.

    :raises InvalidInput: it is no PNG, or too large a one.
    """
    import numpy as np

    with sound_png(data, "the mask is no sound PNG") as picture:
        band = (
            picture.convert("RGBA").getchannel("A") if picture.has_transparency_data else picture.convert("L")
        )
        return encode(np.asarray(band) > 127)


@contextlib.contextmanager
def sound_png(data: bytes, otherwise: str) -> Iterator[Image]:
    """A PNG, opened. Whatever Pillow raises when a damaged one is read is one error.

    :param otherwise: what the error says, before the reason.
    :raises InvalidInput: it is none, or has too many pixels.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise InvalidInput(f"a mask of {picture.width} x {picture.height} pixels is too large")
            yield picture
    except (
        OSError, ValueError, SyntaxError, EOFError, LookupError, AssertionError, TypeError, OverflowError, struct.error,
        zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
    ) as error:  # fmt: skip
        raise InvalidInput(f"{otherwise}: {str(error) or type(error).__name__}") from error


# -- many masks in one picture -------------------------------------------------------------------


def pixels_of(mask: Mask) -> NDArray[Any]:
    """Where its pixels are in the picture's columns laid end to end, ascending."""
    import numpy as np

    lengths = runs(mask)
    inside, starts = lengths[1::2], (np.cumsum(lengths) - lengths)[1::2]
    return np.repeat(starts - np.cumsum(inside) + inside, inside) + np.arange(inside.sum())


def by_number(numbers: NDArray[Any]) -> dict[int, Mask]:
    """The mask of each number but 0 in an array (height, width) of whole numbers, ascending.

    One pass over the pixels, however many numbers there are.
    """
    import numpy as np

    height, width = numbers.shape
    flat = numbers.ravel(order="F")
    starts = np.concatenate(([0] if flat.size else [], np.flatnonzero(flat[1:] != flat[:-1]) + 1)).astype(int)
    ends = np.append(starts[1:], flat.size)
    values = flat[starts]
    order = np.argsort(values, kind="stable")
    found = {}
    for number, first, count in zip(
        *np.unique(values[order], return_index=True, return_counts=True), strict=True
    ):
        if number:
            mine = order[first : first + count]
            edges = np.stack([starts[mine], ends[mine]]).T.ravel()
            last = [flat.size] if edges[-1] != flat.size else []
            found[int(number)] = from_runs(np.diff(np.concatenate((edges, last)), prepend=0), width, height)
    return found


# -- polygons ------------------------------------------------------------------------------------

_FINE = 5  # COCO's grid: fifths of a pixel
_FAR = 1 << 24  # corners farther away than that are no corners of a picture


def from_polygon(polygon: Polygon, width: int, height: int) -> Mask:
    """The pixels that an area covers, the same as COCO's own code gives (``rleFrPoly``, ``rleMerge``).

    A part is its outline without its holes; the area is the union of its parts. What lies outside of the picture is cut off.

    :raises InvalidInput: corners are not numbers, or much too far away.
    """
    import numpy as np

    if width * height > MAX_PIXELS:
        raise InvalidInput(f"a mask of {width} x {height} pixels is too large")
    edges = [
        np.sort(np.concatenate([_crossings(ring, width, height) for ring in part])) for part in polygon.parts
    ]
    # An outline crosses a column an even number of times: in and out in turn.
    turns = [np.resize([1, -1], one.size) for one in edges]
    places, where = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *edges]), return_inverse=True)
    depth = np.cumsum(
        np.bincount(where, weights=np.concatenate([np.zeros(0), *turns]), minlength=places.size)
    )
    inside = np.concatenate(([False], depth > 0))
    changes = places[inside[1:] != inside[:-1]]
    end = width * height
    last = [] if changes.size and changes[-1] == end else [end]
    return from_runs(np.diff(np.concatenate((changes, last)).astype(np.int64), prepend=0), width, height)


def _crossings(ring: Sequence[float], width: int, height: int) -> NDArray[Any]:
    """Where an outline crosses the middles of the picture's columns: places in the columns laid end to end, in no order.

    Each line is on a grid of fifths of a pixel, rounded as COCO rounds, so that no pixel differs. COCO walks all of it; here it is
    looked at only where it is in the middle of a column, so what is out of the picture costs nothing and moves nothing.
    """
    import numpy as np

    flat = np.asarray(ring, dtype=float)
    if flat.size % 2 or not np.isfinite(flat).all() or (flat.size and np.abs(flat).max() > _FAR):
        raise InvalidInput("a polygon's corners are not places in a picture")
    if not (flat.size and width and height):
        return np.zeros(0, dtype=np.int64)
    at = (_FINE * flat + 0.5).astype(np.int64).reshape(-1, 2)  # towards zero, as C does
    ends = np.roll(at, -1, axis=0)
    # A middle is passed on the step from 2 fifths of a column to 3: which columns have it between a line's ends.
    first = np.maximum(-((_FINE // 2 - np.minimum(at[:, 0], ends[:, 0])) // _FINE), 0)
    stop = np.minimum(-((_FINE // 2 - np.maximum(at[:, 0], ends[:, 0])) // _FINE), width)
    count = np.maximum(stop - first, 0)
    line = np.repeat(np.arange(count.size), count)
    column = np.arange(line.size) + (first - np.cumsum(count) + count)[line]
    size = np.abs(ends - at)
    lies = size[:, 0] >= size[:, 1]
    # Along the longer side, upwards.
    flip = np.where(lies, at[:, 0] > ends[:, 0], at[:, 1] > ends[:, 1])[:, None]
    start, way = np.where(flip, ends, at), np.where(flip, at - ends, ends - at)
    rise = np.where(lies, way[:, 1], way[:, 0]) / np.maximum(size.max(axis=1), 1)
    u, v, rise, passed = start[line, 0], start[line, 1], rise[line], _FINE * column + _FINE // 2
    # The smaller height of that step's ends: of a line that lies it is reckoned, on one that stands steps are heights.
    low = np.where(lies[line], 0, v)
    level, upright = np.flatnonzero(lies[line]), np.flatnonzero(~lies[line])
    if level.size:
        slope = rise[level]
        step = passed[level] - u[level] + (slope < 0)
        low[level] = (v[level] + slope * step + 0.5).astype(np.int64)
    if upright.size:
        low[upright] += _step_past(u[upright], rise[upright], passed[upright] + 1) - 1
    row = np.clip(-((_FINE // 2 - low) // _FINE), 0, height)
    found: NDArray[Any] = column * height + row
    return found


def _step_past(start: NDArray[Any], rise: NDArray[Any], bound: NDArray[Any]) -> NDArray[Any]:
    """The first step of lines that stand, on which they are past a bound: from below it to it, or from it to below it.

    They are known to get there, and not to start there.
    """
    import numpy as np

    rising = rise > 0

    def past(step: NDArray[Any]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (start + rise * step + 0.5 >= bound) == rising  # rounded as COCO does
        return found

    step: NDArray[Any] = np.ceil((bound - 0.5 - start) / rise).astype(np.int64)
    # That is right but for its own rounding. A line goes one way only, so the step is found beside it.
    while (late := past(step - 1)).any():
        step -= late
    while (early := ~past(step)).any():
        step += early
    return step


def to_polygon(mask: Mask) -> Polygon:
    """The area of a mask, along the edges of its pixels: `from_polygon` of it is the same mask.

    Its parts are what hangs together by sides of pixels, each with its holes; outlines run clockwise and holes against it.
    """
    import numpy as np

    seen = bounds(mask)
    if seen is None:
        return Polygon(())
    left, top, right, bottom = map(int, seen)
    corners = _corners(np.pad(decode(mask)[top:bottom, left:right], 1))
    rings, owners = _loops(corners)
    flat = np.stack([corners.x + (left - 1), corners.y + (top - 1)]).T.astype(float)
    parts: dict[int, list[Ring]] = {}
    for ring, owner in zip(
        rings, owners, strict=True
    ):  # an outline starts above its holes, and comes before them
        parts.setdefault(owner, []).append(tuple(flat[ring].ravel().tolist()))
    return Polygon(tuple(map(tuple, parts.values())))


class _Corners(NamedTuple):
    """The corners of an area, by rows. At a corner that two parts share each has its own."""

    x: NDArray[Any]
    y: NDArray[Any]
    left: NDArray[Any]
    """Corners at the left ends of the horizontal sides, and at their right ends."""
    right: NDArray[Any]
    after: NDArray[Any]
    """Number of the corner that follows along the outline, with the inside on the right hand."""
    first: NDArray[Any]
    """Whether it can be the upper left one of an outline: of its four pixels the lower right one is inside."""


# Which of the pixels around a corner are inside: 1 upper left, 2 upper right, 4 lower left, 8 lower right. Two that touch
# by their corners alone (6, 9) are two corners. Then: does its side go to the right of it, does one go down, does the outline
# leave it along the horizontal side.
_TURNS = {
    1: (0, 0, 1), 2: (1, 0, 0), 4: (0, 1, 0), 8: (1, 1, 1), 7: (1, 1, 0), 11: (0, 1, 1), 13: (1, 0, 1), 14: (0, 0, 0),
}  # fmt: skip


def _corners(inside: Pixels) -> _Corners:
    """The corners of an array's area, which has an empty pixel around it."""
    import numpy as np

    bits = inside.astype(np.uint8)
    around = bits[:-1, :-1] | bits[:-1, 1:] << 1 | bits[1:, :-1] << 2 | bits[1:, 1:] << 3
    turns = np.zeros((16, 3), dtype=bool)
    for code, turn in _TURNS.items():
        turns[code] = turn
    is_corner = np.isin(np.arange(16), [*_TURNS, 6, 9])
    y, x = np.nonzero(is_corner[around])
    codes = around[y, x]
    twice = np.where((codes == 6) | (codes == 9), 2, 1)
    second = np.arange(twice.sum()) - np.repeat(np.cumsum(twice) - twice, twice) == 1
    y, x, codes = np.repeat(y, twice), np.repeat(x, twice), np.repeat(codes, twice)
    codes = np.where(codes == 6, np.where(second, 2, 4), np.where(codes == 9, np.where(second, 8, 1), codes))
    to_right, down, along = turns[codes].T
    # Sides join neighbours in a row, or in a column: of two corners at one place, that whose side comes from before is first.
    row, column = np.lexsort((to_right, x, y)), np.lexsort((down, y, x))
    beside, below = np.empty(x.size, dtype=np.int64), np.empty(x.size, dtype=np.int64)
    beside[row[0::2]], beside[row[1::2]] = row[1::2], row[0::2]
    below[column[0::2]], below[column[1::2]] = column[1::2], column[0::2]
    return _Corners(x + 1, y + 1, row[0::2], row[1::2], np.where(along, beside, below), codes == 8)


def _loops(corners: _Corners) -> tuple[list[list[int]], list[int]]:
    """Outlines and holes as numbers of corners, and for each the number of the outline around it (an outline's is its own)."""
    import numpy as np

    after: list[int] = corners.after.tolist()
    ring_of = [-1] * len(after)
    rings: list[list[int]] = []
    for start in range(len(after)):
        at, ring = start, []
        while ring_of[at] < 0:
            ring_of[at] = len(rings)
            ring.append(at)
            at = after[at]
        if ring:
            rings.append(ring)
    # Above a hole's upper left corner is its area; where that begins, further up, is the outline or a hole that starts earlier.
    x, y, height = corners.x, corners.y, int(corners.y.max()) + 1
    length = x[corners.right] - x[corners.left]
    steps = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    places = (np.repeat(x[corners.left], length) + steps) * height + np.repeat(y[corners.left], length)
    order = np.argsort(places)
    sides, side_of = places[order], np.repeat(np.asarray(ring_of)[corners.left], length)[order]
    starts = np.array([ring[0] for ring in rings])
    above = side_of[np.searchsorted(sides, x[starts] * height + y[starts]) - 1].tolist()
    owners: list[int] = []
    for number, is_outline in enumerate(corners.first[starts].tolist()):
        owners.append(number if is_outline else owners[above[number]])
    return rings, owners
