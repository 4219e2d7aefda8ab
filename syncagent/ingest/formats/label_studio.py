"""Label Studio's JSON: its full export (a list of tasks, or a task in each line), and what it imports; JSON-MIN is read, too.

A task is an item. Its file is what ``data`` tells of an image, a video, a sound or a text: ``/data/upload/3/1a2b3c4d-a.jpg`` is
``a.jpg`` (without what the upload put before it), ``/data/local-files/?d=x/a.jpg`` is ``x/a.jpg``, ``s3://bucket/x/a.jpg`` is
``x/a.jpg``, and ``https://host/x/a%20b.jpg`` is ``x/a b.jpg``; what a URL encodes is decoded once. Other members of ``data`` and
``meta`` go to the item's metadata.

Of several annotations of a task the one marked as ground truth is read, else the latest; those that were cancelled never are.
Choices label the whole item. Texts are subtitles where they have a start and an end, else descriptions. Rectangles of videos are
tracks, whose frames count from 1 there. What the format has no place for (attributes, ids of objects) stands in ``meta`` of a
result. Places are exact to a millionth of a pixel. Types of results that this module does not know are kept as they are (`Other`).
Relations between regions are not read.

Sources: https://labelstud.io/guide/export, https://labelstud.io/guide/task_format and the tags' pages of https://labelstud.io/tags.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from syncagent.errors import InvalidInput
from syncagent.ingest.annotations import (
    Box,
    Classification,
    Ellipse,
    Label,
    Labelled,
    Mask,
    Point,
    Polygon,
    Subtitle,
)
from syncagent.ingest.formats import label_studio_write
from syncagent.ingest.formats.base import Context, Losses, Out, Tree, refuse, wrong
from syncagent.ingest.formats.carry import named_as_media
from syncagent.ingest.formats.checks import FARTHEST, sound, writable
from syncagent.ingest.formats.label_studio_regions import Found, read
from syncagent.ingest.formats.label_studio_tasks import tasks

Json = dict[str, Any]
MEDIA = ("image", "video", "audio", "text")
_MOST = 1 << 53  # beyond that a JSON number is not exact
_FACTS = ("width", "height", "fps", "frames", "description")
_UPLOAD = re.compile(r"(?:.*/)?data/upload/(?:.*/)?(?:[0-9a-f]{8}-)?([^/]+)")


class LabelStudio:
    """See `formats.base.Format`. Writes ``label-studio.json``.

    :param every: read all annotations of a task, not only the best of them.
    :param predictions: read the predictions of tasks that nobody annotated; they have a score and a model.
    :param media: the member of a task's ``data`` that tells its file, where that is not plain.
    """

    name: ClassVar[str] = "label-studio"
    suffixes: ClassVar[tuple[str, ...]] = (".json", ".jsonl")
    holds: ClassVar[frozenset[type]] = frozenset(
        {Box, Polygon, Point, Ellipse, Mask, Classification, Subtitle}
    )

    def __init__(self, *, every: bool = False, predictions: bool = False, media: str | None = None) -> None:
        self._every, self._predictions, self._media = every, predictions, media

    def read(self, tree: Tree, context: Context = Context()) -> Iterator[Labelled]:  # noqa: B008  # frozen
        """See `Format.read`."""
        for name in tree.names():
            if name.lower().endswith(self.suffixes):
                try:
                    for record, task in tasks(tree, name):
                        yield self._item(task, name, record, context)
                except RecursionError as error:
                    raise wrong(name, None, "nested too deeply") from error

    def labels(self, tree: Tree) -> list[Label]:
        """None: the labels are in the project's configuration, which an export lacks."""
        return []

    def write(
        self,
        items: Iterable[Labelled],
        out: Out,
        *,
        labels: Sequence[Label] = (),
        losses: Losses | None = None,
    ) -> None:
        """See `Format.write`. The names of the controls, which the project's configuration must have: see `label_studio_write`."""
        losses = losses if losses is not None else Losses()
        label_studio_write.write(self.name, writable(items, self.name, losses, most=FARTHEST), out, losses)

    def _item(self, task: Json, file: str, record: str, context: Context) -> Labelled:
        if "task" in task and "result" in task:  # an annotation with its task, as storages are exported to
            task = {**_object(task["task"]), "annotations": [task]}
        minimum = "data" not in task
        data = task if minimum else task["data"]
        if not isinstance(data, dict):
            refuse(file, record, "a task's data must be an object")
        if minimum:
            task = _from_minimum(task)
        name, url = self._file_of(data, file, record)
        try:
            key = key_of(url)
        except ValueError as error:
            raise wrong(file, record, f"data.{name} tells no file: {error}") from error
        facts = {fact: value for fact in _FACTS if (value := _fact(fact, data.get(fact))) is not None}
        width, height = facts.get("width"), facts.get("height")
        try:
            found = self._found(task, (width, height) if width and height else context.size(key, False))
        except InvalidInput as error:
            raise wrong(file, record, error.message) from error
        if not (width and height) and found.size:
            width, height = found.size
        rest = {
            one: value
            for one, value in data.items()
            if one != name and one not in facts and not _regions(value)
        }
        item = Labelled(
            key=key, annotations=tuple(found.annotations), width=width, height=height, frames=facts.get("frames"),
            fps=facts.get("fps"), user={**rest, **_object(task.get("meta")), **found.user},
            description="\n".join([*filter(None, [facts.get("description")]), *found.texts]) or None,
        )  # fmt: skip
        return sound(item, file, record)

    def _found(self, task: Json, size: tuple[int, int] | None) -> Found:
        annotations = [
            one
            for one in _list(task.get("annotations", task.get("completions")))
            if not one.get("was_cancelled")
        ]
        if not annotations and self._predictions:
            annotations = _list(task.get("predictions"))
        chosen = annotations if self._every else [_best(annotations)] if annotations else []
        whole = Found([], {}, [])
        for one in chosen:
            model = _text(one.get("model_version"))
            results = one.get("result") or []
            if not isinstance(results, list):
                raise InvalidInput("an annotation's result must be a list")
            found = read(results, size, model, _score(one.get("score")))
            whole.annotations += found.annotations
            whole.user |= found.user
            whole.texts += found.texts
            whole.size = found.size or whole.size
        return whole

    def _file_of(self, data: Mapping[str, Any], file: str, record: str) -> tuple[str, str]:
        """The member of a task's data that tells its file, and what it tells."""
        for name in [self._media] if self._media else [*MEDIA, *data]:
            told = data.get(name)
            if isinstance(told, str) and (name in {*MEDIA[:3], self._media} or _is_url(told)):
                return name, told
        raise wrong(file, record, "no member of its data tells a file")


