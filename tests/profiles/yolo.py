"""A tree of YOLO carries boxes, rotated boxes, polygons of one part or poses, one kind of them each."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st

from syncagent.ingest.annotations import Box, Labelled, Pose
from syncagent.ingest.formats.base import without_suffix
from tests import labelled as l
from tests.profiles import Profile

scores = st.none() | st.sampled_from([0.0, 0.25, 1.0])


def _boxed(pose: Pose, box: Box) -> Pose:
    """With a box that is not just what its points take up: those are at quarters of pixels."""
    return msgspec.structs.replace(pose, box=(box.left + 0.125, box.top, box.right + 0.125, box.bottom))


# The first object says what a tree is of, so rotated boxes come with an angle each.
rotated = l.boxes(l.angles.filter(bool))
kinds = (l.boxes(), rotated, l.simple_polygons, l.poses() | st.builds(_boxed, l.poses(), l.boxes()))
keys = st.sampled_from(
    ["images/train/a.jpg", "images/b.png", "train/images/a.jpg", "c/d.jpg", "日本/e.f.jpg"]
)


def _seen(item: Labelled) -> Labelled:
    """Its files are named without the item's extension."""
    return msgspec.structs.replace(item, key=without_suffix(item.key), stem=True)


PROFILE = Profile(
    items=st.one_of(*(l.items(l.annotations(kind, score=scores), key=l.keys | keys) for kind in kinds)),
    seen=_seen,
    labels=[msgspec.structs.replace(label, joints=l.JOINTS) for label in l.declared()],
    cut=False,
)
