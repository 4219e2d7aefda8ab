"""Annotations as the formats read and write them: small frozen values in absolute pixels.

Coordinates: pixels of the upright picture, x to the right and y down from its upper left corner, fractions allowed. Angles:
degrees, clockwise as one sees the picture. Times: seconds; frames count from 0. Nothing here knows a catalog or a file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from msgspec import Struct

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")

Ring: TypeAlias = tuple[float, ...]
"""Corners in turn, flat: x, y, x, y … A ring's last corner is joined to its first."""
Part: TypeAlias = tuple[Ring, ...]
"""A connected area: its outline, then its holes."""


class Classification(Struct, frozen=True, gc=False):
    """The label is about the whole picture, or about a span of time."""


class Point(Struct, frozen=True, gc=False):
    """One place."""

    x: float
    y: float


class Box(Struct, frozen=True, gc=False):
    """A rectangle, turned by `angle` around its centre."""

    left: float
    top: float
    right: float
    bottom: float
    angle: float = 0.0

    def corners(self) -> Ring:
        """The four corners, from the upper left one clockwise."""
        x, y = (self.left + self.right) / 2, (self.top + self.bottom) / 2
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        flat: list[float] = []
        for dx, dy in (
            (self.left - x, self.top - y), (self.right - x, self.top - y),
            (self.right - x, self.bottom - y), (self.left - x, self.bottom - y),
        ):  # fmt: skip
            flat += (x + dx * cos - dy * sin, y + dx * sin + dy * cos)
        return tuple(flat)


class Polygon(Struct, frozen=True, gc=False):
    """An area of one or more connected parts, each with its holes."""

    parts: tuple[Part, ...]

    def rings(self) -> Iterator[Ring]:
        """Every outline and hole. Filled by the even-odd rule they are the area."""
        for part in self.parts:
            yield from part


class Polyline(Struct, frozen=True, gc=False):
    """Lines, each a flat run of corners; none is closed."""

    lines: tuple[Ring, ...]


class Ellipse(Struct, frozen=True, gc=False):
    """`rx` and `ry` are half the axes, before the turn by `angle`."""

    x: float
    y: float
    rx: float
    ry: float
    angle: float = 0.0


class Cuboid(Struct, frozen=True, gc=False):
    """A box in space as seen in the picture: its front's four corners from the upper left clockwise, then its back's."""

    corners: Ring
    """Sixteen numbers."""
    angle: float = 0.0


class Mask(Struct, frozen=True, gc=False):
    """Pixels of a picture, run-length encoded as COCO does: by columns, in its compressed text. See `ingest.masks`."""

    width: int
    height: int
    counts: bytes


class Joint(Struct, frozen=True, gc=False):
    """One point of a pose."""

    name: str
    x: float
    y: float
    visible: int = 2
    """As in COCO: 0 not labelled (and then at 0, 0), 1 labelled but hidden, 2 visible."""


class Pose(Struct, frozen=True, gc=False):
    """A skeleton's points, in the order of its template."""

    joints: tuple[Joint, ...]
    template: str | None = None
    """The recipe's template that it was made from."""
    box: tuple[float, float, float, float] | None = None
    """Left, top, right, bottom, where the format tells them beside the points."""


class Message(Struct, frozen=True, gc=False):
    """One message of a note."""

    body: str
    creator: str | None = None
    time: int | None = None
    """Milliseconds since 1970."""


class Note(Struct, frozen=True, gc=False):
    """People talking about a place in the picture."""

    left: float
    top: float
    right: float
    bottom: float
    messages: tuple[Message, ...] = ()
    status: str = "issue"


class Subtitle(Struct, frozen=True, gc=False):
    """Words that are said, or shown, for a span of time."""

    text: str


class Other(Struct, frozen=True):
    """A type of the platform that is none of the above (``cube_3d``, ``text_mark`` …), kept as it is."""

    type: str
    coordinates: Any = None


Geometry: TypeAlias = (
    Classification
    | Point
    | Box
    | Polygon
    | Polyline
    | Ellipse
    | Cuboid
    | Mask
    | Pose
    | Note
    | Subtitle
    | Other
)


class KeyFrame(Struct, frozen=True):
    """What a track becomes at a later frame. Between two key frames its geometry is interpolated."""

    frame: int
    geometry: Geometry
    label: str | None = None
    """Another label from here on."""
    visible: bool = True
    fixed: bool = True
    """Set by a person, not interpolated."""
    attributes: Mapping[str, Any] = {}


