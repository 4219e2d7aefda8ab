"""What a picture's files are in Pascal VOC. See `formats.voc`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Container, Mapping, Sequence
from typing import Any

import msgspec

from syncagent.ingest.annotations import Annotation, Box, Label, Labelled, Mask, rgb
from syncagent.ingest.formats.base import Losses, a, needs_size, numbered, refuse
from syncagent.ingest.formats.carry import lesser, lesser_of_item, number
from syncagent.ingest.formats.png import VOID, VOID_COLOR, held_masks, object_numbers, painted, png, voc_color

RESERVED = frozenset(["name", "bndbox", "part", "attributes"])
"""Tags of an object that are no attributes."""
TOP = frozenset(["folder", "filename", "path", "size", "segmented", "object", "metadata"])
"""Tags of an annotation that are no metadata."""
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?[0-9]{1,17}\.[0-9]{1,17}")
_TAG = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def plain(text: str) -> int | float | str:
    """The number that a text is, or the text. Not run, not guessed: ``007`` and ``1e5`` are texts."""
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text


class Writer:
    """Makes a picture's files, and keeps the numbers and colours of labels.

    :param first: what the upper left corner of a picture is called.
    """

    def __init__(self, labels: Sequence[Label], losses: Losses, first: float) -> None:
        self._losses, self._first = losses, first
        self._labels = [*{label.name: label for label in labels}.values()]
        self._colors: dict[str, int] = {}
        self._masks = False

    def files(self, item: Labelled) -> tuple[str, dict[str, bytes]]:
        """The XML, and the pictures by folder."""
        boxes, masks = self._held(item)
        lesser_of_item(self._losses, item, {"user"})
        width, height = needs_size(item, "voc")
        pictures, shown = self._pictures(item, masks, [one for one in boxes if one.parent is None])
        folder, _, name = item.key.rpartition("/")
        lines = ["<annotation>"]
        lines += [f" <folder>{_xml(folder.rpartition('/')[2], item.key)}</folder>"] if folder else []
        lines += [] if item.stem else [f" <filename>{_xml(name, item.key)}</filename>"]
        size = f"<width>{width}</width><height>{height}</height><depth>3</depth>"
        lines += [f" <size>{size}</size>", f" <segmented>{int(bool(pictures))}</segmented>"]
        lines += _tags(item.user, TOP, "metadata", " ", nested=True)
        parts: dict[str | None, list[Annotation]] = {}
        for one in boxes:
            parts.setdefault(one.parent, []).append(one)
        for place, one in enumerate(parts.get(None, []), 1):
            mine = parts.pop(one.id, []) if one.id is not None else []
            lines += self._object(
                one, item, mine, (str(place), one.label) in shown and one.object_id == str(place)
            )
        return "\n".join([*lines, "</annotation>", ""]), pictures

    def _held(self, item: Labelled) -> tuple[list[Annotation], list[Annotation]]:
        """Boxes, and masks. A box that belongs to none of them has no parent any more, which is a loss."""
        boxes, masks = [], []
        for one in item.annotations:
            if isinstance(one.geometry, Mask):
                masks.append(one)
            elif not isinstance(one.geometry, Box):
                self._losses.add("voc", item.key, a(one.geometry))
            elif one.geometry.angle:
                self._losses.add("voc", item.key, "a rotated box")
            elif not (one.geometry.left < one.geometry.right and one.geometry.top < one.geometry.bottom):
                self._losses.add("voc", item.key, "a box without an area")
            elif not _sound(one.label):
                self._losses.add("voc", item.key, f"the label {one.label!r}")
            else:
                boxes.append(one)
        whole = {one.id for one in boxes if one.parent is None and one.id is not None}
        for at, one in enumerate(boxes):
            if one.parent is not None and one.parent not in whole:
                self._losses.add("voc", item.key, "a parent")
                boxes[at] = msgspec.structs.replace(one, parent=None)
        alone = msgspec.structs.replace(item, annotations=tuple(masks), user={}, description=None)
        return boxes, held_masks(alone, "voc", self._losses)

    def _pictures(
        self, item: Labelled, masks: Sequence[Annotation], boxes: Sequence[Annotation]
    ) -> tuple[dict[str, bytes], set[tuple[str, str]]]:
        """The pictures, and the numbers and labels of the objects in them."""
        held = []
        for one in masks:
            if self._has_color(one.label):
                held.append(one)
            else:
                self._losses.add("voc", item.key, f"a mask of the label {one.label!r}")
        if not held:
            return {}, set()
        self._masks = True
        # A number up to that of the boxes says that the mask is that box's.
        own = {place for place, one in enumerate(boxes, 1) if one.object_id == str(place)}
        objects = object_numbers(held, range(len(boxes) + 1, VOID), own)
        places = {name: place for place, name in enumerate(self._colors, 1)}
        arrays = painted(item, list(zip(held, objects, strict=True)), "voc", self._losses, places)
        colors = [f"#{color:06x}" for color in self._colors.values()]
        shown = {
            (str(place), one.label) for one, place in zip(held, objects, strict=True) if place is not None
        }
        return {"SegmentationClass": png(arrays[0], colors), "SegmentationObject": png(arrays[1])}, shown

    def _has_color(self, name: str) -> bool:
        """Give a label a number and a colour that no other has; False if pictures or the list of labels cannot have it."""
        self._labels = numbered(self._labels, [name])
        for label in self._labels[len(self._colors) :]:
            color = rgb(label.color)
            told = [] if color is None else [color]
            choice = itertools.chain(told, map(voc_color, itertools.count(len(self._colors) + 1)))
            taken = {0, VOID_COLOR, *self._colors.values()}
            self._colors[label.name] = next(one for one in choice if one not in taken)
        return [*self._colors].index(name) < VOID - 1 and _listed(name)

    def labelmap(self) -> str:
        """CVAT's list of the labels and their colours; empty if there are no masks."""
        if not self._masks:
            return ""
        lines = ["# label:color_rgb:parts:actions", "background:0,0,0::"]
        for name, color in [*self._colors.items()][: VOID - 1]:
            if _listed(name):
                lines.append(f"{name}:{color >> 16},{color >> 8 & 255},{color & 255}::")
        return "\n".join([*lines, ""])

    def _object(self, one: Annotation, item: Labelled, parts: Sequence[Annotation], shown: bool) -> list[str]:
        held = {"object_id"} if shown else set()
        lesser(self._losses, "voc", item, one, held=held, attributes=None)
        lines = [" <object>", *self._named(one, item.key, "  ")]
        lines += _tags(one.attributes, RESERVED, "attributes", "  ")
        for part in parts:
            lesser(self._losses, "voc", item, part, held={"parent"})
            lines += ["  <part>", *self._named(part, item.key, "   "), "  </part>"]
        return [*lines, " </object>"]

    def _named(self, one: Annotation, key: str, indent: str) -> list[str]:
        assert isinstance(one.geometry, Box)  # noqa: S101  # see _held
        box, first = one.geometry, self._first
        sides = {"xmin": box.left + first, "ymin": box.top + first, "xmax": box.right, "ymax": box.bottom}
        told = "".join(f"<{side}>{number(value)}</{side}>" for side, value in sides.items())
        return [f"{indent}<name>{_xml(one.label, key)}</name>", f"{indent}<bndbox>{told}</bndbox>"]


