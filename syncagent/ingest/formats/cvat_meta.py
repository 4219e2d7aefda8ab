"""CVAT's XML, record by record, and what its meta says; see `formats.cvat`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO
from xml.etree.ElementTree import ParseError

from syncagent.ingest.annotations import Label, rgb
from syncagent.ingest.formats.base import MAX_RECORD, refuse, wrong
from syncagent.ingest.formats.carry import named_as_media, whole

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_DEPTH = 32


class _Bounded:
    """A file of which no more is read between two records than one may have."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self.read_since = 0

    def read(self, size: int = -1) -> bytes:
        found = self._file.read(size)
        self.read_since += len(found)
        if self.read_since > MAX_RECORD:
            refuse(self._name, None, f"a record is larger than {MAX_RECORD >> 20} MiB")
        return found


def children(file: BinaryIO, name: str) -> Iterator[Element]:
    """What stands right below the root, one at a time; each is forgotten when the next is asked for."""
    from defusedxml import DefusedXmlException, ElementTree

    bounded = _Bounded(file, name)
    depth, root = 0, None
    try:
        for event, element in ElementTree.iterparse(bounded, events=("start", "end"), forbid_dtd=True):
            depth += 1 if event == "start" else -1
            if root is None:
                root = element
                if element.tag != "annotations":
                    refuse(name, None, f"not CVAT's: its root is <{element.tag[:40]}>, not <annotations>")
            if depth > _DEPTH:
                refuse(name, None, "nested too deeply")
            if event == "end" and depth == 1:
                yield element
                root.clear()
                bounded.read_since = 0
    except DefusedXmlException as error:
        raise wrong(
            name, None, f"it has a DOCTYPE with a DTD or entities, which are refused: {error}"
        ) from error
    except ParseError as error:
        raise wrong(name, f"line {error.position[0]}", f"not XML: {error}") from error
    except (LookupError, UnicodeError, ValueError) as error:
        raise wrong(name, None, f"not XML: {error}") from error


# -- meta ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    key: str | None
    stem: bool
    frames: int | None
    width: int | None
    height: int | None
    video: bool


@dataclass(frozen=True)
class Meta:
    """What a file says of its labels and tasks."""

    tasks: dict[str | None, Task] = field(default_factory=dict)
    """By id; the first also by None."""
    labels: dict[str, Element] = field(default_factory=dict)
    types: dict[str, dict[str, str]] = field(default_factory=dict)
    """By label and attribute: checkbox, number, text …"""
    joints: dict[str, list[str]] = field(default_factory=dict)
    """Names of a skeleton's points, by its label."""

    @classmethod
    def of(cls, meta: Element) -> Meta:
        made = cls()
        for holder in (*meta.iter("task"), *meta.iter("job")):
            key = holder.findtext("source") or holder.findtext("name") or None
            task = Task(
                key=key, stem=key is not None and not named_as_media(key), frames=count(holder.findtext("size")),
                width=count(holder.findtext("original_size/width")),
                height=count(holder.findtext("original_size/height")), video=holder.findtext("mode") == "interpolation",
            )  # fmt: skip
            made.tasks.setdefault(None, task)
            made.tasks[holder.findtext("id")] = task
        for label in meta.iter("label"):
            name, parent = label.findtext("name"), label.findtext("parent")
            if name and parent:
                made.joints.setdefault(parent, []).append(name)
            elif name:
                made.labels[name] = label
                made.types[name] = {
                    one.findtext("name") or "": one.findtext("input_type") or "text"
                    for one in label.iter("attribute")
                }
        return made

    def declared(self) -> Iterator[Label]:
        for name, label in self.labels.items():
            yield Label(
                name=name,
                color=color if rgb(color := label.findtext("color")) is not None else None,
                joints=tuple(self.joints.get(name, ())),
                attributes={
                    one.findtext("name") or "": {
                        child.tag: child.text or "" for child in one if child.tag != "name"
                    }
                    for one in label.iter("attribute")
                },
            )


def count(text: str | None) -> int | None:
    with contextlib.suppress(ValueError):
        return whole(text or "") or None
    return None