class Annotation(Struct, frozen=True, kw_only=True):
    """One label on one item."""

    label: str
    """Levels joined with dots: ``animal.cat``."""
    geometry: Geometry
    """At `frame`, for a track."""
    attributes: Mapping[str, Any] = {}
    """By attribute's name or id: a text, a number, a truth, or a list of those. Not to be changed."""
    description: str | None = None
    id: str | None = None
    """Its name in the file or catalog it comes from."""
    parent: str | None = None
    """`id` of the annotation that it belongs to."""
    object_id: str | None = None
    """The same for all annotations of one thing."""
    crowd: bool = False
    """A mask of many things that nobody told apart."""
    score: float | None = None
    """A model's confidence, from 0 to 1; None for labels made by people."""
    model: str | None = None
    """The model's name."""
    frame: int | None = None
    """First frame, in a video."""
    end_frame: int | None = None
    """Last frame."""
    start: float | None = None
    end: float | None = None
    visible: bool = True
    key_frames: tuple[KeyFrame, ...] = ()
    """After the first, in order."""


class Labelled(Struct, frozen=True, kw_only=True):
    """One item with its annotations, as an annotation file tells it."""

    key: str
    """Path of the media file, relative and with `/`, as the annotation file has it."""
    annotations: tuple[Annotation, ...] = ()
    stem: bool = False
    """`key` lacks the media file's extension, which the annotation file does not tell."""
    width: int | None = None
    height: int | None = None
    fps: str | None = None
    """A rational: ``30000/1001``."""
    frames: int | None = None
    user: Mapping[str, Any] = {}
    """What the file says about the item beside its annotations: becomes `metadata.user`."""
    description: str | None = None


class Label(Struct, frozen=True, kw_only=True):
    """One class of a recipe."""

    name: str
    """Levels joined with dots."""
    color: str | None = None
    """``#rrggbb``."""
    id: int | None = None
    """Its number in the file."""
    joints: tuple[str, ...] = ()
    """Names of its pose's points."""
    skeleton: tuple[tuple[int, int], ...] = ()
    """Pairs of joints that are joined by a line; counted from 1, as in COCO."""
    attributes: Mapping[str, Any] = {}
    """What the format says of it beside that."""


def rgb(color: str | None) -> int | None:
    """A colour ``#rrggbb`` as 0xRRGGBB; None if it is none."""
    return int(color[1:], 16) if color is not None and _COLOR.fullmatch(color) else None


def kind(geometry: Geometry) -> str:
    """The platform's word for a geometry."""
    return geometry.type if isinstance(geometry, Other) else KINDS[type(geometry)]


KINDS: Mapping[type, str] = {
    Classification: "class",
    Point: "point",
    Box: "box",
    Polygon: "segment",
    Polyline: "polyline",
    Ellipse: "ellipse",
    Cuboid: "cube",
    Mask: "binary",
    Pose: "pose",
    Note: "note",
    Subtitle: "subtitle",
}


def bounds(geometry: Geometry) -> tuple[float, float, float, float] | None:
    """Left, top, right, bottom; None for what has no place, and for masks (see `ingest.masks`)."""
    match geometry:
        case Point(x, y):
            return x, y, x, y
        case Box(left, top, right, bottom, angle):
            return _around(geometry.corners()) if angle else (left, top, right, bottom)
        case Polygon():
            return _around(tuple(number for part in geometry.parts for number in part[0]))
        case Polyline(lines):
            return _around(tuple(number for line in lines for number in line))
        case Ellipse(x, y, rx, ry, angle):
            cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            dx, dy = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
            return x - dx, y - dy, x + dx, y + dy
        case Cuboid(corners):
            return _around(corners)
        case Pose(joints, _, box):
            seen = tuple(number for joint in joints if joint.visible for number in (joint.x, joint.y))
            return box or (_around(seen) if seen else None)
        case Note(left, top, right, bottom):
            return left, top, right, bottom
        case _:
            return None


def _around(flat: Ring) -> tuple[float, float, float, float]:
    xs, ys = flat[::2], flat[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def area(geometry: Geometry) -> float | None:
    """Square pixels of what encloses an area; None for the rest, and for masks."""
    match geometry:
        case Box(left, top, right, bottom):
            return abs(right - left) * abs(bottom - top)
        case Polygon(parts):
            return sum(_shoelace(part[0]) - sum(map(_shoelace, part[1:])) for part in parts)
        case Ellipse(rx=rx, ry=ry):
            return math.pi * rx * ry
        case _:
            return None


def _shoelace(ring: Ring) -> float:
    xs, ys = ring[::2], ring[1::2]
    twice = sum(x * v - u * y for x, y, u, v in zip(xs, ys, (*xs[1:], xs[0]), (*ys[1:], ys[0]), strict=True))
    return abs(twice) / 2
