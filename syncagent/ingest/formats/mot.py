"""MOT: tables of tracked boxes, as the MOTChallenge has them and CVAT exports them.

A folder is a sequence, that is, a video: ``gt/gt.txt`` (labels), ``det/det.txt`` (detections, read where there are no labels),
``seqinfo.ini`` and, of CVAT, ``gt/labels.txt``. Any other ``.txt`` is a tracker's result, called as its sequence is. Columns:
frame (from 1), id, left, top, width, height, then 1, or 0 for what is to be ignored (of detections and results: confidence),
class (from 1) and visibility (0 to 1); or instead of the last two the place in space, of which nothing is kept unless it is told.

Rows with one id are a track with a key frame each. Where frames are missing, the track is hidden: a key frame that is not
visible stands at the first that is missing. Rows with the id -1 are boxes at one frame, of no object; CVAT numbers tracks from 0. Classes are called as in
``labels.txt``, else as the caller says, else as in MOT16 and MOT20. Coordinates are taken as they stand, as CVAT does, though
the challenge counts pixels from 1. Written tracks have a row for every frame, interpolated between key frames.

Sources: https://arxiv.org/abs/1603.00831 (MOT16), https://arxiv.org/abs/1906.04567 (MOT20), https://docs.cvat.ai, "MOT".
"""

from __future__ import annotations

import configparser
import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, BinaryIO, ClassVar, NamedTuple

import msgspec

from syncagent.ingest.annotations import Annotation, Box, KeyFrame, Label, Labelled
from syncagent.ingest.formats.base import (
    Context,
    Losses,
    Out,
    Tree,
    a,
    exists,
    numbered,
    read_text,
    refuse,
    without_suffix,
    wrong,
)
from syncagent.ingest.formats.carry import (
    between,
    difference,
    lesser,
    lesser_of_item,
    number,
    rate,
    real,
    total,
    whole,
)
from syncagent.ingest.formats.checks import FARTHEST, sound, writable

CLASSES = (
    "pedestrian", "person on vehicle", "car", "bicycle", "motorbike", "non motorized vehicle", "static person", "distractor",
    "occluder", "occluder on the ground", "occluder full", "reflection", "crowd",
)  # fmt: skip
"""Of MOT16 and MOT20, from number 1."""
_LINE = 4096
_HELD = ("object_id", "frame", "end_frame", "start", "end", "visible", "key_frames")
_ID = re.compile(r"0|[1-9][0-9]{0,14}")
_NO_ID = -1


class Row(NamedTuple):
    """A box at a frame."""

    line: int
    frame: int
    box: Box
    label: str
    attributes: Mapping[str, Any]
    score: float | None