def _tags(
    told: Mapping[str, Any], reserved: Container[str], rest: str, indent: str, *, nested: bool = False
) -> list[str]:
    """Values as tags; those that would not read the same, in one tag as JSON."""
    lines, left = [], {}
    for name, value in told.items():
        tag = _tag(name, value) if name not in reserved and (nested or not isinstance(value, dict)) else None
        if tag is None:
            left[name] = value
        else:
            lines.append(indent + tag)
    if left:
        text = msgspec.json.encode(left).decode()
        # JSON has an escape for what XML has no character for.
        text = _NOT_XML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
        lines.append(f"{indent}<{rest}>{_escaped(text)}</{rest}>")
    return lines


def _tag(name: str, value: Any) -> str | None:
    """A value as a tag; None if it would not read the same."""
    if not _TAG.fullmatch(name):
        return None
    if isinstance(value, dict):
        inner = [_tag(key, one) for key, one in value.items()]
        return f"<{name}>{''.join(filter(None, inner))}</{name}>" if inner and None not in inner else None
    text = str(value)
    read = plain(text)
    return (
        f"<{name}>{_escaped(text)}</{name}>"
        if type(read) is type(value) and read == value and _sound(text)
        else None
    )


def _sound(text: str) -> bool:
    """Whether XML holds a text as it is: an editor may add lines and tabs around it."""
    return bool(text.strip()) and not _NOT_XML.search(text) and text == text.strip("\n\r\t")


def _listed(name: str) -> bool:
    """Whether CVAT's list of labels can name it."""
    return re.fullmatch(r"[^#:\s]([^:]*[^:\s])?", name) is not None and len(name.splitlines()) == 1


def _xml(text: str, key: str) -> str:
    """A text as it stands in XML.

    :raises InvalidInput: it has characters that XML has not.
    """
    if not _sound(text):
        refuse(key, None, "has characters that XML cannot hold")
    return _escaped(text)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")
