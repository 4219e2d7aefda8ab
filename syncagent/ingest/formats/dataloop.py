"""The platform's JSON: what its API and its client send, and the files that its client writes.

Files: one for each item (``a.json`` in version 1, ``a.jpg.json`` in version 2), a list of items (a dataset's export), or a zip of
either. Polygons with holes or several parts are one ``segment`` of several rings; what the platform has no place for stands in
``metadata.system.syncagent``. Source: the client dtlpy 1.126.5.
"""

from __future__ import annotations

import itertools
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
from syncagent.ingest.formats.base import Context, Losses, Out, Tree, Zip, refuse, without_suffix, wrong

Json = dict[str, Any]
_CORNERS = ("front_tl", "front_tr", "front_br", "front_bl", "back_tl", "back_tr", "back_br", "back_bl")
_MARK = "syncagent"


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
        for name in tree.names():
            if name.endswith(".json"):
                with tree.open(name) as file:
                    yield from _read(file, name)
            elif name.endswith(".zip"):
                with tree.open(name) as file:
                    yield from self.read(Zip(file), context)

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
        for item in items:
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
        for _, batch in stream.arrays(file, name, {"": dict}):
            for record, told in enumerate(batch):
                yield labelled(told, name, f"item {record}")
    else:
        told = stream.document(file.read(), name, dict)
        if "annotations" not in told:
            refuse(name, None, "has no annotations")
        yield labelled(told, name, None)


# -- items ---------------------------------------------------------------------------------------


def labelled(told: Mapping[str, Any], file: str, record: str | None = None) -> Labelled:
    """An item with its annotations, as an export tells it; named by the file where it does not tell its name.

    :raises InvalidInput: something in it is not as the platform writes it; tells the file and the record.
    """
    where = f"{record}, " if record else ""
    filename = told.get("filename")
    metadata = _object(told.get("metadata"))
    system = _object(metadata.get("system"))
    annotations = told.get("annotations") or []
    if not isinstance(annotations, list):
        refuse(file, record, "annotations must be a list")
    fps = metadata.get("fps") or system.get("fps")
    stem = not isinstance(filename, str)
    return Labelled(
        key=without_suffix(file) if stem else str(filename).removeprefix("/"),
        stem=stem,
        annotations=annotations_of(annotations, file, where),
        width=_whole(system.get("width")),
        height=_whole(system.get("height")),
        fps=system.get("fpsRational") or (str(fps) if fps else None),
        frames=_whole(system.get("nb_frames")),
        user=_object(metadata.get("user")),
        description=told.get("description") or None,
    )


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
    poses = {one.get("id") for one in told if isinstance(one, dict) and one.get("type") == "pose"} - {None}
    rest: list[tuple[int, Json]] = []
    for number, one in enumerate(told):
        if not isinstance(one, dict):
            refuse(file, f"{where}annotation {number}", "must be an object")
        parent = _system(one).get("parentId")
        if one.get("type") == "point" and parent in poses:
            joints.setdefault(str(parent), []).append(one)
        else:
            rest.append((number, one))
    found = []
    for number, one in rest:
        try:
            found.append(_annotation(one, joints.get(one.get("id") or "", [])))
        except InvalidInput as error:
            raise wrong(file, f"{where}annotation {number}", error.message) from error
        except (KeyError, IndexError) as error:
            raise wrong(file, f"{where}annotation {number}", f"lacks {error}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise wrong(
                file, f"{where}annotation {number}", f"is not as the platform writes it: {error}"
            ) from error
    return tuple(found)


def _annotation(told: Json, joints: Sequence[Json]) -> Annotation:
    system, user = _system(told), _object(_object(told.get("metadata")).get("user"))
    mark, model = _object(system.get(_MARK)), _object(user.get("model"))
    if not isinstance(told.get("type"), str) or not isinstance(told.get("label"), str):
        raise InvalidInput("has no type or no label")
    geometry = from_coordinates(told["type"], told.get("coordinates"), mark)
    if isinstance(geometry, Pose):
        geometry = _with_joints(geometry, joints, mark)
    return Annotation(
        label=told["label"],
        geometry=geometry,
        attributes={**_legacy(told.get("attributes")), **_object(system.get("attributes"))},
        description=told.get("description") or None,
        id=told.get("id") or None,
        parent=system.get("parentId") or None,
        object_id=None if system.get("objectId") is None else str(system["objectId"]),
        crowd=bool(mark.get("crowd")),
        score=model.get("confidence"),
        model=model.get("name") or None,
        frame=system.get("frame"),
        end_frame=system.get("endFrame"),
        start=system.get("startTime"),
        end=system.get("endTime"),
        visible=mark.get("visible", True),
        key_frames=tuple(_key_frame(one, told) for one in system.get("snapshots_") or ()),
    )