class Mot:
    """See `formats.base.Format`. Writes ``gt/gt.txt``, ``gt/labels.txt`` and ``seqinfo.ini`` into a folder called as the video.

    :param video: the key of the video, where the files stand in no folder of its name.
    """

    name: ClassVar[str] = "mot"
    suffixes: ClassVar[tuple[str, ...]] = (".txt",)
    holds: ClassVar[frozenset[type]] = frozenset({Box})

    def __init__(self, video: str | None = None) -> None:
        self._video = video

    def read(self, tree: Tree, context: Context = Context()) -> Iterator[Labelled]:  # noqa: B008  # frozen
        """See `Format.read`. A sequence is one item, and in memory at once: its rows may stand in any order."""
        for name in tree.names():
            path = PurePosixPath(name)
            if path.suffix.lower() != ".txt" or path.name == "labels.txt":
                continue
            folder, kind = _sequence(path)
            if kind == "det" and any(exists(tree, _beside(folder, gt)) for gt in ("gt/gt.txt", "gt.txt")):
                continue
            yield self._item(tree, name, folder, kind, context)

    def labels(self, tree: Tree) -> list[Label]:
        """The classes of every ``labels.txt``, each once."""
        found: dict[str, Label] = {}
        for name in tree.names():
            if PurePosixPath(name).name == "labels.txt":
                for count, label in enumerate(_lines(tree, name), 1):
                    found.setdefault(label, Label(name=label, id=count))
        return list(found.values())

    def write(
        self,
        items: Iterable[Labelled],
        out: Out,
        *,
        labels: Sequence[Label] = (),
        losses: Losses | None = None,
    ) -> None:
        """See `Format.write`."""
        told = losses if losses is not None else Losses()
        for item in writable(items, self.name, told, most=FARTHEST):
            folder = item.key if item.stem else without_suffix(item.key)
            lesser_of_item(told, item)
            tracks = [one for one in item.annotations if _fits(item, one, told)]
            used = {one.label for one in tracks} | {
                frame.label for one in tracks for frame in one.key_frames if frame.label is not None
            }
            names = [label.name for label in numbered(labels, used)]
            if any("\n" in name or "\r" in name for name in names):
                refuse(item.key, None, "a label of several lines has no place in labels.txt")
            with out.create(f"{folder}/seqinfo.ini") as file:
                file.write(_seqinfo(item, folder).encode())
            with out.create(f"{folder}/gt/labels.txt") as file:
                file.write("".join(f"{name}\n" for name in names).encode())
            with out.create(f"{folder}/gt/gt.txt") as file:
                classes = {name: count for count, name in enumerate(names, 1)}
                for row in _rows(item, tracks, classes, told):
                    file.write(row.encode())

    def _item(self, tree: Tree, name: str, folder: str, kind: str, context: Context) -> Labelled:
        info = _info(tree, _beside(folder, "seqinfo.ini")) if kind in {"gt", "det"} else {}
        key = self._video
        if key is None:
            parent, _, last = folder.rpartition("/")
            last = info.get("name") or last
            key = f"{parent}/{last}" if parent else last
        if not key:
            refuse(name, None, "stands in no folder of its video's name, and no seqinfo.ini tells it")
        labels = _beside(name.rpartition("/")[0], "labels.txt")
        classes = _lines(tree, labels) if exists(tree, labels) else [*context.labels] or CLASSES
        with contextlib.closing(tree.open(name)) as file:
            annotations = _read(file, name, classes, scores=kind != "gt")
        item = Labelled(
            key=key, stem=self._video is None, annotations=annotations, width=_count(info, "imwidth", name),
            height=_count(info, "imheight", name), frames=_count(info, "seqlength", name), fps=_fps(info, name),
        )  # fmt: skip
        return sound(item, name)


def _sequence(path: PurePosixPath) -> tuple[str, str]:
    """The folder of a sequence, or a result's name instead; and whether it is of labels, detections or results."""
    folder = path.parent
    kind = path.stem.lower()
    if kind not in {"gt", "det"}:
        return path.with_suffix("").as_posix(), "result"
    if path.parent.name.lower() == kind:
        folder = folder.parent
    return "" if folder == PurePosixPath() else folder.as_posix(), kind


