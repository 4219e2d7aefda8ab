"""Text files of YOLO: a line for each object, all numbers relative to the picture's width and height.

::

    detect    class  cx cy w h                         a box by its centre
    segment   class  x y x y x y …                     a polygon of one part, without holes
    obb       class  x y x y x y x y                   a rotated box by its corners
    pose      class  cx cy w h  x y v  x y v …         points, as many as ``kpt_shape`` of data.yaml says

A confidence may follow at the end of each, and after that the number of a track, which is the `object_id`. A box with both has
six numbers, as a triangle has: without a task they are boxes where one of the file's lines can be no triangle, its track being 2
or more. Confidences of a pose's points, which predictions have instead of 0, 1 and 2, say which of them are seen. The task is what the caller says; else ``task`` of data.yaml, which is ours; else
pose, if there is a ``kpt_shape``. Otherwise each line tells by its numbers: four are a box, six or more a polygon. Eight may be a
rotated box or a polygon of four corners: they are read as the polygon, which has the same corners. Four corners that the task
says to be a rotated box, and that are none by more than half a pixel, are a polygon too.

Where a label file is, Ultralytics says: that of ``images/train/a.jpg`` is ``labels/train/a.txt`` (of several ``images`` folders
the last one counts), and that of a picture in no such folder lies beside it, as darknet has it. The picture's extension is not
told. Classes are named by ``data.yaml`` (or another YAML file with ``names``), by ``classes.txt`` or ``*.names``, or by the caller;
where only their number is told (``nc``) the rest of them are ``class_0`` and so on, as Ultralytics has it.

Pixels are rounded to 1e-8, so that the numbers written here give the same pixels again. In a pose of pairs (``kpt_shape`` [n, 2])
a point at 0, 0 is not labelled. A pose's box is not kept apart where it is just what its points take up. One tree is of one task:
the first object that is written says which, where the caller does not. Source: Ultralytics 8.3, ``data/utils.py``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, ClassVar, NoReturn

import msgspec
import yaml

from syncagent.errors import ConfigError
from syncagent.ingest.annotations import (
    Annotation,
    Box,
    Geometry,
    Joint,
    Label,
    Labelled,
    Polygon,
    Pose,
    Ring,
    bounds,
)
from syncagent.ingest.formats.base import (
    Context,
    Losses,
    Out,
    Tree,
    exists,
    read_file,
    read_text,
    refuse,
    without_suffix,
    wrong,
)
from syncagent.ingest.formats.carry import placed, visibility, whole
from syncagent.ingest.formats.checks import sound, writable
from syncagent.ingest.formats.yolo_write import Folders, Writer

TASKS = ("detect", "segment", "obb", "pose")
_LISTS = frozenset(
    ["classes.txt", "train.txt", "val.txt", "valid.txt", "test.txt", "labels.txt", "requirements.txt"]
)
"""Text files that tell of no picture. Below a folder ``labels``, only the first of them."""
_PICTURES = frozenset(
    [
        ".bmp",
        ".dng",
        ".gif",
        ".heic",
        ".jfif",
        ".jpeg",
        ".jpg",
        ".mpo",
        ".pfm",
        ".png",
        ".tif",
        ".tiff",
        ".webp",
    ]
)
_YAML = (".yaml", ".yml")
_BESIDE = ("data.yaml", "data.yml", "classes.txt", "obj.names")
_MOST_YAML = 50
_MOST_BYTES = 4 << 20  # of a YAML file: reading it is slow
_MOST_CLASSES = 100_000
_TRACK = re.compile(r"[0-9]{1,15}")
_RECTANGLE = 0.5  # pixels
_BOX = 4


@dataclass(frozen=True, slots=True)
class _Declared:
    """What a tree says of itself."""

    labels: Sequence[Label] = ()
    task: str | None = None
    shape: tuple[int, int] | None = None
    count: int = 0
    """How many classes there are, where that is all that is told of them."""


class Yolo:
    """See `formats.base.Format`.

    :param task: one of `TASKS`.
    :param shape: number of a pose's points and of the numbers of each, 2 or 3.
    :raises ConfigError: there is no such task.
    """

    name: ClassVar[str] = "yolo"
    suffixes: ClassVar[tuple[str, ...]] = (".txt", ".yaml", ".yml", ".names")
    holds: ClassVar[frozenset[type]] = frozenset({Box, Polygon, Pose})

    def __init__(self, task: str | None = None, *, shape: tuple[int, int] | None = None) -> None:
        if task is not None and task not in TASKS:
            raise ConfigError(f"unknown task {task!r}", resource=task, hint=f"known are {', '.join(TASKS)}")
        self._task, self._shape = task, shape

    def read(self, tree: Tree, context: Context = Context()) -> Iterator[Labelled]:  # noqa: B008  # frozen
        """See `Format.read`."""
        told = _declared(tree)
        shape = self._shape or told.shape
        task = self._task or told.task or ("pose" if shape else None)
        labels = told.labels or [Label(name=name, id=at) for at, name in enumerate(context.labels)]
        labels = [
            *labels,
            *(Label(name=f"class_{at}", id=at) for at in range(len(labels), told.count)),
        ]
        by_class = {label.id: label for label in labels}
        for name in tree.names():
            key = _key(name)
            if key is None:
                continue
            lines = [
                (at, line) for at, line in enumerate(read_text(tree, name).splitlines(), 1) if line.strip()
            ]
            size = context.size(key, True)
            if lines and size is None and not context.known(key, True):
                lines = []
            if lines and size is None:
                _lacks(name, f"the width and height of {key} are not known", context.sizes)
            if lines and task == "pose" and shape is None:
                _lacks(name, "a pose's number of points is not known", "add kpt_shape to data.yaml")
            width, height = size or (None, None)
            of_file = "detect" if task is None and _has_tracks([line for _, line in lines]) else task
            reader = _Reader(name, of_file, shape, by_class, width or 0, height or 0)
            annotations = tuple(reader.annotation(at, line) for at, line in lines)
            item = Labelled(key=key, stem=True, width=width, height=height, annotations=annotations)
            yield sound(item, name)

    def labels(self, tree: Tree) -> list[Label]:
        """See `Format.labels`."""
        return list(_declared(tree).labels)

    def write(
        self,
        items: Iterable[Labelled],
        out: Out,
        *,
        labels: Sequence[Label] = (),
        losses: Losses | None = None,
    ) -> None:
        """See `Format.write`. ``data.yaml`` is written last."""
        writer = Writer(self._task, self._shape, list(labels), losses if losses is not None else Losses())
        folders = Folders()
        for item in placed(writable(items, self.name, writer.losses), writer.losses, _is_picture):
            path = item.key if item.stem else without_suffix(item.key)
            before, images, after = f"/{path}".rpartition("/images/")
            name = f"{before}/labels/{after}.txt".removeprefix("/") if images else f"{path}.txt"
            if _key(name) != path:
                writer.losses.add(self.name, item.key, f"a picture whose label file is {name}")
                continue
            text = writer.text(item)
            folders.add(path)
            with out.create(name) as file:
                file.write(text.encode())
        told = {"path": ".", **folders.told(), **writer.told()}
        with out.create("data.yaml") as file:
            file.write(yaml.safe_dump(told, allow_unicode=True, sort_keys=False).encode())


def _lacks(file: str, reason: str, hint: str) -> NoReturn:
    """Raise the error of a file for which something else is missing."""
    raise wrong(file, None, reason, hint=hint)


def _is_picture(key: str) -> bool:
    """Whether a name is a picture's; one without an extension may be."""
    suffix = PurePosixPath(key).suffix.lower()
    return not suffix or suffix in _PICTURES


