"""The platform's JSON: what its API and its client send, and the files that its client writes.

Files: one for each item (``a.json`` in version 1, ``a.jpg.json`` in version 2), a list of items (a dataset's export), or a zip of
either. Polygons with holes or several parts are one ``segment`` of several rings; what the platform has no place for stands in
``metadata.system.syncagent``. Source: the client dtlpy 1.126.5.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from syncagent.errors import InvalidInput
from syncagent.ingest import masks
from syncagent.ingest.annotations import (
    KINDS,
    Annotation,
    Box,
    Classification,
    Cuboid,
    Ellipse,
    Geometry,
    Joint,
    KeyFrame,
    Label,
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
from syncagent.ingest.formats import stream
from syncagent.ingest.formats.base import (
    Context,
    Losses,
    Out,
    Tree,
    Zip,
    read_rest,
    refuse,
    without_suffix,
    wrong,
)
from syncagent.ingest.formats.checks import sound, writable

Json = dict[str, Any]
_CORNERS = ("front_tl", "front_tr", "front_br", "front_bl", "back_tl", "back_tr", "back_br", "back_bl")
_MARK = "syncagent"
_MOST = 1 << 53  # beyond that a JSON number is not exact
_ZIPS = 8


class Dataloop:
    """See `formats.base.Format`. Writes version 2: version 1 gives ``a.jpg`` and ``a.png`` one file.

    :param version: 1 names files without the item's extension.
    """

    name: ClassVar[str] = "dataloop"
    suffixes: ClassVar[tuple[str, ...]] = (".json", ".zip")
    holds: ClassVar[frozenset[type]] = frozenset({*KINDS, Other})

    def __init__(self, version: int = 2) -> None:
        self._version = version

    def read(self, tree: Tree, context: Context = Context()) -> Iterator[Labelled]:  # noqa: B008  # frozen
        """See `Format.read`."""
        yield from self._tree(tree, 0)

    def _tree(self, tree: Tree, depth: int) -> Iterator[Labelled]:
        for name in tree.names():
            if name.endswith(".json"):
                with tree.open(name) as file:
                    yield from _read(file, name)
            elif name.endswith(".zip"):
                if depth == _ZIPS:
                    refuse(name, None, f"more than {_ZIPS} zips in each other are not unpacked")
                with tree.open(name) as file:
                    yield from self._tree(Zip(file, name), depth + 1)

    def labels(self, tree: Tree) -> list[Label]:
        """None: the labels are in the recipe."""
        return []

    def write(
        self,
        items: Iterable[Labelled],
        out: Out,
        *,
        labels: Sequence[Label] = (),
        losses: Losses | None = None,
    ) -> None:
        """See `Format.write`. A JSON file for each item, beside each other as the items are."""
        colors = {label.name: label.color for label in labels if label.color}
        for item in writable(items, self.name, losses if losses is not None else Losses()):
            name = without_suffix(item.key) if self._version == 1 else item.key
            with out.create(f"{name}.json") as file:
                file.write(msgspec.json.format(msgspec.json.encode(item_json(item, colors)), indent=1))


def _read(file: Any, name: str) -> Iterator[Labelled]:
    """A file of one item or of a list of them."""
    head = file.read(1)
    while head in (b" ", b"\n", b"\r", b"\t", b"\xef", b"\xbb", b"\xbf"):
        head = file.read(1)
    file.seek(0)
    if head == b"[":
        count = 0
        for _, batch in stream.arrays(file, name, {"": dict}):
            for told in batch:
                yield labelled(told, name, f"item {count}")
                count += 1
    else:
        told = stream.document(read_rest(file, name), name, dict)
        if "annotations" not in told:
            refuse(name, None, "has no annotations")
        yield labelled(told, name, None)


# -- items ---------------------------------------------------------------------------------------


def labelled(told: Mapping[str, Any], file: str, record: str | None = None) -> Labelled:
    """An item with its annotations, as an export tells it; named by the file where it does not tell its name.

    :raises InvalidInput: something in it is not as the platform writes it; tells the file and the record.
    """
    where = f"{record}, " if record else ""
    annotations = told.get("annotations") or []
    if not isinstance(annotations, list):
        refuse(file, record, "annotations must be a list")
    metadata = _object(told.get("metadata"))
    system = _object(metadata.get("system"))
    try:
        filename = _text(told, "filename", empty=True)
        item = Labelled(
            key=without_suffix(file) if filename is None else filename.removeprefix("/"),
            stem=filename is None,
            annotations=annotations_of(annotations, file, where),
            width=_count(system, "width"),
            height=_count(system, "height"),
            fps=_text(system, "fpsRational") or _rate(metadata) or _rate(system),
            frames=_count(system, "nb_frames"),
            user=_object(metadata.get("user")),
            description=_text(told, "description"),
        )
    except _Wrong as error:
        raise wrong(file, record, error.message) from error
    return sound(item, file, record)


def item_json(item: Labelled, colors: Mapping[str, str] = {}) -> Json:
    """The item JSON of an export.

    :param colors: ``#rrggbb`` by label, for masks.
    """
    name = f"/{item.key}"
    system: Json = {
        "width": item.width,
        "height": item.height,
        "nb_frames": item.frames,
        "fpsRational": item.fps,
    }
    return {
        "filename": name,
        "name": name.rpartition("/")[2],
        "dir": name.rpartition("/")[0] or "/",
        **({"description": item.description} if item.description else {}),
        "metadata": {
            "system": {key: value for key, value in system.items() if value is not None},
            "user": dict(item.user),
        },
        "annotations": annotations_json(item.annotations, colors),
    }


def annotations_of(told: Sequence[Any], file: str, where: str = "") -> tuple[Annotation, ...]:
    """Annotations of one item. The points of a pose are taken into it.

    :raises InvalidInput: one of them is not as the platform writes it.
    """
    joints: dict[str, list[Json]] = {}
    rest: list[tuple[int, Json]] = []
    poses: set[str | None] = set()
    number, found = 0, []
    try:
        for number, one in enumerate(told):  # noqa: B007  # where an error was
            if not isinstance(one, dict):
                raise _Wrong("must be an object")
            if one.get("type") == "pose" and (name := _text(one, "id")):
                poses.add(name)
        for number, one in enumerate(told):
            parent = _text(_system(one), "parentId") if poses and one.get("type") == "point" else None
            if parent in poses and _truth(_object(_system(one).get(_MARK)), "joint", True):
                joints.setdefault(str(parent), []).append(one)
            else:
                rest.append((number, one))
        for number, one in rest:  # noqa: B007  # where an error was
            found.append(_annotation(one, joints.get(one.get("id") or "", [])))
    except InvalidInput as error:
        raise wrong(file, f"{where}annotation {number}", error.message) from error
    except (KeyError, IndexError) as error:
        raise wrong(file, f"{where}annotation {number}", f"lacks {error}") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise wrong(
            file, f"{where}annotation {number}", f"is not as the platform writes it: {error}"
        ) from error
    return tuple(found)


def _annotation(told: Json, joints: Sequence[Json]) -> Annotation:
    system, user = _system(told), _object(_object(told.get("metadata")).get("user"))
    mark, model = _object(system.get(_MARK)), _object(user.get("model"))
    label = told.get("label")
    if not isinstance(told.get("type"), str) or not isinstance(label, str):
        raise InvalidInput("has no type or no label")
    geometry = from_coordinates(told["type"], told.get("coordinates"), mark)
    if isinstance(geometry, Pose):
        geometry = _with_joints(geometry, joints, mark)
    return Annotation(
        label=label,
        geometry=geometry,
        attributes={**_legacy(told.get("attributes")), **_object(system.get("attributes"))},
        description=_text(told, "description"),
        id=_text(told, "id"),
        parent=_text(system, "parentId"),
        object_id=_name(system, "objectId"),
        crowd=_truth(mark, "crowd", False),
        score=_real(model, "confidence"),
        model=_text(model, "name"),
        frame=_whole(system, "frame"),
        end_frame=_whole(system, "endFrame"),
        start=_real(system, "startTime"),
        end=_real(system, "endTime"),
        visible=_truth(mark, "visible", True),
        key_frames=tuple(_key_frame(one, told) for one in _list(system, "snapshots_")),
    )


def _legacy(told: Any) -> Json:
    """The older form: an object, or a list of the names of those that hold."""
    if isinstance(told, list):
        return {str(name): True for name in told}
    return _object(told)


def _key_frame(told: Json, annotation: Json) -> KeyFrame:
    frame, label = _whole(told, "frame"), _text(told, "label")
    if frame is None:
        raise InvalidInput("a snapshot lacks its frame")
    return KeyFrame(
        frame=frame,
        geometry=from_coordinates(
            _text(told, "type") or annotation["type"], told.get("data"), _object(told.get(_MARK))
        ),
        label=label if label != annotation["label"] else None,
        visible=_truth(told, "objectVisible", True),
        fixed=_truth(told, "fixed", True),
        attributes=_object(told.get("namedAttributes")),
    )


def _with_joints(pose: Pose, told: Sequence[Json], mark: Json) -> Pose:
    found = [_joint(one) for one in told]
    if not isinstance(mark.get("joints"), list):
        return msgspec.structs.replace(pose, joints=tuple(found))
    joints = []
    for name in _list(mark, "joints", str):
        at = next((n for n, joint in enumerate(found) if joint.name == name), None)
        joints.append(Joint(name, 0.0, 0.0, 0) if at is None else found.pop(at))
    return msgspec.structs.replace(pose, joints=(*joints, *found))


def _joint(told: Json) -> Joint:
    x, y = _point(told["coordinates"])
    visible = _object(_system(told).get(_MARK)).get("visible", 2)
    if visible not in (0, 1, 2) or isinstance(visible, bool):
        raise _Wrong("a joint's visible is not 0, 1 or 2")
    return Joint(_text(told, "label", empty=True) or "", x, y, int(visible))


class Corner(msgspec.Struct, gc=False):
    """A corner as msgspec writes it: made and written in a third of a dict's time."""

    x: float
    y: float