def _beside(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _lines(tree: Tree, name: str) -> list[str]:
    """A name in each line; the last may be empty."""
    return read_text(tree, name).replace("\r\n", "\n").removesuffix("\n").split("\n")


# -- seqinfo.ini ---------------------------------------------------------------------------------


def _info(tree: Tree, name: str) -> dict[str, str]:
    if not exists(tree, name):
        return {}
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(read_text(tree, name))
        found = dict(parser["Sequence"])
    except (configparser.Error, KeyError) as error:
        raise wrong(name, None, f"no sequence's information: {str(error).splitlines()[0]}") from error
    if "/" in found.get("name", ""):
        refuse(name, "name", "a sequence's name is no path")
    return found


def _count(info: Mapping[str, str], key: str, file: str) -> int | None:
    try:
        return whole(info.get(key) or "0") or None
    except ValueError as error:
        raise wrong(file, f"seqinfo.ini, {key}", str(error)) from error


def _fps(info: Mapping[str, str], file: str) -> str | None:
    told = info.get("framerate") or None
    if told is not None and rate(told) is None:
        refuse(file, "seqinfo.ini, frameRate", "no number of frames a second")
    return told


def _seqinfo(item: Labelled, folder: str) -> str:
    name = folder.rpartition("/")[2]
    # What the file cannot tell as it is, the folder tells.
    told = {
        "name": name if name == name.strip() and name.isprintable() else None, "imDir": "img1", "frameRate": item.fps,
        "seqLength": item.frames, "imWidth": item.width, "imHeight": item.height, "imExt": ".jpg",
    }  # fmt: skip
    lines = [f"{key}={value}" for key, value in told.items() if value is not None]
    return "\n".join(["[Sequence]", *lines, ""])


# -- rows ----------------------------------------------------------------------------------------


def _read(file: BinaryIO, name: str, classes: Sequence[str], *, scores: bool) -> tuple[Annotation, ...]:
    tracks: dict[int, list[Row]] = {}
    found: list[Annotation | int] = []
    for count, line in enumerate(iter(lambda: file.readline(_LINE), b""), 1):
        if not line.strip():
            continue
        if len(line) >= _LINE:
            refuse(name, f"line {count}", "too long")
        try:
            thing, row = _row(count, line.decode("utf-8-sig").split(","), classes, scores=scores)
        except (ValueError, IndexError) as error:  # a UnicodeDecodeError is one, too
            raise wrong(name, f"line {count}", str(error)) from error
        if thing == _NO_ID:
            found.append(
                Annotation(
                    label=row.label, geometry=row.box, attributes=row.attributes, score=row.score, frame=row.frame,
                    end_frame=row.frame,
                )
            )  # fmt: skip
        else:
            if thing not in tracks:
                found.append(thing)
            tracks.setdefault(thing, []).append(row)
    return tuple(_track(tracks[one], one, name) if isinstance(one, int) else one for one in found)


def _row(line: int, cells: Sequence[str], classes: Sequence[str], *, scores: bool) -> tuple[int, Row]:
    """The id and the row of a line.

    :raises ValueError: it is none.
    """
    if not 6 <= len(cells) <= 10:
        raise ValueError(f"{len(cells)} columns; a row has 7 to 10, with commas between them")
    frame, thing = whole(cells[0]) - 1, whole(cells[1])
    if frame < 0:
        raise ValueError("frames count from 1")
    left, top = real(cells[2]), real(cells[3])
    if min(real(cells[4]), real(cells[5])) < 0:
        raise ValueError("a box has no negative width or height")
    box = Box(left, top, total(cells[2], cells[4]), total(cells[3], cells[5]))
    attributes: dict[str, Any] = {}
    score, label = None, None
    told = real(cells[6]) if len(cells) > 6 else 1.0
    if scores and 0 <= told <= 1:
        score = told
    elif scores:
        attributes["confidence"] = told
    elif told == 0:
        attributes["ignored"] = True
    if len(cells) == 10:
        place = [real(cell) for cell in cells[7:]]
        if place != [-1, -1, -1]:
            attributes["place"] = place
    elif len(cells) > 7:
        label = _label(whole(cells[7]), classes)
        visibility = real(cells[8]) if len(cells) > 8 else 1.0
        # What nobody says is wholly visible, and -1 is what older files have instead of nothing.
        if 0 <= visibility < 1:
            attributes["visibility"] = visibility
        elif visibility not in {1, -1}:
            raise ValueError(f"visibility is a share from 0 to 1, not {visibility:.6g}")
    return thing, Row(line, frame, box, label or classes[0], attributes, score)


def _label(told: int, classes: Sequence[str]) -> str | None:
    if told == -1:
        return None
    if not 1 <= told <= len(classes):
        raise ValueError(
            f"class {told} is none of the {len(classes)} that are known; labels.txt or a list of names tells them"
        )
    return classes[told - 1]


def _track(rows: list[Row], thing: int, file: str) -> Annotation:
    rows.sort(key=lambda row: row.frame)
    first, label, before = rows[0], rows[0].label, rows[0]
    frames: list[KeyFrame] = []
    for row in rows[1:]:
        if row.frame == before.frame:
            refuse(
                file,
                f"line {max(row.line, before.line)}",
                f"object {thing} is twice in frame {row.frame + 1}",
            )
        if row.frame > before.frame + 1:
            frames.append(KeyFrame(frame=before.frame + 1, geometry=before.box, visible=False))
        attributes = row.attributes
        if row.score != first.score:
            attributes = {**attributes, "confidence": row.score}
        changed = row.label if row.label != label else None
        frames.append(KeyFrame(frame=row.frame, geometry=row.box, label=changed, attributes=attributes))
        label, before = row.label, row
    return Annotation(
        label=first.label, geometry=first.box, attributes=first.attributes, object_id=str(thing), frame=first.frame,
        end_frame=before.frame, key_frames=tuple(frames), score=first.score,
    )  # fmt: skip


# -- writing -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Ids:
    """Numbers of objects. Each is at a frame once."""

    taken: set[int]
    used: Counter[int] = field(default_factory=Counter)
    frames: set[tuple[int, int]] = field(default_factory=set)

    def of(self, one: Annotation) -> int:
        if one.object_id is not None and _ID.fullmatch(one.object_id):
            return int(one.object_id)
        if one.object_id is None and not one.key_frames and one.end_frame in {None, one.frame}:
            return _NO_ID
        found = next(n for n in range(1, len(self.taken) + 2) if n not in self.taken)
        self.taken.add(found)
        return found


def _fits(item: Labelled, one: Annotation, losses: Losses) -> bool:
    """Whether an annotation can be written; what of it cannot is accounted for."""
    if not isinstance(one.geometry, Box):
        losses.add(Mot.name, item.key, a(one.geometry))
        return False
    lesser(losses, Mot.name, item, one, held=_HELD, attributes=_held(one.attributes))
    for frame in one.key_frames:
        for name in frame.attributes:
            if name not in _held(frame.attributes):
                losses.add(Mot.name, item.key, f"the attribute {name!r}")
        if not isinstance(frame.geometry, Box):
            losses.add(Mot.name, item.key, f"{a(frame.geometry)} in a track of a box")
    if any(
        isinstance(box, Box) and box.angle for box in (one.geometry, *(f.geometry for f in one.key_frames))
    ):
        losses.add(Mot.name, item.key, "a box's angle")
    if not one.visible:  # a row is something seen
        losses.add(Mot.name, item.key, "a track that begins hidden")
    if one.object_id is not None and not _ID.fullmatch(one.object_id):
        losses.add(Mot.name, item.key, "an object's id that is no number")
    if one.frame is None:
        refuse(item.key, None, "mot needs the frame of every box")
    return True


def _held(attributes: Mapping[str, Any]) -> set[str]:
    held = set()
    visibility = attributes.get("visibility")
    if isinstance(visibility, int | float) and not isinstance(visibility, bool) and 0 <= visibility <= 1:
        held.add("visibility")
    if isinstance(attributes.get("ignored"), bool):
        held.add("ignored")
    return held


def _rows(
    item: Labelled, tracks: Sequence[Annotation], classes: Mapping[str, int], losses: Losses
) -> Iterator[str]:
    ids = _Ids({int(one.object_id) for one in tracks if one.object_id and _ID.fullmatch(one.object_id)})
    for one in tracks:
        thing = ids.of(one)
        for frame, box, label, attributes in _frames(one):
            if thing != _NO_ID and (thing, frame) in ids.frames:
                losses.add(Mot.name, item.key, "a second box of one object in a frame")
                continue
            ids.frames.add((thing, frame))
            yield _told(frame, thing, box, classes[label], attributes)


def _frames(one: Annotation) -> Iterator[tuple[int, Box, str, Mapping[str, Any]]]:
    """The box of a track at every frame where it is visible."""
    first = KeyFrame(
        frame=one.frame or 0, geometry=one.geometry, visible=one.visible, attributes=one.attributes
    )
    states = [first, *(frame for frame in one.key_frames if isinstance(frame.geometry, Box))]
    last = states[-1].frame
    end = max(last, one.end_frame if one.end_frame is not None else last)
    states.append(msgspec.structs.replace(states[-1], frame=end + 1, label=None))
    label = one.label
    for state, after in zip(states, states[1:], strict=False):  # noqa: RUF007  # it is not on the last
        label = state.label or label
        box, following = state.geometry, after.geometry
        if not state.visible or not isinstance(box, Box) or not isinstance(following, Box):
            continue
        for frame in range(state.frame, after.frame):
            share = (frame - state.frame) / (after.frame - state.frame)
            yield frame, between(box, following, share) if share else box, label, state.attributes


def _told(frame: int, thing: int, box: Box, class_: int, attributes: Mapping[str, Any]) -> str:
    held = _held(attributes)
    cells = (
        frame + 1, thing, number(box.left), number(box.top), difference(box.right, box.left),
        difference(box.bottom, box.top), int(not ("ignored" in held and attributes["ignored"])), class_,
        number(attributes["visibility"]) if "visibility" in held else 1,
    )  # fmt: skip
    return ",".join(map(str, cells)) + "\n"
