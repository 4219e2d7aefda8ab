"""COCO's JSON: detection, segmentation, keypoints, captions, and lists of results.

Geometries. An annotation with ``segmentation`` is a polygon, each ring a part of it, or a mask (run lengths, compressed or not);
one without is the box of ``bbox`` (x, y, width, height). ``keypoints`` are a pose. With a ``segmentation`` beside them there are
two annotations: the area, and the pose with the area as its parent; they are written as one again. Keypoints of which none is
labelled are passed over there. Confidences of points, which results may have instead of 0, 1 and 2, say which of them are seen.
A pose's box is not kept where it is just what its points take up, and points of a pose are told in the order of their category.
``caption`` is the description; alone, without a place, it is a classification called ``caption`` (others are no COCO), written
with a category of that name, which pycocotools must have. Holes, rotated boxes and all other geometries are refused. Panoptic
files are not read.

Fields. ``iscrowd``, ``score`` and a whole ``id`` are kept; ids that are no numbers or taken become the next free ones, and images
are numbered from 1. ``attributes`` (CVAT, Label Studio) and fields that COCO does not know are attributes, and written into
``attributes``. What an image's entry says beside its name and size is `Labelled.user`. ``area`` is that of the polygon, of
the mask's pixels or of the box. A file ``_annotations.coco.json`` (Roboflow) lies beside its pictures.

Labels. A category's ``name`` is the whole label, dots and all, so that names are unique and read the same; its
``supercategory`` is kept as an attribute of the label. With `supercategories` a label is ``supercategory.name`` both ways;
``none``, an empty one and one that equals the name do not count, and a label whose first levels are such is written whole.

The platform's own converter (dtlpy) splits labels always, so that its names need not be unique, reads ``none`` as a label, keeps
no attributes, numbers annotations anew, writes every mask as a crowd, and fails on polygons of several parts.

Memory: the text of 64 MiB of annotations, beyond that temporary files by image. Source: https://cocodataset.org/#format-data
"""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from msgspec import Raw, Struct

from syncagent.errors import InvalidInput
from syncagent.ingest import masks
from syncagent.ingest.annotations import (
    Annotation,
    Box,
    Classification,
    Geometry,
    Joint,
    Label,
    Labelled,
    Mask,
    Polygon,
    Pose,
    bounds,
    rgb,
)
from syncagent.ingest.formats import stream
from syncagent.ingest.formats.base import Context, Losses, Out, Tree, read_file, refuse, wrong
from syncagent.ingest.formats.carry import placed, visibility
from syncagent.ingest.formats.checks import FARTHEST, sound, writable
from syncagent.ingest.formats.coco_groups import Group, Groups, Id
from syncagent.ingest.formats.coco_write import CAPTION, NO_PARENT, RESERVED, Writer

Json = dict[str, Any]


class _Rle(Struct, gc=False):
    size: tuple[int, int]
    counts: str | list[int]


class _Told(Struct, gc=False, forbid_unknown_fields=True):
    """An annotation. What is derived from the rest, or looked at before, may be anything."""

    image_id: Any = None
    id: Id | None = None
    category_id: Id | None = None
    segmentation: list[tuple[float, ...]] | _Rle | None = None
    bbox: tuple[float, ...] | None = None
    iscrowd: int | bool | None = None
    keypoints: tuple[float, ...] | None = None
    caption: str | None = None
    score: float | None = None
    attributes: Any = None
    area: Any = None
    num_keypoints: Any = None


class _Loose(_Told, gc=False, forbid_unknown_fields=False):
    """The same with fields that COCO does not know."""


_told = msgspec.json.Decoder(_Told).decode
_loose = msgspec.json.Decoder(_Loose).decode
_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_object = msgspec.json.Decoder(Json).decode


