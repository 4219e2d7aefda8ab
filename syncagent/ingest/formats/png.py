"""Masks as pictures whose pixels are numbers, named as the platform's client names them.

::

    instance/<E>.png     each pixel the number of its label, 0 for none; a palette shows it in the labels' colours
    object_id/<E>.png    each pixel the number of its object: tells objects of one label apart
    instance_map.json    {"car": 1, "person": 2}

``<E>`` is the item's path without its extension. More than 255 numbers make a picture of 16 bits. Reading takes, besides:

* CVAT's *Segmentation mask*: ``SegmentationClass/``, ``SegmentationObject/`` and ``labelmap.txt``, whose colours decide;
* one picture of labels alone, in ``instance/``, ``mask/``, ``SegmentationClass/`` or anywhere: each label is one mask, or each
  connected region is one (`apart`);
* coloured pictures, by the colours of ``labelmap.txt`` or of `labels`.

Without ``instance_map.json`` and ``labelmap.txt`` the numbers are those of `labels`, else the place in `Context.labels`, from 1.
Number 255 and the devkit's colour of borders are passed over, unless a label has them. An object's number is its
`Annotation.object_id`; it is kept if it is a whole number that no other object of the picture has.

Masks that overlap: the later one hides the earlier one's pixels, which is a loss.
"""

from __future__ import annotations

import io
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import msgspec

from syncagent.errors import InvalidInput
from syncagent.ingest import masks
from syncagent.ingest.annotations import Annotation, Label, Labelled, Mask, Polygon, rgb
from syncagent.ingest.formats import stream
from syncagent.ingest.formats.base import (
    Context,
    Losses,
    Out,
    Tree,
    a,
    exists,
    needs_size,
    numbered,
    read_file,
    read_text,
    refuse,
    without_suffix,
    wrong,
)
from syncagent.ingest.formats.carry import lesser, lesser_of_item, placed
from syncagent.ingest.formats.checks import sound, writable

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASS_FOLDERS = ("instance", "mask", "SegmentationClass")
OBJECT_FOLDERS = {"instance": "object_id", "mask": "object_id", "SegmentationClass": "SegmentationObject"}
_FOLDERS = {*OBJECT_FOLDERS, *OBJECT_FOLDERS.values()} - {"mask"}
VOID = 255
VOID_COLOR = 0xE0E0C0
"""Borders of objects in the VOC devkit."""
_MAP = "instance_map.json"
_LABELMAP = "labelmap.txt"
_END = b"IEND\xaeB`\x82"
_MOST = 65535


