"""What a file of COCO is made of: entries of images, annotations and categories. See `formats.coco`."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from syncagent.ingest import masks
from syncagent.ingest.annotations import (
    Annotation,
    Box,
    Classification,
    Joint,
    Label,
    Labelled,
    Mask,
    Polygon,
    Pose,
    area,
    bounds,
)
from syncagent.ingest.formats.base import Losses, a, needs_size, refuse
from syncagent.ingest.formats.carry import lesser, lesser_of_item

Json = dict[str, Any]
CAPTION = "caption"
"""Label of a text about the whole picture."""
NO_PARENT = frozenset(["", "none"])
"""Supercategories that are none."""
RESERVED = frozenset(["id", "file_name", "width", "height"])
"""Fields of an image that are not the user's."""


class Writer:
    """Makes a file's entries, and keeps what the later ones need of the earlier ones."""

    def __init__(self, losses: Losses, labels: Sequence[Label], *, nested: bool) -> None:
        self._losses, self._nested = losses, nested
        self._ids: set[int] = set()
        self._free = itertools.count(1)
        self._categories: dict[str, Label] = {}
        self._taken = {label.id for label in labels if label.id is not None}
        kept: set[int | None] = set()
        for label in labels:
            self._declare(msgspec.structs.replace(label, id=None) if label.id in kept else label)
            kept.add(label.id)

    def _declare(self, label: Label) -> Label:
        """A label with a number of its own."""
        number = label.id
        if number is None:
            number = next(number for number in itertools.count(1) if number not in self._taken)
            self._taken.add(number)
        self._categories[label.name] = msgspec.structs.replace(label, id=number)
        return self._categories[label.name]

    def categories(self) -> Iterator[Json]:
        """The labels, in their order."""
        for label in self._categories.values():
            above, _, name = label.name.rpartition(".")
            split = self._nested and name and above not in {*NO_PARENT, name}
            told: Json = {"id": label.id, "name": name if split else label.name}
            if split:
                told["supercategory"] = above
            if label.joints:
                told |= {"keypoints": label.joints, "skeleton": label.skeleton}
            if label.color:
                told["color"] = label.color
            beside = {"supercategory"} if self._nested else set()
            yield told | {k: v for k, v in label.attributes.items() if k not in told.keys() | beside}

    def image(self, item: Labelled, number: int) -> Json:
        """The entry of an item."""
        lesser_of_item(self._losses, item, {"user"})
        width, height = needs_size(item, "coco")
        user = dict(item.user)
        for name in sorted(RESERVED & user.keys()):
            self._losses.aside(f"the item's metadata {name!r}")
            del user[name]
        return {"id": number, "file_name": item.key, "width": width, "height": height, **user}

    def annotations(self, item: Labelled, image: int) -> Iterator[Json]:
        """The entries of an item's annotations."""
        told = [self._geometry(one, item) for one in item.annotations]
        poses = self._poses(item.annotations, [lost for _, lost in told])
        for at, (one, (fields, lost)) in enumerate(zip(item.annotations, told, strict=True)):
            if lost is not None:
                self._losses.add("coco", item.key, lost)
            elif at in poses:
                pose = told[poses[at]][0]
                points = {name: pose[name] for name in ("keypoints", "num_keypoints")}
                yield self._entry(one, item, image, {**fields, **points})
            elif at not in poses.values():
                yield self._entry(one, item, image, fields)

    def _poses(self, annotations: Sequence[Annotation], lost: Sequence[str | None]) -> dict[int, int]:
        """Places of the areas that are written with a pose, and of their poses."""
        areas = {
            one.id: at
            for at, one in enumerate(annotations)
            if one.id and lost[at] is None and isinstance(one.geometry, Polygon | Mask)
        }
        found: dict[int, int] = {}
        for at, one in enumerate(annotations):
            area_at = areas.get(one.parent or "")
            if area_at is not None and lost[at] is None and _belongs(one, annotations[area_at]):
                found.setdefault(area_at, at)
        return found

    def _entry(self, one: Annotation, item: Labelled, image: int, told: Json) -> Json:
        placeless = isinstance(one.geometry, Classification)
        held = {"description", "score"} | (set() if placeless else {"crowd"})
        lesser(self._losses, "coco", item, one, held=held, attributes=None)
        label = self._categories.get(one.label) or self._declare(Label(name=one.label))
        return {
            "id": self._id(one.id),
            "image_id": image,
            "category_id": label.id,
            **told,
            **({} if placeless else {"iscrowd": int(one.crowd)}),
            **({"score": one.score} if one.score is not None else {}),
            **({"caption": one.description} if one.description else {}),
            **({"attributes": dict(one.attributes)} if one.attributes else {}),
        }

    def _id(self, told: str | None) -> int:
        if told is not None and re.fullmatch(r"0|[1-9]\d{0,17}", told) and int(told) not in self._ids:
            self._ids.add(int(told))
            return int(told)
        number = next(number for number in self._free if number not in self._ids)
        self._ids.add(number)
        return number

    def _geometry(self, one: Annotation, item: Labelled) -> tuple[Json, str | None]:
        """Its fields, and what of it is lost, which is all of it."""
        match one.geometry:
            case Box(left, top, right, bottom, angle):
                if angle or not (left < right and top < bottom):
                    return {}, "a rotated box" if angle else "a box without an area"
                bbox = _bbox((left, top, right, bottom))
                return {"segmentation": [], "bbox": bbox, "area": bbox[2] * bbox[3]}, None
            case Polygon(parts):
                rings = [ring for part in parts for ring in part]
                if not parts or any(len(part) != 1 for part in parts):
                    return {}, "a polygon with holes" if parts else "an empty polygon"
                if any(len(ring) < 6 or not math.isfinite(sum(ring)) for ring in rings):
                    return {}, "a polygon of fewer than three corners"
                around = bounds(one.geometry) or (0, 0, 0, 0)
                return {"segmentation": rings, "bbox": _bbox(around), "area": area(one.geometry)}, None
            case Mask(width, height, counts):
                if (width, height) != (item.width, item.height):
                    size = f"{item.width} x {item.height}"
                    refuse(item.key, None, f"a mask of {width} x {height} pixels on a picture of {size}")
                told = {"size": [height, width], "counts": counts.decode()}
                around = masks.bounds(one.geometry) or (0, 0, 0, 0)
                return {"segmentation": told, "bbox": _bbox(around), "area": masks.area(one.geometry)}, None
            case Pose(joints):
                if not joints:
                    return {}, "a pose without points"
                if self._ordered(one) is None:
                    return {}, "a pose with other points than its label has"
                return self._keypoints(one), None
            case Classification() if one.label == CAPTION and one.description:
                return {}, None
            case _:
                return {}, a(one.geometry)

    def _ordered(self, one: Annotation) -> list[Joint] | None:
        """A pose's points as its label has them; the first pose of a label says which, where the recipe does not."""
        assert isinstance(one.geometry, Pose)  # noqa: S101
        label = self._categories.get(one.label) or self._declare(Label(name=one.label))
        if not label.joints:
            label = msgspec.structs.replace(label, joints=tuple(joint.name for joint in one.geometry.joints))
            self._categories[label.name] = label
        return in_order(one.geometry.joints, label.joints)

    def _keypoints(self, one: Annotation) -> Json:
        joints = self._ordered(one) or []
        bbox = _bbox(bounds(one.geometry) or (0.0, 0.0, 0.0, 0.0))
        return {
            "keypoints": [value for joint in joints for value in (joint.x, joint.y, joint.visible)],
            "num_keypoints": sum(joint.visible > 0 for joint in joints),
            "segmentation": [],
            "bbox": bbox,
            "area": bbox[2] * bbox[3],
        }