class Coco:
    """See `formats.base.Format`. Writes one file, ``coco.json``.

    :param supercategories: labels are ``supercategory.name``.
    :param images: for lists of results: the file beside them that tells their images and categories.
    """

    name: ClassVar[str] = "coco"
    suffixes: ClassVar[tuple[str, ...]] = (".json",)
    holds: ClassVar[frozenset[type]] = frozenset({Box, Polygon, Mask, Pose})

    def __init__(self, *, supercategories: bool = False, images: str | None = None) -> None:
        self._nested, self._images = supercategories, images

    def read(self, tree: Tree, context: Context = Context()) -> Iterator[Labelled]:  # noqa: B008  # frozen
        """See `Format.read`."""
        for name in tree.names():
            if name.lower().endswith(".json"):
                with contextlib.closing(Groups()) as groups:
                    yield from self._read(tree, name, groups, context)

    def _read(self, tree: Tree, name: str, groups: Groups, context: Context) -> Iterator[Labelled]:
        labels: dict[Id, Label] = {}
        counts: Counter[str] = Counter()
        for member, batch in _batches(tree, name, ("", "images", "annotations", "categories")):
            if member == "" and not counts:
                self._add(name if self._images is None else self._images, tree, groups, labels)
            self._take(name, member, counts, batch, groups, labels)
        if not counts:
            _must_be_coco(tree, name)
        member = "record" if "" in counts else "annotations"
        yield from _Reader(name, labels, context, member).items(groups)

    def _add(self, name: str, tree: Tree, groups: Groups, labels: dict[Id, Label]) -> None:
        """Take the images and categories of a list of results from the file that tells them."""
        if self._images is None:
            raise wrong(
                name,
                None,
                "a list of results does not tell its images",
                hint="name the file that does, as 'images'",
            )
        counts: Counter[str] = Counter()
        for member, batch in _batches(tree, name, ("images", "categories")):
            self._take(name, member, counts, batch, groups, labels)

    def _take(
        self,
        name: str,
        member: str,
        counts: Counter[str],
        batch: Sequence[Any],
        groups: Groups,
        labels: dict[Id, Label],
    ) -> None:
        """Account for elements of an array."""
        place = counts[member]
        with _told_where(name, lambda: f"{member or 'record'} {place}"):
            for place, raw in enumerate(batch, place):  # noqa: B020  # where an error was
                if member == "categories":
                    labels |= [_category(raw, nested=self._nested)]
                else:
                    groups.add(raw, place, is_image=member == "images")
        counts[member] += len(batch)

    def labels(self, tree: Tree) -> list[Label]:
        """See `Format.labels`."""
        found: dict[str, Label] = {}
        for name in tree.names():
            if name.lower().endswith(".json"):
                told = (raw for _, batch in _batches(tree, name, ("categories",)) for raw in batch)
                for number, raw in enumerate(told):
                    with _told_where(name, lambda: f"categories {number}"):  # noqa: B023  # called at once
                        label = _category(raw, nested=self._nested)[1]
                    found.setdefault(label.name, label)
        return list(found.values())

    def write(
        self,
        items: Iterable[Labelled],
        out: Out,
        *,
        labels: Sequence[Label] = (),
        losses: Losses | None = None,
    ) -> None:
        """See `Format.write`. Images and categories follow the annotations, so that nothing is held in memory."""
        losses = losses if losses is not None else Losses()
        writer = Writer(losses, labels, nested=self._nested)
        with out.create("coco.json") as file, tempfile.TemporaryFile() as images:
            file.write(b'{"info": {"description": "written by syncagent"}, "licenses": [],\n"annotations": [')
            comma = b"\n"
            for number, item in enumerate(
                placed(writable(items, self.name, losses, most=FARTHEST), losses), 1
            ):
                images.write(
                    (b",\n" if number > 1 else b"\n") + msgspec.json.encode(writer.image(item, number))
                )
                for told in writer.annotations(item, number):
                    file.write(comma + msgspec.json.encode(told))
                    comma = b",\n"
            file.write(b'],\n"images": [')
            images.seek(0)
            shutil.copyfileobj(images, file)
            categories = b",\n".join(map(msgspec.json.encode, writer.categories()))
            file.write(b'],\n"categories": [\n' + categories + b"]}\n")


# -- reading -------------------------------------------------------------------------------------


