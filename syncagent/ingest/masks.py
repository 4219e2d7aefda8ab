"""Masks: run lengths in COCO's compressed text, arrays of pixels, the platform's PNG.

The run lengths are coded and decoded by numpy alone, every bound checked: text from a file is not trusted with a C library's
memory. The text's format: https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c (``rleToString``).
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from syncagent.errors import InvalidInput
from syncagent.ingest.annotations import Mask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
    """The platform's form: an RGBA picture as a ``data:`` URL, the label's colour inside, transparent outside."""
    import numpy as np
    from PIL import Image

    inside = decode(mask)
    picture = np.zeros((mask.height, mask.width, 4), dtype=np.uint8)
    picture[inside] = (*bytes.fromhex(color.removeprefix("#")), 255)
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
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise InvalidInput(f"a mask of {picture.width} x {picture.height} pixels is too large")
            band = (
                picture.convert("RGBA").getchannel("A")
                if picture.has_transparency_data
                else picture.convert("L")
            )
            return encode(np.asarray(band) > 127)
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise InvalidInput(f"the mask is no sound PNG: {error}") from error