class Masks:
    """See `formats.base.Format`.

    :param labels: names, numbers and colours, where the files do not tell them.
    :param apart: in a picture of labels alone, each connected region is an object.
    """

    name: ClassVar[str] = "masks"
    suffixes: ClassVar[tuple[str, ...]] = (".png",)
    holds: ClassVar[frozenset[type]] = frozenset({Mask})

    def __init__(self, labels: Sequence[Label] = (), *, apart: bool = False) -> None:
        self._labels, self._apart = labels, apart

    def read(self, tree: Tree, context: Context = Context()) -> Iterator[Labelled]:  # noqa: B008  # frozen
        """See `Format.read`."""
        legend = self._legend(tree, context)
        for name in tree.names():
            place = _place(name)
            if not name.lower().endswith(".png") or place.folder in OBJECT_FOLDERS.values():
                continue
            beside = place.objects()
            found = regions(tree, name, beside if beside and exists(tree, beside) else None, legend)
            item = Labelled(
                key=without_suffix(place.path),
                stem=True,
                width=found.width,
                height=found.height,
                annotations=tuple(self._annotations(found.regions)),
            )
            yield sound(item, name)

    def _annotations(self, found: Iterable[Region]) -> Iterator[Annotation]:
        for number, label, mask in found:
            if number is None and self._apart:
                for part in masks.to_polygon(mask).parts:
                    one = masks.from_polygon(Polygon((part,)), mask.width, mask.height)
                    yield Annotation(label=label, geometry=one)
            else:
                object_id = None if number is None else str(number)
                yield Annotation(label=label, geometry=mask, object_id=object_id)

    def _legend(self, tree: Tree, context: Context) -> Legend:
        declared = self.labels(tree) or self._labels or [Label(name=name) for name in context.labels]
        by_color = exists(tree, _LABELMAP) and not exists(tree, _MAP)
        return Legend(legend(declared).names, legend([*declared, *self._labels]).colors, by_color)

    def labels(self, tree: Tree) -> list[Label]:
        """See `Format.labels`."""
        if exists(tree, _MAP):
            told = stream.document(read_file(tree, _MAP), _MAP, dict[str, int])
            return [
                Label(name=name, id=number) for name, number in sorted(told.items(), key=lambda one: one[1])
            ]
        return labelmap(tree) if exists(tree, _LABELMAP) else []

    def write(
        self,
        items: Iterable[Labelled],
        out: Out,
        *,
        labels: Sequence[Label] = (),
        losses: Losses | None = None,
    ) -> None:
        """See `Format.write`."""
        losses = losses if losses is not None else Losses()
        known = list(labels)
        for item in placed(writable(items, self.name, losses), losses):
            held = held_masks(item, self.name, losses)
            known = numbered(known, [one.label for one in held])
            numbers = {label.name: number for number, label in enumerate(known, 1)}
            objects_of = object_numbers(held, range(1, _MOST + 1))
            classes, objects = painted(
                item, list(zip(held, objects_of, strict=True)), self.name, losses, numbers
            )
            path = item.key if item.stem else without_suffix(item.key)
            with out.create(f"instance/{path}.png") as file:
                file.write(png(classes, [label.color for label in known]))
            with out.create(f"object_id/{path}.png") as file:
                file.write(png(objects))
        with out.create(_MAP) as file:
            told = {label.name: number for number, label in enumerate(known, 1)}
            file.write(msgspec.json.format(msgspec.json.encode(told), indent=1))


class _Place(NamedTuple):
    """Where a picture of masks lies."""

    before: str
    """The path above its folder of masks, with a ``/`` at the end if there is one."""
    folder: str | None
    path: str
    """The path below that; the whole path where there is none."""

    def objects(self) -> str | None:
        """The picture of objects that belongs to a picture of labels."""
        return None if self.folder is None else f"{self.before}{OBJECT_FOLDERS[self.folder]}/{self.path}"


def _place(name: str) -> _Place:
    """The first folder of masks that a path goes through: those further down are the items' own.

    A folder ``mask`` counts only where there is no other: it is a name that many a folder has.
    """
    parts = name.split("/")
    for names in (_FOLDERS, {"mask"}):
        for at, part in enumerate(parts[:-1]):
            if part in names:
                return _Place("".join(f"{one}/" for one in parts[:at]), part, "/".join(parts[at + 1 :]))
    return _Place("", None, name)


# -- reading, also for VOC -----------------------------------------------------------------------

Region = tuple[int | None, str, Mask]
"""An object's number, its label, its pixels."""


@dataclass(frozen=True, slots=True)
class Legend:
    """What the values of pixels mean."""

    names: Mapping[int, str]
    """Labels by number."""
    colors: Mapping[int, str]
    """Labels by colour, 0xRRGGBB."""
    by_color: bool = False
    """A palette's colours count, not its numbers."""


@dataclass(frozen=True, slots=True)
class Regions:
    """What a picture of masks tells."""

    width: int
    height: int
    regions: list[Region]


def legend(labels: Sequence[Label]) -> Legend:
    """The meaning of labels' numbers (their place from 1, where they have none) and colours."""
    names: dict[int, str] = {}
    colors: dict[int, str] = {}
    for place, label in enumerate(labels, 1):
        names.setdefault(place if label.id is None else label.id, label.name)
        color = rgb(label.color)
        if color is not None:
            colors.setdefault(color, label.name)
    return Legend(names, colors)


