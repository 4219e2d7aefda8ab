"""Pascal VOC: an XML for each picture, with boxes; palette PNGs beside it, with masks.

::

    Annotations/<E>.xml           <annotation><filename>a.jpg</filename><object>…
    SegmentationClass/<E>.png     each pixel its label's colour
    SegmentationObject/<E>.png    each pixel the number of its object
    labelmap.txt                  CVAT's list of labels and colours; without it they are the devkit's twenty

Which picture: ``filename``, in the folder that the XML has below ``Annotations`` (or has at all, if there is no such folder); a
``filename`` with folders is the whole path. ``folder`` and ``path`` are not looked at: they are of the machine that wrote them.
Without ``filename``, or if it has no extension, the picture's extension is not known.

Coordinates are read as they are. The devkit's count pixels from 1 and its boxes end with their last pixel; with `one_based` they are
turned into ours, and back. A box without an area is an error.

Attributes are the other tags of an ``object`` (``pose``, ``truncated``, ``difficult`` …): whole and decimal numbers, and texts.
Tags in tags have names with dots (``actions.jumping``), repeated ones are a list. ``attributes`` holds CVAT's pairs of ``name`` and
``value``, or a JSON object; any other text, such as the Python that the platform's client writes, stays a text: nothing is ever
run. What is no number or text that reads the same is written as that JSON object. What an annotation says beside this
(``source``, ``owner`` …) is `Labelled.user`; what no tag can hold of it is JSON in ``metadata``.

``part`` (a head, a hand) is an annotation of its own below its object, which then has its place among the objects as `id`. Part of
the devkit is that mask n is the n-th object's: if their labels are the same, both get n as `object_id`. The border (255) is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from syncagent.ingest.annotations import Annotation, Box, Label, Labelled, Mask
from syncagent.ingest.formats.base import (
    Context,
    Losses,
    Out,
    Tree,
    exists,
    read_file,
    refuse,
    without_suffix,
    wrong,
)
from syncagent.ingest.formats.carry import placed, real
from syncagent.ingest.formats.checks import sound, writable
from syncagent.ingest.formats.png import Legend, Region, labelmap, legend, regions, voc_color
from syncagent.ingest.formats.voc_write import RESERVED, TOP, Writer, plain

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element  # for its type: defusedxml makes it

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_DEPTH = 20


class Voc:
    """See `formats.base.Format`.

    :param one_based: coordinates are the devkit's: from 1, the last pixel included.
    """

    name: ClassVar[str] = "voc"
    suffixes: ClassVar[tuple[str, ...]] = (".xml",)
    holds: ClassVar[frozenset[type]] = frozenset({Box, Mask})

    def __init__(self, *, one_based: bool = False) -> None:
        self._first = 1.0 if one_based else 0.0

    def read(self, tree: Tree, context: Context = Context()) -> Iterator[Labelled]:  # noqa: B008  # frozen
        """See `Format.read`."""
        pictures = {name for name in tree.names() if name.lower().endswith(".png")}
        declared = self.labels(tree)
        means = legend(declared) if declared else _devkit()
        means = Legend(means.names, means.colors, by_color=bool(declared))
        for name in tree.names():
            if name.lower().endswith(".xml"):
                reader = _Reader(tree, name, self._first, context)
                yield reader.item(pictures, means)

    def labels(self, tree: Tree) -> list[Label]:
        """See `Format.labels`."""
        return labelmap(tree) if exists(tree, "labelmap.txt") else []

    def write(
        self,
        items: Iterable[Labelled],
        out: Out,
        *,
        labels: Sequence[Label] = (),
        losses: Losses | None = None,
    ) -> None:
        """See `Format.write`. Pictures of masks are written for the items that have some."""
        losses = losses if losses is not None else Losses()
        writer = Writer(labels, losses, self._first)
        for item in placed(writable(items, self.name, losses), losses):
            path = item.key if item.stem else without_suffix(item.key)
            text, pictures = writer.files(item)
            with out.create(f"Annotations/{path}.xml") as file:
                file.write(text.encode())
            for folder, data in pictures.items():
                with out.create(f"{folder}/{path}.png") as file:
                    file.write(data)
        if text := writer.labelmap():
            with out.create("labelmap.txt") as file:
                file.write(text.encode())


def _devkit() -> Legend:
    labels = [
        Label(name=name, color=f"#{voc_color(number):06x}", id=number)
        for number, name in enumerate(CLASSES, 1)
    ]
    return legend(labels)


# -- reading -------------------------------------------------------------------------------------


def parse(data: bytes, file: str) -> Element:
    """The root of an XML file, whose entities are not looked at.

    :raises InvalidInput: it is no XML, or declares entities.
    """
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        root: Element = fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        raise wrong(file, None, "it has a DTD or entities, which are not read") from error
    except (ParseError, ValueError, LookupError) as error:
        raise wrong(file, None, f"no XML: {error}") from error
    return root


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads an XML file, and the pictures beside it."""

    tree: Tree
    file: str
    first: float
    """What the upper left corner of the picture is called."""
    context: Context

    def item(self, pictures: set[str], means: Legend) -> Labelled:
        """The item that the file tells of."""
        root = parse(read_file(self.tree, self.file), self.file)
        if root.tag != "annotation":
            refuse(self.file, None, f"no Pascal VOC: its root is <{root.tag[:40]}>, not <annotation>")
        key, stem = self._key(_text(root.find("filename")))
        width, height = self._size(root, "width"), self._size(root, "height")
        if width is None or height is None:
            width, height = self.context.size(key, stem) or (None, None)
        segmented = _text(root.find("segmented")) not in {"", "0"}
        found = self._masks(pictures, means, segmented, (width, height))
        masks = [
            Annotation(label=label, geometry=mask, object_id=None if number is None else str(number))
            for number, label, mask in found
        ]
        numbers = {number: label for number, label, _ in found}
        boxes = [
            one
            for place, told in enumerate(root.findall("object"), 1)
            for one in self._object(told, place, numbers)
        ]
        item = Labelled(
            key=key, stem=stem, width=width, height=height, annotations=(*boxes, *masks), user=self._user(root)
        )  # fmt: skip
        return sound(item, self.file)

    def _key(self, filename: str) -> tuple[str, bool]:
        """The picture's path, and whether its extension is missing."""
        _, below, path = f"/{self.file}".partition("/Annotations/")
        path = path if below else self.file
        if not filename:
            return without_suffix(path), True
        folder = path.rpartition("/")[0]
        stem = "." not in filename.rpartition("/")[2]
        if "/" in filename.strip("/"):
            return filename.strip("/"), stem
        return f"{folder}/{filename.strip('/')}".removeprefix("/"), stem

    def _size(self, root: Element, side: str) -> int | None:
        """Zero, which some tools write, is not known."""
        text = _text(root.find(f"size/{side}"))
        try:
            value = real(text) if text else 0.0
            if value < 0 or value != int(value):
                raise ValueError(f"{value} is no number of pixels")
        except ValueError as error:
            raise wrong(self.file, side, str(error)) from error
        return int(value) or None

    def _object(self, told: Element, place: int, numbers: Mapping[int | None, str]) -> Iterator[Annotation]:
        """An object, then its parts."""
        record = f"object {place}"
        label = self._name(told, record)
        parts = [part for part in told.findall("part") if part.find("bndbox") is not None]
        yield Annotation(
            label=label,
            geometry=self._box(told, record),
            attributes=self._attributes(told, record),
            id=str(place) if parts else None,
            object_id=str(place) if numbers.get(place) == label else None,
        )
        for number, part in enumerate(parts, 1):
            where = f"{record}, part {number}"
            yield Annotation(
                label=self._name(part, where), geometry=self._box(part, where), parent=str(place)
            )

    def _name(self, told: Element, record: str) -> str:
        name = _text(told.find("name"))
        if not name:
            refuse(self.file, record, "has no name")
        return name

    def _box(self, told: Element, record: str) -> Box:
        box = told.find("bndbox")
        if box is None:
            refuse(self.file, record, "has no bndbox")
        try:
            left, top, right, bottom = (
                real(_text(box.find(side))) for side in ("xmin", "ymin", "xmax", "ymax")
            )
        except ValueError as error:
            raise wrong(self.file, record, f"bndbox: {error}") from error
        found = Box(left - self.first, top - self.first, right, bottom)
        if not (found.left < found.right and found.top < found.bottom):
            refuse(self.file, record, "a box without an area")
        return found

    def _attributes(self, told: Element, record: str) -> dict[str, Any]:
        found = dict(_flat(self._rest(told, RESERVED, record)))
        for block in told.findall("attributes"):
            pairs = block.findall("attribute")
            found |= {_text(pair.find("name")): _cvat(_text(pair.find("value"))) for pair in pairs}
            text = _text(block)
            found |= _json(text) or ({"attributes": text} if text else {})
        return found

    def _user(self, root: Element) -> dict[str, Any]:
        found = self._rest(root, TOP, None)
        for block in root.findall("metadata"):
            told = _json(_text(block))
            found |= told if told else self._rest([block], (), None)
        return found

    def _rest(self, told: Iterable[Element], known: Iterable[str], record: str | None) -> dict[str, Any]:
        """Tags that have no meaning of their own."""
        return _values((one for one in told if one.tag not in known), self.file, record, 0)

    def _masks(
        self, pictures: set[str], means: Legend, segmented: bool, size: tuple[int | None, int | None]
    ) -> list[Region]:
        before, below, after = f"/{self.file}".partition("/Annotations/")
        if not below:
            return []
        classes, objects = (
            f"{before}/{folder}/{without_suffix(after)}.png".removeprefix("/")
            for folder in ("SegmentationClass", "SegmentationObject")
        )
        # Where only some files are listed, the others may be there all the same.
        there = [
            one for one in (classes, objects) if one in pictures or (segmented and exists(self.tree, one))
        ]
        if objects in there and classes not in there:
            refuse(objects, None, f"there is no {classes}, which would tell the labels")
        if not there:
            return []
        found = regions(self.tree, classes, objects if objects in there else None, means)
        if size[0] is not None and (found.width, found.height) != size:
            refuse(
                classes,
                None,
                f"is of {found.width} x {found.height} pixels, its picture of {size[0]} x {size[1]}",
            )
        return found.regions


