"""Writing CVAT's XML; see `formats.cvat`.

The meta stands at the head of a file and tells what is only known at its end (the labels used, the type of every attribute), so
the rest waits in a temporary file: memory does not grow with the items.
"""

from __future__ import annotations

import math
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr  # they write, and parse nothing

from syncagent.ingest import masks
from syncagent.ingest.annotations import (
    Annotation,
    Box,
    Classification,
    Cuboid,
    Ellipse,
    Geometry,
    KeyFrame,
    Label,
    Labelled,
    Mask,
    Point,
    Polygon,
    Polyline,
    Pose,
    Ring,
)
from syncagent.ingest.formats.base import Losses, Out, a, needs_size, refuse
from syncagent.ingest.formats.carry import lesser, lesser_of_item, number, pairs, same_kind, turned

_HELD = ("object_id",)
_HELD_IN_VIDEO = ("object_id", "visible", "frame", "end_frame", "start", "end", "key_frames")
# XML has no way to tell these, not even escaped.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPES = {"\r": "&#13;"}
_GROUP = re.compile(r"[1-9][0-9]{0,14}")
_SPOOL = 8 << 20

Shape = tuple[str, dict[str, str], Sequence[tuple[dict[str, str], bool]]]
"""Its tag, its attributes and, of a skeleton, its points, each with whether it is there."""


def write(name: str, items: Iterable[Labelled], out: Out, labels: Sequence[Label], losses: Losses) -> None:
    """See `Format.write`."""
    images, written = _Document(name, labels, losses), False
    with tempfile.SpooledTemporaryFile(_SPOOL) as body:
        for item in items:
            lesser_of_item(losses, item, held=() if _is_video(item) else _held_of(item))
            if not _is_video(item):
                body.write(images.image(item).encode())
                continue
            written = True
            video = _Document(name, labels, losses)
            tracks = video.tracks(item)
            with out.create(f"{item.key}.xml") as file:
                file.write(video.head(item).encode())
                for track in tracks:
                    file.write(track.encode())
                file.write(b"</annotations>\n")
        if images.count or not written:
            body.seek(0)
            with out.create("annotations.xml") as file:
                file.write(images.head(None).encode())
                shutil.copyfileobj(body, file)
                file.write(b"</annotations>\n")


def _held_of(item: Labelled) -> Sequence[str]:
    subset = item.user.get("subset")
    return ("user",) if isinstance(subset, str) and subset and len(item.user) == 1 else ()


def _is_video(item: Labelled) -> bool:
    return bool(item.fps or item.frames) or any(one.frame is not None for one in item.annotations)


