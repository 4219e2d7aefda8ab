"""MOT holds boxes at frames: tracks by the number of their object, and boxes of none."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st

from syncagent.ingest.annotations import Annotation, KeyFrame, Labelled
from tests import labelled as l
from tests.profiles import Profile

attributes = st.fixed_dictionaries(
    {}, optional={"visibility": st.sampled_from([0.0, 0.25, 0.86014]), "ignored": st.just(True)}
)
sides = st.floats(-1e6, 1e6).map(abs)
exact = (
    st.tuples(sides, sides, sides, sides)
    .map(lambda four: l.Box(*sorted(four[:2]), *sorted(four[2:])))
    .map(lambda box: l.Box(box.left, box.right, box.top, box.bottom))
    .filter(lambda box: box.left <= box.right and box.top <= box.bottom)
)
boxes = l.boxes() | exact


@st.composite
def tracks(draw: st.DrawFn) -> Annotation:
    """A row for every frame, but for gaps, each of which begins with a hidden key frame."""
    first = draw(l.annotations(boxes, attributes=attributes, frame=st.integers(0, 5)))
    frame, box, label, frames = first.frame or 0, first.geometry, first.label, []
    for gap in draw(st.lists(st.integers(0, 2), max_size=4)):
        if gap:
            frames.append(KeyFrame(frame=frame + 1, geometry=box, visible=False))
        frame += 1 + gap
        box, now = draw(boxes), draw(st.sampled_from(l.LABELS))
        frames.append(
            KeyFrame(
                frame=frame, geometry=box, label=None if now == label else now, attributes=draw(attributes)
            )
        )
        label = now
    return msgspec.structs.replace(first, end_frame=frame, key_frames=tuple(frames))


def _numbered(found: list[Annotation]) -> tuple[Annotation, ...]:
    """Every track is another object; so is no box without key frames, but for the first."""
    return tuple(
        msgspec.structs.replace(one, object_id=str(n) if one.key_frames or n == 1 else None)
        for n, one in enumerate(found, 1)
    )


def seen(item: Labelled) -> Labelled:
    """The media file's extension is not told."""
    return msgspec.structs.replace(item, key=item.key.rpartition(".")[0], stem=True)


PROFILE = Profile(
    items=l.items(
        tracks(), annotations=st.lists(tracks(), max_size=4).map(_numbered), fps=st.sampled_from([None, "25", "30000/1001"]),
        frames=st.none() | st.just(100),
    ),
    seen=seen,
    cut=False,
)  # fmt: skip
