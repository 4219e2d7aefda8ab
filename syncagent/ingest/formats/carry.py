"""What several formats do alike: name what they have no place for, and tell numbers exactly."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from decimal import Context as Rules
from decimal import Decimal
from fractions import Fraction

from syncagent.ingest.annotations import Annotation, Box, Geometry, Labelled
from syncagent.ingest.formats.base import Losses

MEDIA = frozenset(
    [
        "3gp",
        "aac",
        "aif",
        "aiff",
        "avi",
        "bmp",
        "flac",
        "flv",
        "gif",
        "jfif",
        "jpeg",
        "jpg",
        "m4a",
        "m4v",
        "mkv",
        "mov",
        "mp3",
        "mp4",
        "mpeg",
        "mpg",
        "oga",
        "ogg",
        "ogv",
        "opus",
        "png",
        "tif",
        "tiff",
        "wav",
        "webm",
        "webp",
        "wma",
        "wmv",
    ]
)
"""Extensions of media files. Fixed, so that a name means the same on every machine."""

_PLAIN = {
    "description": (None, "a description"),
    "parent": (None, "a parent"),
    "object_id": (None, "an object's id"),
    "crowd": (False, "the mark of a crowd"),
    "score": (None, "a score"),
    "model": (None, "a model's name"),
    "visible": (True, "that something is hidden"),
    "frame": (None, "a place in time"),
    "end_frame": (None, "a place in time"),
    "start": (None, "a place in time"),
    "end": (None, "a place in time"),
    "key_frames": ((), "key frames"),
}
# No exponent beyond a float's, no trap: what overflows becomes infinite, which every reader refuses.
_FAR = 1e15
_EXACT = Rules(prec=60, Emin=-9999, Emax=9999, traps=[])


def lesser(
    losses: Losses,
    format_name: str,
    item: Labelled,
    one: Annotation,
    *,
    held: Container[str] = (),
    attributes: Container[str] | None = (),
) -> None:
    """Account for the fields of an annotation that a format cannot hold, its geometry and label apart.

    An annotation's `id` is no loss: it is a name in the file or catalog that it comes from, and every catalog has its own.

    :param held: names of the fields that the format has a place for.
    :param attributes: names of the attributes that it has a place for; None: all.
    :raises Unsupported: see `Losses.add`.
    """
    lost = {
        what: None
        for field, (nothing, what) in _PLAIN.items()
        if field not in held and getattr(one, field) != nothing
    }
    if attributes is not None:
        lost |= {f"the attribute {name!r}": None for name in one.attributes if name not in attributes}
    for what in lost:
        losses.add(format_name, item.key, what)


def lesser_of_item(losses: Losses, item: Labelled, held: Container[str] = ()) -> None:
    """Account for what an item has beside its annotations, and the format no place for.

    Whoever exports labels asks for no more than those, so none of it is a loss. Size, rate and number of frames are facts about
    the media file, which has them itself: they are not even counted.
    """
    if item.description is not None and "description" not in held:
        losses.aside("the item's description")
    if item.user and "user" not in held:
        losses.aside("the item's metadata")


def placed(
    items: Iterable[Labelled], losses: Losses, also: Callable[[str], bool] = lambda key: False
) -> Iterator[Labelled]:
    """Without items that have neither annotations nor a size: texts, sounds, and pictures that nobody looked at yet.

    :param also: keys of items that are kept all the same.
    """
    for item in items:
        if item.annotations or (item.width and item.height) or also(item.key):
            yield item
        else:
            losses.aside("an item without annotations and without a known size", item.key)


def named_as_media(name: str) -> bool:
    """Whether a name ends with the extension of a media file."""
    return name.rpartition("/")[2].rpartition(".")[2].lower() in MEDIA and "." in name.rpartition("/")[2][1:]


_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(?:/([1-9][0-9]{0,8}))?")


def rate(told: str | None) -> Fraction | None:
    """Frames a second of a text such as ``25``, ``29.97`` or ``30000/1001``; None if it tells none."""
    found = _RATE.fullmatch(told or "")
    return (Fraction(found[1]) / int(found[2] or 1) or None) if found else None


def number(value: float) -> str:
    """A number in as few digits as tell it exactly: ``12``, ``0.25``."""
    told = repr(float(value))
    return told.removesuffix(".0")


_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4})?")
_WHOLE = re.compile(r"[-+]?[0-9]{1,15}(?:\.0*)?")


def real(text: str) -> float:
    """The number that a text tells.

    :raises ValueError: it tells none, or one that is not finite.
    """
    told = text.strip()
    value = float(told) if _NUMBER.fullmatch(told) else math.nan
    if not math.isfinite(value):
        raise ValueError(f"{_short(text)} is not a number")
    return value


def whole(text: str) -> int:
    """The whole number that a text tells; ``3.0`` tells one, and ``3.000e+00``, as numpy writes it.

    :raises ValueError: it tells none, or one beyond 15 digits.
    """
    told = text.strip()
    if _WHOLE.fullmatch(told):
        return int(told.partition(".")[0])
    value = float(told) if _NUMBER.fullmatch(told) else math.nan
    if not (abs(value) < _FAR and value.is_integer()):
        raise ValueError(f"{_short(text)} is not a whole number")
    return int(value)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")


def difference(high: float, low: float) -> str:
    """`high` - `low`, so exactly that `total` of it and `low` is `high` again. Floats alone lose the last digit.

    That takes 60 digits, which all numbers between 1e-15 and 1e15 have room in.
    """
    exact = _EXACT.subtract(Decimal(repr(float(high))), Decimal(repr(float(low))))
    rounded = float(exact)
    return number(rounded) if Decimal(repr(rounded)) == exact else format(exact, "f")


def total(low: str, width: str) -> float:
    """The sum of two decimals, rounded once.

    :raises ValueError: one is no number, or the sum is not finite.
    """
    real(low), real(width)  # a Decimal takes more than a number may be
    value = float(_EXACT.add(Decimal(low.strip()), Decimal(width.strip())))
    if not math.isfinite(value):
        raise ValueError("the sum is too large")
    return value


def _within_turn(angle: Decimal, value: float) -> Decimal:
    """What is left of an angle without its whole turns, exactly. Of one beyond all decimals that is a float's own remainder."""
    return _EXACT.remainder(angle, Decimal(360)) if abs(value) < _FAR else Decimal(math.fmod(value, 360))


