"""Pictures of numbers carry masks that do not overlap, with a number for each object."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from hypothesis import strategies as st

from syncagent.ingest import masks
from syncagent.ingest.annotations import Annotation, Labelled, Mask
from syncagent.ingest.formats.base import without_suffix
from tests import labelled as l
from tests.profiles import Profile


def apart(found: Sequence[Mask]) -> list[Mask]:
    """Masks without the pixels of those before them; those of which nothing is left are gone."""
    covered, kept = np.zeros((l.HEIGHT, l.WIDTH), dtype=bool), []
    for mask in found:
        left = masks.decode(mask) & ~covered
        covered |= left
        if left.any():
            kept.append(masks.encode(left))
    return kept


@st.composite
def _annotations(draw: st.DrawFn) -> tuple[Annotation, ...]:
    found = apart(draw(st.lists(l.bitmasks(), max_size=4)))
    numbers = sorted(draw(st.sets(st.integers(1, 999), min_size=len(found), max_size=len(found))))
    return tuple(
        Annotation(label=draw(st.sampled_from(l.LABELS)), geometry=mask, object_id=str(number))
        for mask, number in zip(found, numbers, strict=True)
    )


def _seen(item: Labelled) -> Labelled:
    """Its files are named without the item's extension."""
    return msgspec.structs.replace(item, key=without_suffix(item.key), stem=True)


PROFILE = Profile(
    items=l.items(l.annotations(l.bitmasks()), annotations=_annotations()),
    seen=_seen,
)
