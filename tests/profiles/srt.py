"""SubRip tells words, and where on the screen; files of several languages lie beside each other."""

from __future__ import annotations

from hypothesis import strategies as st

from tests import labelled as l
from tests.profiles import Profile
from tests.profiles.vtt import said, seen

plain = l.texts.filter(lambda text: "-->" not in text and "<" not in text and "{" not in text)
words = st.one_of(
    plain,
    st.lists(plain, min_size=1, max_size=3).map("\n".join),
    st.sampled_from(["", "&amp;", "x < y", "12", "00:00:01,000", "{}"]),
)
attributes = st.fixed_dictionaries(
    {}, optional={"language": st.sampled_from(["en", "de"]), "settings": st.just("X1:40 X2:600 Y1:20 Y2:50")}
)

PROFILE = Profile(
    items=l.items(said(words, ["Text"], attributes=attributes)),
    seen=seen,
    cut=False,
    labels=l.declared(["Text"]),
)
