"""Random annotations for tests of the formats. Coordinates are quarters of pixels, so that no rounding hides a fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from syncagent.ingest import masks
from syncagent.ingest.annotations import (
    Annotation,
    Box,
    Classification,
    Cuboid,
    Ellipse,
    Geometry,
    Joint,
    Label,
    Labelled,
    Mask,
    Message,
    Note,
    Other,
    Point,
    Polygon,
    Polyline,
    Pose,
    Subtitle,
)

WIDTH, HEIGHT = 64, 48
LABELS = ("car", "person", "animal.cat", "日本", "a b")
JOINTS = ("nose", "left eye", "right eye")

xs = st.integers(0, WIDTH * 4).map(lambda n: n / 4)
ys = st.integers(0, HEIGHT * 4).map(lambda n: n / 4)
angles = st.sampled_from([0.0, 30.0, -45.5, 90.0, 179.0])
corner = st.tuples(xs, ys)
texts = (
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
    .map(str.strip)
    .filter(bool)
)
keys = st.sampled_from(["a.jpg", "folder/b.png", "folder/c d.jpg", "日本/e.jpeg", "x/y/z.f.jpg"])


def flat(least: int, most: int = 6) -> st.SearchStrategy[tuple[float, ...]]:
    """Runs of different corners."""
    return st.lists(corner, min_size=least, max_size=most, unique=True).map(
        lambda points: tuple(n for point in points for n in point)
    )


upright = st.just(0.0)


@st.composite
def boxes(draw: Callable[..., Any], angle: st.SearchStrategy[float] = upright) -> Box:
    """Boxes with an area."""
    left, right = sorted(draw(st.lists(xs, min_size=2, max_size=2, unique=True)))
    top, bottom = sorted(draw(st.lists(ys, min_size=2, max_size=2, unique=True)))
    return Box(left, top, right, bottom, draw(angle))


points = st.builds(Point, xs, ys)
rings = flat(3)
simple_polygons = rings.map(lambda ring: Polygon(((ring,),)))
parted_polygons = st.lists(rings, min_size=1, max_size=3).map(
    lambda found: Polygon(tuple((ring,) for ring in found))
)
polygons = st.lists(st.lists(rings, min_size=1, max_size=3).map(tuple), min_size=1, max_size=3).map(
    lambda parts: Polygon(tuple(parts))
)
polylines = st.lists(flat(2), min_size=1, max_size=2).map(lambda lines: Polyline(tuple(lines)))
radii = st.integers(1, 80).map(lambda n: n / 4)
ellipses = st.builds(Ellipse, xs, ys, radii, radii, angles)
cuboids = st.builds(Cuboid, flat(8, 8), st.just(0.0))


@st.composite
def bitmasks(draw: Callable[..., Any], width: int = WIDTH, height: int = HEIGHT) -> Mask:
    """Masks of a few rectangles, not empty."""
    pixels = np.zeros((height, width), dtype=bool)
    for _ in range(draw(st.integers(1, 3))):
        left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        pixels[top : top + draw(st.integers(1, height)), left : left + draw(st.integers(1, width))] = True
    return masks.encode(pixels)


@st.composite
def poses(draw: Callable[..., Any], names: Sequence[str] = JOINTS) -> Pose:
    """Skeletons of which some points are hidden or not there."""
    joints = []
    for name in names:
        visible = draw(st.sampled_from([0, 1, 2]))
        x, y = draw(corner) if visible else (0.0, 0.0)
        joints.append(Joint(name, x, y, visible))
    return Pose(tuple(joints))


notes = st.builds(
    Note,
    xs,
    ys,
    xs,
    ys,
    st.lists(st.builds(Message, texts, st.none() | texts, st.none() | st.just(5))).map(tuple),
)
subtitles = st.builds(Subtitle, texts)
others = st.just(Other("cube_3d", {"position": {"x": 1, "y": 2, "z": 3}}))
classifications = st.just(Classification())

every_geometry: dict[type, st.SearchStrategy[Any]] = {
    Classification: classifications, Point: points, Box: boxes(angles), Polygon: polygons, Polyline: polylines,
    Ellipse: ellipses, Cuboid: cuboids, Mask: bitmasks(), Pose: poses(), Note: notes, Subtitle: subtitles, Other: others,
}  # fmt: skip

attribute_values = st.one_of(st.booleans(), st.integers(-5, 5), texts, st.lists(texts, max_size=2))
attributes = st.dictionaries(st.sampled_from(["color", "occluded", "1"]), attribute_values, max_size=2)


def annotations(
    geometry: st.SearchStrategy[Geometry], labels: Sequence[str] = LABELS, **more: st.SearchStrategy[Any]
) -> st.SearchStrategy[Annotation]:
    """Annotations of a geometry; `more` are strategies of the other fields."""
    return st.builds(Annotation, label=st.sampled_from(labels), geometry=geometry, **more)


def items(
    annotation: st.SearchStrategy[Annotation],
    *,
    least: int = 0,
    most: int = 4,
    **more: st.SearchStrategy[Any],
) -> st.SearchStrategy[list[Labelled]]:
    """Several items with different keys, sorted by them; `more` are strategies of the other fields."""
    fields: dict[str, st.SearchStrategy[Any]] = {
        "width": st.just(WIDTH), "height": st.just(HEIGHT), "key": keys,
        "annotations": st.lists(annotation, min_size=least, max_size=most).map(tuple), **more,
    }  # fmt: skip
    one = st.builds(Labelled, **fields)
    return st.lists(one, min_size=1, max_size=3, unique_by=lambda item: item.key).map(
        lambda found: sorted(found, key=lambda item: item.key)
    )


def declared(names: Sequence[str] = LABELS) -> list[Label]:
    """A recipe with these labels."""
    return [Label(name=name, color=f"#0000{number:02x}") for number, name in enumerate(names)]
