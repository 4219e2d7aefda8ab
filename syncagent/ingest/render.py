"""Pictures of annotations: their colours on nothing or on the picture, the numbers of their labels, the ids of their objects.

Everything is in the pixels of the upright picture; a line's middle is on its coordinates, a pixel's middle at its half. Masks come
first, so that no area hides a line, then the others in their order. Lines have soft edges in colours, and hard ones in numbers.
What has no place in a picture (a subtitle, a kind that only the platform knows) is left out, and so are corners that are not numbers.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from syncagent.catalog.labels import stable_color
from syncagent.errors import InvalidInput, Unsupported
from syncagent.ingest import captions
from syncagent.ingest.annotations import (
    Annotation,
    Box,
    Classification,
    Cuboid,
    Ellipse,
    Geometry,
    Labelled,
    Mask,
    Note,
    Point,
    Polygon,
    Polyline,
    Pose,
    Ring,
)
from syncagent.ingest.formats.base import needs_size
from syncagent.ingest.regions import Region, checked, mask_region, paint, polygon_region
from syncagent.ingest.strokes import Canvas, paint_lines, segments

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image as Picture

MAX_PIXELS = 200_000_000
"""Of what is drawn. A picture's own limit is Pillow's."""
_THICKEST = 100
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_SIDES = ((0, 1, 2, 3), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7))


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How annotations are drawn.

    :raises InvalidInput: a number is out of its bounds.
    """

    thickness: int | None = 2
    """Of lines, in pixels, from 1 to 100. None: 2, and more in a picture of more than 2,000 pixels a side."""
    alpha: float = 1.0
    """From 0, nothing is seen, to 1, nothing is seen through."""
    text: bool = False
    """Write labels, and those that are about the whole picture in its corner."""
    fill: bool = False
    """Fill what encloses an area."""
    colors: Mapping[str, str] = field(default_factory=dict)
    """``#rrggbb`` by label; others have a colour that is the same everywhere."""
    skeletons: Mapping[str, Sequence[tuple[int, int]]] = field(default_factory=dict)
    """Joints of a pose that a line joins, counted from 1, by label or template."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise InvalidInput(f"alpha is {self.alpha}, and must be from 0 to 1", resource="alpha")
        if self.thickness is not None and not 1 <= self.thickness <= _THICKEST:
            raise InvalidInput(
                f"thickness is {self.thickness}, and must be from 1 to {_THICKEST}", resource="thickness"
            )


class Numbered(NamedTuple):
    """A picture of numbers, and what is not in it."""

    pixels: NDArray[Any]
    """(height, width), 0 where nothing is; uint8, or as wide as the largest number needs."""
    left_out: tuple[str, ...]
    """A line about each annotation that has no number."""


def mask(item: Labelled, style: Style | None = None) -> NDArray[np.uint8]:
    """Annotations in their labels' colours on nothing: uint8 RGBA (height, width, 4), not premultiplied.

    :raises InvalidInput: the item's size is not known, or too large; a mask in it is damaged.
    :raises Unsupported: numpy or Pillow is not installed.
    """
    _needed()
    width, height = _size(item)
    canvas = Canvas.empty(width, height)
    _draw(canvas, item.annotations, style or Style())
    return canvas.pixels


def on_image(picture: Picture, item: Labelled, style: Style | None = None) -> Picture:
    """The picture, upright, with the annotations drawn over it: RGB, or RGBA where the picture can be seen through.

    The picture's own size counts, and not what is noted of the item.

    :raises InvalidInput: it is too large or damaged, or a mask is. :raises Unsupported: numpy or Pillow is not installed.
    """
    _needed()
    import numpy as np
    from PIL import Image

    clear = picture.has_transparency_data
    shown = upright(picture).convert("RGBA")
    checked(*shown.size, MAX_PIXELS, item.key)
    canvas = Canvas(np.array(shown))
    _draw(canvas, item.annotations, style or Style())
    drawn = Image.fromarray(canvas.pixels)
    return drawn if clear else drawn.convert("RGB")


def instance(item: Labelled, numbers: Mapping[str, int]) -> NDArray[Any]:
    """The numbers of the labels, areas filled: uint8, or uint16 where a number needs it, (height, width). 0 is nothing.

    Lines and points have the pixels of a line 2 pixels wide. Notes and what is about the whole picture are no objects.

    :param numbers: from 1 to 65,535, by label. The array's type depends on it alone, and is the same for all items.
    :raises InvalidInput: a label has no number, or see `mask`. :raises Unsupported: numpy or Pillow is not installed.
    """
    _needed()
    import numpy as np

    for label, number in numbers.items():
        if not 1 <= number <= 65_535:
            raise InvalidInput(f"the number {number} of {label!r} is not from 1 to 65,535", resource=label)
    width, height = _size(item)
    wide = max(numbers.values(), default=1) > 255
    pixels = np.zeros((height, width), dtype=np.uint16 if wide else np.uint8)
    for one in _in_order(item.annotations):
        if isinstance(one.geometry, Note) or not _has_place(one.geometry):
            continue
        if one.label not in numbers:
            raise InvalidInput(
                f"{item.key}: the label {one.label!r} has no number", resource=item.key,
                hint="add it to the recipe",
            )  # fmt: skip
        _paint(pixels, one.geometry, numbers[one.label])
    return pixels


def object_id(item: Labelled) -> Numbered:
    """The ids of the objects, areas filled, as `instance` has labels: uint8, or uint16 or uint32 where an id needs it.

    Annotations whose `object_id` is no whole number from 1 to 4,294,967,295 are left out, and listed.

    :raises InvalidInput: see `mask`. :raises Unsupported: numpy or Pillow is not installed.
    """
    _needed()
    import numpy as np

    width, height = _size(item)
    found, left_out = [], []
    for one in _in_order(item.annotations):
        if isinstance(one.geometry, Note) or not _has_place(one.geometry):
            continue
        told = (one.object_id or "").strip()
        if told.isascii() and told.isdecimal() and len(told) <= 10 and 1 <= int(told) < 1 << 32:
            found.append((one.geometry, int(told)))
        else:
            why = f"its object id {one.object_id!r} is no number" if one.object_id else "it has no object id"
            left_out.append(f"an annotation {one.label!r}: {why}")
    most = max((number for _, number in found), default=0)
    kind = np.uint8 if most < 1 << 8 else np.uint16 if most < 1 << 16 else np.uint32
    pixels: NDArray[Any] = np.zeros((height, width), dtype=kind)
    for geometry, number in found:
        _paint(pixels, geometry, number)
    return Numbered(pixels, tuple(left_out))


# -- pictures ------------------------------------------------------------------------------------


def opened(body: BinaryIO, name: str) -> Picture:
    """A picture, decoded, upright by its EXIF: RGB, or RGBA where it can be seen through.

    :param name: what errors call it.
    :raises Unsupported: it is no picture that Pillow reads, or too large a one; Pillow is not installed.
    :raises InvalidInput: it is damaged.
    """
    _needed()
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(body, formats=_FORMATS) as picture:
            return upright(picture)
    except UnidentifiedImageError as error:
        raise Unsupported(f"{name} is no picture", resource=name) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unsupported(f"{name} has too many pixels", resource=name) from error
    except (OSError, ValueError, SyntaxError) as error:
        raise InvalidInput(f"{name} is not a sound picture", resource=name) from error


def upright(picture: Picture) -> Picture:
    """A picture as one looks at it: turned by its EXIF, RGB, or RGBA where it can be seen through. 16 bits become 8."""
    import numpy as np
    from PIL import Image, ImageOps

    turned = ImageOps.exif_transpose(picture)
    if turned.mode.startswith("I") or turned.mode == "F":
        values = np.asarray(turned)
        deep = turned.mode.startswith("I;16") or (values.size and values.max() > 255)
        turned = Image.fromarray(np.clip(values / 257 if deep else values, 0, 255).astype(np.uint8))
    return turned.convert("RGBA" if turned.has_transparency_data else "RGB")


def png(pixels: NDArray[Any]) -> bytes:
    """A PNG of an array (height, width) of numbers below 65,536, or (height, width, 3 or 4) of uint8.

    :raises InvalidInput: a number is larger than a PNG holds.
    """
    import numpy as np
    from PIL import Image

    if pixels.dtype == np.uint32:
        if pixels.size and pixels.max() > 65_535:
            raise InvalidInput(f"a PNG cannot hold the number {pixels.max()}: 65,535 at most")
        pixels = pixels.astype(np.uint16)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()


def is_drawn(geometry: Geometry) -> bool:
    """Whether a geometry leaves pixels in `mask`, where its coordinates are in the picture."""
    return isinstance(geometry, Note) or _has_place(geometry)


# -- drawing -------------------------------------------------------------------------------------


def _needed() -> None:
    try:
        import numpy  # noqa: F401
        import PIL  # noqa: F401
    except ModuleNotFoundError as missing:
        raise Unsupported(
            "drawing needs numpy and Pillow", hint="pip install 'syncagent[ingest]'"
        ) from missing


def _size(item: Labelled) -> tuple[int, int]:
    width, height = needs_size(item, "a drawing")
    checked(width, height, MAX_PIXELS, item.key)
    return width, height


def _in_order(annotations: Sequence[Annotation]) -> Iterator[Annotation]:
    """Masks first, as the platform's client draws them."""
    yield from (one for one in annotations if isinstance(one.geometry, Mask))
    yield from (one for one in annotations if not isinstance(one.geometry, Mask))


