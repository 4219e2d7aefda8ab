"""A table carries everything that the platform's JSON does, to the last digit."""

from __future__ import annotations

import math

import msgspec
from hypothesis import strategies as st

from tests import labelled as l
from tests.profiles import Profile
from tests.profiles.dataloop import PROFILE as EVERYTHING

numbers = st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: math.copysign(1, x) > 0 or x != 0)
exact = l.annotations(
    st.builds(l.Box, numbers, numbers, numbers, numbers, numbers) | st.builds(l.Point, numbers, numbers)
)
formulas = st.sampled_from(["=1+1", "+a", "-b", "@c", "'d", "-5", '"', "a,b\n\rc", "null"])
texts = l.annotations(
    st.builds(l.Subtitle, st.just("") | formulas),
    labels=["=x", "\tx"],
    description=st.none() | formulas,
    model=formulas,
)
more = st.lists(exact | texts, max_size=3).map(tuple)


@st.composite
def items(draw: st.DrawFn) -> list[l.Labelled]:
    """What the platform carries, numbers of any size, and texts that a spreadsheet takes for something else."""
    return [
        msgspec.structs.replace(
            item, annotations=(*item.annotations, *draw(more)), frames=draw(st.none() | st.just(7)),
            fps=draw(st.none() | st.just("30000/1001")), stem=draw(st.booleans()),
            width=draw(st.none() | st.just(item.width)),
        )
        for item in draw(EVERYTHING.items)
    ]  # fmt: skip


PROFILE = Profile(items=items(), cut=False)
