"""Words on pictures: labels beside what they name, on plates of their colour."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from syncagent.ingest import masks
from syncagent.ingest.annotations import Annotation, Geometry, Mask, bounds
from syncagent.ingest.strokes import Canvas

_MOST_TEXT = 80  # characters


def label(canvas: Canvas, one: Annotation, rgb: tuple[int, int, int], alpha: float, thickness: int) -> None:
    """An annotation's label at the upper left corner of what encloses it."""
    around = _bounds(one.geometry)
    if around is None or not all(map(math.isfinite, around)):
        return
    left, top = (round(max(-1e6, min(1e6, n))) for n in around[:2])
    if left >= canvas.width or top >= canvas.height or around[2] < 0 or around[3] < 0:
        return
    _plate(canvas, _words(one), max(left, 0), top - thickness, rgb, alpha, above=True)


def _bounds(geometry: Geometry) -> tuple[float, float, float, float] | None:
    if isinstance(geometry, Mask):
        return masks.bounds(geometry)
    try:
        return bounds(geometry)
    except (ValueError, IndexError):  # it has no corners
        return None


def list_whole(
    canvas: Canvas, whole: Sequence[tuple[Annotation, tuple[int, int, int]]], alpha: float
) -> None:
    """What is said about the whole picture, line by line in its upper left corner."""
    y = 0
    for one, rgb in whole:
        if y >= canvas.height:
            return
        y += _plate(canvas, _words(one), 0, y, rgb, alpha)


def _words(one: Annotation) -> str:
    told = "".join(c if c.isprintable() else " " for c in one.label[:_MOST_TEXT])
    return told if one.score is None else f"{told} {one.score:.2f}"


def _plate(
    canvas: Canvas, text: str, x: int, y: int, rgb: tuple[int, int, int], alpha: float, *, above: bool = False
) -> int:
    """Write on a plate of a colour; returns the plate's height in pixels. `above`: that ends at `y`, where there is room."""
    import numpy as np
    from PIL import Image, ImageDraw

    font = _font(max(12, min(48, max(canvas.width, canvas.height) // 80)))
    left, _, right, bottom = (math.ceil(n) for n in font.getbbox(text))
    picture = Image.new("L", (max(right - min(left, 0), 1) + 4, bottom + 4))
    ImageDraw.Draw(picture).text((2 - min(left, 0), 1), text, fill=255, font=font)
    letters = np.asarray(picture)
    width, height = picture.size
    y = max(y - height, 0) if above else y
    x = max(min(x, canvas.width - width), 0)
    canvas.shares(np.full_like(letters, 255), y, x, rgb, alpha)
    bright = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] > 140
    canvas.shares(letters, y, x, (0, 0, 0) if bright else (255, 255, 255), min(1.0, 2 * alpha))
    return height


@lru_cache(maxsize=8)
def _font(size: int) -> Any:
    from PIL import ImageFont

    make: Callable[..., Any] = ImageFont.load_default
    try:
        return make(size)
    except (ImportError, OSError):  # Pillow without FreeType has a font of one size
        return make()