def _best(annotations: Sequence[Json]) -> Json:
    """The ground truth, or the latest; the last of those that tell no time."""
    truths = [one for one in annotations if one.get("ground_truth")] or annotations
    return max(
        enumerate(truths),
        key=lambda one: (str(one[1].get("updated_at") or one[1].get("created_at") or ""), one[0]),
    )[1]


def _from_minimum(task: Json) -> Json:
    """A task of JSON-MIN, which tells of each control the values alone, as one with results."""
    results: list[Json] = []
    for name, told in task.items():
        for one in told if isinstance(told, list) else [told]:
            if isinstance(one, dict) and (type_name := _type_of(one)):
                size = {key: one[key] for key in ("original_width", "original_height") if key in one}
                results.append({"from_name": name, "type": type_name, "value": one, **size})
    return {"annotations": [{"result": results}]}


def _type_of(value: Json) -> str | None:
    return next((key for key in value if key.endswith("labels") or key == "choices"), None)


def _regions(value: Any) -> bool:
    """Whether a member of a task of JSON-MIN tells regions."""
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, dict) and _type_of(first) is not None


# -- files ---------------------------------------------------------------------------------------


def key_of(url: str) -> str:
    """The path of a file, as a task's data tells it.

    :raises ValueError: it tells none.
    """
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    if parts.path.endswith("/local-files/") and "d" in query:
        key = query["d"][0]
    elif "fileuri" in query:
        try:
            return key_of(base64.b64decode(query["fileuri"][0], validate=True).decode())
        except (binascii.Error, UnicodeDecodeError) as error:
            raise ValueError("its fileuri is not base64") from error
    elif found := _UPLOAD.fullmatch(parts.path):
        key = unquote(found[1])
    elif parts.scheme in {"http", "https"}:
        key = unquote(parts.path)
    elif len(parts.scheme) > 1 and parts.netloc:  # a bucket: its keys are not encoded
        key = url.split("://", 1)[1].partition("/")[2]
    else:
        key = url
    key = key.lstrip("/")
    if not key:
        raise ValueError("it has no path")
    return key


def _is_url(text: str) -> bool:
    return bool(re.match(r"[A-Za-z][\w+.-]*://\S+$|/\S+$", text)) or (
        named_as_media(text) and "\n" not in text
    )


def _list(value: Any) -> list[Json]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _score(value: Any) -> float | None:
    """A prediction's score; none where it is no number."""
    if isinstance(value, bool) or not isinstance(value, float | int):
        return None
    if abs(value) >= _MOST:
        raise InvalidInput("an annotation's score is no number that a score may be")
    return float(value)


def _fact(name: str, value: Any) -> Any:
    """What a member of a task's data tells of its file; None if it does not."""
    if name in {"fps", "description"}:
        return _text(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MOST else None
