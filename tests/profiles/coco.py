"""COCO carries boxes, polygons of several parts, masks and poses, each with a number, and captions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import strategies as st

from syncagent.ingest.annotations import Annotation, Box, Classification, Label, Mask, Polygon, Pose
from tests import labelled as l
from tests.profiles import Profile

scores = st.none() | st.sampled_from([0.0, 0.25, 1.0])
descriptions = st.none() | l.texts


def _boxed(pose: Pose, box: Box) -> Pose:
    """With a box that is not just what its points take up: those are at quarters of pixels."""
    return msgspec.structs.replace(pose, box=(box.left + 0.125, box.top, box.right + 0.125, box.bottom))


poses = l.poses() | st.builds(_boxed, l.poses(), l.boxes())
plain = l.annotations(
    st.one_of(l.boxes(), l.parted_polygons, l.bitmasks(), poses), attributes=l.attributes, description=descriptions,
    crowd=st.booleans(), score=scores,
)  # fmt: skip
captions = st.builds(
    Annotation, label=st.just("caption"), geometry=st.just(Classification()), description=l.texts
)
areas = l.annotations(l.parted_polygons | l.bitmasks(), attributes=l.attributes, score=scores)
visible = l.poses().filter(lambda pose: any(joint.visible for joint in pose.joints))


@st.composite
def _annotations(draw: Callable[..., Any]) -> tuple[Annotation, ...]:
    """Numbered in any order; some areas have a pose."""
    numbers = draw(st.lists(st.integers(0, 2**53), min_size=4, max_size=4, unique=True))
    found: list[Annotation] = []
    for number in numbers[: draw(st.integers(0, 4))]:
        one = draw(plain | captions | areas)
        found.append(msgspec.structs.replace(one, id=str(number)))
        if not isinstance(one.geometry, Polygon | Mask) or draw(st.booleans()):
            continue
        found.append(Annotation(label=one.label, geometry=draw(visible), parent=str(number)))
    return tuple(found)


@st.composite
def _items(draw: Callable[..., Any]) -> Any:
    """No two annotations of a file have the same number."""
    user = st.dictionaries(st.sampled_from(["license", "flickr_url", "日"]), l.attribute_values, max_size=2)
    items = draw(l.items(plain, user=user, annotations=_annotations()))
    for at, item in enumerate(items):
        renamed = {one.id: str(3 * int(one.id) + at) for one in item.annotations if one.id}
        again = tuple(
            msgspec.structs.replace(one, id=renamed.get(one.id), parent=renamed.get(one.parent))
            for one in item.annotations
        )
        items[at] = msgspec.structs.replace(item, annotations=again)
    return items


PROFILE = Profile(
    items=_items(),
    labels=[msgspec.structs.replace(label, joints=l.JOINTS) for label in l.declared()]
    + [Label(name="spare", id=90)],
)
