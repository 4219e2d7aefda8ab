"""Annotations as pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image, ImageDraw

from syncagent.errors import InvalidInput
from syncagent.ingest import masks, render
from syncagent.ingest.annotations import Annotation, Box, Geometry, Labelled, Mask, Point, Polygon
from syncagent.ingest.render import Style
from tests import labelled

SOME = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
RED = {"car": "#ff0000", "dog": "#0000ff"}


def item(*annotations: Annotation, width: int = 64, height: int = 48) -> Labelled:
    return Labelled(key="a.jpg", width=width, height=height, annotations=annotations)


def one(geometry: Geometry, label: str = "car", **more: str) -> Annotation:
    return Annotation(label=label, geometry=geometry, **more)  # type: ignore[arg-type]


def test_a_box_is_its_outline_in_its_labels_colour() -> None:
    pixels = render.mask(item(one(Box(10, 8, 40, 30))), Style(thickness=2, colors=RED))
    assert (pixels.shape, pixels.dtype) == ((48, 64, 4), np.uint8)
    assert tuple(pixels[8, 25]) == (255, 0, 0, 255)
    assert tuple(pixels[20, 10]) == (255, 0, 0, 255)
    assert pixels[20, 25, 3] == 0, "not filled"
    assert pixels[2, 2, 3] == 0
    filled = render.mask(item(one(Box(10, 8, 40, 30))), Style(fill=True, colors=RED))
    assert tuple(filled[20, 25]) == (255, 0, 0, 255)


def test_instances_are_filled_and_later_ones_are_above() -> None:
    told = item(one(Box(0, 0, 20, 20)), one(Box(10, 10, 30, 30), "dog"))
    numbers = render.instance(told, {"car": 1, "dog": 2})
    assert [int(numbers[y, x]) for y, x in ((5, 5), (15, 15), (25, 25), (40, 40))] == [1, 2, 2, 0]
    objects = render.object_id(item(one(Box(0, 0, 20, 20), object_id="7"), one(Box(30, 30, 40, 40))))
    assert int(objects.pixels[5, 5]) == 7
    assert len(objects.left_out) == 1


@SOME
@given(labelled.bitmasks())
def test_a_mask_is_just_its_pixels(mask: Mask) -> None:
    numbers = render.instance(item(one(mask)), {"car": 3})
    assert ((numbers == 3) == masks.decode(mask)).all()


def test_holes_and_parts() -> None:
    outer, hole, other = (
        (0.0, 0, 30, 0, 30, 30, 0, 30),
        (10.0, 10, 20, 10, 20, 20, 10, 20),
        (40.0, 5, 60, 5, 60, 25, 40, 25),
    )
    numbers = render.instance(item(one(Polygon(((outer, hole), (other,))))), {"car": 1})
    assert [int(numbers[y, x]) for y, x in ((5, 5), (15, 15), (15, 50), (15, 35), (40, 40))] == [
        1,
        0,
        1,
        0,
        0,
    ]


def test_a_polygon_covers_what_pillow_fills() -> None:
    ring = (5.0, 5, 50, 10, 35, 40, 12, 30)
    expected = Image.new("L", (64, 48))
    ImageDraw.Draw(expected).polygon(ring, fill=1)
    numbers = render.instance(item(one(Polygon(((ring,),)))), {"car": 1})
    assert (numbers != np.asarray(expected)).mean() < 0.03, "but for the pixels of the outline"


def test_the_picture_stays_where_nothing_is_drawn() -> None:
    picture = Image.new("RGB", (64, 48), "white")
    shown = render.on_image(picture, item(one(Box(10, 10, 40, 30))), Style(thickness=2, colors=RED))
    assert shown.size == (64, 48)
    assert shown.getpixel((2, 2)) == (255, 255, 255)
    assert shown.getpixel((10, 20)) == (255, 0, 0)
    assert picture.getpixel((10, 20)) == (255, 255, 255), "its input was changed"


@SOME
@given(
    labelled.items(
        labelled.annotations(
            labelled.every_geometry[Box]
            | labelled.points
            | labelled.polygons
            | labelled.ellipses
            | labelled.poses()
            | labelled.cuboids
            | labelled.polylines
        )
    )
)
def test_every_shape_draws_something_or_nothing_but_never_fails(items: list[Labelled]) -> None:
    for told in items:
        assert render.mask(told, Style(text=True)).shape == (48, 64, 4)
        assert render.instance(told, dict.fromkeys(labelled.LABELS, 1)).shape == (48, 64)


@pytest.mark.parametrize("far", [1e6, -1e6, 1e12])
def test_what_is_far_outside_costs_nothing(far: float) -> None:
    ring = (far, far, far + 9, far, far, far + 9)
    told = item(one(Box(far, far, far + 5, far + 5)), one(Point(far, far)), one(Polygon(((ring,),))))
    assert not render.mask(told)[:, :, 3].any()


def test_a_size_is_needed() -> None:
    with pytest.raises(InvalidInput, match="width and height"):
        render.mask(Labelled(key="a.jpg"))