def _points(ring: Ring) -> list[Any]:
    return [{"x": x, "y": y} for x, y in zip(ring[::2], ring[1::2], strict=True)]


def corners(ring: Ring) -> list[Any]:
    """The corners of a ring, for `annotations_json` whose annotations go to `wire.dumps` as they are."""
    return list(map(Corner, ring[::2], ring[1::2]))


def annotations_json(
    annotations: Sequence[Annotation],
    colors: Mapping[str, str] = {},
    points: Callable[[Ring], list[Any]] = _points,
) -> list[Json]:
    """Annotations as the platform takes them. Those of one item: the points of its poses are annotations of their own.

    :param points: makes JSON of a ring's corners.
    """
    made: list[Json] = []
    taken = {one.id for one in annotations}
    poses = {one.id for one in annotations if one.id and isinstance(one.geometry, Pose)}
    free = (name for name in (f"pose-{n}" for n in itertools.count(1)) if name not in taken)
    for one in annotations:
        told = _json(one, colors, points)
        made.append(told)
        if one.parent in poses and isinstance(one.geometry, Point):
            # Below a pose the platform has its joints alone: this is a point of its own.
            told["metadata"]["system"].setdefault(_MARK, {})["joint"] = False
        if isinstance(one.geometry, Pose):
            told.setdefault("id", next(free))
            made += [_joint_json(joint, told["id"], one) for joint in one.geometry.joints if joint.visible]
    return made


