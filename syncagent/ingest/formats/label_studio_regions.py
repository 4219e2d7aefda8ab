"""Label Studio's results, read; see `formats.label_studio`.

A result is a region, or says something about one: results with one id belong together. Places are told in percent of the
picture, from 0 to 100. Reading rounds them to a millionth of a pixel, which undoes what the percentage did to the last digits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from syncagent.errors import InvalidInput
from syncagent.ingest.annotations import (
    Annotation,
    Box,
    Classification,
    Ellipse,
    Geometry,
    KeyFrame,
    Other,
    Point,
    Polygon,
    Subtitle,
)

Json = Mapping[str, Any]
MARK = "syncagent"
"""The member of a result's ``meta`` with what Label Studio has no place for."""
SHAPES = {
    "rectangle": "rectangle", "rectanglelabels": "rectangle", "polygon": "polygon", "polygonlabels": "polygon",
    "keypoint": "keypoint", "keypointlabels": "keypoint", "ellipse": "ellipse", "ellipselabels": "ellipse",
    "brush": "brush", "brushlabels": "brush", "videorectangle": "video",
}  # fmt: skip
_SPANS = ("labels", "timeserieslabels", "paragraphlabels", "hypertextlabels", "timelinelabels")
_ABOUT = ("choices", "taxonomy", "number", "rating", "datetime", "textarea")
Size = tuple[int, int] | None


@dataclass(slots=True)
class Found:
    """What the results of a task tell."""

    annotations: list[Annotation]
    user: dict[str, Any]
    """Answers about the whole item that are no labels, by the name of their question."""
    texts: list[str]
    """Texts about the whole item."""
    size: Size = None


def read(results: Sequence[Json], size: Size, model: str | None = None, score: float | None = None) -> Found:
    """What results tell.

    :param size: the picture's, where a result does not tell it.
    :param model, score: of a prediction.
    :raises InvalidInput: a result is none; tells which.
    """
    found = Found([], {}, [])
    for name, group in _groups(results):
        try:
            found.size = _size(group[0][1], None) or found.size
            made = _group([one for _, one in group], found, size)
        except InvalidInput as error:
            raise InvalidInput(f"result {name}: {error.message}") from error
        except KeyError as error:
            raise InvalidInput(f"result {name}: lacks {error}") from error
        except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            raise InvalidInput(f"result {name}: {error}") from error
        found.annotations += [
            msgspec.structs.replace(
                one, score=one.score if one.score is not None else score, model=one.model or model
            )
            for one in made
        ]
    return found


def _groups(results: Sequence[Json]) -> Iterator[tuple[int, list[tuple[int, Json]]]]:
    """Results that belong together, in the order of the first of each."""
    groups: dict[Any, list[tuple[int, Json]]] = {}
    for number, one in enumerate(results):
        if not isinstance(one, dict):
            raise InvalidInput(f"result {number}: must be an object")
        if one.get("type") != "relation":  # between two regions: neither a label nor an attribute
            key = one.get("id")
            groups.setdefault(key if isinstance(key, str) and key else number, []).append((number, one))
    for group in groups.values():
        yield group[0][0], group


def _group(group: Sequence[Json], found: Found, size: Size) -> list[Annotation]:
    base = _base(group)
    if base is None:
        return [made for one in group for made in _about_item(one, found)]
    value, type_name = _object(base["value"]), _type(base)
    labels = next((names for one in (base, *group) if (names := _labels(one))), [])
    about = [one for one in group if one is not base]
    one = _common(base, labels[0] if labels else str(base.get("from_name") or type_name), labels[1:])
    if type_name == "videorectangle":
        return [_track(one, value, _size(base, size))]
    if type_name in SHAPES:
        place = _geometry(SHAPES[type_name], value, _size(base, size))
        one = msgspec.structs.replace(one, geometry=place)
    elif type_name == "timelinelabels":
        return [
            _with(
                msgspec.structs.replace(one, frame=_frame(span["start"]), end_frame=_frame(span["end"])),
                about,
            )
            for span in value["ranges"]
        ]
    elif isinstance(value.get("text"), str) or not _is_number(value.get("start")):
        return [_with(msgspec.structs.replace(one, geometry=Other(type_name, dict(value))), about)]
    else:
        one = msgspec.structs.replace(one, start=_number(value["start"]), end=_number(value["end"]))
        return [_said(one, value, base, about)]
    return [_with(one, about)]