def turned(angle: float) -> str:
    """An angle as a number from 0 to 360, exactly: -45.5 is 314.5."""
    exact = _within_turn(Decimal(repr(float(angle))), angle)
    if exact < 0:
        exact = _EXACT.add(exact, Decimal(360))
    return number(float(exact)) if Decimal(repr(float(exact))) == exact else format(exact, "f")


def straightened(text: str) -> float:
    """The angle of a text as a number above -180, up to 180, exactly: 314.5 is -45.5.

    :raises ValueError: it tells no number.
    """
    exact = _within_turn(Decimal(text.strip()), real(text))
    if exact > 180:
        exact = _EXACT.subtract(exact, Decimal(360))
    elif exact <= -180:
        exact = _EXACT.add(exact, Decimal(360))
    return float(exact)


def between(first: Box, last: Box, share: float) -> Box:
    """The box that is `share` (0 to 1) of the way from one to another."""
    sides = (
        (first.left, last.left),
        (first.top, last.top),
        (first.right, last.right),
        (first.bottom, last.bottom),
    )
    return Box(*(a + (b - a) * share if a != b else a for a, b in sides))


def pairs(flat: Sequence[float]) -> Iterator[tuple[float, float]]:
    """The points of a flat run of corners."""
    return zip(flat[::2], flat[1::2], strict=True)


def visibility(flat: Sequence[float]) -> list[int]:
    """How visible points are, of a flat run of x, y and 0, 1 or 2; or of a model's confidences, one of which is a fraction.

    Of those a half says that it sees the point. Where it does not, the point is hidden, or at 0, 0 not there.

    :raises ValueError: they are none of both.
    """
    told = flat[2::3]
    if {*told} <= {0, 1, 2}:
        return [int(one) for one in told]
    if not all(0 <= one <= 1 for one in told):
        raise ValueError("visibility of a point is not 0, 1 or 2, and no confidence from 0 to 1")
    places = zip(flat[::3], flat[1::3], strict=True)
    return [2 if one >= 0.5 else int(place != (0, 0)) for one, place in zip(told, places, strict=True)]


def same_kind(one: Geometry, other: Geometry) -> bool:
    """Whether both are the same kind of geometry, as all of a track must be in most formats."""
    return type(one) is type(other)
