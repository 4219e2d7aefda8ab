"""Masks against pycocotools, which is COCO's own code."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco

from syncagent.errors import InvalidInput
from syncagent.ingest import masks
from syncagent.ingest.annotations import Mask, Part, Polygon, Ring, area
from syncagent.ingest.formats.dataloop import _inside

# pycocotools, not we: it is not ready for the numpy of today.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
MANY = settings(max_examples=300, deadline=None)

shapes = st.tuples(st.integers(1, 12), st.integers(1, 12))
pixels = arrays.arrays(bool, shapes)
coordinates = st.one_of(
    st.integers(-8, 40).map(float), st.integers(-32, 160).map(lambda n: n / 4), st.floats(-10, 40, width=32)
)
rings = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=8).map(
    lambda points: tuple(float(n) for point in points for n in point)
)


def theirs(found: Mask) -> dict[str, Any]:
    return {"size": [found.height, found.width], "counts": found.counts}


def components(inside: np.ndarray) -> np.ndarray:
    """Numbers of what hangs together by sides of pixels, the slow and plain way."""
    numbers = np.zeros(inside.shape, int)
    for start in zip(*np.nonzero(inside), strict=True):
        if numbers[start]:
            continue
        number, left = numbers.max() + 1, [start]
        while left:
            y, x = left.pop()
            if 0 <= y < inside.shape[0] and 0 <= x < inside.shape[1] and inside[y, x] and not numbers[y, x]:
                numbers[y, x] = number
                left += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    return numbers


def ring_area(ring: Ring) -> float:
    """Twice the area; positive if it runs clockwise as one sees it."""
    xs, ys = np.array(ring[::2]), np.array(ring[1::2])
    return float((xs * np.roll(ys, -1) - np.roll(xs, -1) * ys).sum())


@MANY
@given(pixels)
def test_run_lengths_are_those_of_coco(inside: np.ndarray) -> None:
    mask = masks.encode(inside)
    told = coco.encode(np.asfortranarray(inside.astype(np.uint8)))
    assert mask.counts == told["counts"]
    assert (masks.decode(mask) == inside).all()
    assert masks.area(mask) == coco.area(told)
    left, top, width, height = coco.toBbox(told)
    around = masks.bounds(mask)
    assert around == ((left, top, left + width, top + height) if inside.any() else None)


@MANY
@given(st.lists(rings, min_size=1, max_size=3), shapes)
def test_a_polygon_covers_the_pixels_that_coco_says(found: list[Ring], shape: tuple[int, int]) -> None:
    height, width = shape[0] * 3, shape[1] * 3
    mask = masks.from_polygon(Polygon(tuple((ring,) for ring in found)), width, height)
    told = coco.merge(coco.frPyObjects([list(ring) for ring in found], height, width))
    assert (masks.decode(mask) == coco.decode(told)).all()
    assert mask == masks.encode(masks.decode(mask))


@MANY
@given(rings, rings, shapes)
def test_a_hole_is_not_covered(outline: Ring, hole: Ring, shape: tuple[int, int]) -> None:
    height, width = shape[0] * 3, shape[1] * 3
    both = [coco.decode(coco.frPyObjects([list(ring)], height, width))[..., 0] for ring in (outline, hole)]
    found = masks.decode(masks.from_polygon(Polygon(((outline, hole),)), width, height))
    assert (found == both[0] ^ both[1]).all()


def test_what_is_out_of_the_picture_takes_no_memory() -> None:
    ring = (-1e6, 5.0, 1e6, 40.0, 3.0, 1e6)
    masks.from_polygon(Polygon(((ring,),)), 64, 48)  # what is loaded once
    tracemalloc.start()
    try:
        mask = masks.from_polygon(Polygon(((ring,),)), 64, 48)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert masks.area(mask) > 0
    assert peak < 1 << 20


@pytest.mark.parametrize(
    "ring", [(), (1.0,), (0.0, 0.0, float("nan"), 1.0, 5.0, 5.0), (0.0, 0.0, 1e12, 1.0, 5.0, 5.0)]
)
def test_corners_that_are_none_are_refused(ring: Ring) -> None:
    if ring:
        with pytest.raises(InvalidInput, match="corners"):
            masks.from_polygon(Polygon(((ring,),)), 10, 10)
    else:
        assert masks.area(masks.from_polygon(Polygon(((ring,),)), 10, 10)) == 0
    assert masks.area(masks.from_polygon(Polygon(()), 10, 10)) == 0


@MANY
@given(pixels)
def test_the_polygon_of_a_mask_is_the_mask_again(inside: np.ndarray) -> None:
    mask = masks.encode(inside)
    polygon = masks.to_polygon(mask)
    height, width = inside.shape
    assert masks.from_polygon(polygon, width, height) == mask
    assert (area(polygon) or 0) == inside.sum()


@MANY
@given(pixels)
def test_a_part_is_what_hangs_together_and_holes_are_its_own(inside: np.ndarray) -> None:
    numbers = components(inside)
    polygon = masks.to_polygon(masks.encode(inside))
    height, width = inside.shape
    seen = []
    for part in polygon.parts:
        found = masks.decode(masks.from_polygon(Polygon((part,)), width, height))
        (number,) = set(numbers[found].tolist())
        assert (found == (numbers == number)).all()
        seen.append(number)
        assert ring_area(part[0]) > 0
        assert all(ring_area(hole) < 0 for hole in part[1:])
    assert sorted(seen) == list(range(1, numbers.max() + 1))


def test_an_island_in_a_lake_is_a_part_of_its_own() -> None:
    inside = np.zeros((9, 9), bool)
    inside[0:9, 0:9] = True
    inside[2:7, 2:7] = False
    inside[3:6, 3:6] = True
    inside[4, 4] = False
    part: Part
    part, island = masks.to_polygon(masks.encode(inside)).parts
    assert part == (
        (0.0, 0.0, 9.0, 0.0, 9.0, 9.0, 0.0, 9.0),
        (2.0, 2.0, 2.0, 7.0, 7.0, 7.0, 7.0, 2.0),
    )
    assert len(island) == 2
    assert _inside(island[0][0] + 0.5, island[0][1] + 0.5, part[0])


def test_a_polygon_of_a_part_of_a_large_picture_is_where_it_is() -> None:
    inside = np.zeros((480, 640), bool)
    inside[100:110, 600:640] = True
    polygon = masks.to_polygon(masks.encode(inside))
    assert polygon.parts == (((600.0, 100.0, 640.0, 100.0, 640.0, 110.0, 600.0, 110.0),),)


@MANY
@given(pixels, st.data())
def test_masks_by_number_are_those_of_each_number(inside: np.ndarray, data: st.DataObject) -> None:
    numbers = data.draw(arrays.arrays(np.uint16, inside.shape, elements=st.sampled_from([0, 1, 2, 700])))
    found = masks.by_number(numbers)
    assert [*found] == sorted(set(numbers.ravel().tolist()) - {0})
    for number, mask in found.items():
        assert mask == masks.encode(numbers == number)


@MANY
@given(pixels)
def test_places_of_pixels(inside: np.ndarray) -> None:
    places = masks.pixels_of(masks.encode(inside))
    assert places.tolist() == np.flatnonzero(inside.ravel(order="F")).tolist()


@MANY
@given(st.binary(max_size=20), st.integers(0, 20), st.integers(0, 20))
def test_text_that_is_no_mask_is_an_error(counts: bytes, width: int, height: int) -> None:
    try:
        found = masks.decode(Mask(width, height, counts))
    except InvalidInput:
        return
    told = coco.decode({"size": [height, width], "counts": counts}) if width * height else found
    assert (found == told).all()