def _said(one: Annotation, value: Json, base: Json, about: Sequence[Json]) -> Annotation:
    """A span of time: words, where some are told for it."""
    texts = [text for two in (base, *about) if _type(two) == "textarea" for text in _texts(two)]
    rest = [two for two in about if _type(two) != "textarea"]
    if texts or _type(base) == "textarea":
        one = msgspec.structs.replace(one, geometry=Subtitle("\n".join(texts)))
    return _with(one, rest)


def _base(group: Sequence[Json]) -> Json | None:
    """The result that tells where a group is; None if it is about the whole item."""
    for one in group:
        if _type(one) in SHAPES:
            return one
    for one in group:
        if _type(one) in _SPANS and not isinstance(_object(one.get("value")).get("sequence"), list):
            return one
    for one in group:
        value = _object(one.get("value"))
        if _type(one) == "textarea" and _is_number(value.get("start")) and _is_number(value.get("end")):
            return one
    return next((one for one in group if _type(one) not in _ABOUT), None)


def _about_item(result: Json, found: Found) -> list[Annotation]:
    """Labels of the whole item. What is about it and no label goes into `found`."""
    value, name = _object(result["value"]), str(result.get("from_name") or _type(result))
    match _type(result):
        case "choices":
            labels = [str(choice) for choice in value["choices"]]
        case "taxonomy":
            labels = [".".join(map(str, path)) for path in value["taxonomy"]]
        case "textarea":
            found.texts += _texts(result)
            return []
        case other:
            found.user[name] = value[other]
            return []
    one = _common(result, "", [])
    if len(labels) > 1:  # an id names one annotation
        one = msgspec.structs.replace(one, id=None)
    return [msgspec.structs.replace(one, label=label) for label in labels]


def _common(result: Json, label: str, more: Sequence[str]) -> Annotation:
    """What every result may tell, for a classification so far."""
    meta = _object(result.get("meta"))
    mark = _object(meta.get(MARK))
    text = meta.get("text")
    said = "\n".join(map(str, text)) if isinstance(text, list) else text
    attributes = {key: value for key, value in meta.items() if key not in {MARK, "text"}}
    if more:
        attributes["labels"] = list(more)
    score = result.get("score")
    return Annotation(
        label=label, geometry=Classification(), attributes={**attributes, **_object(mark.get("attributes"))},
        description=said if isinstance(said, str) and said else None, id=_text(result.get("id")),
        parent=_text(result.get("parentID")), object_id=_text(mark.get("object_id")), crowd=mark.get("crowd") is True,
        model=_text(mark.get("model")), score=None if score is None else _number(score),
        visible=result.get("hidden") is not True,
    )  # fmt: skip


def _with(one: Annotation, about: Sequence[Json]) -> Annotation:
    """With what the other results say about a region."""
    attributes = dict(one.attributes)
    for result in about:
        value, name = _object(result.get("value")), str(result.get("from_name") or _type(result))
        match _type(result):
            case "choices":
                choices = [str(choice) for choice in value["choices"]]
                attributes[name] = choices[0] if len(choices) == 1 else choices
            case "taxonomy":
                attributes[name] = [".".join(map(str, path)) for path in value["taxonomy"]]
            case "textarea" if one.description is None:
                one = msgspec.structs.replace(one, description="\n".join(_texts(result)) or None)
            case "textarea":
                attributes[name] = "\n".join(_texts(result))
            case "number" | "rating" | "datetime" as type_name:
                attributes[name] = value[type_name]
    return msgspec.structs.replace(one, attributes=attributes) if attributes else one


# -- places --------------------------------------------------------------------------------------


def _geometry(shape: str, value: Json, size: Size) -> Geometry:
    if size is None:
        raise InvalidInput("tells no original_width and original_height, and nothing else does")
    width, height = size
    match shape:
        case "rectangle":
            return _box(value, width, height)
        case "polygon":
            ring = tuple(
                number for x, y in value["points"] for number in (_pixels(x, width), _pixels(y, height))
            )
            if not ring:
                raise InvalidInput("a polygon without points")
            return Polygon(((ring,),))
        case "keypoint":
            return Point(_pixels(value["x"], width), _pixels(value["y"], height))
        case "ellipse":
            return Ellipse(
                _pixels(value["x"], width), _pixels(value["y"], height), _pixels(value["radiusX"], width),
                _pixels(value["radiusY"], height), _number(value.get("rotation") or 0),
            )  # fmt: skip
        case _:
            from syncagent.ingest.formats import label_studio_rle

            return label_studio_rle.decode(value["rle"], width, height)


