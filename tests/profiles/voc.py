"""Pascal VOC carries boxes with attributes and parts, and masks that do not overlap."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st

from syncagent.ingest.annotations import Annotation
from tests import labelled as l
from tests.profiles import Profile
from tests.profiles.masks import apart

names = st.sampled_from(
    ["pose", "difficult", "a b", "attributes", "name", "1", "日", "color", "actions.jumping"]
)
attributes = st.dictionaries(
    names, l.attribute_values | st.sampled_from([0.5, "007", "1", "<&>", "True"]), max_size=3
)
user = st.dictionaries(
    st.sampled_from(["source", "owner", "a b", "folder", "metadata"]),
    l.attribute_values
    | st.dictionaries(st.sampled_from(["database", "image"]), l.attribute_values, max_size=2),
    max_size=3,
)


@st.composite
def _annotations(draw: st.DrawFn) -> tuple[Annotation, ...]:
    """Objects with their parts, then masks; some are the same thing as an object."""
    found: list[Annotation] = []
    objects = draw(st.lists(l.annotations(l.boxes(), attributes=attributes), max_size=3))
    masks = apart(draw(st.lists(l.bitmasks(), max_size=3)))
    same = draw(st.sets(st.integers(1, len(objects)))) if objects and masks else set()
    numbers = sorted([*same][: len(masks)])
    for place, one in enumerate(objects, 1):
        parts = draw(st.lists(l.annotations(l.boxes(), parent=st.just(str(place))), max_size=2))
        own = {"id": str(place)} if parts else {}
        own |= {"object_id": str(place)} if place in numbers else {}
        found += [msgspec.structs.replace(one, **own), *parts]
    labels = [objects[number - 1].label for number in numbers]
    while len(numbers) < len(masks):
        numbers.append(max([len(objects), *numbers]) + draw(st.integers(1, 80)))
        labels.append(draw(st.sampled_from(l.LABELS)))
    for mask, number, label in zip(masks, numbers, labels, strict=True):
        found.append(Annotation(label=label, geometry=mask, object_id=str(number)))
    return tuple(found)


PROFILE = Profile(
    items=l.items(l.annotations(l.boxes()), user=user, annotations=_annotations()),
    xml=True,
    cut=False,  # the list of labels is a table
)