def _key(name: str) -> str | None:
    """The picture of a label file, without its extension; None: the file is no label file."""
    folder, _, base = name.rpartition("/")
    below = "labels" in folder.split("/")
    if not base.lower().endswith(".txt") or base.lower() == "classes.txt":
        return None
    if not below:
        return None if base.lower() in _LISTS or base.lower().startswith("readme") else without_suffix(name)
    before, _, after = f"/{name}".rpartition("/labels/")
    return without_suffix(f"{before}/images/{after}").removeprefix("/")


# -- what a tree says of itself ------------------------------------------------------------------


def _declared(tree: Tree) -> _Declared:
    """Of the YAML files that name classes the one nearest the root, else of the lists of classes."""
    names = [
        name
        for name in tree.names()
        if name.lower().endswith((*_YAML, ".names")) or name.endswith("classes.txt")
    ]
    names += [name for name in _BESIDE if name not in names and exists(tree, name)]
    names.sort(
        key=lambda name: (
            not name.lower().endswith(_YAML),
            name.count("/"),
            not name.endswith("data.yaml"),
            name,
        )
    )
    counted = _Declared()
    for name in names[:_MOST_YAML]:
        if not name.lower().endswith(_YAML):
            lines = read_text(tree, name).rstrip().splitlines()
            labels = [_label(name, at, line.strip()) for at, line in enumerate(lines)]
            return replace(counted, labels=labels, count=0)
        told = _yaml(tree, name)
        if "names" in told:
            return _from_yaml(told, name)
        if "nc" in told and not counted.count:
            counted = _from_yaml(told, name)
    return counted


