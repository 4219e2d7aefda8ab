"""CVAT's XML 1.1, as its exports "for images" and "for video" have it.

For images: every ``<image>`` is an item, called as its ``name``; shapes with one ``group_id`` are one object. For video: every
``<track>`` is an annotation whose key frames are the shapes that CVAT calls so (those it interpolated are left to be
interpolated again, as its own import does); the item is the ``<source>`` of the meta. ``outside`` is "not visible", and at the
end of a track it is the track's end. An element ``<points>`` of several points is a `Point` each, of one object.

What CVAT tells of every shape becomes attributes, where it is not what nobody need say: ``occluded`` (True), ``z_order`` (not 0),
``source`` (not ``manual``), a track's ``group_id``. Attributes have the type that the meta declares. Masks are run lengths of
the rows of a box; ``subset`` of an image goes to the item's metadata. Numbers are told in full, where CVAT rounds to hundredths.

Sources: https://docs.cvat.ai/docs/manual/advanced/xml_format/ and CVAT's ``cvat/apps/dataset_manager/formats/cvat.py``.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

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
    Label,
    Labelled,
    Mask,
    Point,
    Polygon,
    Polyline,
    Pose,
    Ring,
)
from syncagent.ingest.formats import cvat_write
from syncagent.ingest.formats.base import Context, Losses, Out, Tree, refuse, wrong
from syncagent.ingest.formats.carry import real, straightened, whole
from syncagent.ingest.formats.checks import sound, writable
from syncagent.ingest.formats.cvat_meta import Meta, Task, children, count

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

SHAPES = frozenset({"box", "polygon", "polyline", "points", "ellipse", "cuboid", "mask", "skeleton"})
_BATCH = 1000
_WHOLE = re.compile(r"-?[0-9]{1,15}")
# CVAT's corners by what they are called, in the order of ours: front, then back, each from the upper left clockwise.
_CORNERS = ("tl1", "tr1", "br1", "bl1", "tl2", "tr2", "br2", "bl2")


class Cvat:
    """See `formats.base.Format`. Writes ``annotations.xml`` of all images, and ``a.mp4.xml`` of each video."""

    name: ClassVar[str] = "cvat"
    suffixes: ClassVar[tuple[str, ...]] = (".xml",)
    holds: ClassVar[frozenset[type]] = frozenset(
        {Box, Polygon, Polyline, Point, Ellipse, Cuboid, Mask, Classification, Pose}
    )

    def read(self, tree: Tree, context: Context = Context()) -> Iterator[Labelled]:  # noqa: B008  # frozen
        """See `Format.read`. The tracks of a video come in pieces of a thousand."""
        for name in tree.names():
            if name.lower().endswith(self.suffixes):
                with contextlib.closing(tree.open(name)) as file:
                    yield from _File(name, context).read(file)

    def labels(self, tree: Tree) -> list[Label]:
        """The labels of every file's meta. `Label.attributes`: by name, what the meta says of each."""
        found: dict[str, Label] = {}
        for name in tree.names():
            if name.lower().endswith(self.suffixes):
                with contextlib.closing(tree.open(name)) as file:
                    for child in children(file, name):
                        if child.tag == "meta":
                            for label in Meta.of(child).declared():
                                found.setdefault(label.name, label)
                            break
        return list(found.values())

    def write(
        self,
        items: Iterable[Labelled],
        out: Out,
        *,
        labels: Sequence[Label] = (),
        losses: Losses | None = None,
    ) -> None:
        """See `Format.write`. An item with frames, or annotations at one, is a video."""
        losses = losses if losses is not None else Losses()
        cvat_write.write(self.name, writable(items, self.name, losses), out, labels, losses)


# -- records -------------------------------------------------------------------------------------


