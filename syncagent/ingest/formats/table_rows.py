"""Rows of tables; see `formats.table`. Cells are texts in CSV, and may be numbers, lists and objects in Parquet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from syncagent.errors import InvalidInput
from syncagent.ingest import masks
from syncagent.ingest.annotations import (
    Annotation,
    Box,
    Classification,
    Cuboid,
    Ellipse,
    Geometry,
    Joint,
    KeyFrame,
    Labelled,
    Mask,
    Message,
    Note,
    Other,
    Point,
    Polygon,
    Polyline,
    Pose,
    Ring,
    Subtitle,
    kind,
)
from syncagent.ingest.formats.carry import real, whole

Row = Mapping[str, Any]
TYPES: Mapping[str, type] = {
    "key": str, "stem": bool, "width": int, "height": int, "fps": str, "frames": int, "user": str, "item_description": str,
    "label": str, "type": str, "left": float, "top": float, "right": float, "bottom": float, "angle": float, "x": float,
    "y": float, "rx": float, "ry": float, "points": str, "counts": str, "text": str, "geometry": str, "frame": int,
    "end_frame": int, "start": float, "end": float, "score": float, "model": str, "object_id": str, "id": str, "parent": str,
    "crowd": bool, "visible": bool, "description": str, "key_frames": str, "attributes": str,
}  # fmt: skip
"""The columns, and what is in each."""
ITEM = frozenset({"key", "stem", "width", "height", "fps", "frames", "user", "item_description"})
"""Those that tell of the item. A row with no other is no annotation."""
_JSON = frozenset({"points", "geometry", "key_frames", "attributes", "user"})
_ALIASES = {
    "bbox": "box", "rectangle": "box", "polygon": "segment", "mask": "binary", "rle": "binary", "classification": "class",
    "tag": "class", "keypoint": "point", "line": "polyline", "cuboid": "cube",
}  # fmt: skip
Rings = tuple[tuple[float, ...], ...]


class _Shape(msgspec.Struct):
    """What the column ``geometry`` may tell."""

    parts: list[int] | None = None
    """How many rings each part of a polygon has."""
    width: int | None = None
    height: int | None = None
    joints: list[tuple[str, float, float, int]] = []
    template: str | None = None
    box: tuple[float, float, float, float] | None = None
    messages: tuple[Message, ...] = ()
    status: str = "issue"
    coordinates: Any = msgspec.UNSET


# -- writing -------------------------------------------------------------------------------------


def item_cells(item: Labelled) -> dict[str, Any]:
    """The cells that tell of an item."""
    return {
        "key": item.key, "stem": item.stem or None, "width": item.width, "height": item.height, "fps": item.fps,
        "frames": item.frames, "user": _encoded(dict(item.user)) if item.user else None,
        "item_description": item.description or None,
    }  # fmt: skip


def cells(one: Annotation, item: Labelled) -> dict[str, Any]:
    """The cells of an annotation; None for an empty one."""
    told = {
        "label": one.label, **_place(one.geometry, (item.width, item.height)), "frame": one.frame, "end_frame": one.end_frame,
        "start": one.start, "end": one.end, "score": one.score, "model": one.model, "object_id": one.object_id, "id": one.id,
        "parent": one.parent, "crowd": one.crowd or None, "visible": None if one.visible else False,
        "description": one.description, "attributes": dict(one.attributes) or None,
        "key_frames": [_frame_cells(frame, item) for frame in one.key_frames] or None,
    }  # fmt: skip
    return {
        name: _encoded(value) if name in _JSON and value is not None else value
        for name, value in told.items()
    }


def _frame_cells(frame: KeyFrame, item: Labelled) -> dict[str, Any]:
    told = {
        "frame": frame.frame, "label": frame.label, "visible": None if frame.visible else False,
        "fixed": None if frame.fixed else False, "attributes": dict(frame.attributes) or None,
        **_place(frame.geometry, (item.width, item.height)),
    }  # fmt: skip
    return {name: value for name, value in told.items() if value is not None}


def _place(geometry: Geometry, size: tuple[int | None, int | None]) -> dict[str, Any]:
    """The cells of a geometry."""
    told: dict[str, Any] = {"type": kind(geometry)}
    match geometry:
        case Point(x, y):
            told |= {"x": x, "y": y}
        case Box(left, top, right, bottom, angle):
            told |= {"left": left, "top": top, "right": right, "bottom": bottom, "angle": angle or None}
        case Polygon(parts):
            told["points"] = list(geometry.rings())
            if not parts or any(len(part) != 1 for part in parts):
                told["geometry"] = {"parts": [len(part) for part in parts]}
        case Polyline(lines):
            told["points"] = lines
        case Ellipse(x, y, rx, ry, angle):
            told |= {"x": x, "y": y, "rx": rx, "ry": ry, "angle": angle or None}
        case Cuboid(corners, angle):
            told |= {"points": [corners], "angle": angle or None}
        case Mask(width, height, counts):
            told["counts"] = counts.decode("latin-1")
            if (width, height) != size:
                told["geometry"] = {"width": width, "height": height}
        case Pose(joints, template, box):
            told["geometry"] = {
                "joints": [(joint.name, joint.x, joint.y, joint.visible) for joint in joints],
                "template": template, "box": box,
            }  # fmt: skip
        case Note(left, top, right, bottom, messages, status):
            told |= {"left": left, "top": top, "right": right, "bottom": bottom}
            told["geometry"] = {"messages": messages, "status": status}
        case Subtitle(text):
            told["text"] = text
        case Other(coordinates=coordinates):
            told["geometry"] = {"coordinates": coordinates}
    return told


def _encoded(value: Any) -> str:
    return msgspec.json.encode(value).decode()


# -- reading -------------------------------------------------------------------------------------


def item_of(row: Row, item: Labelled) -> Labelled:
    """An item with what a row tells of it that none did before.

    :raises InvalidInput: a cell is not what it should be.
    """
    told = {
        "stem": item.stem or bool(_truth(row, "stem")), "width": item.width or _whole(row, "width"),
        "height": item.height or _whole(row, "height"), "frames": item.frames or _whole(row, "frames"),
        "fps": item.fps or _text(row, "fps"), "user": item.user or _json(row, "user", dict[str, Any]) or {},
        "description": item.description or _text(row, "item_description"),
    }  # fmt: skip
    return msgspec.structs.replace(item, **told)


def annotation(row: Row, item: Labelled) -> Annotation:
    """The annotation of a row.

    :raises InvalidInput: a cell is not what it should be.
    """
    attributes = {name: value for name, value in row.items() if name not in TYPES}
    attributes |= _json(row, "attributes", dict[str, Any]) or {}
    frames = _json(row, "key_frames", list[dict[str, Any]]) or []
    return Annotation(
        label=_text(row, "label") or "", geometry=_geometry(row, item), attributes=attributes,
        description=_text(row, "description"), id=_text(row, "id"), parent=_text(row, "parent"),
        object_id=_text(row, "object_id"), crowd=bool(_truth(row, "crowd")), score=_real(row, "score"),
        model=_text(row, "model"), frame=_whole(row, "frame"), end_frame=_whole(row, "end_frame"),
        start=_real(row, "start"), end=_real(row, "end"), visible=_truth(row, "visible") is not False,
        key_frames=tuple(_key_frame(frame, number, item) for number, frame in enumerate(frames)),
    )  # fmt: skip


def _key_frame(row: Row, number: int, item: Labelled) -> KeyFrame:
    try:
        return KeyFrame(
            frame=_need(_whole(row, "frame"), "frame"), geometry=_geometry(row, item), label=_text(row, "label"),
            visible=_truth(row, "visible") is not False, fixed=_truth(row, "fixed") is not False,
            attributes=_json(row, "attributes", dict[str, Any]) or {},
        )  # fmt: skip
    except InvalidInput as error:
        raise InvalidInput(f"key frame {number}: {error.message}") from error


def _geometry(row: Row, item: Labelled) -> Geometry:
    shape = _json(row, "geometry", _Shape) or _Shape()
    told = _text(row, "type") or ("box" if "left" in row else "segment" if "points" in row else "class")
    if shape.coordinates is not msgspec.UNSET:
        return Other(told, shape.coordinates)
    angle = _real(row, "angle") or 0.0
    match _ALIASES.get(told.lower(), told.lower()):
        case "class":
            return Classification()
        case "point":
            x, y = _reals(row, "x", "y")
            return Point(x, y)
        case "box":
            left, top, right, bottom = _reals(row, "left", "top", "right", "bottom")
            return Box(left, top, right, bottom, angle)
        case "segment":
            return Polygon(_parts(_rings(row), shape.parts))
        case "polyline":
            return Polyline(_rings(row))
        case "ellipse":
            x, y, rx, ry = _reals(row, "x", "y", "rx", "ry")
            return Ellipse(x, y, rx, ry, angle)
        case "cube":
            rings = _rings(row)
            if len(rings) != 1 or len(rings[0]) != 16:
                raise InvalidInput("points: a cuboid has one ring of eight corners")
            return Cuboid(rings[0], angle)
        case "binary":
            return _mask(row, shape, item)
        case "pose":
            return Pose(tuple(Joint(*joint) for joint in shape.joints), shape.template, shape.box)
        case "note":
            left, top, right, bottom = _reals(row, "left", "top", "right", "bottom")
            return Note(left, top, right, bottom, shape.messages, shape.status)
        case "subtitle":
            return Subtitle(_text(row, "text") or "")
    raise InvalidInput(f"type: {told[:40]!r} is none")


def _mask(row: Row, shape: _Shape, item: Labelled) -> Mask:
    width, height = shape.width or item.width, shape.height or item.height
    if not width or not height:
        raise InvalidInput("a mask needs its picture's width and height")
    mask = Mask(width, height, _need(_text(row, "counts"), "counts").encode("latin-1", "replace"))
    masks.runs(mask)  # says what is wrong with them, if anything is
    return mask


def _parts(rings: Sequence[Ring], told: Sequence[int] | None) -> tuple[tuple[Ring, ...], ...]:
    if told is None:
        return tuple((ring,) for ring in rings)
    if sum(told) != len(rings) or any(count < 1 for count in told):
        raise InvalidInput("geometry: its parts are not its rings")
    left = iter(rings)
    return tuple(tuple(next(left) for _ in range(count)) for count in told)


def _rings(row: Row) -> Rings:
    rings: Rings = _need(_json(row, "points", Rings), "points")
    if any(len(ring) % 2 or not ring or not all(map(math.isfinite, ring)) for ring in rings):
        raise InvalidInput("points: a ring is a flat list of x, y, x, y …")
    return rings


# -- cells ---------------------------------------------------------------------------------------


def _need(value: Any, name: str) -> Any:
    if value is None:
        raise InvalidInput(f"{name}: is empty")
    return value


def _reals(row: Row, *names: str) -> list[float]:
    return [_need(_real(row, name), name) for name in names]


def _real(row: Row, name: str) -> float | None:
    value = row.get(name)
    try:
        if isinstance(value, str):
            return real(value)
        if value is None or (isinstance(value, int | float) and math.isfinite(value) and value is not True):
            return None if value is None else float(value)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"{name}: {error}") from error
    raise InvalidInput(f"{name}: is not a number")


def _whole(row: Row, name: str) -> int | None:
    value = row.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**15:
        return value
    told = _real(row, name)
    if told is None:
        return None
    try:
        return whole(value if isinstance(value, str) else repr(told))
    except ValueError as error:
        raise InvalidInput(f"{name}: {error}") from error


def _truth(row: Row, name: str) -> bool | None:
    value = row.get(name)
    known = {"true": True, "1": True, "false": False, "0": False}
    if value is None or isinstance(value, bool):
        return value
    if str(value).lower() in known:
        return known[str(value).lower()]
    raise InvalidInput(f"{name}: is neither true nor false")


def _text(row: Row, name: str) -> str | None:
    value = row.get(name)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():  # a column of numbers with gaps, as pandas makes them
        value = int(value)
    return str(value)


def _json(row: Row, name: str, type_: Any) -> Any:
    value = row.get(name)
    if value is None:
        return None
    try:
        return (
            msgspec.json.decode(value, type=type_)
            if isinstance(value, str)
            else msgspec.convert(value, type_)
        )
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise InvalidInput(f"{name}: no such JSON: {error}") from error