def labelmap(tree: Tree, name: str = _LABELMAP) -> list[Label]:
    """The labels of CVAT's list: ``name:r,g,b:parts:actions`` in each line. What is black is the background, and no label.

    :raises InvalidInput: it is no such list.
    """
    found = []
    lines = [line.strip() for line in read_text(tree, name).splitlines()]
    for number, line in enumerate((line for line in lines if line and not line.startswith("#")), 0):
        told = re.fullmatch(r"([^:]+):(\d{1,3}),(\d{1,3}),(\d{1,3})(:.*)?", line)
        if told is None or max(map(int, told.group(2, 3, 4))) > 255:
            refuse(name, f"entry {number + 1}", "is not 'name:red,green,blue:parts:actions'")
        color = "#{:02x}{:02x}{:02x}".format(*map(int, told.group(2, 3, 4)))
        if color != "#000000":
            found.append(Label(name=told[1], color=color, id=number))
    return found


def regions(tree: Tree, classes: str, objects: str | None, means: Legend) -> Regions:
    """The masks of a picture of labels, and of the picture of objects beside it.

    :raises InvalidInput: one of them is no such picture, or a value has no meaning.
    """
    import numpy as np

    values, colored = _values(read_file(tree, classes), classes, by_color=means.by_color)
    names = means.colors if colored else means.names
    void = VOID_COLOR if colored else VOID
    if void not in names:
        values = np.where(values == void, 0, values)
    height, width = values.shape
    if objects is None:
        found = [
            (None, _named(value, names, classes, colored), mask)
            for value, mask in masks.by_number(values).items()
        ]
        return Regions(width, height, [*found])
    numbers, colored_objects = _values(read_file(tree, objects), objects)
    if numbers.shape != values.shape:
        refuse(objects, None, f"is of another size than {classes}")
    if colored_objects:
        numbers = _from_colors(numbers)
    elif numbers.dtype == np.uint8 and "/SegmentationObject/" in f"/{objects}":
        numbers = np.where(numbers == VOID, 0, numbers)
    flat, told = values.ravel(order="F"), []
    for number, mask in masks.by_number(numbers).items():
        seen, counts = np.unique(flat[masks.pixels_of(mask)], return_counts=True)
        counts[seen == 0] = 0
        if not counts.any():
            refuse(objects, f"object {number}", f"has no label in {classes}")
        told.append((number, _named(int(seen[counts.argmax()]), names, classes, colored), mask))
    return Regions(width, height, [*told])


def _named(value: int, names: Mapping[int, str], file: str, colored: bool) -> str:
    if value not in names:
        what = f"colour #{value:06x}" if colored else f"number {value}"
        refuse(file, what, f"no label has it; {_MAP} or {_LABELMAP} beside the pictures would tell")
    return names[value]


def _values(data: bytes, file: str, *, by_color: bool = False) -> tuple[NDArray[Any], bool]:
    """A picture's numbers, an array (height, width), or its colours as 0xRRGGBB; and whether they are colours."""
    import numpy as np

    if _END not in data:
        refuse(file, None, "no PNG, or it is cut off")
    try:
        with masks.sound_png(data, "no sound PNG") as picture:
            if picture.mode in {"RGB", "RGBA"} or (by_color and picture.mode == "P"):
                clear = np.asarray(picture.getchannel("A")) == 0 if picture.mode == "RGBA" else None
                bands = np.asarray(picture.convert("RGB"))
                colors = bands[..., 0].astype(np.int32)
                for band in (1, 2):
                    colors = colors << 8 | bands[..., band]
                return (colors if clear is None else np.where(clear, 0, colors)), True
            if picture.mode not in {"1", "L", "P", "I", "I;16", "I;16B"}:
                raise InvalidInput(f"a picture of mode {picture.mode} holds no numbers")
            return np.asarray(picture, dtype=np.uint8 if picture.mode == "1" else None), False
    except InvalidInput as error:
        raise wrong(file, None, error.message) from error


def _from_colors(colors: NDArray[Any]) -> NDArray[Any]:
    """Numbers of objects that the devkit's colours stand for; those of other colours follow."""
    import numpy as np

    known = {voc_color(number): number for number in range(1, VOID)} | {0: 0, VOID_COLOR: 0}
    seen, where = np.unique(colors, return_inverse=True)
    others = iter(range(VOID + 1, VOID + 1 + seen.size))
    numbers = [known[color] if color in known else next(others) for color in seen.tolist()]
    return np.array(numbers)[where].reshape(colors.shape)