def _json(one: Annotation, colors: Mapping[str, str], points: Callable[[Ring], list[Any]]) -> Json:
    coordinates, mark = to_coordinates(one.geometry, colors.get(one.label, "#ffffff"), points)
    if one.crowd:
        mark["crowd"] = True
    if not one.visible:
        mark["visible"] = False
    system: Json = {"attributes": dict(one.attributes)}
    for name, value in (
        ("objectId", one.object_id), ("parentId", one.parent), ("frame", one.frame), ("endFrame", one.end_frame),
        ("startTime", one.start), ("endTime", one.end), (_MARK, mark or None),
    ):  # fmt: skip
        if value is not None:
            system[name] = value
    if isinstance(one.geometry, Note):
        system["status"] = one.geometry.status
    if one.key_frames:
        system["snapshots_"] = [_snapshot(frame, one, colors) for frame in one.key_frames]
    user: Json = {}
    if one.score is not None or one.model is not None:
        system["automated"] = True
        user["model"] = {"name": one.model or "", "confidence": one.score}
    told: Json = {
        "type": kind(one.geometry),
        "label": one.label,
        "metadata": {"system": system, "user": user},
    }
    if coordinates is not None:
        told["coordinates"] = coordinates
    if one.description:
        told["description"] = one.description
    if one.id:
        told["id"] = one.id
    return told


def _snapshot(frame: KeyFrame, one: Annotation, colors: Mapping[str, str]) -> Json:
    label = frame.label or one.label
    data, mark = to_coordinates(frame.geometry, colors.get(label, "#ffffff"))
    return {
        "frame": frame.frame, "fixed": frame.fixed, "label": label, "type": kind(frame.geometry),
        "objectVisible": frame.visible, "data": data, "namedAttributes": dict(frame.attributes),
        **({_MARK: mark} if mark else {}),
    }  # fmt: skip


