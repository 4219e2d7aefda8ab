"""WebVTT tells words, speakers, names of cues, a language and settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from syncagent.ingest.annotations import Annotation, Labelled
from tests import labelled as l
from tests.profiles import Profile

times = st.tuples(st.integers(0, 9_000_000), st.integers(0, 9_000_000)).map(sorted)
words = st.one_of(
    l.texts,
    st.lists(st.just("") | l.texts, min_size=1, max_size=3).map("\n".join),
    st.sampled_from(["", "&amp;lt;", "a --> b", "<i>not a tag</i>", "NOTE this", "1", "x\ry", " "]),
)
attributes = st.fixed_dictionaries(
    {},
    optional={
        "language": st.sampled_from(["en", "de", "zh-Hant"]),
        "settings": st.just("align:start line:0%"),
    },
)


def said(text: st.SearchStrategy[str], labels: Sequence[str], **more: Any) -> st.SearchStrategy[Annotation]:
    """Subtitles with times in milliseconds, and the frames at ten a second."""
    return st.builds(_said, times, l.annotations(st.builds(l.Subtitle, text), labels, **more))


def _said(span: list[int], one: Annotation) -> Annotation:
    start, end = span
    return msgspec.structs.replace(
        one,
        start=start / 1000,
        end=end / 1000,
        frame=math.floor(start / 100),
        end_frame=math.floor(end / 100),
    )


def seen(item: Labelled) -> Labelled:
    """A file for each language, in their order; the media file's extension and size are not told."""
    return Labelled(
        key=item.key.rpartition(".")[0], stem=True, annotations=tuple(sorted(item.annotations, key=_file))
    )


def _file(one: Annotation) -> str:
    language = one.attributes.get("language")
    return f"{language}.vtt" if language else "vtt"


PROFILE = Profile(
    items=l.items(
        said(
            words, (*l.LABELS, "Text"), attributes=attributes, id=st.sampled_from([None, "1", "日本", "a b"])
        )
    ),
    seen=seen,
    cut=False,
)
