"""CVAT's images hold all but notes and subtitles; its videos hold tracks."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st

from syncagent.ingest.annotations import Annotation, Cuboid, KeyFrame, Labelled
from tests import labelled as l
from tests.profiles import Profile

geometry = st.one_of(
    l.boxes(l.angles), l.simple_polygons, st.builds(lambda line: l.Polyline((line,)), l.flat(2)), l.points, l.ellipses,
    l.flat(8, 8).map(Cuboid), l.bitmasks(), l.classifications,
)  # fmt: skip
# An attribute of a label has one type, as CVAT's meta declares it.
attributes = st.fixed_dictionaries(
    {},
    optional={
        "color": st.just("") | l.texts.filter(lambda text: text.isprintable()),
        "at\"<&>'": st.booleans(),
        "count": st.integers(-5, 5) | st.sampled_from([0.5, 2.0]),
        "occluded": st.booleans(),
        "source": st.sampled_from(["auto", "manual"]),
    },
)
ids = st.none() | st.sampled_from(["1", "7"])
orders = st.fixed_dictionaries({}, optional={"z_order": st.integers(-2, 2)})
plain = l.annotations(geometry, attributes=attributes, object_id=ids)
poses = l.annotations(l.poses(), labels=["body"], attributes=attributes, object_id=ids)
images = l.items(plain | poses, user=st.just({}) | st.just({"subset": "train"}))


@st.composite
def tracks(draw: st.DrawFn) -> Annotation:
    """A track of one kind of shape, with an end before the video's."""
    shape = draw(st.sampled_from([l.boxes(l.angles), l.simple_polygons, l.points, l.ellipses, l.bitmasks()]))
    at = sorted(draw(st.sets(st.integers(0, 90), min_size=1, max_size=4)))
    states = st.builds(KeyFrame, frame=st.just(0), geometry=shape, visible=st.booleans(), attributes=orders)
    frames = tuple(msgspec.structs.replace(draw(states), frame=frame) for frame in at[1:])
    first = draw(l.annotations(shape, labels=["car"], attributes=attributes, visible=st.booleans()))
    return msgspec.structs.replace(
        first, object_id=draw(st.sampled_from(["0", "3"])), frame=at[0], end_frame=draw(st.integers(at[-1], 98)),
        key_frames=frames,
    )  # fmt: skip


videos = l.items(
    tracks(), key=st.sampled_from(["v.mp4", "folder/w x.mov", "日本/e.avi"]), frames=st.just(100), user=st.just({}),
)  # fmt: skip


@st.composite
def mixed(draw: st.DrawFn) -> list[Labelled]:
    """Images, videos, or both."""
    return sorted([*draw(images), *draw(st.just([]) | videos)], key=lambda item: item.key)


PROFILE = Profile(items=mixed(), xml=True)