def voc_color(number: int) -> int:
    """The devkit's colour of a number, 0xRRGGBB: its bits are spread over the three bands, the lowest ones first."""
    bands = [0, 0, 0]
    for shift in range(7, -1, -1):
        for band in range(3):
            bands[band] |= (number >> band & 1) << shift
        number >>= 3
    return bands[0] << 16 | bands[1] << 8 | bands[2]


# -- writing, also for VOC -----------------------------------------------------------------------


def held_masks(item: Labelled, form: str, losses: Losses) -> list[Annotation]:
    """An item's masks with something inside; the rest is reported.

    :raises Unsupported: see `Losses.add`.
    """
    lesser_of_item(losses, item)
    held = []
    for one in item.annotations:
        if not isinstance(one.geometry, Mask):
            losses.add(form, item.key, a(one.geometry))
        elif not masks.area(one.geometry):
            losses.add(form, item.key, "an empty mask")
        else:
            lesser(losses, form, item, one, held={"object_id"})
            held.append(one)
    return held


def painted(
    item: Labelled,
    held: Sequence[tuple[Annotation, int | None]],
    form: str,
    losses: Losses,
    labels: Mapping[str, int],
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Arrays (height, width) of the labels' numbers and of the objects' numbers.

    :param held: masks with their objects' numbers; :param labels: the labels' numbers.
    :raises InvalidInput: the item has no size, or its masks have another one.
    :raises Unsupported: see `Losses.add`.
    """
    import numpy as np

    width, height = needs_size(item, form)
    classes, objects = np.zeros(width * height, np.int32), np.zeros(width * height, np.int32)
    for one, number in held:
        mask = one.geometry
        assert isinstance(mask, Mask)  # noqa: S101  # see held_masks
        if (mask.width, mask.height) != (width, height):
            size = f"{width} x {height}"
            refuse(item.key, None, f"a mask of {mask.width} x {mask.height} pixels on a picture of {size}")
        if number is None:
            losses.add(form, item.key, "a mask for which no number is left")
            continue
        if one.object_id is not None and one.object_id != str(number):
            losses.add(form, item.key, "an object's id")
        inside = masks.pixels_of(mask)
        if objects[inside].any():
            losses.add(form, item.key, "pixels of a mask below another")
        classes[inside], objects[inside] = labels[one.label], number
    shape = (height, width)
    return classes.reshape(shape, order="F"), objects.reshape(shape, order="F")


def object_numbers(held: Sequence[Annotation], free: range, more: Container[int] = ()) -> list[int | None]:
    """A number for each: its object's, if that is one, else the next free one; None where they are used up.

    :param free: numbers that any may have; :param more: numbers that only an object that is called so may have.
    """
    taken: set[int] = set()
    kept: list[int | None] = []
    for one in held:
        told = one.object_id or ""
        number = int(told) if re.fullmatch(r"[1-9]\d{0,4}", told) else 0
        kept.append(number if (number in free or number in more) and number not in taken else None)
        taken.add(number)
    left = (number for number in free if number not in taken)
    return [next(left, None) if number is None else number for number in kept]


def png(numbers: NDArray[Any], colors: Sequence[str | None] = ()) -> bytes:
    """A picture of numbers; up to 255 with a palette.

    :param colors: ``#rrggbb`` of number 1 and on; the devkit's where there are none.
    """
    import numpy as np
    from PIL import Image

    out = io.BytesIO()
    if numbers.size and numbers.max() > VOID:
        Image.fromarray(numbers.astype(np.uint16)).save(out, "PNG")
        return out.getvalue()
    palette = [voc_color(number) for number in range(256)]
    for number, told in enumerate(map(rgb, colors[:VOID]), 1):
        palette[number] = palette[number] if told is None else told
    picture = Image.fromarray(numbers.astype(np.uint8))
    picture.putpalette(b"".join(color.to_bytes(3, "big") for color in palette))
    picture.save(out, "PNG")
    return out.getvalue()