def _has_place(geometry: Geometry) -> bool:
    return isinstance(geometry, Mask | Box | Polygon | Polyline | Ellipse | Cuboid | Point | Pose)


def _draw(canvas: Canvas, annotations: Sequence[Annotation], style: Style) -> None:
    thickness = style.thickness or max(2, round(max(canvas.width, canvas.height) / 1000))
    for one in _in_order(annotations):
        rgb = _rgb(style, one.label)
        if isinstance(one.geometry, Mask):
            region = mask_region(one.geometry, canvas.width, canvas.height)
            if region is not None:
                canvas.area(region, rgb, style.alpha)
        elif (strokes := _strokes(one.geometry, thickness / 2, _skeleton(style, one))) is not None:
            region = _region(one.geometry, canvas.width, canvas.height) if style.fill else None
            canvas.lines(strokes, rgb, style.alpha, region)
    canvas.finish()
    if style.text:  # last: no line runs over a word
        told = [(one, _rgb(style, one.label)) for one in _in_order(annotations)]
        for one, rgb in told:
            captions.label(canvas, one, rgb, style.alpha, thickness)
        whole = [(one, rgb) for one, rgb in told if isinstance(one.geometry, Classification)]
        captions.list_whole(canvas, whole, style.alpha)


def _paint(numbers: NDArray[Any], geometry: Geometry, number: int) -> None:
    height, width = numbers.shape
    region = _region(geometry, width, height)
    if region is not None:
        paint(numbers, region, number)
    elif isinstance(geometry, Polyline | Point | Pose):
        for line, radius in _strokes(geometry, 1.0, ()) or ():
            paint_lines(numbers, line, radius, number)


