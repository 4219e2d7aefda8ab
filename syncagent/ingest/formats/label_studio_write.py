"""Label Studio's tasks, written; see `formats.label_studio`.

A project takes them if its configuration has controls of these names: ``box``, ``polygon``, ``keypoint``, ``ellipse``, ``brush``,
``choice``, ``track`` (VideoRectangle), ``timeline`` (TimelineLabels), ``speech`` (Labels) and ``text`` (TextArea), to a media tag
called ``image``, ``video`` or ``audio``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from syncagent.ingest.annotations import (
    Annotation,
    Box,
    Classification,
    Ellipse,
    KeyFrame,
    Labelled,
    Mask,
    Point,
    Polygon,
    Subtitle,
)
from syncagent.ingest.formats.base import Losses, Out, a, needs_size, refuse
from syncagent.ingest.formats.carry import between, lesser, pairs, rate
from syncagent.ingest.formats.label_studio_regions import MARK

Json = dict[str, Any]
FILE = "label-studio.json"
_URL = "/data/local-files/?d="
_VIDEO = frozenset({"3gp", "avi", "flv", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "ogv", "webm", "wmv"})
_AUDIO = frozenset({"aac", "aif", "aiff", "flac", "m4a", "mp3", "oga", "ogg", "opus", "wav", "wma"})
_HELD = ("description", "parent", "object_id", "crowd", "score", "model", "visible")
_HELD_IN_TIME = (*_HELD, "frame", "end_frame", "start", "end")


def write(name: str, items: Iterable[Labelled], out: Out, losses: Losses) -> None:
    """See `Format.write`."""
    with out.create(FILE) as file:
        file.write(b"[")
        for count, item in enumerate(items):
            file.write(
                (b",\n" if count else b"\n") + msgspec.json.encode(_Task(name, item, losses).told(count + 1))
            )
        file.write(b"\n]\n")


class _Task:
    """One task."""

    def __init__(self, name: str, item: Labelled, losses: Losses) -> None:
        self._name, self._item, self._losses = name, item, losses
        self._ids: set[str] = set()
        given = {one.id for one in item.annotations}
        self._free = (told for told in map("r{}".format, range(1, 1 << 53)) if told not in given)
        suffix = item.key.rpartition(".")[2].lower()
        video = suffix in _VIDEO or (suffix not in _AUDIO and bool(item.fps or item.frames))
        self._media = "video" if video else "audio" if suffix in _AUDIO else "image"

    def told(self, number: int) -> Json:
        item = self._item
        facts = {
            "width": item.width, "height": item.height, "fps": item.fps, "frames": item.frames,
            "description": item.description or None,
        }  # fmt: skip
        return {
            "id": number,
            "data": {
                self._media: _URL + quote(item.key),
                **{key: value for key, value in facts.items() if value is not None},
            },
            **({"meta": dict(item.user)} if item.user else {}),
            "annotations": [
                {"id": number, "was_cancelled": False, "ground_truth": False, "result": list(self._results())}
            ],
            "predictions": [],
        }

    def _results(self) -> Iterator[Json]:
        whole = [one for one in self._item.annotations if _is_choice(one)]
        for one in self._item.annotations:
            if not _is_choice(one):
                yield from self._result(one)
            elif one is whole[0]:
                # One control has one result: more would take each other's place in the editor.
                name = self._id(one) if len(whole) == 1 else next(self._free)
                yield self._head(name, "choice", "choices") | {
                    "value": {"choices": [each.label for each in whole]}
                }

    def _result(self, one: Annotation) -> Iterator[Json]:
        match one.geometry:
            case Subtitle(text):
                yield from self._subtitle(one, text)
            case Classification():
                lesser(self._losses, self._name, self._item, one, held=_HELD_IN_TIME, attributes=None)
                yield self._classification(one)
            case Box() if one.frame is not None:
                yield from self._track(one)
            case Box() | Point() | Ellipse() | Mask() | Polygon():
                lesser(self._losses, self._name, self._item, one, held=_HELD, attributes=None)
                for control, type_name, value in self._shapes(one):
                    width, height = needs_size(self._item, self._name)
                    yield self._head(self._id(one), control, type_name) | {
                        "original_width": width, "original_height": height, "image_rotation": 0,
                        "value": {**value, type_name: [one.label]}, **_more(one),
                    }  # fmt: skip
            case _:
                self._losses.add(self._name, self._item.key, a(one.geometry))

    def _head(self, name: str, control: str, type_name: str) -> Json:
        return {
            "id": name,
            "from_name": control,
            "to_name": self._media,
            "type": type_name,
            "origin": "manual",
        }

    def _id(self, one: Annotation) -> str:
        name = one.id if one.id and one.id not in self._ids else next(self._free)
        self._ids.add(name)
        return name

    # -- spans of time --------------------------------------------------------------------------

    def _subtitle(self, one: Annotation, text: str) -> Iterator[Json]:
        lesser(self._losses, self._name, self._item, one, held=_HELD_IN_TIME, attributes=None)
        span, name = self._span(one), self._id(one)
        yield self._head(name, "speech", "labels") | {"value": {**span, "labels": [one.label]}, **_more(one)}
        yield self._head(name, "text", "textarea") | {"value": {**span, "text": [text]}}

    def _span(self, one: Annotation) -> Json:
        fps = rate(self._item.fps)
        start = float(one.frame / fps) if one.start is None and one.frame is not None and fps else one.start
        end = float(one.end_frame / fps) if one.end is None and one.end_frame is not None and fps else one.end
        if start is None or end is None:
            refuse(self._item.key, None, f"{a(one.geometry)} needs a start and an end in seconds")
        return {"start": start, "end": end, "channel": 0}

    def _classification(self, one: Annotation) -> Json:
        if one.frame is not None and self._media == "video":
            end = one.frame if one.end_frame is None else one.end_frame
            value: Json = {
                "ranges": [{"start": one.frame + 1, "end": end + 1}],
                "timelinelabels": [one.label],
            }
            return self._head(self._id(one), "timeline", "timelinelabels") | {"value": value, **_more(one)}
        if (one.frame, one.end_frame, one.start, one.end) != (None,) * 4:
            value = {**self._span(one), "labels": [one.label]}
            return self._head(self._id(one), "speech", "labels") | {"value": value, **_more(one)}
        return self._head(self._id(one), "choice", "choices") | {
            "value": {"choices": [one.label]},
            **_more(one),
        }

    # -- places ---------------------------------------------------------------------------------

    def _shapes(self, one: Annotation) -> Iterator[tuple[str, str, Json]]:
        """Control, type and value of each shape of an annotation."""
        width, height = needs_size(self._item, self._name)
        match one.geometry:
            case Box():
                yield "box", "rectanglelabels", _box(one.geometry, width, height)
            case Point(x, y):
                # Their points have a size; it is that of the dot in the editor.
                yield (
                    "keypoint",
                    "keypointlabels",
                    {"x": x * 100 / width, "y": y * 100 / height, "width": 0.5},
                )
            case Ellipse(x, y, rx, ry, angle):
                yield "ellipse", "ellipselabels", {
                    "x": x * 100 / width, "y": y * 100 / height, "radiusX": rx * 100 / width,
                    "radiusY": ry * 100 / height, "rotation": angle,
                }  # fmt: skip
            case Polygon(parts):
                if len(parts) != 1 or len(parts[0]) != 1:
                    self._losses.add(self._name, self._item.key, "a polygon of several rings")
                for part in parts:
                    points = [[x * 100 / width, y * 100 / height] for x, y in pairs(part[0])]
                    yield "polygon", "polygonlabels", {"points": points, "closed": True}
            case Mask():
                from syncagent.ingest.formats import label_studio_rle

                if (one.geometry.width, one.geometry.height) != (width, height):
                    refuse(self._item.key, None, "a mask is not of its picture's size")
                yield "brush", "brushlabels", {"format": "rle", "rle": label_studio_rle.encode(one.geometry)}

    def _track(self, one: Annotation) -> Iterator[Json]:
        held = (*_HELD_IN_TIME, "key_frames")
        lesser(self._losses, self._name, self._item, one, held=held, attributes=None)
        states = self._states(one)
        sequence = _sequence(states, one.end_frame, self._item.frames)
        if not states[0].visible or not sequence:
            self._losses.add(self._name, self._item.key, "a track that begins hidden")
        if not sequence:
            return
        width, height = needs_size(self._item, self._name)
        fps = rate(self._item.fps)
        value: Json = {
            "sequence": [
                {
                    "frame": frame + 1, "enabled": shown, **_box(box, width, height),
                    **({"time": float(frame / fps)} if fps else {}),
                }
                for frame, box, shown in sequence
            ],
            "labels": [one.label],
        }  # fmt: skip
        if self._item.frames:
            value["framesCount"] = self._item.frames
            if fps:
                value["duration"] = float(self._item.frames / fps)
        yield self._head(self._id(one), "track", "videorectangle") | {
            "original_width": width, "original_height": height, "value": value, **_more(one, hides=False),
        }  # fmt: skip

    def _states(self, one: Annotation) -> list[KeyFrame]:
        states = [KeyFrame(frame=one.frame or 0, geometry=one.geometry, visible=one.visible)]
        for frame in one.key_frames:
            if frame.label not in {None, one.label}:
                self._losses.add(self._name, self._item.key, "a label that changes in a track")
            for name in frame.attributes:
                self._losses.add(self._name, self._item.key, f"the attribute {name!r}")
            if isinstance(frame.geometry, Box):
                states.append(frame)
            else:
                self._losses.add(self._name, self._item.key, f"{a(frame.geometry)} in a track of a box")
        return states


def _is_choice(one: Annotation) -> bool:
    """Whether an annotation is a label of the whole item, and nothing else."""
    return one == Annotation(label=one.label, geometry=Classification(), id=one.id)


def _more(one: Annotation, *, hides: bool = True) -> Json:
    """What a result tells beside its value."""
    mark = {
        "attributes": dict(one.attributes) or None, "object_id": one.object_id, "crowd": one.crowd or None,
        "model": one.model,
    }  # fmt: skip
    meta: Json = {"text": [one.description]} if one.description else {}
    if kept := {key: value for key, value in mark.items() if value is not None}:
        meta[MARK] = kept
    told = {"meta": meta or None, "parentID": one.parent, "score": one.score}
    return {key: value for key, value in told.items() if value is not None} | (
        {"hidden": True} if hides and not one.visible else {}
    )


def _box(box: Box, width: int, height: int) -> Json:
    """Theirs is turned around its upper left corner: that is where it is after the turn."""
    x, y = (box.left, box.top) if not box.angle else box.corners()[:2]
    return {
        "x": x * 100 / width, "y": y * 100 / height, "width": (box.right - box.left) * 100 / width,
        "height": (box.bottom - box.top) * 100 / height, "rotation": box.angle,
    }  # fmt: skip


def _sequence(states: Sequence[KeyFrame], end: int | None, count: int | None) -> list[tuple[int, Box, bool]]:
    """Frame, box and whether it is shown after that, of a track; only frames at which it is shown."""
    found: list[tuple[int, Box, bool]] = []
    before: KeyFrame | None = None
    for state in states:
        place = state.geometry
        if not isinstance(place, Box):
            continue
        if state.visible:
            found.append((state.frame, place, True))
        elif found and before is not None and before.visible and isinstance(before.geometry, Box):
            last = state.frame - 1
            share = (last - before.frame) / (state.frame - before.frame)
            if last == before.frame:
                found.pop()
            found.append((last, between(before.geometry, place, share) if share else before.geometry, False))
        before = state
    if found and found[-1][2] and (count is None or (end or 0) < count - 1):
        frame, place, _ = found[-1]
        end = frame if end is None else end
        if frame >= end:
            found.pop()
        found.append((max(frame, end), place, False))
    return found
