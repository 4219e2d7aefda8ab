"""The platform's JSON carries everything."""

from __future__ import annotations

from hypothesis import strategies as st

from syncagent.ingest.annotations import Annotation, KeyFrame
from tests import labelled as l
from tests.profiles import Profile

geometry = st.one_of(*l.every_geometry.values())
key_frames = st.lists(
    st.builds(
        KeyFrame, frame=st.integers(1, 9), geometry=l.boxes(), label=st.sampled_from([None, "bus"]), visible=st.booleans(),
        fixed=st.booleans(), attributes=l.attributes,
    ), min_size=1, max_size=2,
).map(tuple)  # fmt: skip
plain = l.annotations(
    geometry, attributes=l.attributes, description=st.none() | l.texts, object_id=st.none() | st.just("7"),
    crowd=st.booleans(), score=st.none() | st.sampled_from([0.0, 0.25, 1.0]), visible=st.booleans(),
)  # fmt: skip
tracks = l.annotations(
    l.boxes(), object_id=st.just("1"), frame=st.just(0), end_frame=st.just(9), start=st.just(0.0), end=st.just(0.9),
    key_frames=key_frames,
)  # fmt: skip
said = l.annotations(
    l.subtitles, start=st.just(1.25), end=st.just(2.5), frame=st.just(12), end_frame=st.just(25)
)


def _named(found: list[Annotation]) -> tuple[Annotation, ...]:
    """With ids, and the second below the first: a pose must have one, for its points."""
    named = [
        Annotation(**{f: getattr(one, f) for f in one.__struct_fields__ if f not in {"id", "parent"}},
                   id=f"id{n}", parent="id0" if n == 1 else None)
        for n, one in enumerate(found)
    ]  # fmt: skip
    return tuple(named)


PROFILE = Profile(
    items=l.items(
        plain, user=st.dictionaries(l.texts, l.attribute_values, max_size=2), description=st.none() | l.texts,
        annotations=st.lists(plain | tracks | said, max_size=4).map(_named),
    )
)  # fmt: skip