def _joint_json(joint: Joint, pose: str, one: Annotation) -> Json:
    system: Json = {"attributes": {}, "parentId": pose}
    if one.frame is not None:
        system["frame"] = one.frame
    if joint.visible != 2:
        system[_MARK] = {"visible": joint.visible}
    return {
        "type": "point", "label": joint.name, "coordinates": {"x": joint.x, "y": joint.y, "z": 0},
        "metadata": {"system": system, "user": {}},
    }  # fmt: skip


# -- coordinates ---------------------------------------------------------------------------------


def to_coordinates(
    geometry: Geometry, color: str, points: Callable[[Ring], list[Any]] = _points
) -> tuple[Any, Json]:
    """A geometry as the platform tells it, and what it has no place for. None: it has no coordinates."""
    match geometry:
        case Classification():
            return None, {}
        case Point(x, y):
            return {"x": x, "y": y, "z": 0}, {}
        case Box(left, top, right, bottom, angle):
            corners = [{"x": left, "y": top, "z": 0}, {"x": right, "y": bottom, "z": 0}]
            return [*corners, angle] if angle else corners, {}
        case Polygon(parts):
            rings = [points(ring) for part in parts for ring in part]
            shapes = [len(part) for part in parts]
            # Without the mark a ring inside another is read as its hole, as the platform means it.
            return rings, {"parts": shapes} if shapes != [1] else {}
        case Polyline(lines):
            return [points(line) for line in lines], {}
        case Ellipse(x, y, rx, ry, angle):
            return {"angle": angle, "center": {"x": x, "y": y, "z": 0}, "rx": rx, "ry": ry}, {}
        case Cuboid(flat, angle):
            named = zip(_CORNERS, flat[::2], flat[1::2], strict=True)
            return {**{name: {"x": x, "y": y, "z": 0} for name, x, y in named}, "angle": angle}, {}
        case Mask():
            return masks.to_url(geometry, color), {}
        case Pose(joints, template, box):
            mark: Json = {"joints": [joint.name for joint in joints]}
            if box is not None:
                mark["box"] = list(box)
            return {"templateId": template}, mark
        case Note(left, top, right, bottom, messages, status):
            told = [{"id": None, "creator": m.creator, "time": m.time, "body": m.body} for m in messages]
            box = [{"x": left, "y": top, "z": 0}, {"x": right, "y": bottom, "z": 0}]  # type: ignore[assignment]
            return {"box": box, "note": {"messages": told, "status": status}}, {}
        case Subtitle(text):
            return {"text": text}, {}
        case Other(coordinates=coordinates):
            return coordinates, {}


def from_coordinates(type_name: str, told: Any, mark: Mapping[str, Any]) -> Geometry:
    """The geometry of the platform's coordinates.

    :raises InvalidInput, KeyError, TypeError, ValueError, IndexError, OverflowError: they are not such.
    """
    match type_name:
        case "class":
            return Classification()
        case "point":
            return Point(*_point(told))
        case "box":
            (left, top), (right, bottom) = _point(told[0]), _point(told[1])
            return Box(left, top, right, bottom, _number(told[2]) if len(told) > 2 else 0.0)
        case "segment":
            return Polygon(_parts([_ring(ring) for ring in _rings(told)], mark.get("parts")))
        case "polyline":
            return Polyline(tuple(_ring(line) for line in _rings(told)))
        case "ellipse":
            axes = _number(told["rx"]), _number(told["ry"])
            return Ellipse(*_point(told["center"]), *axes, _number(told.get("angle") or 0))
        case "cube":
            corners = tuple(number for name in _CORNERS for number in _point(told[name]))
            return Cuboid(corners, _number(told.get("angle") or 0))
        case "binary":
            return _mask(told["data"] if isinstance(told, dict) else told)
        case "pose":
            box = mark.get("box")
            left, top, right, bottom = map(_number, box or (0, 0, 0, 0))
            return Pose((), _text(_object(told), "templateId"), (left, top, right, bottom) if box else None)
        case "note":
            (left, top), (right, bottom) = _point(told["box"][0]), _point(told["box"][1])
            note = _object(told.get("note"))
            messages = tuple(
                Message(_text(one, "body") or "", _text(one, "creator"), _whole(one, "time"))
                for one in _list(note, "messages")
            )
            return Note(left, top, right, bottom, messages, _text(note, "status") or "issue")
        case "subtitle":
            return Subtitle(str(told["text"]))
        case _:
            return Other(type_name, told)


