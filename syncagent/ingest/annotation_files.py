"""Annotations of items into files: the platform's JSON, drawings, numbers, subtitles."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from syncagent.catalog.base import Item
from syncagent.errors import AlreadyExists, InvalidInput, Unsupported
from syncagent.ingest import render
from syncagent.ingest.annotations import Annotation, Labelled, Subtitle
from syncagent.ingest.formats.base import Losses, NewFiles
from syncagent.ingest.formats.dataloop import annotations_of
from syncagent.ingest.layout import DRAWN, INSTANCE_MAP, Names, Options, annotation_stem, without_extension
from syncagent.ingest.partial import write_whole
from syncagent.model import Action

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Json = dict[str, Any]
# A picture and its drawing may take some hundred megabytes: few at once, however many ask.
_turns = threading.BoundedSemaphore(2)


class AnnotationFiles:
    """Writes what was asked for of items' annotations. Used from many threads.

    :param labels: the recipe's, as `LabelStore.labels` gives them; :param colors: by label.
    """

    def __init__(
        self, names: Names, options: Options, labels: Sequence[Mapping[str, Any]], colors: Mapping[str, str]
    ) -> None:
        self._names, self._options = names, options
        self._style = replace(options.style, colors={**colors, **options.style.colors})
        # As the client numbers them.
        self._numbers = {tag: n for n, tag in enumerate(sorted({str(one["tag"]) for one in labels}), 1)}

    def begin(self) -> None:
        """Write what is said once.

        :raises AlreadyExists: the target has other numbers of labels, and nothing is to be overwritten.
        """
        if "instance" in self._options.annotations:
            path = self._names.claim(INSTANCE_MAP, INSTANCE_MAP)
            put(path, _encoded(self._numbers), self._options)

    def claim(self, item: Item) -> dict[str, Path]:
        """The files that an item's annotations are to have; subtitles' names depend on what they say.

        :raises InvalidInput: one of them is another item's, or can be nobody's.
        """
        found = {}
        for kind in self._options.annotations:
            if kind == "json" or (kind in DRAWN and item.annotations):
                suffix = ".json" if kind == "json" else ".png"
                found[kind] = self._names.claim(
                    annotation_stem(item.key, kind, self._options) + suffix, item.key
                )
        return found

    def write(
        self, item: Item, told: Sequence[Json], paths: Mapping[str, Path], body: Callable[[], BinaryIO]
    ) -> tuple[list[Action], list[str]]:
        """Write an item's files.

        :param told: its annotations; :param body: gives the item's bytes, where its picture is needed.
        :return: what became of each file, and lines about what is in none of them.
        :raises AlreadyExists: there is another file, and nothing is to be overwritten.
        :raises SyncAgentError: the annotations are damaged, or the picture cannot be had.
        """
        done, notes = list[Action](), list[str]()
        if "json" in paths:
            whole = _encoded({**_item_json(item), "annotations": list(told)})
            done.append(put(paths["json"], whole, self._options))
        drawn = {kind: path for kind, path in paths.items() if kind in DRAWN}
        if not told or not (drawn or "vtt" in self._options.annotations):
            return done, notes
        annotations = annotations_of(told, item.key)
        if drawn and any(render.is_drawn(one.geometry) for one in annotations):
            done += self._draw(item, annotations, drawn, body, notes)
        if "vtt" in self._options.annotations:
            done += self._subtitles(item, annotations, notes)
        return done, notes

    def _draw(
        self, item: Item, annotations: tuple[Annotation, ...], paths: Mapping[str, Path],
        body: Callable[[], BinaryIO], notes: list[str],
    ) -> list[Action]:  # fmt: skip
        if item.mimetype.startswith(("video/", "audio/")):
            raise Unsupported(
                f"{item.key}: annotations are drawn over pictures only",
                resource=item.key,
                hint="take its json",
            )
        done = []
        with contextlib.ExitStack() as stack:
            needed = "on-image" in paths or not _sized(item)
            stream = stack.enter_context(contextlib.closing(body())) if needed else None
            stack.enter_context(_turns)
            held = render.opened(stream, item.key) if stream is not None else None
            width, height = held.size if held is not None else (item.system["width"], item.system["height"])
            told = Labelled(key=item.key, annotations=annotations, width=width, height=height)
            for kind, path in paths.items():
                data = self._drawn(kind, told, held, notes)
                if data is not None:
                    done.append(put(path, data, self._options))
        return done

    def _drawn(self, kind: str, told: Labelled, held: Picture | None, notes: list[str]) -> bytes | None:
        if kind == "mask":
            return render.png(render.mask(told, self._style))
        if kind == "instance":
            return render.png(render.instance(told, self._numbers))
        if kind == "object_id":
            found = render.object_id(told)
            notes += [f"{told.key}: {line}" for line in found.left_out]
            return render.png(found.pixels) if found.pixels.any() else None
        if held is None:
            raise InvalidInput(f"{told.key} is no picture", resource=told.key)
        out = io.BytesIO()
        render.on_image(held, told, self._style).save(out, "PNG", compress_level=1)
        return out.getvalue()

    def _subtitles(self, item: Item, annotations: tuple[Annotation, ...], notes: list[str]) -> list[Action]:
        from syncagent.ingest.formats.vtt import Vtt

        spoken = tuple(one for one in annotations if isinstance(one.geometry, Subtitle))
        if not spoken:
            return []
        made = NewFiles()
        losses = Losses(allowed=True, tell=notes.append)
        Vtt().write([Labelled(key=item.key, annotations=spoken)], made, losses=losses)
        done = []
        for name, data in made.files.items():
            # a.vtt, a.mp4.vtt, a.en.vtt: what comes after the item's name stays.
            head = item.key if name.startswith(f"{item.key}.") else without_extension(item.key)
            wanted = annotation_stem(item.key, "vtt", self._options) + name[len(head) :]
            done.append(put(self._names.claim(wanted, item.key), data, self._options))
        return done


def put(path: Path, data: bytes, options: Options) -> Action:
    """Write a small file; one that is there already and says the same is left as it is.

    :raises AlreadyExists: it says something else, and nothing is to be overwritten.
    """
    there = path.is_file()
    if there:
        if path.stat().st_size == len(data) and path.read_bytes() == data:
            return Action.SAME
        if not options.overwrite:
            raise AlreadyExists(
                f"{path} is there, and says something else",
                resource=str(path),
                hint="--overwrite replaces it",
            )
    write_whole(path, data)
    return Action.CHANGED if there else Action.ADDED


def _sized(item: Item) -> bool:
    """Whether it is known how large the upright picture is. Of a turned one the platform tells the size as stored."""
    exif = item.system.get("exif")
    if isinstance(exif, dict) and exif.get("Orientation") in {5, 6, 7, 8}:
        return False
    return all(
        isinstance(item.system.get(side), int) and item.system[side] > 0 for side in ("width", "height")
    )


def _item_json(item: Item) -> Json:
    """The item as an export of the platform tells it."""
    told = item.to_json()
    system = {name: value for name, value in told["metadata"]["system"].items() if value is not None}
    times = {name: _milliseconds(told[name]) for name in ("createdAt", "updatedAt")}
    metadata = {**told["metadata"], "system": system}
    return {**told, **times, "metadata": metadata, "annotated": bool(item.annotations)}


def _milliseconds(time: str) -> str:
    """As the platform writes times."""
    return f"{time[:-1]}.000Z" if len(time) == len("2026-01-01T00:00:00Z") else time


def _encoded(told: Json) -> bytes:
    return json.dumps(
        told, indent=1
    ).encode()  # ASCII, as the client writes it: also half a pair of surrogates
