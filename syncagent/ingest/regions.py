"""Areas as the pixels that they cover, within their bounding box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from syncagent.errors import InvalidInput
from syncagent.ingest import masks
from syncagent.ingest.annotations import Mask, Part, Polygon, Ring

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]

_OUTLINE = 500_000  # columns that outlines cross, up to which an area is found as COCO does: that takes memory for each of them
_FAR = 1 << 23  # pixels; `masks.from_polygon` refuses twice that


class Region(NamedTuple):
    """Pixels of a picture: an array (height, width) of truths, and where its upper left corner is."""

    top: int
    left: int
    inside: NDArray[np.bool_]


def mask_region(mask: Mask, width: int, height: int) -> Region | None:
    """The pixels of a mask that are in a picture, which may have another size; None if there are none.

    :raises InvalidInput: see `masks.runs`.
    """
    import numpy as np

    lengths = masks.runs(mask)
    seen = masks.bounds(mask)
    if seen is None:
        return None
    left, top, right, bottom = map(int, seen)
    ends = np.clip(np.cumsum(lengths), left * mask.height, right * mask.height)
    flags = np.arange(lengths.size) % 2 == 1
    columns = np.repeat(flags, np.diff(ends, prepend=left * mask.height)).reshape(-1, mask.height)
    right, bottom = min(right, width), min(bottom, height)
    if left >= right or top >= bottom:
        return None
    return Region(top, left, columns[: right - left, top:bottom].T)


def polygon_region(polygon: Polygon, width: int, height: int) -> Region | None:
    """The pixels of a polygon, the same as `masks.from_polygon` gives; None if it covers none of the picture.

    What is wrong in it is left out, and what is farther away than 8 million pixels is cut off there.
    """
    parts = [kept for part in polygon.parts if (kept := _near(part, width, height))]
    if not parts:
        return None
    if sum(_middles(ring, width) for part in parts for ring in part) > _OUTLINE:
        return _coarse(parts, width, height)
    return mask_region(masks.from_polygon(Polygon(tuple(parts)), width, height), width, height)


def _near(part: Part, width: int, height: int) -> Part:
    """The rings of a part that matter to a picture. Its area in the picture stays the same.

    Rings are even-odd: one counts whatever becomes of the others, a hole too whose outline is out of the picture.
    """
    rings: list[Ring] = []
    for number, ring in enumerate(part):
        if len(ring) % 2 or not all(map(math.isfinite, ring)):
            if not number:
                return ()  # no outline, no part
            continue
        if not ring:
            continue
        left, right, top, bottom = min(ring[::2]), max(ring[::2]), min(ring[1::2]), max(ring[1::2])
        if right <= 0 or left >= width or bottom <= 0 or top >= height:
            continue
        # Not nearer than need be: a line that is cut off is another line once its corners are rounded.
        if kept := _clipped(ring, (-_FAR, _FAR), (-_FAR, _FAR)):
            rings.append(kept)
    return tuple(rings)


def _clipped(ring: Ring, xs: tuple[int, int], ys: tuple[int, int]) -> Ring:
    """A ring cut off at a rectangle, side by side (Sutherland and Hodgman); itself if it is within."""
    flat = list(ring)
    for axis, bound, sign in ((0, xs[0], 1), (0, xs[1], -1), (1, ys[0], 1), (1, ys[1], -1)):
        if all(sign * at >= sign * bound for at in flat[axis::2]):
            continue
        points = list(zip(flat[::2], flat[1::2], strict=True))
        kept: list[float] = []
        for a, b in zip([points[-1], *points[:-1]], points, strict=True):
            a_in, b_in = sign * a[axis] >= sign * bound, sign * b[axis] >= sign * bound
            if a_in != b_in:
                # Far corners are brought nearer first: their difference may be too large to be a number.
                far_a, far_b = ([max(-1e150, min(1e150, n)) for n in p] for p in (a, b))
                share = (bound - far_a[axis]) / (far_b[axis] - far_a[axis])
                other = far_a[1 - axis] + share * (far_b[1 - axis] - far_a[1 - axis])
                kept += (bound, other) if axis == 0 else (other, bound)
            if b_in:
                kept += b
        flat = kept
        if not flat:
            return ()
    return tuple(flat)


def _middles(ring: Ring, width: int) -> float:
    """How many middles of columns an outline crosses, but for one for each line."""
    xs = [max(0.0, min(width, x)) for x in ring[::2]]
    return sum(abs(u - x) for x, u in zip(xs, (*xs[1:], xs[0]), strict=True))


def _coarse(parts: Sequence[Part], width: int, height: int) -> Region | None:
    """The pixels of an area with an endless outline, to the pixel next to it, in little memory."""
    import numpy as np
    from PIL import Image, ImageDraw

    whole = np.zeros((height, width), dtype=bool)
    for part in parts:
        inside = np.zeros((height, width), dtype=bool)
        for ring in part:
            near = _clipped(ring, (-width, 2 * width), (-height, 2 * height))  # Pillow reckons in 32 bits
            if len(near) < 6:
                continue
            picture = Image.new("L", (width, height))
            ImageDraw.Draw(picture).polygon([n - 0.5 for n in near], fill=1)
            inside ^= np.asarray(picture, dtype=bool)
        whole |= inside
    return Region(0, 0, whole) if whole.any() else None


def paint(numbers: Array, region: Region, number: int) -> None:
    """Give a number to the pixels of a region."""
    import numpy as np

    rows, columns = region.inside.shape
    view = numbers[region.top : region.top + rows, region.left : region.left + columns]
    np.copyto(view, number, where=region.inside)


def checked(width: int, height: int, most: int, what: str) -> None:
    """:raises InvalidInput: a picture of this size is too large to be drawn."""
    if width * height > most:
        raise InvalidInput(f"{what}: {width} x {height} pixels are too many to be drawn", resource=what)