def _mask(told: Any) -> Mask:
    if not isinstance(told, str):
        raise _Wrong("a mask is no text")
    return masks.from_url(told)


def _parts(rings: Sequence[Ring], told: Any) -> tuple[tuple[Ring, ...], ...]:
    if told is None:
        # The platform's own polygons: a ring inside another is its hole.
        return _nested(rings) if len(rings) > 1 else tuple((ring,) for ring in rings)
    left, parts = list(rings), []
    for count in told:
        if not isinstance(count, int) or count < 1:
            break
        parts.append(tuple(left[:count]))
        del left[:count]
    if left or not all(parts) or len(parts) != len(told):
        raise InvalidInput("its parts are not its rings")
    return tuple(parts)


def _nested(rings: Sequence[Ring]) -> tuple[tuple[Ring, ...], ...]:
    parts: list[list[Ring]] = []
    for ring in rings:
        outer = next((part for part in parts if _inside(ring[0], ring[1], part[0])), None)
        if outer is not None:
            outer.append(ring)
        else:
            parts.append([ring])
    return tuple(map(tuple, parts))


def _inside(x: float, y: float, ring: Ring) -> bool:
    crossings = 0
    xs, ys = ring[::2], ring[1::2]
    for x1, y1, x2, y2 in zip(xs, ys, (*xs[1:], xs[0]), (*ys[1:], ys[0]), strict=True):
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            crossings += 1
    return crossings % 2 == 1


def _rings(told: Any) -> Any:
    """A list of rings; older files have one ring without the list around it."""
    return [told] if told and isinstance(told[0], dict) else told


def _ring(told: Any) -> Ring:
    flat = tuple(number for one in told for number in (float(one["x"]), float(one["y"])))
    if not math.isfinite(sum(flat)) and not all(map(math.isfinite, flat)):
        raise _Wrong(_NOT_FINITE)
    return flat


def _point(told: Any) -> tuple[float, float]:
    x, y = float(told["x"]), float(told["y"])
    if not (math.isfinite(x) and math.isfinite(y)):
        raise _Wrong(_NOT_FINITE)
    return x, y


# -- fields --------------------------------------------------------------------------------------


_NOT_FINITE = "a number that is not finite"


class _Wrong(InvalidInput):
    """A field is not as the platform writes it."""


def _number(told: Any) -> float:
    """A number; older files have texts of them."""
    value = float(told)
    if not math.isfinite(value):
        raise _Wrong(_NOT_FINITE)
    return value


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _system(told: Json) -> Json:
    return _object(_object(told.get("metadata")).get("system"))


def _text(told: Mapping[str, Any], name: str, *, empty: bool = False) -> str | None:
    """A text; None where there is none.

    :param empty: an empty one is one, too.
    """
    value = told.get(name)
    if value is None or isinstance(value, str):
        return value if value or empty else None
    raise _Wrong(f"{name} must be a text")


def _name(told: Mapping[str, Any], name: str) -> str | None:
    """A text, or the whole number that other tools have in its place."""
    value = told.get(name)
    return (
        str(value)
        if isinstance(value, int) and not isinstance(value, bool)
        else _text(told, name, empty=True)
    )


def _real(told: Mapping[str, Any], name: str) -> float | None:
    value = told.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Wrong(f"{name} must be a number")
    _number(value)
    return value


def _whole(told: Mapping[str, Any], name: str) -> int | None:
    value = told.get(name)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= _MOST:
        raise _Wrong(f"{name} must be a whole number")
    return value


def _count(told: Mapping[str, Any], name: str) -> int | None:
    """How many, of what there is; some tools write 0 where they do not know."""
    return _whole(told, name) or None


def _rate(told: Mapping[str, Any]) -> str | None:
    value = told.get("fps")
    return value or None if isinstance(value, str) else str(_real(told, "fps") or "") or None


def _truth(told: Mapping[str, Any], name: str, otherwise: bool) -> bool:
    value = told.get(name)
    if value is None or isinstance(value, bool):
        return otherwise if value is None else value
    raise _Wrong(f"{name} must be true or false")


def _list(told: Mapping[str, Any], name: str, of: type = dict) -> list[Any]:
    """A list of objects, or of texts; an empty one where there is none."""
    value = told.get(name) or []
    if not isinstance(value, list) or not all(isinstance(one, of) for one in value):
        raise _Wrong(f"{name} must be a list of {'objects' if of is dict else 'texts'}")
    return value