class _File:
    """Reads one file."""

    def __init__(self, name: str, context: Context) -> None:
        self._name, self._context = name, context
        self._meta = Meta()

    def read(self, file: BinaryIO) -> Iterator[Labelled]:
        images, tracks = 0, 0
        batch: list[Annotation] = []
        task = told = Task(None, False, None, None, None, False)
        for child in children(file, self._name):
            if child.tag == "meta":
                self._meta = Meta.of(child)
            elif child.tag == "image":
                images += 1
                record = f"image {images}"
                yield sound(self._checked(record, self._image, child), self._name, record)
            elif child.tag == "track":
                tracks += 1
                told = self._meta.tasks.get(child.get("task_id")) or self._meta.tasks.get(None) or told
                if batch and (told is not task or len(batch) >= _BATCH):
                    yield self._video(task, batch)
                    batch = []
                task = told
                batch += self._checked(f"track {child.get('id', tracks)}", self._track, child, task)
        if batch:
            yield self._video(task, batch)
        elif not images and not tracks:
            for task in dict.fromkeys(self._meta.tasks.values()):
                if task.video:
                    yield self._video(task, [])

    def _checked(self, record: str, make: Any, *told: Any) -> Any:
        """What `make` makes; its errors with the record's name."""
        try:
            return make(*told)
        except InvalidInput as error:
            raise wrong(self._name, record, error.message) from error
        except KeyError as error:
            raise wrong(self._name, record, f"lacks {error}") from error
        except (ValueError, IndexError, OverflowError) as error:
            raise wrong(self._name, record, str(error)) from error

    def _image(self, image: Element) -> Labelled:
        name = image.attrib["name"]
        width, height = (whole(image.get(side) or "0") or None for side in ("width", "height"))
        size = (width, height) if width and height else self._context.size(name, False)
        found: list[Annotation] = []
        apart = _free(image)
        for shape in image:
            if shape.tag not in SHAPES and shape.tag != "tag":
                continue
            label = shape.attrib["label"]
            group = shape.get("group_id", "0")
            geometries = self._geometries(shape, label, size)
            object_id = None if group in {"", "0"} else group
            if len(geometries) > 1 and object_id is None:
                object_id, apart = str(apart), apart + 1
            attributes = {**_source(shape), **self._attributes(shape, label)}
            found += [
                Annotation(label=label, geometry=one, attributes=attributes, object_id=object_id)
                for one in geometries
            ]
        subset = image.get("subset")
        return Labelled(
            key=name,
            annotations=tuple(found),
            width=width,
            height=height,
            user={"subset": subset} if subset else {},
        )

    def _video(self, task: Task, found: Sequence[Annotation]) -> Labelled:
        if task.key is None:
            refuse(self._name, "meta", "names neither the source nor the name of its task: no video to label")
        item = Labelled(
            key=task.key, stem=task.stem, annotations=tuple(found), width=task.width, height=task.height, frames=task.frames
        )  # fmt: skip
        return sound(item, self._name, "meta")

    def _track(self, track: Element, task: Task) -> list[Annotation]:
        label = track.attrib["label"]
        size = (task.width, task.height) if task.width and task.height else None
        if size is None and task.key is not None:
            size = self._context.size(task.key, task.stem)
        states = [self._state(shape, label, size) for shape in track if shape.tag in SHAPES]
        states.sort(key=lambda state: state.frame)
        if not states or states[0].frame < 0:
            raise ValueError("has no shape at a frame from 0 on")
        if any(one.frame == other.frame for one, other in itertools.pairwise(states)):
            raise ValueError("has two shapes at one frame")
        states = [states[0], *(state for state in states[1:] if state.key)]
        group = track.get("group_id", "0")
        own = {**_source(track), **({"group_id": whole(group)} if group not in {"", "0"} else {})}
        return [
            _annotation(label, number, states, own, track.get("id"), task.frames)
            for number in range(max(len(state.geometries) for state in states))
        ]

    def _state(self, shape: Element, label: str, size: tuple[int, int] | None) -> _State:
        geometries = self._geometries(shape, label, size)
        # A skeleton is outside when its points are: it does not say so itself.
        gone = all(
            isinstance(one, Pose) and not any(joint.visible for joint in one.joints) for one in geometries
        )
        return _State(
            whole(shape.attrib["frame"]), gone or _true(shape.get("outside")), _true(shape.get("keyframe", "1")), geometries,
            self._attributes(shape, label),
        )  # fmt: skip

    def _attributes(self, shape: Element, label: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if _true(shape.get("occluded")):
            found["occluded"] = True
        if order := whole(shape.get("z_order") or "0"):
            found["z_order"] = order
        types = self._meta.types.get(label, {})
        for one in shape.iterfind("attribute"):
            name = one.attrib["name"]
            found[name] = _typed(one.text or "", types.get(name))
        return found

    def _geometries(self, shape: Element, label: str, size: tuple[int, int] | None) -> Sequence[Geometry]:
        """The geometry of a shape: one, but for ``<points>``."""
        told = shape.attrib
        match shape.tag:
            case "tag":
                return [Classification()]
            case "box":
                left, top, right, bottom = (real(told[side]) for side in ("xtl", "ytl", "xbr", "ybr"))
                return [Box(left, top, right, bottom, straightened(told.get("rotation") or "0"))]
            case "polygon":
                return [Polygon(((_ring(told["points"]),),))]
            case "polyline":
                return [Polyline((_ring(told["points"]),))]
            case "points":
                flat = _ring(told["points"])
                return [Point(x, y) for x, y in zip(flat[::2], flat[1::2], strict=True)]
            case "ellipse":
                x, y, rx, ry = (real(told[one]) for one in ("cx", "cy", "rx", "ry"))
                return [Ellipse(x, y, rx, ry, straightened(told.get("rotation") or "0"))]
            case "cuboid":
                return [Cuboid(tuple(real(told[f"{axis}{corner}"]) for corner in _CORNERS for axis in "xy"))]
            case "mask":
                return [_mask(told, size)]
            case _:
                return [self._pose(shape, label)]

    def _pose(self, shape: Element, label: str) -> Pose:
        found: dict[str, Joint] = {}
        for one in shape:
            if one.tag == "attribute":
                continue
            name = one.attrib["label"]
            if one.tag != "points":
                raise ValueError(f"a skeleton's {one.tag} is no point")
            if name in found:
                raise ValueError(f"a skeleton has two points {name!r}")
            visible = 0 if _true(one.get("outside")) else 1 if _true(one.get("occluded")) else 2
            x, y = _ring(one.attrib["points"])[:2] if visible else (0.0, 0.0)
            found[name] = Joint(name, x, y, visible)
        order = self._meta.joints.get(label, [])
        known = [found.pop(name, Joint(name, 0.0, 0.0, 0)) for name in dict.fromkeys(order)]
        return Pose((*known, *found.values()))


@dataclass(frozen=True)
class _State:
    """A track at a frame."""

    frame: int
    outside: bool
    key: bool
    geometries: Sequence[Geometry]
    attributes: dict[str, Any]


def _annotation(
    label: str,
    number: int,
    states: Sequence[_State],
    own: dict[str, Any],
    name: str | None,
    frames: int | None,
) -> Annotation:
    """A track; of one of points, its point `number`."""
    mine = [state for state in states if number < len(state.geometries)]
    first, rest = mine[0], [state for state in states if state.frame > mine[0].frame]
    last = rest[-1] if rest else first
    if rest and last.outside:
        end = last.frame - 1
        rest.pop()
    else:
        end = max(last.frame, (frames or 0) - 1)
    return Annotation(
        label=label, geometry=first.geometries[number], attributes={**own, **first.attributes}, object_id=name,
        frame=first.frame, end_frame=end, visible=_shown(first, number), key_frames=tuple(
            KeyFrame(
                frame=state.frame, geometry=state.geometries[min(number, len(state.geometries) - 1)],
                visible=_shown(state, number), attributes=state.attributes,
            ) for state in rest
        ),
    )  # fmt: skip


def _shown(state: _State, number: int) -> bool:
    return not state.outside and number < len(state.geometries)


def _free(image: Element) -> int:
    """A group's number that no shape of an image has."""
    return max((count(shape.get("group_id")) or 0 for shape in image), default=0) + 1


def _source(shape: Element) -> dict[str, Any]:
    source = shape.get("source", "manual")
    return {} if source in {"manual", ""} else {"source": source}


def _true(text: str | None) -> bool:
    return text in {"1", "true", "True"}


def _typed(text: str, type_name: str | None) -> Any:
    """An attribute's value by its declared type; a text where it is not of that type."""
    if type_name == "checkbox" and text.lower() in {"true", "false"}:
        return text.lower() == "true"
    if type_name == "number":
        with contextlib.suppress(ValueError):
            return int(text) if _WHOLE.fullmatch(text) else real(text)
    return text


def _ring(text: str) -> Ring:
    return tuple(real(number) for pair in text.split(";") for number in _pair(pair))


def _pair(text: str) -> tuple[str, str]:
    x, _, y = text.partition(",")
    return x, y


def _mask(told: Any, size: tuple[int, int] | None) -> Mask:
    """A mask of the whole picture; the file has run lengths of the rows of a box, outside first."""
    import numpy as np

    if size is None:
        raise ValueError("a mask needs the picture's width and height, which the file does not tell")
    left, top, width, height = (whole(told[one]) for one in ("left", "top", "width", "height"))
    if min(left, top, width, height) < 0 or left + width > size[0] or top + height > size[1]:
        raise ValueError(f"the mask leaves its picture of {size[0]} x {size[1]} pixels")
    if size[0] * size[1] > masks.MAX_PIXELS:
        raise ValueError(f"a mask of {size[0]} x {size[1]} pixels is too large")
    runs = [whole(run) for run in told["rle"].split(",")]
    if min(runs) < 0 or sum(runs) != width * height:
        raise ValueError(f"the mask's run lengths are not {width} x {height} pixels")
    rows = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    # Only the columns that the box is in are drawn; those beside it are empty.
    strip = np.zeros((size[1], width), dtype=bool)
    strip[top : top + height] = rows
    lengths = masks.runs(masks.encode(strip)).tolist() or [0]
    lengths[0] += left * size[1]
    after = (size[0] - left - width) * size[1]
    lengths = [*lengths[:-1], lengths[-1] + after] if len(lengths) % 2 else [*lengths, after]
    if len(lengths) > 1 and lengths[-1] == 0:
        lengths.pop()
    return masks.from_runs(lengths, *size)