def _yaml(tree: Tree, name: str) -> dict[str, Any]:
    """A YAML file's object. Every value is a text, as it stands there: a class ``no`` is no truth, and ``1.0`` no number."""
    try:
        text = read_file(tree, name, limit=_MOST_BYTES)
        told = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506  # it makes texts and nothing else
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise wrong(name, None, f"no YAML: {reason}") from error
    return told if isinstance(told, dict) else {}


def _from_yaml(told: Mapping[str, Any], file: str) -> _Declared:
    names, shape, task = told.get("names", []), told.get("kpt_shape"), told.get("task")
    try:
        count = whole(told["nc"]) if "names" not in told else 0
        numbers = tuple(map(whole, shape)) if shape else None
        classes = _by_number(names)
        joints = {
            at: tuple(map(_named, found)) for at, found in _by_number(told.get("kpt_names") or {}).items()
        }
    except (TypeError, ValueError, AttributeError) as error:
        reason = f"names, nc, kpt_shape or kpt_names are not as Ultralytics has them: {error}"
        raise wrong(file, None, reason) from error
    if numbers is not None and (len(numbers) != 2 or not 0 < numbers[0] < 10_000 or numbers[1] not in (2, 3)):
        refuse(file, "kpt_shape", "must be two numbers, the second 2 or 3")
    if not 0 <= count <= _MOST_CLASSES:
        refuse(file, "nc", f"{count} is no number of classes")
    if task is not None and task not in TASKS:
        task = None
    labels = [_label(file, at, name, joints.get(at, ())) for at, name in sorted(classes.items())]
    return _Declared(labels, task, (numbers[0], numbers[1]) if numbers else None, count)


def _by_number(told: Any) -> dict[int, Any]:
    """A list, or an object whose names are numbers."""
    if isinstance(told, list):
        return dict(enumerate(told))
    return {whole(at): value for at, value in told.items()}


def _named(told: Any) -> str:
    if not isinstance(told, str):  # a text of it could be of any size: YAML repeats by reference
        raise TypeError("a name must be a text")
    return told


def _label(file: str, at: int, name: Any, joints: tuple[str, ...] = ()) -> Label:
    if not isinstance(name, str) or not name:
        refuse(file, f"class {at}", "has no name")
    return Label(name=name, id=at, joints=joints)


# -- reading lines -------------------------------------------------------------------------------