def _bbox(sides: tuple[float, float, float, float]) -> list[float]:
    left, top, right, bottom = sides
    return [left, top, _difference(left, right), _difference(top, bottom)]


def _difference(low: float, high: float) -> float:
    """What added to the lower one gives the higher one exactly, in few digits if they do."""
    plain = high - low
    near = (round(plain, 6), plain, math.nextafter(plain, math.inf), math.nextafter(plain, -math.inf))
    return next((one for one in near if low + one == high), plain)


def _belongs(one: Annotation, above: Annotation) -> bool:
    """Whether it is a pose of which all but the points stands in the annotation of its area."""
    plain = Annotation(label=above.label, geometry=one.geometry, id=one.id, parent=one.parent)
    return (
        isinstance(one.geometry, Pose)
        and any(joint.visible for joint in one.geometry.joints)
        and one == plain
    )


def in_order(joints: Sequence[Joint], names: Sequence[str]) -> list[Joint] | None:
    """A pose's points in the order of names, those that it lacks not labelled; None if it has others, or one twice."""
    if [joint.name for joint in joints] == [*names]:
        return [*joints]
    by_name = {joint.name: joint for joint in joints}
    if len(by_name) != len(joints) or len(set(names)) != len(names) or not by_name.keys() <= set(names):
        return None
    return [by_name.get(name, Joint(name, 0.0, 0.0, 0)) for name in names]