def _legacy(told: Any) -> Json:
    """The older form: an object, or a list of the names of those that hold."""
    if isinstance(told, list):
        return {str(name): True for name in told}
    return _object(told)


def _key_frame(told: Json, annotation: Json) -> KeyFrame:
    label = told.get("label")
    return KeyFrame(
        frame=int(told["frame"]),
        geometry=from_coordinates(
            told.get("type") or annotation["type"], told.get("data"), _object(told.get(_MARK))
        ),
        label=label if label != annotation["label"] else None,
        visible=told.get("objectVisible", True),
        fixed=told.get("fixed", True),
        attributes=_object(told.get("namedAttributes")),
    )


def _with_joints(pose: Pose, told: Sequence[Json], mark: Json) -> Pose:
    found = [_joint(one) for one in told]
    names = mark.get("joints")
    if not isinstance(names, list):
        return msgspec.structs.replace(pose, joints=tuple(found))
    joints = []
    for name in names:
        at = next((n for n, joint in enumerate(found) if joint.name == name), None)
        joints.append(Joint(str(name), 0.0, 0.0, 0) if at is None else found.pop(at))
    return msgspec.structs.replace(pose, joints=(*joints, *found))


def _joint(told: Json) -> Joint:
    at = _point(told["coordinates"])
    return Joint(str(told["label"]), at[0], at[1], _object(_system(told).get(_MARK)).get("visible", 2))


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
    free = (name for name in (f"pose-{n}" for n in itertools.count(1)) if name not in taken)
    for one in annotations:
        told = _json(one, colors, points)
        made.append(told)
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

    :raises InvalidInput, KeyError, TypeError, ValueError, IndexError: they are not such.
    """
    match type_name:
        case "class":
            return Classification()
        case "point":
            return Point(*_point(told))
        case "box":
            (left, top), (right, bottom) = _point(told[0]), _point(told[1])
            return Box(left, top, right, bottom, float(told[2]) if len(told) > 2 else 0.0)
        case "segment":
            return Polygon(_parts([_ring(ring) for ring in _rings(told)], mark.get("parts")))
        case "polyline":
            return Polyline(tuple(_ring(line) for line in _rings(told)))
        case "ellipse":
            return Ellipse(
                *_point(told["center"]), float(told["rx"]), float(told["ry"]), float(told.get("angle") or 0)
            )
        case "cube":
            corners = tuple(number for name in _CORNERS for number in _point(told[name]))
            return Cuboid(corners, float(told.get("angle") or 0))
        case "binary":
            return masks.from_url(told["data"] if isinstance(told, dict) else told)
        case "pose":
            box = mark.get("box")
            left, top, right, bottom = box or (0, 0, 0, 0)
            where = (float(left), float(top), float(right), float(bottom)) if box else None
            return Pose((), told.get("templateId") or None, where)
        case "note":
            (left, top), (right, bottom) = _point(told["box"][0]), _point(told["box"][1])
            note = _object(told.get("note"))
            messages = tuple(
                Message(str(one.get("body") or ""), one.get("creator"), one.get("time"))
                for one in note.get("messages") or ()
            )
            return Note(left, top, right, bottom, messages, note.get("status") or "issue")
        case "subtitle":
            return Subtitle(str(told["text"]))
        case _:
            return Other(type_name, told)


def _parts(rings: Sequence[Ring], told: Any) -> tuple[tuple[Ring, ...], ...]:
    if told is None:
        # The platform's own polygons: a ring inside another is its hole.
        return _nested(rings) if len(rings) > 1 else tuple((ring,) for ring in rings)
    left, parts = list(rings), []
    for count in told:
        parts.append(tuple(left[:count]))
        del left[:count]
    if left or not all(parts):
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
    return tuple(number for one in told for number in (float(one["x"]), float(one["y"])))


def _point(told: Any) -> tuple[float, float]:
    return float(told["x"]), float(told["y"])


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _system(told: Json) -> Json:
    return _object(_object(told.get("metadata")).get("system"))


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and value > 0 else None