def _region(geometry: Geometry, width: int, height: int) -> Region | None:
    """The pixels of what encloses an area."""
    match geometry:
        case Mask():
            return mask_region(geometry, width, height)
        case Polygon():
            return polygon_region(geometry, width, height)
        case Box():
            return polygon_region(Polygon(((geometry.corners(),),)), width, height)
        case Ellipse():
            ring = _around(geometry)
            return polygon_region(Polygon(((ring,),)), width, height) if ring else None
        case Cuboid(corners):
            sides = tuple((_corners(corners, side),) for side in _SIDES)
            return polygon_region(Polygon(sides), width, height) if len(corners) == 16 else None
        case _:
            return None


def _strokes(
    geometry: Geometry, radius: float, skeleton: Sequence[tuple[int, int]]
) -> list[tuple[NDArray[Any], float]] | None:
    """Lines of a geometry, with half of their thickness; None where it has none."""
    import numpy as np

    def joined(pieces: list[NDArray[Any]]) -> NDArray[Any]:
        return np.vstack([*pieces, np.zeros((0, 4))])

    match geometry:
        case Box():
            return [(segments(geometry.corners(), closed=True), radius)]
        case Note(left, top, right, bottom):
            return [(segments(Box(left, top, right, bottom).corners(), closed=True), radius)]
        case Polygon():
            return [(joined([segments(ring, closed=True) for ring in geometry.rings()]), radius)]
        case Polyline(lines):
            return [(joined([segments(line, closed=False) for line in lines]), radius)]
        case Ellipse():
            return [(segments(_around(geometry), closed=True), radius)]
        case Cuboid(corners) if len(corners) == 16:
            return [(joined([segments(_corners(corners, side), closed=True) for side in _SIDES]), radius)]
        case Point(x, y):
            return [(segments((x, y), closed=False), _dot(radius))]
        case Pose(joints):
            there = [joint for joint in joints if joint.visible]
            dots = joined([segments((joint.x, joint.y), closed=False) for joint in there])
            known = {n: joint for n, joint in enumerate(joints, 1) if joint.visible}
            bones = [
                segments((known[a].x, known[a].y, known[b].x, known[b].y), closed=False)
                for a, b in skeleton
                if a in known and b in known
            ]
            return [(joined(bones), radius), (dots, _dot(radius))]
        case _:
            return None


def _dot(radius: float) -> float:
    """Half the width of a point: it is seen beside lines."""
    return radius + 2


def _corners(corners: Ring, side: Sequence[int]) -> Ring:
    return tuple(n for corner in side for n in corners[2 * corner : 2 * corner + 2])


def _around(ellipse: Ellipse) -> Ring:
    """An ellipse's outline, a tenth of a pixel exact; empty where it has none."""
    x, y, rx, ry, angle = ellipse.x, ellipse.y, abs(ellipse.rx), abs(ellipse.ry), ellipse.angle
    if not all(map(math.isfinite, (x, y, rx, ry, angle))):
        return ()
    count = max(12, min(1024, math.ceil(math.pi * math.sqrt(5 * min(max(rx, ry), 1e6)))))
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    flat: list[float] = []
    for n in range(count):
        turn = 2 * math.pi * n / count
        u, v = rx * math.cos(turn), ry * math.sin(turn)
        flat += (x + u * cos - v * sin, y + u * sin + v * cos)
    return tuple(flat)


def _skeleton(style: Style, one: Annotation) -> Sequence[tuple[int, int]]:
    template = one.geometry.template if isinstance(one.geometry, Pose) else None
    return style.skeletons.get(one.label) or style.skeletons.get(template or "") or ()


def _rgb(style: Style, label: str) -> tuple[int, int, int]:
    for color in (style.colors.get(label, ""), stable_color(label)):
        try:
            red, green, blue = bytes.fromhex(color.removeprefix("#"))
        except ValueError:
            continue
        return red, green, blue
    return 255, 255, 255


__all__ = [
    "MAX_PIXELS", "Numbered", "Style", "instance", "is_drawn", "mask", "object_id", "on_image", "opened", "png", "upright",
]  # fmt: skip
