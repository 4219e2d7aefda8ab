"""Label Studio's tasks hold shapes of pictures, rectangles of videos, labels and words of times."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st

from syncagent.ingest.annotations import Annotation, KeyFrame, Labelled
from tests import labelled as l
from tests.profiles import Profile

geometry = st.one_of(
    l.boxes(l.angles), l.simple_polygons, l.points, l.ellipses, l.bitmasks(), l.classifications
)
more = {
    "attributes": l.attributes, "description": st.none() | l.texts, "object_id": st.none() | l.texts,
    "crowd": st.booleans(), "score": st.none() | st.sampled_from([0.0, 0.25, 1.0]), "visible": st.booleans(),
    "model": st.none() | l.texts,
}  # fmt: skip
times = st.sampled_from([0.0, 0.1, 1.25, 3.0])
plain = l.annotations(geometry, **more)
spans = l.annotations(
    l.classifications | l.subtitles, start=times, end=times.map(lambda time: time + 2), **more
)
ranges = l.annotations(l.classifications, frame=st.integers(0, 5), end_frame=st.integers(6, 9))


@st.composite
def tracks(draw: st.DrawFn) -> Annotation:
    """Key frames that are shown, or hide the track from the frame after another on; and an end after the last."""
    first = draw(l.annotations(l.boxes(l.angles), frame=st.integers(0, 5), attributes=l.attributes))
    frame, box, frames = first.frame or 0, first.geometry, []
    for gap in draw(st.lists(st.integers(1, 4), max_size=3)):
        if gap == 4:
            frames.append(KeyFrame(frame=frame + 1, geometry=box, visible=False))
        frame, box = frame + gap, draw(l.boxes(l.angles))
        frames.append(KeyFrame(frame=frame, geometry=box))
    end = draw(st.just(99) | st.integers(frame + 1, 50))
    return msgspec.structs.replace(first, end_frame=end, key_frames=tuple(frames))


def _named(found: list[Annotation]) -> tuple[Annotation, ...]:
    """With ids, and the second below the first."""
    return tuple(
        msgspec.structs.replace(one, id=f"id{n}", parent="id0" if n == 1 else None)
        for n, one in enumerate(found)
    )


def _items(annotation: st.SearchStrategy[Annotation], **fields: object) -> st.SearchStrategy[list[Labelled]]:
    return l.items(
        annotation, annotations=st.lists(annotation, max_size=4).map(_named), description=st.none() | l.texts,
        user=st.dictionaries(l.texts, l.attribute_values, max_size=2), **fields,  # type: ignore[arg-type]
    )  # fmt: skip


images = _items(plain, key=l.keys | st.sampled_from(["a+b%20&=?#c.jpg"]))
videos = _items(
    tracks() | spans | ranges | l.annotations(l.classifications), key=st.sampled_from(["v.mp4", "x/w x.mov"]),
    frames=st.just(100), fps=st.sampled_from([None, "25", "30000/1001"]),
)  # fmt: skip
sounds = _items(spans, key=st.sampled_from(["s.mp3", "x/t.wav"]), width=st.none(), height=st.none())


def seen(item: Labelled) -> Labelled:
    """Labels of the whole item and nothing else stand together, and several have no ids."""
    whole = [one for one in item.annotations if _is_plain(one)]
    if len(whole) > 1:
        others = [one for one in item.annotations if not _is_plain(one)]
        at = next(n for n, one in enumerate(item.annotations) if _is_plain(one))
        merged = [msgspec.structs.replace(one, id=None) for one in whole]
        return msgspec.structs.replace(item, annotations=(*others[:at], *merged, *others[at:]))
    return item


def _is_plain(one: Annotation) -> bool:
    return one == Annotation(label=one.label, geometry=l.Classification(), id=one.id)


PROFILE = Profile(items=st.one_of(images, videos, sounds), seen=seen)
