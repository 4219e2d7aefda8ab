"""What holds for every item, whatever format it is read from or written to: a key, a size, numbers that are finite, colours.

Readers say what is wrong with a file where they see it; here is what they would all have to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from syncagent.ingest.annotations import (
    Annotation,
    Box,
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
)
from syncagent.ingest.formats.base import Losses, a, refuse, wrong

MOST_PIXELS = (1 << 31) - 1
"""Width and height that a picture may have: that of PNG, and more than any other kind has."""
_MOST_FRAMES = 1 << 53  # beyond that a JSON number is not exact
FARTHEST = 1e150
"""Of a corner: what formats compute of those farther away, such as areas, need not be finite."""
_DEPTH = 100


def sound(item: Labelled, file: str, record: object = None) -> Labelled:
    """An item as it was read.

    :raises InvalidInput: it has no key, or one that is no text, or a size that no picture has.
    """
    key, width, height, frames = item.key, item.width, item.height, item.frames
    if not key or key == "/":
        refuse(file, record, "tells no name of its file")
    if not key.isascii() and not is_text(key):
        raise wrong(file, record, f"the name {key!r} is no text in UTF-8", hint="rename the file")
    for side, value in (("width", width), ("height", height)):
        if value is not None and not 0 < value <= MOST_PIXELS:
            refuse(file, record, f"its {side} {value} is no number of pixels from 1 to {MOST_PIXELS}")
    if frames is not None and not 0 <= frames < _MOST_FRAMES:
        refuse(file, record, f"{frames} is no number of frames")
    return item


def is_text(text: str) -> bool:
    """Whether a text can be written: half a pair of surrogates, which names of files may have, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# -- writing -------------------------------------------------------------------------------------


def writable(
    items: Iterable[Labelled], form: str, losses: Losses, *, most: float = math.inf
) -> Iterator[Labelled]:
    """Items as they are to be written: without numbers that are not finite, which no file holds so that it reads the same.

    :param most: what a coordinate may be, where the format computes something of it.
    :raises Unsupported: see `Losses.add`.
    :raises InvalidInput: a text is none in UTF-8.
    """
    for item in items:
        _check_texts(item)
        made = item
        if not _finite(item.user):
            made = msgspec.structs.replace(made, user=_user(item, losses))
        if not all(_plain(one, most) for one in item.annotations):
            told = (_annotation(one, item, form, losses, most) for one in item.annotations)
            made = msgspec.structs.replace(made, annotations=tuple(one for one in told if one is not None))
        yield made


def _check_texts(item: Labelled) -> None:
    if _encodes(item):
        return
    if not is_text(item.key):
        raise wrong(item.key, None, "its name is no text in UTF-8", hint="rename the file")
    for number, one in enumerate(item.annotations):
        if not _encodes(one):
            raise wrong(item.key, f"annotation {number}", f"a text of {one.label!r} is none in UTF-8")
    raise wrong(item.key, None, "a text of its metadata is none in UTF-8")


def _encodes(told: Any) -> bool:
    """Whether all texts in it can be encoded: at the speed of an encoder, which looks at each."""
    try:
        msgspec.msgpack.encode(told)
    except UnicodeEncodeError:
        return False
    except (TypeError, ValueError, OverflowError, RecursionError):
        pass  # an attribute of a type that is not of JSON: the format's own affair
    return True


def _user(item: Labelled, losses: Losses) -> dict[str, Any]:
    """An item's metadata that is finite. It is beside the annotations, and no loss of those."""
    return _kept(item.user, lambda name: losses.aside(f"the metadata {name!r}, not finite", item.key))


def _annotation(one: Annotation, item: Labelled, form: str, losses: Losses, most: float) -> Annotation | None:
    """An annotation without the attributes that are not finite; None: all of it is lost."""
    if _plain(one, most):
        return one
    geometries = [one.geometry, *(frame.geometry for frame in one.key_frames)]
    if not all(_placed(geometry, most) for geometry in geometries) or not _finite((one.start, one.end)):
        losses.add(form, item.key, f"{a(one.geometry)} with numbers that are not finite, or too large")
        return None
    if not _finite(one.score):
        losses.add(form, item.key, "a score that is not finite")
        one = msgspec.structs.replace(one, score=None)

    def lost(name: str) -> None:
        losses.add(form, item.key, f"the attribute {name!r}, which is not finite")

    frames = tuple(
        msgspec.structs.replace(frame, attributes=_kept(frame.attributes, lost)) for frame in one.key_frames
    )
    return msgspec.structs.replace(one, attributes=_kept(one.attributes, lost), key_frames=frames)


def _kept(told: Mapping[str, Any], lost: Callable[[str], None]) -> dict[str, Any]:
    """The values that are finite; the names of the others are told."""
    for name, value in told.items():
        if not _finite(value):
            lost(name)
    return {name: value for name, value in told.items() if _finite(value)}


def _plain(one: Annotation, most: float) -> bool:
    """Whether all numbers of an annotation are finite."""
    return (
        _placed(one.geometry, most)
        and (not one.attributes or _finite(one.attributes))
        and (one.score is None or math.isfinite(one.score))
        and (one.start is None or math.isfinite(one.start))
        and (one.end is None or math.isfinite(one.end))
        and all(_placed(frame.geometry, most) and _finite(frame.attributes) for frame in one.key_frames)
    )


def _placed(geometry: Geometry, most: float) -> bool:
    """Whether all numbers of a geometry are finite, and none is too large."""
    match geometry:
        case Mask():
            return True
        case Box(left, top, right, bottom, angle):
            return _within((left, top, right, bottom, angle), most)
        case Point(x, y):
            return _within((x, y), most)
        case Polygon(parts):
            return all(_within(ring, most) for part in parts for ring in part)
        case Polyline(lines):
            return all(_within(line, most) for line in lines)
        case Ellipse(x, y, rx, ry, angle):
            return _within((x, y, rx, ry, angle), most)
        case Cuboid(corners, angle):
            return _within((*corners, angle), most)
        case Pose(joints, _, box):
            return _within((*(box or ()), *(value for one in joints for value in (one.x, one.y))), most)
        case Note(left, top, right, bottom):
            return _within((left, top, right, bottom), most)
        case _:
            return _finite([getattr(geometry, name) for name in geometry.__struct_fields__])


def _within(numbers: Sequence[float], most: float) -> bool:
    # A sum is finite if they all are, but for what is beyond it, and is quick.
    finite = math.isfinite(sum(numbers)) or all(map(math.isfinite, numbers))
    return finite and (most == math.inf or not numbers or (max(numbers) <= most and min(numbers) >= -most))


def _finite(told: Any, depth: int = 0) -> bool:
    """Whether all numbers in some values are finite."""
    if isinstance(told, float):
        return math.isfinite(told)
    if told is None or isinstance(told, str | int | bytes) or depth > _DEPTH:
        return True
    if isinstance(told, Mapping):
        return all(_finite(value, depth + 1) for value in told.values())
    if isinstance(told, list | tuple):
        return all(_finite(value, depth + 1) for value in told)
    if isinstance(told, msgspec.Struct):
        return all(_finite(getattr(told, name), depth + 1) for name in told.__struct_fields__)
    return True