def _text(told: Element | None) -> str:
    """Its text. Only what an editor puts around it goes: lines and tabs."""
    return "" if told is None or told.text is None else told.text.strip("\n\r\t") if told.text.strip() else ""


def _values(told: Iterable[Element], file: str, record: str | None, depth: int) -> dict[str, Any]:
    """Values by tag: texts, numbers, objects; a list, where a tag is repeated. Empty ones tell nothing."""
    if depth > _DEPTH:
        refuse(file, record, "nested too deeply")
    found: dict[str, list[Any]] = {}
    for one in told:
        value = _values(one, file, record, depth + 1) if len(one) else plain(_text(one))
        if value not in ("", {}):
            found.setdefault(one.tag, []).append(value)
    return {tag: values[0] if len(values) == 1 else values for tag, values in found.items()}


def _flat(told: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Without objects in objects: their names joined with dots."""
    for name, value in told.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
            yield from _flat({str(number): one for number, one in enumerate(value)}, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _cvat(text: str) -> Any:
    """CVAT writes truths as Python does."""
    return {"true": True, "false": False}.get(text.lower(), plain(text))


def _json(text: str) -> dict[str, Any]:
    """The object of a text that is one in JSON; empty if it is not."""
    if not re.match(r"\s*\{", text):
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return {}
