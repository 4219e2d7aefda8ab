"""Annotations as pixels."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools import mask as coco

from syncagent.errors import InvalidInput
from syncagent.ingest import masks, render
from syncagent.ingest.annotations import (
    Annotation,
    Box,
    Classification,
    Cuboid,
    Ellipse,
    Geometry,
    Joint,
    Labelled,
    Mask,
    Note,
    Point,
    Polygon,
    Polyline,
    Pose,
)
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


# -- against pictures that are worked out in another way -----------------------------------------


def sampled(inside: Callable[[Any, Any], Any], width: int = 64, height: int = 48, fine: int = 16) -> Any:
    """The share of each pixel for which a function of x and y is true."""
    x, y = np.meshgrid((np.arange(width * fine) + 0.5) / fine, (np.arange(height * fine) + 0.5) / fine)
    return inside(x, y).reshape(height, fine, width, fine).mean(axis=(1, 3))


def near(ax: float, ay: float, bx: float, by: float, radius: float) -> Callable[[Any, Any], Any]:
    """Whether a place is at most `radius` from a piece of a line."""

    def test(x: Any, y: Any) -> Any:
        length = (bx - ax) ** 2 + (by - ay) ** 2
        along = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / max(length, 1e-9), 0, 1)
        return np.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay)) <= radius

    return test


far = st.floats(-30, 90, allow_nan=False)


@settings(max_examples=80, deadline=None)
@given(far, far, far, far, st.integers(1, 9))
def test_a_lines_edges_are_soft(ax: float, ay: float, bx: float, by: float, thickness: int) -> None:
    drawn = render.mask(item(one(Polyline(((ax, ay, bx, by),)))), Style(thickness=thickness, colors=RED))
    expected = sampled(near(ax, ay, bx, by, thickness / 2))
    assert np.abs(drawn[:, :, 3] / 255 - expected).max() < 0.25
    # A line that grazes the picture's edge is wrong by the same little in each pixel.
    grazed = 0.03 * np.count_nonzero(expected)
    assert abs((drawn[:, :, 3] / 255).sum() - expected.sum()) < 0.04 * expected.sum() + 1 + grazed
    assert (drawn[drawn[:, :, 3] > 0][:, :3] == (255, 0, 0)).all(), (
        "the colour is whole however soft the edge is"
    )
    numbers = render.instance(item(one(Polyline(((ax, ay, bx, by),)))), {"car": 9})
    assert set(np.unique(numbers)) <= {0, 9}, "and hard in numbers"


@SOME
@given(labelled.polygons)
def test_polygons_are_the_pixels_of_their_masks(polygon: Polygon) -> None:
    expected = masks.decode(masks.from_polygon(polygon, 64, 48))
    assert ((render.instance(item(one(polygon)), {"car": 5}) == 5) == expected).all()


def zoomed(polygon: Polygon, dx: int, dy: int, zoom: float) -> Polygon:
    """Moved, then made larger: most of it is out of the picture."""

    def moved(ring: tuple[float, ...]) -> tuple[float, ...]:
        return tuple((n + (dy if at % 2 else dx)) * zoom for at, n in enumerate(ring))

    return Polygon(tuple(tuple(map(moved, part)) for part in polygon.parts))


HOLE_ALONE = Polygon((((0.0, -9.0, 9.0, -9.0, 9.0, -5.0), (0.0, -9.0, 0.0, 9.0, 9.0, 9.0)),))
"""Its outline is far above the picture, and its hole reaches into it."""
offsets = st.integers(-60, 60), st.integers(-45, 45)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own
@SOME
@given(labelled.polygons, *offsets, st.sampled_from([1.0, 3.7, 5.0, 40.0]))
@example(HOLE_ALONE, 0, 0, 40.0)
def test_a_polygon_that_reaches_out_of_the_picture_is_cut_off(
    polygon: Polygon, dx: int, dy: int, zoom: float
) -> None:
    large = zoomed(polygon, dx, dy, zoom)
    found = render.instance(item(one(large)), {"car": 1})
    # COCO walks the whole of each line, and so its rounding knows nothing of the picture's edge: no pixel may differ.
    expected = np.zeros((48, 64), dtype=np.uint8)
    for part in large.parts:
        rings = coco.decode(coco.frPyObjects([list(ring) for ring in part], 48, 64))
        expected |= np.bitwise_xor.reduce(rings, axis=2)
    assert (found == expected).all()


@SOME
@given(labelled.polygons, *offsets, st.sampled_from([1.0, 3.7, 40.0, 1e6]))
@example(HOLE_ALONE, 0, 0, 40.0)
@example(Polygon((((0.0, 0.0, 0.25, 0.0, 14.75, 20.25),),)), 0, -20, 1e6)
def test_a_pixel_of_a_polygon_is_wrong_only_beside_a_line(
    polygon: Polygon, dx: int, dy: int, zoom: float
) -> None:
    large = zoomed(polygon, dx, dy, zoom)
    found = render.instance(item(one(large)), {"car": 1}) == 1
    x, y = np.meshgrid(np.arange(64) + 0.5, np.arange(48) + 0.5)
    expected, unsure = np.zeros((48, 64), dtype=bool), np.zeros((48, 64), dtype=bool)
    for part in large.parts:
        inside = np.zeros((48, 64), dtype=bool)
        for ring in part:
            corners = list(zip(ring[::2], ring[1::2], strict=True))
            for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
                # In fifths of a pixel: a corner moves by 1.5 at most in x and in y (it is rounded towards zero), and a line on its
                # grid by 1 in y. That is 1.5 * sqrt(2) + 1 fifths, or 0.63 pixels; what is farther from all lines stays inside or not.
                unsure |= near(ax, ay, bx, by, 0.65)(x, y)
                with np.errstate(divide="ignore", invalid="ignore"):
                    inside ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) * (bx - ax) / (by - ay))
        expected |= inside
    assert (found == expected)[~unsure].all()


@pytest.mark.parametrize("angle", [0.0, 30.0, -120.0])
def test_turned_boxes_and_ellipses_are_where_geometry_has_them(angle: float) -> None:
    def turned(x: Any, y: Any) -> tuple[Any, Any]:
        a = np.radians(angle)
        return (x - 30) * np.cos(a) + (y - 24) * np.sin(a), (y - 24) * np.cos(a) - (x - 30) * np.sin(a)

    def box(x: Any, y: Any) -> Any:
        u, v = turned(x, y)
        return (abs(u) <= 15) & (abs(v) <= 6)

    def ellipse(x: Any, y: Any) -> Any:
        u, v = turned(x, y)
        return (u / 15) ** 2 + (v / 6) ** 2 <= 1

    for geometry, inside in (
        (Box(15, 18, 45, 30, angle), sampled(box)), (Ellipse(30, 24, 15, 6, angle), sampled(ellipse)),
    ):  # fmt: skip
        numbers = render.instance(item(one(geometry)), {"car": 1})
        sure = (inside < 0.2) | (inside > 0.8)
        assert (numbers[sure] == (inside[sure] > 0.5)).all()
        assert abs(int(numbers.sum()) - inside.sum()) < 0.05 * inside.sum()
        edge = render.mask(item(one(geometry)), Style(thickness=2))[:, :, 3] > 127
        assert edge.any()
        assert not edge[24, 30], "not filled"


def test_a_cuboid_is_all_its_sides() -> None:
    corners = (10.0, 10, 30, 10, 30, 30, 10, 30, 20.0, 5, 45, 5, 45, 22, 20, 22)
    numbers = render.instance(item(one(Cuboid(corners))), {"car": 1})
    drawn = render.mask(item(one(Cuboid(corners))), Style(thickness=2))[:, :, 3]
    for x, y in ((12, 12), (40, 8), (37, 25), (20, 8)):
        assert numbers[y, x] == 1
    assert numbers[40, 40] == 0
    for a, b in (((10, 10), (20, 5)), ((30, 10), (45, 5)), ((30, 30), (45, 22)), ((10, 30), (20, 22))):
        assert drawn[(a[1] + b[1]) // 2, (a[0] + b[0]) // 2] > 0, "front and back are joined"


def test_a_pose_has_joints_and_the_bones_that_are_told() -> None:
    pose = Pose(
        (Joint("a", 10, 10), Joint("b", 40, 10), Joint("c", 40, 40), Joint("hidden", 0, 0, 0)), template="t"
    )
    bare = render.mask(item(one(pose)))[:, :, 3]
    assert [int(bare[y, x]) for x, y in ((10, 10), (40, 10), (40, 40), (25, 10), (1, 1))] == [
        255,
        255,
        255,
        0,
        0,
    ]
    for key in ("car", "t"):
        style = Style(skeletons={key: [(1, 2), (2, 4), (7, 1)]})
        boned = render.mask(item(one(pose)), style)[:, :, 3]
        assert [int(boned[y, x]) for x, y in ((25, 9), (40, 25), (20, 5))] == [255, 0, 0]


def test_colours_lie_over_each_other_by_their_opacity() -> None:
    def over(under: tuple[float, ...], rgb: tuple[int, ...], alpha: float) -> list[float]:
        whole = alpha + under[3] * (1 - alpha)
        return [
            (c * alpha + u * under[3] * (1 - alpha)) / whole for c, u in zip(rgb, under, strict=False)
        ] + [whole]

    for fill in (True, False):
        told = item(one(Box(10, 10, 30, 30)), one(Box(20, 4, 40, 30), "dog"))
        drawn = render.mask(told, Style(alpha=0.5, fill=fill, colors=RED, thickness=4))
        red = over((0, 0, 0, 0), (255, 0, 0), 0.5)
        blue = over(tuple(red), (0, 0, 255), 0.5)
        x, y = 21, 10  # on both lines
        assert np.abs(drawn[y, x] - np.array([*blue[:3], blue[3] * 255])).max() <= 1
        assert drawn[10, 12].tolist() == [255, 0, 0, 128], (
            "a line is not denser where it bends, or where it is filled"
        )
        assert drawn[10, 10].tolist() == [255, 0, 0, 128]
    shown = render.on_image(
        Image.new("RGB", (64, 48), (0, 200, 0)),
        item(one(Box(10, 10, 30, 30))),
        Style(alpha=0.25, fill=True, colors=RED),
    )
    red_green_blue = cast("tuple[int, ...]", shown.getpixel((20, 20)))
    assert np.abs(np.array(red_green_blue) - (64, 150, 0)).max() <= 1


def test_order_and_masks_first() -> None:
    pixels = np.zeros((48, 64), dtype=bool)
    pixels[10:30, 10:40] = True
    told = item(one(Box(0, 0, 60, 40)), one(masks.encode(pixels), "dog"))
    numbers = render.instance(told, {"car": 300, "dog": 2})
    assert (numbers.dtype, int(numbers[20, 20])) == (np.uint16, 300), "no mask hides what is drawn on it"
    assert render.instance(told, {"car": 1, "dog": 2}).dtype == np.uint8
    with pytest.raises(InvalidInput, match="the label 'dog' has no number"):
        render.instance(told, {"car": 1})
    for wrong in (0, -1, 70_000):
        with pytest.raises(InvalidInput, match="is not from 1 to 65,535"):
            render.instance(told, {"car": wrong, "dog": 1})


def test_object_ids_are_numbers_or_left_out() -> None:
    ids = ["70000", "7", "x", "-1", "0", "1.5", "99999999999", None, "٣"]
    told = item(*(one(Box(n, n, n + 5, n + 5), object_id=n_id) for n, n_id in enumerate(ids)))  # type: ignore[arg-type]
    found = render.object_id(told)
    assert (set(np.unique(found.pixels)), found.pixels.dtype) == ({0, 7, 70000}, np.uint32)
    assert len(found.left_out) == 7
    with pytest.raises(InvalidInput, match="70000"):
        render.png(found.pixels)
    small = render.object_id(item(one(Box(0, 0, 9, 9), object_id="300"))).pixels
    with Image.open(io.BytesIO(render.png(small))) as held:
        assert (np.asarray(held) == small).all()


NAN, INF = float("nan"), float("inf")
HOSTILE: list[Geometry] = [
    Box(NAN, 0, 5, 5), Box(-INF, 0, INF, 9), Box(-1e300, -1e300, 1e300, 1e300), Point(NAN, 1), Point(1e308, -1e308),
    Polygon(()), Polygon(((),)), Polygon((((NAN, 1, 2, 3, 4, 5),),)), Polygon((((1e308, -1e308, -1e308, 1e308, 5, 5),),)),
    Polygon((((0, 0, 9),),)), Polyline(((),)), Polyline(((1, 2),)), Polyline(((1, 2, 3),)), Polyline(((-1e12, 5, 1e12, 40),)),
    Ellipse(5, 5, INF, 1), Ellipse(5, 5, -3, 1e300), Ellipse(NAN, 5, 1, 1), Ellipse(5, 5, 0, 0), Cuboid(()), Cuboid((NAN,) * 16),
    Cuboid((1e300,) * 16), Pose(()), Pose((Joint("a", NAN, 1), Joint("b", 1e300, 1))), Note(NAN, 0, 1, 1),
    Polyline((tuple(n for k in range(8_000) for n in (-1e6 if k % 2 else 1e6, k % 48)),)),
    Polygon((((tuple(n for k in range(8_000) for n in (-60.0 if k % 2 else 120.0, k % 48))),),)),
]  # fmt: skip


@pytest.mark.parametrize(
    "geometry", HOSTILE, ids=lambda geometry: f"{type(geometry).__name__}-{str(geometry)[:40]}"
)
def test_no_number_breaks_it_or_takes_memory(geometry: Geometry) -> None:
    told = item(one(geometry, object_id="1"))
    render.mask(told)  # what is loaded once
    tracemalloc.start()
    try:
        for style in (Style(text=True), Style(fill=True, alpha=0.5, thickness=100)):
            assert render.mask(told, style).shape == (48, 64, 4)
        render.instance(told, {"car": 1})
        render.object_id(told)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 120 << 20


def test_masks_of_another_size_are_cut_off_and_damaged_ones_are_told() -> None:
    pixels = np.zeros((100, 100), dtype=bool)
    pixels[40:90, 60:90] = True
    numbers = render.instance(item(one(masks.encode(pixels))), {"car": 1})
    assert (np.argwhere(numbers).min(axis=0).tolist(), int(numbers.sum())) == ([40, 60], 8 * 4)
    assert not render.instance(item(one(masks.encode(np.zeros((48, 64), dtype=bool)))), {"car": 1}).any()
    with pytest.raises(InvalidInput, match="run lengths"):
        render.mask(item(one(Mask(64, 48, b"\xff"))))
    with pytest.raises(InvalidInput, match="too many to be drawn"):
        render.mask(item(width=100_000, height=100_000))


def test_words_are_written_where_there_is_room() -> None:
    corner_box = one(Box(1, 1, 60, 44))
    for label in ("car", "日本", "a\nb\x1b", "long " * 100, ""):
        told = item(
            one(Box(30, 30, 90, 90), label), one(Classification(), label), corner_box, width=200, height=120
        )
        assert render.mask(told, Style(text=True)).shape == (120, 200, 4)
    told = item(one(Classification(), "car"), one(Classification(), "dog"), width=200, height=120)
    assert not render.mask(told).any(), "nothing is said without text"
    words = render.mask(told, Style(text=True, colors=RED))
    assert words[1, 1].tolist() == [255, 0, 0, 255]
    rows = np.flatnonzero((words[:, 0, :3] == (0, 0, 255)).all(axis=1))
    assert rows.size, "the second is below the first"
    assert rows.min() > 8


def test_styles_have_bounds() -> None:
    for wrong in ({"alpha": 1.5}, {"alpha": -0.1}, {"alpha": NAN}, {"thickness": 0}, {"thickness": 101}):
        with pytest.raises(InvalidInput):
            Style(**wrong)  # type: ignore[arg-type]
    assert not render.mask(item(one(Box(5, 5, 20, 20))), Style(alpha=0)).any()
    red = render.mask(item(one(Box(5, 5, 20, 20))), Style(colors={"car": "no colour"}))
    stable = render.mask(item(one(Box(5, 5, 20, 20))))
    assert (red == stable).all(), "a colour that is none is the label's own"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16", "I", "F", "CMYK"])
def test_pictures_of_every_kind_are_drawn_on(mode: str) -> None:
    picture = Image.new(mode, (64, 48))
    shown = render.on_image(picture, item(one(Box(10, 10, 40, 30))), Style(colors=RED))
    assert shown.mode == ("RGBA" if mode in {"RGBA", "LA"} else "RGB")
    assert shown.getpixel((10, 20))[:3] == (255, 0, 0)  # type: ignore[index]


def test_what_is_no_picture_is_told() -> None:
    from syncagent.errors import Unsupported

    out = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(out, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 6))])
    assert render.opened(io.BytesIO(out.getvalue()), "several.jpg").size == (8, 6)
    with pytest.raises(Unsupported, match="t is no picture"):
        render.opened(io.BytesIO(b"text"), "t")
    with pytest.raises(InvalidInput, match="b is not a sound picture"):
        render.opened(io.BytesIO(out.getvalue()[:300]), "b")
