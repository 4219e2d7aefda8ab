"""What the files of a tree of YOLO say. See `formats.yolo`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from syncagent.ingest.annotations import Annotation, Box, Geometry, Label, Labelled, Polygon, Pose, bounds
from syncagent.ingest.formats.base import Losses, a, needs_size, numbered
from syncagent.ingest.formats.carry import lesser, lesser_of_item, number
from syncagent.ingest.formats.coco_write import in_order


class Folders:
    """Where the pictures of each split are, for data.yaml."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}
        self._images = False

    def add(self, path: str) -> None:
        """Account for a picture."""
        folders = path.split("/")[:-1]
        self._images = self._images or "images" in folders[:1]
        for at, folder in enumerate(folders):
            if folder in {"train", "val", "valid", "test"}:
                after = at + (2 if folders[at + 1 : at + 2] == ["images"] else 1)
                self._found.setdefault(folder, "/".join(folders[:after]))

    def told(self) -> dict[str, str]:
        """``train``, ``val`` and perhaps ``test``; the training tools want the first two."""
        train = self._found.get("train", "images" if self._images else ".")
        val = self._found.get("val", self._found.get("valid", train))
        return {
            "train": train,
            "val": val,
            **{name: at for name, at in self._found.items() if name == "test"},
        }


@dataclass(slots=True)
class Writer:
    """Writes lines, and keeps what data.yaml is to tell."""

    task: str | None
    shape: tuple[int, int] | None
    labels: list[Label]
    losses: Losses
    joints: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the points of each label's poses."""

    def told(self) -> dict[str, Any]:
        """The task and the classes."""
        told: dict[str, Any] = {"names": {at: label.name for at, label in enumerate(self.labels)}}
        if self.task is not None:
            told["task"] = self.task
        if self.task == "pose" and self.shape is not None:
            told["kpt_shape"] = [self.shape[0], 3]
            told["kpt_names"] = {
                at: list(self.joints[label.name]) for at, label in enumerate(self.labels) if label.name in self.joints
            }  # fmt: skip
        return told

    def text(self, item: Labelled) -> str:
        """An item's label file."""
        lesser_of_item(self.losses, item)
        held = []
        for one in item.annotations:
            size = needs_size(item, "yolo")
            numbers = self._numbers(one, item.key, *size)
            if numbers is not None:
                lesser(self.losses, "yolo", item, one, held={"score"})
                held.append((one, numbers))
        self.labels = numbered(self.labels, [one.label for one, _ in held])
        places = {label.name: at for at, label in enumerate(self.labels)}
        lines = []
        for one, numbers in held:
            told = [*numbers, *([] if one.score is None else [one.score])]
            lines.append(f"{places[one.label]} {' '.join(map(number, told))}\n")
        return "".join(lines)

    def _numbers(self, one: Annotation, key: str, width: int, height: int) -> list[float] | None:
        """The numbers of a geometry; None if it cannot be held."""
        task, lost = _task(one.geometry)
        told = self.task or task
        if lost is None and task != told and (task, told) != ("detect", "obb"):
            lost = "a rotated box" if task == "obb" else a(one.geometry)
        found: tuple[list[float], list[float]] | None = None
        if lost is None:
            found = self._places(one, told)
            if found is None:
                lost = "a pose with other points than those before it"
        if found is not None:
            flat = [value / (width, height)[at % 2] for at, value in enumerate(found[0])]
            if all(-1 <= value <= 2 for value in flat):
                self.task = told
                return _with_seen(flat, found[1])
            lost = f"{a(one.geometry)} far outside of the picture"
        self.losses.add(f"yolo ({told})" if told else "yolo", key, lost or "")
        return None

    def _places(self, one: Annotation, task: str | None) -> tuple[list[float], list[float]] | None:
        """Pixels, x and y in turn, and which points of a pose are visible; None if they are not those of its label."""
        geometry = one.geometry
        if isinstance(geometry, Polygon):
            return list(geometry.parts[0][0]), []
        if isinstance(geometry, Box):
            left, top, right, bottom, _ = msgspec.structs.astuple(geometry)
            return (list(geometry.corners()) if task == "obb" else _centred(left, top, right, bottom)), []
        assert isinstance(geometry, Pose)  # noqa: S101  # see _task
        declared = next((label.joints for label in self.labels if label.name == one.label), ())
        names = self.joints.get(one.label) or declared or tuple(joint.name for joint in geometry.joints)
        joints = in_order(geometry.joints, names)
        if joints is None or len(joints) != (self.shape or (len(names),))[0]:
            return None
        self.joints[one.label], self.shape = names, (len(names), 3)
        flat = _centred(*(bounds(geometry) or (0, 0, 0, 0)))
        for joint in joints:
            flat += (joint.x, joint.y)
        return flat, [joint.visible for joint in joints]


def _with_seen(flat: list[float], seen: Sequence[float]) -> list[float]:
    """A pose's numbers: its box, then of each point its place and whether it is visible."""
    if not seen:
        return flat
    points = zip(flat[4::2], flat[5::2], seen, strict=True)
    return [*flat[:4], *(value for point in points for value in point)]


def _task(geometry: Geometry) -> tuple[str | None, str | None]:
    """The task that a geometry belongs to, and what is lost where it has none."""
    match geometry:
        case Box(left, top, right, bottom, angle):
            sound = left < right and top < bottom
            return "obb" if angle else "detect", None if sound else "a box without an area"
        case Polygon(parts):
            if len(parts) != 1:
                return "segment", "a polygon of several parts" if parts else "an empty polygon"
            if len(parts[0]) != 1:
                return "segment", "a polygon with holes"
            return "segment", None if len(parts[0][0]) >= 6 else "a polygon of fewer than three corners"
        case Pose(joints):
            return "pose", None if joints else "a pose without points"
        case _:
            return None, a(geometry)


def _centred(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