def _box(value: Json, width: int, height: int) -> Box:
    """A rectangle: theirs is turned around its upper left corner, ours around its centre."""
    x, y = _number(value["x"]) * width / 100, _number(value["y"]) * height / 100
    w, h = _number(value["width"]) * width / 100, _number(value["height"]) * height / 100
    angle = _number(value.get("rotation") or 0)
    if angle:
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        middle_x, middle_y = x + w / 2 * cos - h / 2 * sin, y + w / 2 * sin + h / 2 * cos
        x, y = middle_x - w / 2, middle_y - h / 2
    return Box(_round(x), _round(y), _round(x + w), _round(y + h), angle)


def _track(one: Annotation, value: Json, size: Size) -> Annotation:
    """A rectangle in a video. Where a key frame is not "enabled", the rectangle is last shown there, until the next."""
    if size is None:  # percent of what?
        raise InvalidInput("tells no original_width and original_height, and nothing else does")
    told = sorted(value["sequence"], key=lambda entry: _frame(entry["frame"]))
    if not told:
        raise InvalidInput("a video's rectangle without key frames")
    entries = [
        (_frame(entry["frame"]), _box(entry, *size), entry.get("enabled", True) is not False)
        for entry in told
    ]
    frames: list[KeyFrame] = []
    for (before, box, shown), (frame, place, _) in itertools.pairwise(entries):
        if frame == before:
            raise InvalidInput(f"two key frames at frame {frame + 1}")
        if not shown and frame > before + 1:
            frames.append(KeyFrame(frame=before + 1, geometry=box, visible=False))
        frames.append(KeyFrame(frame=frame, geometry=place))
    first, (last, place, shown) = entries[0], entries[-1]
    if not shown:
        # A key frame that changes nothing and ends the rectangle is its end, and no more.
        if len(entries) > 1 and entries[-2][1:] == (place, True):
            frames.pop()
        end = last
    else:
        count = value.get("framesCount")
        end = last if count is None else max(last, _frame(count))
    return msgspec.structs.replace(
        one, geometry=first[1], frame=first[0], end_frame=end, key_frames=tuple(frames)
    )


def _size(result: Json, otherwise: Size) -> Size:
    if result.get("image_rotation"):
        raise InvalidInput(
            "its picture was turned in the editor (image_rotation): turn it back there, and export again"
        )
    width, height = result.get("original_width"), result.get("original_height")
    if width is None or height is None:
        return otherwise
    if not (1 <= _number(width) < 1 << 31 and 1 <= _number(height) < 1 << 31):
        raise InvalidInput("its picture has no size that a picture may have")
    return int(width), int(height)


def _pixels(percent: Any, size: int) -> float:
    return _round(_number(percent) * size / 100)


def _round(value: float) -> float:
    found = round(value, 6) + 0.0  # no -0.0
    if not math.isfinite(found):
        raise ValueError("a place is out of all bounds")
    return found


# -- values --------------------------------------------------------------------------------------


def _type(result: Json) -> str:
    return str(result.get("type") or "").lower()


def _labels(result: Json) -> list[str]:
    value, type_name = _object(result.get("value")), _type(result)
    told = value.get(type_name) if type_name.endswith("labels") else None
    told = told or value.get("labels") or []
    return [str(one) for one in told] if isinstance(told, list) else []


def _texts(result: Json) -> list[str]:
    told = _object(result.get("value")).get("text")
    return [str(one) for one in told] if isinstance(told, list) else [] if told is None else [str(told)]


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> float:
    if not _is_number(value):
        raise TypeError("a number is expected where there is none")
    return float(value)


def _frame(value: Any) -> int:
    """Their frames count from 1."""
    frame = int(_number(value)) - 1
    if frame < 0:
        raise ValueError("frames count from 1")
    return frame