class _Document:
    """One file."""

    def __init__(self, name: str, labels: Sequence[Label], losses: Losses) -> None:
        self._name, self._losses = name, losses
        self._labels = {label.name: label for label in labels}
        self._types = {label.name: dict(_types(label)) for label in labels}
        self._joints = {label.name: dict.fromkeys(label.joints) for label in labels}
        self.count = 0

    # -- items ----------------------------------------------------------------------------------

    def image(self, item: Labelled) -> str:
        """An ``<image>``."""
        told = {"id": str(self.count), "name": _whole_text(item.key, item.key)}
        self.count += 1
        if "subset" in item.user and isinstance(item.user["subset"], str) and item.user["subset"]:
            told["subset"] = self._text(item, item.user["subset"])
        if item.width and item.height:
            told |= {"width": str(item.width), "height": str(item.height)}
        lines = [f"  <image{_attributes(told)}>\n"]
        for one in item.annotations:
            lines += self._shapes(item, one)
        return "".join([*lines, "  </image>\n"])

    def _shapes(self, item: Labelled, one: Annotation) -> Iterator[str]:
        if not self._holds(item, one.geometry):
            return
        native = (
            {"source", "z_order", "occluded"} if not isinstance(one.geometry, Classification) else {"source"}
        )
        own, rest = self._native(item, one.attributes, native)
        own = {"label": self._text(item, one.label), **own}
        if (group := self._group(item, one.object_id)) is not None:
            own["group_id"] = group
        lesser(self._losses, self._name, item, one, held=_HELD, attributes=None)
        inner = self._inner(item, one.label, rest)
        self._uses(one)
        for tag, told, joints in self._told(item, one.geometry):
            yield _element(tag, {**own, **told}, joints, inner, {})

    def tracks(self, item: Labelled) -> list[str]:
        """The ``<track>`` of each annotation of a video."""
        free = (str(n) for n in _numbers({one.object_id for one in item.annotations}))
        made = []
        for position, one in enumerate(item.annotations):
            if not self._holds(item, one.geometry) or self._unfit_for_video(item, one):
                continue
            if one.frame is None:
                refuse(item.key, f"annotation {position}", "cvat needs the frame of everything in a video")
            made.append(self._track(item, one, next(free) if one.object_id is None else one.object_id))
        return made

    def _track(self, item: Labelled, one: Annotation, track_id: str) -> str:
        lesser(self._losses, self._name, item, one, held=_HELD_IN_VIDEO, attributes=None)
        if self._group(item, track_id) is None:
            track_id = "0"
        native, rest = self._native(item, one.attributes, {"source", "group_id"})
        self._uses(one)
        lines = [
            f"  <track{_attributes({'id': track_id, 'label': self._text(item, one.label), **native})}>\n"
        ]
        frames = [KeyFrame(frame=one.frame or 0, geometry=one.geometry, visible=one.visible, attributes=rest)]
        frames += self._key_frames(item, one)
        for frame in frames:
            lines.append(self._at(item, one.label, frame))
        last = frames[-1]
        end = last.frame if one.end_frame is None else one.end_frame
        # A track that is shown to the last frame has no end of its own.
        if item.frames is None or end < item.frames - 1:
            after = KeyFrame(frame=end + 1, geometry=last.geometry, visible=False, attributes=last.attributes)
            lines.append(self._at(item, one.label, after))
        return "".join([*lines, "  </track>\n"])

    def _key_frames(self, item: Labelled, one: Annotation) -> Iterator[KeyFrame]:
        for frame in one.key_frames:
            if frame.label not in {None, one.label}:
                self._losses.add(self._name, item.key, "a label that changes in a track")
            if same_kind(frame.geometry, one.geometry):
                if self._unfit_for_video(item, frame):
                    continue
                yield frame
            else:
                self._losses.add(self._name, item.key, f"{a(frame.geometry)} in a track of {a(one.geometry)}")

    def _at(self, item: Labelled, label: str, state: KeyFrame) -> str:
        own, rest = self._native(item, state.attributes, {"z_order", "occluded"})
        hidden = str(int(not state.visible))
        at = {"keyframe": "1"}
        if not isinstance(state.geometry, Pose):
            at |= {"outside": hidden}
        own.setdefault("occluded", "0")
        ((tag, told, joints),) = self._told(item, state.geometry)
        if not state.visible:
            joints = [(joint, False) for joint, _ in joints]
        inner = self._inner(item, label, rest)
        return _element(
            tag, {"frame": str(state.frame), **at, **own, **told}, joints, inner, {"keyframe": "1"}
        )

    # -- what it cannot hold --------------------------------------------------------------------

    def _holds(self, item: Labelled, geometry: Geometry) -> bool:
        match geometry:
            case Box() | Polygon() | Polyline() | Point() | Ellipse() | Cuboid() | Classification() | Pose():
                return True
            case Mask():
                if masks.bounds(geometry) is not None:
                    return True
                self._losses.add(self._name, item.key, "a mask of nothing")
            case _:
                self._losses.add(self._name, item.key, a(geometry))
        return False

    def _unfit_for_video(self, item: Labelled, one: Annotation | KeyFrame) -> bool:
        match one.geometry:
            case Classification():
                self._losses.add(self._name, item.key, "a classification of a video")
                return True
            case Polygon(parts) if len(parts) != 1 or len(parts[0]) != 1:
                self._losses.add(self._name, item.key, "a polygon of several rings")
                return True
            case Polyline(lines) if len(lines) != 1:
                self._losses.add(self._name, item.key, "a polyline of several lines")
                return True
            case Pose(joints) if not any(joint.visible for joint in joints):
                self._losses.add(self._name, item.key, "a pose without points")
                return True
            case Pose() if not one.visible:  # its points are outside then, and no more is told of them
                self._losses.add(self._name, item.key, "the points of a hidden pose")
            case Mask() if masks.bounds(one.geometry) is None:
                self._losses.add(self._name, item.key, "a mask of nothing")
                return True
        return False

    def _group(self, item: Labelled, object_id: str | None) -> str | None:
        if object_id is None or _GROUP.fullmatch(object_id) or object_id == "0":
            return object_id
        self._losses.add(self._name, item.key, "an object's id that is no number")
        return None

    def _text(self, item: Labelled, text: str) -> str:
        if _ILLEGAL.search(text):
            self._losses.add(self._name, item.key, "characters that XML does not have")
            return _ILLEGAL.sub("", text)
        return text

    # -- attributes -----------------------------------------------------------------------------

    def _native(
        self, item: Labelled, attributes: Mapping[str, Any], names: set[str]
    ) -> tuple[dict[str, str], dict[str, Any]]:
        """Those that a shape has a place of its own for, where what is read there is what is written; and the rest."""
        own, rest = {}, {}
        for name, value in attributes.items():
            if name not in names:
                rest[name] = value
            elif name == "source" and isinstance(value, str) and value not in {"", "manual"}:
                own[name] = self._text(item, value)
            elif name == "occluded" and value is True:
                own[name] = "1"
            elif name in {"z_order", "group_id"} and type(value) is int and 0 != abs(value) < 10**15:
                own[name] = str(value)
            else:
                rest[name] = value
        return own, rest

    def _inner(self, item: Labelled, label: str, attributes: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The attributes of a label, as texts; each of the type that it has in the recipe, or had when it was used first."""
        types = self._types.setdefault(label, {})
        found = []
        for name, value in attributes.items():
            if isinstance(value, bool):
                text, kind = str(value).lower(), "checkbox"
            elif isinstance(value, int | float) and math.isfinite(value) and abs(value) < 10**15:
                text, kind = repr(value), "number"
            elif isinstance(value, str):
                text, kind = self._text(item, value), "text"
            else:
                text, kind = "", "a list"
            declared = None if kind == "a list" else types.setdefault(name, kind)
            if declared == kind or (kind == "text" and declared in {"select", "radio"}):
                found.append((self._text(item, name), text))
            else:
                self._losses.add(self._name, item.key, f"the attribute {name!r}")
        return found

    def _uses(self, one: Annotation) -> None:
        self._labels.setdefault(one.label, Label(name=one.label))
        self._types.setdefault(one.label, {})
        joints = self._joints.setdefault(one.label, {})
        if isinstance(one.geometry, Pose):
            joints.update(dict.fromkeys(joint.name for joint in one.geometry.joints))

    # -- geometry -------------------------------------------------------------------------------

    def _told(self, item: Labelled, geometry: Geometry) -> list[Shape]:
        """The shapes of a geometry: several where CVAT has no shape for the whole, and that is allowed."""
        match geometry:
            case Classification():
                return [("tag", {}, ())]
            case Point(x, y):
                return [("points", {"points": _points((x, y))}, ())]
            case Box(left, top, right, bottom, angle):
                sides = {"xtl": left, "ytl": top, "xbr": right, "ybr": bottom}
                return [("box", {**_numbered(sides), **_rotation(angle)}, ())]
            case Ellipse(x, y, rx, ry, angle):
                axes = {"cx": x, "cy": y, "rx": rx, "ry": ry}
                return [("ellipse", {**_numbered(axes), **_rotation(angle)}, ())]
            case Cuboid(corners, angle):
                if angle:
                    self._losses.add(self._name, item.key, "a cuboid's angle")
                return [("cuboid", _cuboid(corners), ())]
            case Mask():
                return [("mask", _mask(geometry, item, *needs_size(item, self._name)), ())]
            case Polygon(parts):
                if len(parts) != 1 or len(parts[0]) != 1:
                    self._losses.add(self._name, item.key, "a polygon of several rings")
                return [("polygon", {"points": _points(part[0])}, ()) for part in parts]
            case Polyline(lines):
                if len(lines) != 1:
                    self._losses.add(self._name, item.key, "a polyline of several lines")
                return [("polyline", {"points": _points(line)}, ()) for line in lines]
            case Pose(joints, template, box):
                if template is not None or box is not None:
                    self._losses.add(self._name, item.key, "a pose's template or box")
                told = [
                    ({"label": self._text(item, joint.name), "occluded": str(int(joint.visible == 1)),
                      "points": _points((joint.x, joint.y))}, joint.visible != 0)
                    for joint in joints
                ]  # fmt: skip
                return [("skeleton", {}, told)]
            case _:
                return []

    # -- meta -----------------------------------------------------------------------------------

    def head(self, video: Labelled | None) -> str:
        """All up to the first item."""
        size = self.count if video is None else video.frames
        lines = [
            '<?xml version="1.0" encoding="utf-8"?>',
            "<annotations>",
            "  <version>1.1</version>",
            "  <meta>",
            "    <task>",
        ]
        if size:
            lines.append(f"      <size>{size}</size>")
        lines.append(f"      <mode>{'annotation' if video is None else 'interpolation'}</mode>")
        lines += ["      <labels>", *self._declared(), "      </labels>"]
        if video is not None:
            if video.width and video.height:
                width, height = f"<width>{video.width}</width>", f"<height>{video.height}</height>"
                lines.append(f"      <original_size>{width}{height}</original_size>")
            lines.append(f"      <source>{_escaped(_whole_text(video.key, video.key))}</source>")
        return "\n".join([*lines, "    </task>", "  </meta>", ""])

    def _declared(self) -> Iterator[str]:
        for name, label in self._labels.items():
            joints = self._joints.get(name, {})
            yield "        <label>"
            yield f"          <name>{_escaped(_ILLEGAL.sub('', name))}</name>"
            if label.color:
                yield f"          <color>{_escaped(_ILLEGAL.sub('', label.color))}</color>"
            yield f"          <type>{'skeleton' if joints else 'any'}</type>"
            yield "          <attributes>"
            for attribute, type_name in self._types.get(name, {}).items():
                told = label.attributes.get(attribute)
                values = _ILLEGAL.sub("", str(told.get("values", "")) if isinstance(told, Mapping) else "")
                yield (
                    f"            <attribute><name>{_escaped(_ILLEGAL.sub('', attribute))}</name><mutable>True</mutable>"
                    f"<input_type>{type_name}</input_type><default_value></default_value><values>{_escaped(values)}</values>"
                    "</attribute>"
                )
            yield "          </attributes>"
            yield "        </label>"
            for joint in joints:
                yield f"        <label><name>{_escaped(_ILLEGAL.sub('', joint))}</name><type>points</type>"
                yield f"          <attributes></attributes><parent>{_escaped(_ILLEGAL.sub('', name))}</parent></label>"


def _types(label: Label) -> Iterator[tuple[str, str]]:
    for name, told in label.attributes.items():
        kind = told.get("input_type") if isinstance(told, Mapping) else None
        if kind in {"checkbox", "number", "text", "select", "radio"}:
            yield name, str(kind)


# -- text ----------------------------------------------------------------------------------------


def _escaped(text: str) -> str:
    return escape(text, _ESCAPES)


def _whole_text(text: str, key: str) -> str:
    """A text that must be told whole.

    :raises InvalidInput: XML cannot.
    """
    if _ILLEGAL.search(text):
        refuse(key, None, "has characters that XML does not have")
    return text


def _attributes(told: Mapping[str, str]) -> str:
    return "".join(f" {name}={quoteattr(value)}" for name, value in told.items())


def _element(
    tag: str,
    told: Mapping[str, str],
    joints: Sequence[tuple[dict[str, str], bool]],
    inner: Sequence[tuple[str, str]],
    of_joints: Mapping[str, str],
) -> str:
    points = [
        f"      <points{_attributes({**joint, **of_joints, 'outside': str(int(not there))})}></points>\n"
        for joint, there in joints
    ]
    attributes = [
        f"      <attribute{_attributes({'name': name})}>{_escaped(text)}</attribute>\n"
        for name, text in inner
    ]
    if tag not in {"tag", "skeleton"}:
        told = {"occluded": "0", **told}
    return f"    <{tag}{_attributes(told)}>\n{''.join(points)}{''.join(attributes)}    </{tag}>\n"


def _points(flat: Ring) -> str:
    return ";".join(f"{number(x)},{number(y)}" for x, y in pairs(flat))


def _numbered(told: Mapping[str, float]) -> dict[str, str]:
    return {name: number(value) for name, value in told.items()}


def _rotation(angle: float) -> dict[str, str]:
    return {"rotation": turned(angle)} if angle else {}


def _cuboid(corners: Ring) -> dict[str, str]:
    told = dict(zip(("tl1", "tr1", "br1", "bl1", "tl2", "tr2", "br2", "bl2"), pairs(corners), strict=True))
    order = ("tl1", "bl1", "tr1", "br1", "tl2", "bl2", "tr2", "br2")
    return {
        f"{axis}{name}": number(value) for name in order for axis, value in zip("xy", told[name], strict=True)
    }


def _mask(mask: Mask, item: Labelled, width: int, height: int) -> dict[str, str]:
    """Run lengths of the rows of the box around what is inside, outside first.

    :raises InvalidInput: it is not of its picture's size.
    """
    import numpy as np

    if (mask.width, mask.height) != (width, height):
        refuse(
            item.key,
            None,
            f"a mask of {mask.width} x {mask.height} pixels in a picture of {width} x {height}",
        )
    left, top, right, bottom = (int(side) for side in masks.bounds(mask) or (0, 0, 0, 0))
    flat = masks.decode(mask)[top:bottom, left:right].ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = [0, *edges.tolist(), flat.size] if flat[0] else [*edges.tolist(), flat.size]
    runs = np.diff(ends, prepend=0).tolist()
    return {
        "rle": ", ".join(map(str, runs)), "left": str(left), "top": str(top), "width": str(right - left),
        "height": str(bottom - top),
    }  # fmt: skip


def _numbers(taken: set[str | None]) -> Iterator[int]:
    return (n for n in range(1, 10**9) if str(n) not in taken)