def _batches(tree: Tree, name: str, members: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    """Elements of a file's arrays, as they stand there."""
    with tree.open(name) as file:
        try:
            yield from stream.arrays(file, name, dict.fromkeys(members, Raw))
        except RecursionError as error:
            raise wrong(name, None, "nested too deeply") from error


@contextlib.contextmanager
def _told_where(file: str, record: Callable[[], str]) -> Iterator[None]:
    """Errors of decoding name the file and the record, which is asked for when there is one."""
    try:
        yield
    except InvalidInput as error:
        raise wrong(file, record(), error.message) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise wrong(file, record(), str(error)) from error
    except RecursionError as error:
        raise wrong(file, record(), "nested too deeply") from error


def _must_be_coco(tree: Tree, name: str) -> None:
    """Of a file without images, annotations and categories: whether it has empty lists of them."""
    data = read_file(tree, name)
    members = stream.document(data, name, Any)
    if isinstance(members, dict) and not members.keys() & {"images", "annotations"}:
        refuse(name, None, "no COCO: it has neither images nor annotations")


def _category(raw: Raw, *, nested: bool) -> tuple[Id, Label]:
    """A category's id, and its label."""
    told = _object(raw)
    number, name, above = told.pop("id", None), told.pop("name", None), told.get("supercategory")
    if isinstance(number, bool) or not isinstance(number, int | str) or not isinstance(name, str) or not name:
        raise InvalidInput("a category needs an id and a name")
    if nested and told.pop("supercategory", None) is not None and isinstance(above, str):
        name = f"{above}.{name}" if above not in {*NO_PARENT, name} else name
    joints, lines = told.pop("keypoints", None) or [], told.pop("skeleton", None) or []
    if not isinstance(joints, list) or not all(isinstance(joint, str) for joint in joints):
        raise InvalidInput("keypoints must be a list of names")
    try:
        skeleton = msgspec.convert(lines, tuple[tuple[int, int], ...])
    except msgspec.ValidationError as error:
        raise InvalidInput(f"skeleton must be a list of pairs: {error}") from error
    color = told.get("color")
    if isinstance(color, str) and rgb(color) is not None:
        del told["color"]
    else:
        color = None
    return number, Label(
        name=name, color=color, id=number if isinstance(number, int) else None, joints=tuple(joints), skeleton=skeleton,
        attributes=told,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Reader:
    """Makes items of a file's images and annotations."""

    file: str
    labels: Mapping[Id, Label]
    context: Context
    member: str
    """What the array of annotations is called."""

    def items(self, groups: Groups) -> Iterator[Labelled]:
        """The items, in the order of the file as far as it is in memory."""
        for part in self._parts(groups):
            for group in part:
                if group.image is None:
                    place = group.annotations[0][0]
                    refuse(self.file, f"{self.member} {place}", f"there is no image {group.id}")
                yield self._item(*group.image, group.annotations)

    def _parts(self, groups: Groups) -> Iterator[list[Group]]:
        try:
            yield from groups.parts()
        except InvalidInput as error:
            raise wrong(self.file, None, error.message) from error

    def _item(self, number: int, raw: Any, annotations: Sequence[tuple[int, Any]]) -> Labelled:
        record = f"images {number}"
        with _told_where(self.file, lambda: record):
            told = _object(raw)
            key = _key(told, self.file)
            width, height = _size(told.get("width"), "width"), _size(told.get("height"), "height")
            if width is None or height is None:
                width, height = self.context.size(key, False) or (None, None)
            found: list[Annotation] = []
            for place, text in annotations:
                record = f"{self.member} {place}"
                found += self._annotations(text, width, height)
        user = {name: value for name, value in told.items() if name not in RESERVED}
        item = Labelled(key=key, width=width, height=height, annotations=tuple(found), user=user)
        return sound(item, self.file, f"images {number}")

    def _annotations(self, raw: Any, width: int | None, height: int | None) -> list[Annotation]:
        """One, or an area and its pose. :raises InvalidInput, msgspec.DecodeError: it is no annotation."""
        attributes: Json = {}
        try:
            told = _told(raw)
        except msgspec.ValidationError:
            told = _loose(raw)
            attributes = _unknown(raw)
        if told.attributes is not None:
            attributes |= (
                told.attributes if isinstance(told.attributes, dict) else {"attributes": told.attributes}
            )
        label = self._label(told)
        id_text = None if told.id is None else str(told.id)
        geometry = _area(told, width, height)
        joints = _joints(told.keypoints, label.joints) if told.keypoints else ()
        pose = bool(joints) and (geometry is None or any(joint.visible for joint in joints))
        if geometry is None:
            geometry = _pose(joints, told.bbox) if pose else _box(told)
            pose = False
        found = Annotation(
            label=label.name, geometry=geometry, attributes=attributes, description=told.caption or None, id=id_text,
            crowd=bool(told.iscrowd), score=told.score,
        )  # fmt: skip
        if not pose:
            return [found]
        return [found, Annotation(label=label.name, geometry=Pose(joints), parent=id_text)]

    def _label(self, told: _Told) -> Label:
        if told.category_id is None:
            if told.caption is None:
                raise InvalidInput("it has no category")
            return Label(name=CAPTION)
        found = self.labels.get(told.category_id)
        if found is None:
            raise InvalidInput(f"there is no category {told.category_id}")
        return found


def _unknown(raw: Any) -> Json:
    """The fields that COCO does not know."""
    told = {name: value for name, value in _fields(raw).items() if name not in _Told.__struct_fields__}
    if "segments_info" in told:
        raise InvalidInput("panoptic segmentation is not read; export the objects as masks")
    return {name: msgspec.json.decode(value) for name, value in told.items()}


def _key(told: Json, file: str) -> str:
    name = told.get("file_name")
    if not isinstance(name, str) and isinstance(told.get("coco_url"), str):  # LVIS
        name = "/".join(told["coco_url"].split("/")[-2:])
    if not isinstance(name, str) or not name.strip("/"):
        raise InvalidInput("it has no file_name")
    name = name.removeprefix("/")
    folder, _, base = file.rpartition("/")
    return f"{folder}/{name}" if folder and base == "_annotations.coco.json" else name


def _size(told: Any, side: str) -> int | None:
    """Zero and null are not known."""
    if not told:
        return None
    if isinstance(told, bool) or not isinstance(told, int | float) or told < 0 or told != int(told):
        raise InvalidInput(f"its {side} is no number of pixels")
    return int(told)


def _area(told: _Told, width: int | None, height: int | None) -> Geometry | None:
    """The polygon or mask of a segmentation, if there is one."""
    area_told = told.segmentation
    if isinstance(area_told, _Rle):
        return _mask(area_told, width, height)
    parts = []
    for ring in area_told or ():
        if len(ring) < 6 or len(ring) % 2:
            if not ring:
                continue
            raise InvalidInput(f"a polygon of {len(ring)} numbers, not of three or more corners")
        parts.append((ring,))
    return Polygon(tuple(parts)) if parts else None


def _mask(told: _Rle, width: int | None, height: int | None) -> Mask:
    high, wide = told.size
    if width is not None and (wide, high) != (width, height):
        raise InvalidInput(f"a mask of {wide} x {high} pixels on an image of {width} x {height}")
    if isinstance(told.counts, str):
        mask = Mask(wide, high, told.counts.encode())
        masks.runs(mask)
        return mask
    if told.counts and not 0 <= min(told.counts) <= max(told.counts) <= masks.MAX_PIXELS:
        raise InvalidInput("the mask's run lengths are no numbers of pixels")
    return masks.from_runs(told.counts, wide, high)


def _joints(flat: Sequence[float], names: Sequence[str]) -> tuple[Joint, ...]:
    names = names or [str(number) for number in range(len(flat) // 3)]
    if len(flat) != 3 * len(names):
        raise InvalidInput(f"keypoints of {len(flat)} numbers, for {len(names)} points of its category")
    try:
        return tuple(map(Joint, names, flat[::3], flat[1::3], visibility(flat)))
    except ValueError as error:
        raise InvalidInput(str(error)) from error


def _pose(joints: tuple[Joint, ...], bbox: tuple[float, ...] | None) -> Pose:
    found = Pose(joints)
    if not bbox:
        return found
    sides = _sides(bbox)
    return found if sides == (bounds(found) or (0, 0, 0, 0)) else Pose(joints, box=sides)


def _box(told: _Told) -> Geometry:
    if not told.bbox:
        if told.caption is not None:
            return Classification()
        raise InvalidInput("it has no bbox, no segmentation and no keypoints")
    left, top, right, bottom = _sides(told.bbox)
    if not (left < right and top < bottom):
        raise InvalidInput("a box without an area")
    return Box(left, top, right, bottom)


def _sides(bbox: tuple[float, ...]) -> tuple[float, float, float, float]:
    if len(bbox) != 4:
        raise InvalidInput(f"bbox has {len(bbox)} numbers, not x, y, width, height")
    left, top, wide, high = bbox
    if not (math.isfinite(left + wide) and math.isfinite(top + high)):
        raise InvalidInput("bbox is too large")
    return left, top, left + wide, top + high