def _has_tracks(lines: Sequence[str]) -> bool:
    """Whether the lines of a file are boxes, of which one has a confidence and a track that no corner of a triangle can be."""
    told = [line.split()[1:] for line in lines]
    tracks = [numbers[-1] for numbers in told if len(numbers) == _BOX + 2]
    return (
        all(_TRACK.fullmatch(track) for track in tracks)
        and any(int(track) >= 2 for track in tracks)
        and all(_BOX <= len(numbers) <= _BOX + 2 for numbers in told)
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the lines of a label file."""

    file: str
    task: str | None
    shape: tuple[int, int] | None
    labels: Mapping[int | None, Label]
    width: int
    height: int

    def annotation(self, at: int, line: str) -> Annotation:
        """The object of a line, counted from 1."""
        try:
            first, *rest = line.split()
            numbers = [float(text) for text in rest]
            label = self.labels.get(whole(first))
            if label is None:
                raise ValueError(f"class {first} has no name; {len(self.labels)} classes have one")
            wanted = self._wanted(len(numbers))
            score = numbers[wanted] if len(numbers) > wanted else None
            track = whole(rest[-1]) if len(numbers) > wanted + 1 else None
            if not all(-1 <= value <= 2 for value in numbers[: _BOX if self.task == "pose" else wanted]):
                raise ValueError("the numbers are not relative to the picture's width and height")
            if score is not None and not 0 <= score <= 1:
                raise ValueError(f"the confidence {score} is not between 0 and 1")
            if track is not None and track < 0:
                raise ValueError(f"the track {track} is not a number from 0 on")
            geometry = self._geometry(numbers[:wanted], label)
        except ValueError as error:
            raise wrong(self.file, f"line {at}", str(error)) from error
        object_id = None if track is None else str(track)
        return Annotation(label=label.name, geometry=geometry, score=score, object_id=object_id)

    def _wanted(self, size: int) -> int:
        """How many numbers the geometry has, of those after the class; a confidence and a track may follow.

        :raises ValueError: it has not as many.
        """
        if self.task == "pose" and self.shape is not None:
            wanted = _BOX + self.shape[0] * self.shape[1]
        elif self.task == "obb":
            wanted = 8
        elif self.task == "detect" or size < 6:
            wanted = _BOX
        else:
            wanted = size // 2 * 2
        if not wanted <= size <= wanted + 2:
            raise ValueError(f"{size} numbers after the class, of {wanted} that {self.task or 'a box'} has")
        return wanted

    def _geometry(self, numbers: Sequence[float], label: Label) -> Geometry:
        """The geometry of its numbers. :raises ValueError: they are not as the task has them."""
        if self.task == "pose":
            return self._pose(numbers, label.joints)
        if len(numbers) == _BOX:
            left, top, right, bottom = self._box(*numbers)
            if not (left < right and top < bottom):
                raise ValueError("a box without an area")
            return Box(left, top, right, bottom)
        if self.task == "obb":
            return _rotated([value * (self.width, self.height)[at % 2] for at, value in enumerate(numbers)])
        return Polygon(((self._corners(numbers),),))

    def _corners(self, numbers: Sequence[float]) -> Ring:
        flat: list[float] = []
        for x, y in zip(numbers[::2], numbers[1::2], strict=True):
            flat += (round(x * self.width, 8), round(y * self.height, 8))
        return tuple(flat)

    def _box(self, x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
        left, top, right, bottom = self._corners((x - w / 2, y - h / 2, x + w / 2, y + h / 2))
        return left, top, right, bottom

    def _pose(self, numbers: Sequence[float], names: Sequence[str]) -> Pose:
        assert self.shape is not None  # noqa: S101  # see Yolo.read
        count, each = self.shape
        names = names or [str(at) for at in range(count)]
        if len(names) != count:
            raise ValueError(f"{count} points, of which kpt_names names {len(names)}")
        flat: list[float] = []
        for at in range(_BOX, len(numbers), each):
            if not all(-1 <= value <= 2 for value in numbers[at : at + 2]):
                raise ValueError("the numbers are not relative to the picture's width and height")
            there = numbers[at] != 0 or numbers[at + 1] != 0
            flat += (*self._corners(numbers[at : at + 2]), numbers[at + 2] if each == 3 else 2 * there)
        joints = map(Joint, names, flat[::3], flat[1::3], visibility(flat))
        box = self._box(*numbers[:4])
        found = Pose(tuple(joints))
        return found if box == (bounds(found) or (0, 0, 0, 0)) else msgspec.structs.replace(found, box=box)


def _rotated(corners: Sequence[float]) -> Geometry:
    """The rotated box of four corners, either way round; a polygon, if they are none of one."""
    x0, y0, x1, y1, x2, y2, x3, y3 = corners
    if (x1 - x0) * (y2 - y1) - (y1 - y0) * (x2 - x1) < 0:
        x1, y1, x3, y3 = x3, y3, x1, y1
    x, y = (x0 + x1 + x2 + x3) / 4, (y0 + y1 + y2 + y3) / 4
    w, h = math.hypot(x1 - x0, y1 - y0), math.hypot(x2 - x1, y2 - y1)
    angle = math.degrees(math.atan2(y1 - y0, x1 - x0))
    left, top, right, bottom = (round(n, 8) for n in (x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    box = Box(left, top, right, bottom, round(angle, 8))
    apart = [abs(m - n) for m, n in zip(box.corners(), (x0, y0, x1, y1, x2, y2, x3, y3), strict=True)]
    if not (w > 0 and h > 0):
        raise ValueError("a box without an area")
    return box if max(apart) <= _RECTANGLE else Polygon(((tuple(round(n, 8) for n in corners),),))
