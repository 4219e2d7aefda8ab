"""COCO, YOLO, Pascal VOC and masks as others write them, made by hand to the public specifications."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from syncagent.errors import ConfigError, InvalidInput, SyncAgentError, Unsupported
from syncagent.ingest import masks
from syncagent.ingest.annotations import (
    Annotation,
    Box,
    Classification,
    Joint,
    Label,
    Labelled,
    Mask,
    Polygon,
    Pose,
)
from syncagent.ingest.formats import Context, Files, Format, Losses, NewFiles, Only, coco_groups, get
from syncagent.ingest.formats.coco import Coco
from syncagent.ingest.formats.png import Masks, png, voc_color
from syncagent.ingest.formats.voc import CLASSES, Voc
from syncagent.ingest.formats.yolo import Yolo
from tests import labelled as l
from tests.profiles import coco as coco_profile

Told = dict[str, Any]
SIZE = Context(size=lambda key, stem: (100, 50))
TRIANGLE = (1.0, 1.0, 9.0, 1.0, 9.0, 9.0)


def read(form: Format, files: dict[str, bytes | str], context: Context = SIZE) -> list[Labelled]:
    return list(
        form.read(
            Files({name: data.encode() if isinstance(data, str) else data for name, data in files.items()}),
            context,
        )
    )


def one(form: Format, files: dict[str, bytes | str], context: Context = SIZE) -> Labelled:
    (found,) = read(form, files, context)
    return found


def wrote(
    form: Format, *items: Labelled, labels: Sequence[Label] = (), losses: Losses | None = None
) -> dict[str, bytes]:
    out = NewFiles()
    form.write(items, out, labels=labels, losses=losses)
    return out.files


def item(*annotations: Annotation, key: str = "a.jpg", **more: Any) -> Labelled:
    return Labelled(key=key, width=64, height=48, annotations=annotations, **more)


def square(left: int, top: int, right: int, bottom: int, width: int = 64, height: int = 48) -> Mask:
    inside = np.zeros((height, width), bool)
    inside[top:bottom, left:right] = True
    return masks.encode(inside)


def picture(numbers: Any, palette: bool = True) -> bytes:
    """A PNG of numbers with the devkit's palette, or of their colours."""
    data = png(np.array(numbers, dtype=np.int32))
    if palette:
        return data
    out = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").save(out, "PNG")
    return out.getvalue()


# -- COCO ----------------------------------------------------------------------------------------

PERSON: Told = {
    "supercategory": "person", "id": 1, "name": "person", "keypoints": ["nose", "left_eye", "right_eye"],
    "skeleton": [[1, 2], [1, 3]],
}  # fmt: skip
SAMPLE: Told = {
    "info": {"description": "COCO 2017 Dataset", "year": 2017},
    "licenses": [{"id": 4, "name": "Attribution License", "url": "http://creativecommons.org/licenses/by/2.0/"}],
    "images": [
        {"license": 4, "file_name": "000000397133.jpg", "coco_url": "http://images.cocodataset.org/val2017/000000397133.jpg",
         "height": 8, "width": 10, "date_captured": "2013-11-14 17:02:52", "id": 397133},
        {"file_name": "000000000139.jpg", "height": 8, "width": 10, "id": 139},
    ],
    "annotations": [
        {"segmentation": [[1, 1, 4, 1, 4.5, 3.25]], "num_keypoints": 2, "area": 3.5, "iscrowd": 0,
         "keypoints": [2, 2, 2, 0, 0, 0, 3, 2, 1], "image_id": 397133, "bbox": [1, 1, 3.5, 2.25], "category_id": 1, "id": 183126},
        {"segmentation": {"counts": [8, 4, 4, 4, 60], "size": [8, 10]}, "area": 8, "iscrowd": 1, "image_id": 397133,
         "bbox": [1, 0, 2, 4], "category_id": 1, "id": 900100397133},
        {"segmentation": [[0, 0, 2, 0, 2, 2], [5, 5, 7, 5, 7, 7]], "num_keypoints": 0, "area": 4.0, "iscrowd": 0,
         "keypoints": [0, 0, 0, 0, 0, 0, 0, 0, 0], "image_id": 397133, "bbox": [0, 0, 7, 7], "category_id": 1, "id": 7},
    ],
    "categories": [PERSON, {"supercategory": "vehicle", "id": 3, "name": "car"}],
}  # fmt: skip


def coco(told: Any, *, name: str = "instances.json", form: Format | None = None) -> list[Labelled]:
    return read(form or Coco(), {name: json.dumps(told)})


def coco_with(**annotation: Any) -> Told:
    """A file with a sound annotation and this one."""
    sound = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]}
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 10, "height": 8}],
        "annotations": [sound, {**sound, "id": 2, **annotation}],
        "categories": [PERSON, {"id": 2, "name": "car"}],
    }


def test_the_sample_of_coco_2017() -> None:
    first, second = coco(SAMPLE)
    area, pose, crowd, parts = first.annotations
    assert (first.key, first.width, first.height) == ("000000397133.jpg", 10, 8)
    assert first.user["license"] == 4
    assert set(first.user) == {"license", "coco_url", "date_captured"}
    assert area == Annotation(
        label="person", id="183126", geometry=Polygon((((1.0, 1.0, 4.0, 1.0, 4.5, 3.25),),))
    )
    assert pose == Annotation(
        label="person", parent="183126",
        geometry=Pose((Joint("nose", 2.0, 2.0, 2), Joint("left_eye", 0.0, 0.0, 0), Joint("right_eye", 3.0, 2.0, 1))),
    )  # fmt: skip
    assert crowd == Annotation(
        label="person", id="900100397133", crowd=True, geometry=square(1, 0, 3, 4, 10, 8)
    )
    assert isinstance(parts.geometry, Polygon)
    assert len(parts.geometry.parts) == 2
    assert second == Labelled(key="000000000139.jpg", width=10, height=8)


def test_its_categories_are_labels() -> None:
    person, car = Coco().labels(Files({"a.json": json.dumps(SAMPLE).encode()}))
    assert person == Label(
        name="person", id=1, joints=("nose", "left_eye", "right_eye"), skeleton=((1, 2), (1, 3)),
        attributes={"supercategory": "person"},
    )  # fmt: skip
    assert (car.name, car.id) == ("car", 3)


def test_it_is_written_as_it_was_read() -> None:
    files = {"a.json": json.dumps(SAMPLE).encode()}
    found = coco(SAMPLE)
    told = json.loads(wrote(Coco(), *found, labels=Coco().labels(Files(files)))["coco.json"])
    assert sorted(told["categories"], key=lambda one: one["id"]) == SAMPLE["categories"]
    assert told["images"][0] == {**SAMPLE["images"][0], "id": 1}
    for mine, theirs in zip(told["annotations"], SAMPLE["annotations"], strict=True):
        for name in ("id", "bbox", "iscrowd", "category_id", "num_keypoints"):
            assert mine.get(name, 0) == theirs.get(name, 0), name
    assert told["annotations"][0]["keypoints"] == SAMPLE["annotations"][0]["keypoints"]
    assert [one["area"] for one in told["annotations"]] == [
        3.375,
        8,
        4.0,
    ]  # the first is a triangle of 3 x 2.25
    assert read(Coco(), {"coco.json": json.dumps(told)}) == found


def test_captions() -> None:
    told = {
        "images": [{"id": 37777, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 37777, "id": 38, "caption": "A cat on a mat."}],
    }
    (found,) = coco(told)
    assert (found.width, found.height) == (100, 50), "the catalog's, where the file does not tell"
    (caption,) = found.annotations
    assert caption == Annotation(
        label="caption", geometry=Classification(), description="A cat on a mat.", id="38"
    )
    with pytest.raises(Unsupported, match="a classification"):
        wrote(Coco(), item(Annotation(label="cat", geometry=Classification(), description="A cat.")))


def test_roboflow_and_its_supercategory() -> None:
    told = {
        "images": [{"id": 0, "file_name": "a_jpg.rf.1.jpg", "height": 8, "width": 10, "extra": {"name": "a.jpg"}}],
        "annotations": [
            {"id": 0, "image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 12, "segmentation": [], "iscrowd": 0}
        ],
        "categories": [
            {"id": 0, "name": "cats", "supercategory": "none"}, {"id": 1, "name": "tabby", "supercategory": "cats"},
            {"id": 2, "name": "dog", "supercategory": "dog"}, {"id": 3, "name": "cow", "supercategory": ""},
        ],
    }  # fmt: skip
    (plain,) = coco(told, name="train/_annotations.coco.json")
    (nested,) = coco(told, name="_annotations.coco.json", form=Coco(supercategories=True))
    assert (plain.key, nested.key) == ("train/a_jpg.rf.1.jpg", "a_jpg.rf.1.jpg")
    assert plain.annotations == (Annotation(label="tabby", geometry=Box(1.0, 2.0, 4.0, 6.0), id="0"),)
    assert nested.annotations[0].label == "cats.tabby"
    labels = Coco(supercategories=True).labels(Files({"a.json": json.dumps(told).encode()}))
    assert [label.name for label in labels] == ["cats", "cats.tabby", "dog", "cow"]


@pytest.mark.parametrize("nested", [False, True])
def test_labels_of_several_levels_read_the_same(nested: bool) -> None:
    names = ["car", "car.sedan", "toy.sedan", "none.x", "a.a", ".b", "c.", "a.b.c"]
    form = Coco(supercategories=nested)
    marks = [Annotation(label=name, geometry=Box(1, 1, 2, 2), id=str(n)) for n, name in enumerate(names)]
    files = wrote(form, item(*marks))
    assert one(form, {**files}).annotations == tuple(marks)
    told = {(c["name"], c.get("supercategory")) for c in json.loads(files["coco.json"])["categories"]}
    assert len(told) == len(names)
    assert ("sedan", "car") in told if nested else ("car.sedan", None) in told


def test_attributes_are_those_of_cvat_and_what_coco_does_not_know() -> None:
    told = coco_with(attributes={"occluded": False, "color": "red"}, ignore=0, track={"id": 5})
    (found,) = coco(told)
    assert found.annotations[1].attributes == {
        "occluded": False,
        "color": "red",
        "ignore": 0,
        "track": {"id": 5},
    }
    assert found.annotations[0].attributes == {}


def test_a_list_of_results_needs_its_images() -> None:
    results = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 3], "score": 0.5}]
    truth = coco_with()
    with pytest.raises(
        InvalidInput, match=r"results\.json: a list of results does not tell its images; .*'images'"
    ):
        coco(results, name="results.json")
    tree = Files({"results.json": json.dumps(results).encode(), "truth.json": json.dumps(truth).encode()})
    (found,) = Coco(images="truth.json").read(Only(tree, ["results.json"]), SIZE)
    assert found.annotations == (Annotation(label="person", geometry=Box(1.0, 1.0, 3.0, 4.0), score=0.5),)
    results[0]["image_id"] = 9
    tree = Files({"results.json": json.dumps(results).encode(), "truth.json": json.dumps(truth).encode()})
    with pytest.raises(InvalidInput, match=r"results\.json: record 0: there is no image 9"):
        list(Coco(images="truth.json").read(Only(tree, ["results.json"]), SIZE))


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"bbox": [1, 1, 0, 2]}, "without an area"),
        ({"bbox": [1, 1, 2, -2]}, "without an area"),
        ({"bbox": [1, 1, 2]}, "3 numbers"),
        ({"bbox": [1e308, 1, 1e308, 2]}, "too large"),
        ({"bbox": []}, "no bbox"),
        ({"bbox": None, "segmentation": [[]]}, "no bbox"),
        ({"bbox": "1 1 2 2"}, "Expected"),
        ({"segmentation": [[1, 1, 2, 2]]}, "4 numbers"),
        ({"segmentation": [[1, 1, 2, 2, 3, 3, 4]]}, "7 numbers"),
        ({"segmentation": [[1, 1, 2, 2, 3, "3"]]}, "Expected"),
        ({"segmentation": [1, 1, 2, 2, 3, 3]}, "Expected"),
        (
            {"segmentation": {"size": [10, 8], "counts": "P2"}},
            "a mask of 8 x 10 pixels on an image of 10 x 8",
        ),
        ({"segmentation": {"size": [8, 10], "counts": [3, 4]}}, "not 10 x 8 pixels"),
        ({"segmentation": {"size": [8, 10], "counts": [-80, 160]}}, "no numbers of pixels"),
        ({"segmentation": {"size": [8, 10], "counts": [10**30]}}, "no numbers of pixels"),
        ({"segmentation": {"size": [8, 10], "counts": "ü"}}, "compressed text"),
        ({"segmentation": {"counts": "P2"}}, "size"),
        ({"keypoints": [1, 1, 2]}, "3 numbers, for 3 points"),
        ({"keypoints": [1, 1, 3, 0, 0, 0, 0, 0, 0]}, "visibility"),
        ({"category_id": 9}, "no category 9"),
        ({"category_id": None}, "no category"),
        ({"image_id": 9}, "no image 9"),
        ({"image_id": None}, "Expected"),
        ({"segments_info": []}, "panoptic"),
        ({"deep": json.loads("[" * 900 + "]" * 900)}, ""),
    ],
)
def test_a_wrong_annotation_is_named(annotation: Told, reason: str) -> None:
    if "deep" in annotation:
        assert len(coco(coco_with(**annotation))[0].annotations) == 2
        return
    with pytest.raises(InvalidInput, match=rf"instances\.json: annotations 1\b.*{reason}") as caught:
        coco(coco_with(**annotation))
    assert caught.value.resource == "instances.json"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ('{"a": 1}', "no COCO"),
        ('{"annotations": [{"label": "car", "type": "box"}]}', "annotations 0: Object missing required field `image_id`"),
        ('{"images": [{"id": 1}]}', "images 0: it has no file_name"),
        ('{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}', "images 0 and 1 have the same id 1"),
        ('{"images": [{"id": 1, "file_name": "a", "width": "x", "height": 1}]}', "images 0: its width"),
        ('{"images": [{"id": 1, "file_name": "a", "width": -1, "height": 1}]}', "images 0: its width"),
        ('{"categories": [{"id": 1}]}', "categories 0"),
        ('{"categories": [{"id": 1, "name": "a", "skeleton": [[1]]}]}', "categories 0: skeleton"),
        ('{"categories": [{"id": 1, "name": "a", "keypoints": "nose"}]}', "categories 0: keypoints"),
        ('{"images": ' + "[" * 100_000, "nested too deeply"),
        ('{"annotations": [{"image_id": 1, "bbox": [NaN, 1, 2, 2]}]}', "annotations 0"),
        ('{"annotations": [{"image_id": 1, "score": 1e999}]}', "annotations 0"),
        ("[1]", "list of results"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named(data: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as caught:
        read(Coco(), {"x/a.json": data})
    assert "x/a.json" in str(caught.value)
    assert caught.value.resource == "x/a.json"


def test_empty_files_of_coco_tell_of_nothing() -> None:
    assert coco({"images": [], "annotations": [], "categories": []}) == []
    assert coco([]) == []


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(coco_profile.PROFILE.items, st.randoms(use_true_random=False), st.sampled_from([0, 300, 1 << 20]))
def test_the_order_of_a_file_does_not_matter_nor_where_it_is_held(
    items: list[Labelled], shuffle: Any, held: int
) -> None:
    told = json.loads(wrote(Coco(), *items, labels=coco_profile.PROFILE.labels)["coco.json"])
    places = {image["id"]: n for n, image in enumerate(told["images"])}
    order = [*told]
    shuffle.shuffle(order)
    shuffle.shuffle(told["annotations"])
    mixed = {name: told[name] for name in order}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco_groups.Groups.__init__, "__defaults__", (held,))
        found = {item.key: item for item in read(Coco(), {"a.json": json.dumps(mixed)})}
    assert len(found) == len(items) == len(places)
    for item_ in items:
        again = found[item_.key]
        assert sorted(map(repr, again.annotations)) == sorted(map(repr, item_.annotations))
        assert msgspec.structs.replace(again, annotations=()) == msgspec.structs.replace(
            item_, annotations=()
        )


@given(st.lists(st.floats(0, 5000), min_size=4, max_size=4))
def test_a_box_of_any_numbers_reads_the_same(sides: list[float]) -> None:
    box = Box(min(sides[:2]), min(sides[2:]), max(sides[:2]), max(sides[2:]))
    if box.left < box.right and box.top < box.bottom:
        files = wrote(Coco(), item(Annotation(label="a", geometry=box)))
        found = one(Coco(), {**files}).annotations[0].geometry
        assert isinstance(found, Box)
        # There is not always a width that added to the left gives just the right: the last digit may differ.
        told = (found.left, found.top, found.right, found.bottom)
        assert told == pytest.approx((box.left, box.top, box.right, box.bottom), rel=1e-15, abs=1e-15)
    plain = json.loads(
        wrote(Coco(), item(Annotation(label="a", geometry=Box(73.34, 1.0, 100.89, 2.0))))["coco.json"]
    )
    assert plain["annotations"][0]["bbox"] == [73.34, 1.0, 27.55, 1.0]


def test_what_is_beyond_memory_is_in_files_and_they_go_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_groups.Groups.__init__, "__defaults__", (0,))
    made: list[Any] = []
    monkeypatch.setattr(
        coco_groups.tempfile,
        "TemporaryFile",
        lambda real=coco_groups.tempfile.TemporaryFile: made.append(real()) or made[-1],
    )
    told = coco_with(image_id=9)
    with pytest.raises(InvalidInput, match="annotations 1: there is no image 9"):
        coco(told)
    assert made
    assert all(file.closed for file in made)
    told = coco_with()
    told["images"] *= 2
    with pytest.raises(InvalidInput, match=r"instances\.json.*images 0 and 1 have the same id 1"):
        coco(told)


def test_ids_that_are_numbers_are_kept() -> None:
    ids = ["7", "66f1", None, "7", "1", "007"]
    marks = [Annotation(label="a", geometry=Box(0, 0, 1, 1), id=name) for name in ids]
    told = json.loads(wrote(Coco(), item(*marks))["coco.json"])
    assert [one["id"] for one in told["annotations"]] == [7, 1, 2, 3, 4, 5]


def test_categories_keep_their_numbers() -> None:
    labels = [Label(name="a", id=3), Label(name="b"), Label(name="c", id=3), Label(name="d", id=1)]
    mark = Annotation(label="new", geometry=Box(0, 0, 1, 1))
    told = json.loads(wrote(Coco(), item(mark), labels=labels)["coco.json"])
    numbers = {one["name"]: one["id"] for one in told["categories"]}
    assert (numbers["a"], numbers["d"]) == (3, 1)
    assert len(set(numbers.values())) == 5


@pytest.mark.parametrize(
    ("mark", "lost"),
    [
        (Annotation(label="a", geometry=Polygon(((TRIANGLE, (5.0, 2.0, 6.0, 2.0, 6.0, 3.0)),))), "a polygon with holes"),
        (Annotation(label="a", geometry=Polygon(())), "an empty polygon"),
        (Annotation(label="a", geometry=Polygon((((1.0, 1.0, 2.0, 2.0),),))), "fewer than three corners"),
        (Annotation(label="a", geometry=Box(0, 0, 4, 4, 30.0)), "a rotated box"),
        (Annotation(label="a", geometry=Box(4, 0, 4, 4)), "a box without an area"),
        (Annotation(label="a", geometry=Box(float("nan"), 0, 4, 4)), "a box with numbers that are not finite"),
        (Annotation(label="a", geometry=Pose(())), "a pose without points"),
    ],
)  # fmt: skip
def test_what_coco_cannot_hold(mark: Annotation, lost: str) -> None:
    with pytest.raises(Unsupported, match=lost):
        wrote(Coco(), item(mark))
    losses = Losses(allowed=True)
    files = wrote(Coco(), item(mark, Annotation(label="a", geometry=Box(0, 0, 1, 1), id="1")), losses=losses)
    assert sum(losses.counts.values()) == 1
    assert [mark.id for mark in one(Coco(), {**files}).annotations] == ["1"]


def test_fields_that_coco_cannot_hold() -> None:
    mark = Annotation(
        label="a", geometry=Box(0, 0, 1, 1), parent="x", object_id="1", model="m", frame=3, visible=False
    )
    losses = Losses(allowed=True)
    wrote(Coco(), item(mark, user={"id": 3, "license": 1}, description="d"), losses=losses)
    assert len(losses.counts) == 7
    losses = Losses()
    wrote(Coco(), item(user={"id": 3, "license": 1}, description="d"), losses=losses)
    assert losses.counts == {"the item's metadata 'id'": 1, "the item's description": 1}, "no loss of labels"


@pytest.mark.parametrize("form", [Yolo(), Masks()])
def test_an_items_metadata_is_no_loss_of_labels(form: Format) -> None:
    losses = Losses()
    assert wrote(form, item(user={"city": "Rome"}, description="d"), losses=losses)
    assert losses.counts == {"the item's metadata": 1, "the item's description": 1}


def test_a_pose_with_fewer_points_is_in_the_order_of_its_label() -> None:
    labels = [Label(name="a", joints=l.JOINTS)]
    pose = Annotation(label="a", id="1", geometry=Pose((Joint("right eye", 3, 4), Joint("nose", 1, 2))))
    (found,) = one(Coco(), {**wrote(Coco(), item(pose), labels=labels)}).annotations
    assert found.geometry == Pose((Joint("nose", 1, 2), Joint("left eye", 0, 0, 0), Joint("right eye", 3, 4)))
    other = msgspec.structs.replace(pose, geometry=Pose((Joint("tail", 3, 4),)))
    with pytest.raises(Unsupported, match="other points"):
        wrote(Coco(), item(other), labels=labels)


def test_a_mask_of_another_size_is_an_error() -> None:
    for form in (Coco(), Masks(), Voc()):
        with pytest.raises(InvalidInput, match=r"a\.jpg: a mask of 10 x 8 pixels on a picture of 64 x 48"):
            wrote(form, item(Annotation(label="a", geometry=square(1, 1, 2, 2, 10, 8))))


# pycocotools, not we: it is not ready for the numpy of today.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(coco_profile.PROFILE.items)
def test_pycocotools_reads_what_is_written(tmp_path: Path, items: list[Labelled]) -> None:
    path = tmp_path / "coco.json"
    path.write_bytes(wrote(Coco(), *items, labels=coco_profile.PROFILE.labels)["coco.json"])
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = COCO(str(path))
    marks = {mark.id: mark for item in items for mark in item.annotations if mark.id is not None}
    assert theirs.anns.keys() == {int(name) for name in marks}
    for number, told in theirs.anns.items():
        mark = marks[str(number)]
        assert isinstance(mark, Annotation)
        if isinstance(mark.geometry, Polygon):
            mine = masks.decode(masks.from_polygon(mark.geometry, l.WIDTH, l.HEIGHT))
            assert (theirs.annToMask(told) == mine).all()
        elif isinstance(mark.geometry, Mask):
            assert (theirs.annToMask(told) == masks.decode(mark.geometry)).all()
            assert told["area"] == masks.area(mark.geometry)


# -- YOLO ----------------------------------------------------------------------------------------

YAML = "path: ../datasets/coco8\ntrain: images/train\nval: images/val\nnames:\n  0: person\n  1: car\n"


def test_a_tree_of_ultralytics() -> None:
    found = read(
        Yolo(),
        {
            "data.yaml": YAML,
            "README.md": "# hello",
            "LICENSE.txt.bak": "x",
            "images/train/a.jpg": b"\xff\xd8",
            "labels/train/a.txt": "1 0.5 0.5 0.2 0.4\n\n0 0.25 0.5 0.1 0.2 0.75\r\n",
            "labels/val/b.c.txt": "",
            "labels/classes.txt": "person\ncar\n",
            "train.txt": "./images/train/a.jpg\n",
            "README.roboflow.txt": "made by hand 1 2 3\n",
        },
    )
    assert [(one.key, one.stem, one.width) for one in found] == [
        ("images/train/a", True, 100),
        ("images/val/b.c", True, 100),
    ]
    assert found[0].annotations == (
        Annotation(label="car", geometry=Box(40.0, 15.0, 60.0, 35.0)),
        Annotation(label="person", geometry=Box(20.0, 20.0, 30.0, 30.0), score=0.75),
    )
    assert found[1].annotations == ()


@pytest.mark.parametrize(
    ("names", "label"),
    [
        ({"data.yaml": "names: [person, car]"}, "car"),
        ({"coco8.yaml": "nc: 2\nnames: ['yes', no]"}, "no"),
        ({"data.yaml": "names: {0: 1.0, 1: 2.0}"}, "2.0"),
        ({"classes.txt": "person\ncar\n\n"}, "car"),
        ({"obj.names": "person\r\ncar"}, "car"),
        ({"sub/data.yaml": "names: [a, b]", "data.yaml": "names: [c, d]", "aaa.yaml": "version: 1"}, "d"),
        ({}, "second"),
    ],
)
def test_names_of_classes(names: dict[str, bytes | str], label: str) -> None:
    context = Context(size=SIZE.size, labels=["first", "second"])
    found = one(Yolo(), {**names, "obj_train_data/a.txt": "1 0.5 0.5 0.2 0.4"}, context)
    assert found.key == "obj_train_data/a"
    assert found.annotations[0].label == label


LINE = {
    "detect": "0 0.5 0.5 0.2 0.4",
    "segment": "0 0.1 0.1 0.5 0.1 0.5 0.5",
    "quad": "0 0.1 0.2 0.3 0.2 0.3 0.6 0.1 0.6",
    "pose": "0 0.5 0.5 0.2 0.4 0.5 0.5 2 0 0 0",
}


@pytest.mark.parametrize(
    ("task", "line", "kind", "score"),
    [
        (None, LINE["detect"], Box, None),
        (None, LINE["detect"] + " 0.5", Box, 0.5),
        (None, LINE["segment"], Polygon, None),
        (None, LINE["segment"] + " 0.5", Polygon, 0.5),
        (None, LINE["quad"], Polygon, None),
        ("segment", LINE["quad"], Polygon, None),
        ("segment", LINE["detect"], Box, None),
        ("obb", LINE["quad"], Box, None),
        ("obb", LINE["quad"] + " 0.5", Box, 0.5),
        ("pose", LINE["pose"], Pose, None),
        ("pose", LINE["pose"] + " 0.5", Pose, 0.5),
    ],
)
@pytest.mark.parametrize("by_file", [False, True])
def test_the_task_says_what_a_line_is(
    task: str | None, line: str, kind: type, score: float | None, by_file: bool
) -> None:
    told = (
        "names: [a]\n"
        + ("kpt_shape: [2, 3]\n" if task == "pose" else "")
        + (f"task: {task}\n" if by_file and task else "")
    )
    (found,) = one(Yolo(None if by_file else task), {"data.yaml": told, "labels/a.txt": line}).annotations
    assert type(found.geometry) is kind
    assert found.score == score


def test_rotated_boxes_either_way_round_and_what_is_none() -> None:
    box = Box(40.0, 10.0, 60.0, 20.0, 30.0)
    corners = [n / (100, 50)[at % 2] for at, n in enumerate(box.corners())]
    back = [n for at in (0, 3, 2, 1) for n in corners[2 * at : 2 * at + 2]]
    bent = [0.1, 0.1, 0.5, 0.1, 0.9, 0.9, 0.1, 0.5]
    text = "\n".join("0 " + " ".join(f"{n:.9f}" for n in told) for told in (corners, back, bent))
    first, second, third = one(Yolo("obb"), {"data.yaml": "names: [a]", "labels/a.txt": text}).annotations
    for found in (first, second):
        assert isinstance(found.geometry, Box)
        assert max(map(abs, np.subtract(sorted(found.geometry.corners()), sorted(box.corners())))) < 1e-4
    assert third.geometry == Polygon((((10.0, 5.0, 50.0, 5.0, 90.0, 45.0, 10.0, 25.0),),))


def test_poses_of_pairs_and_of_named_points() -> None:
    told = "names: [cat]\nkpt_shape: [2, 2]\nkpt_names:\n  0: [nose, tail]\n"
    (found,) = one(Yolo(), {"data.yaml": told, "labels/a.txt": "0 0.5 0.5 0.2 0.4 0.1 0.2 0 0"}).annotations
    assert found.geometry == Pose(
        (Joint("nose", 10.0, 10.0, 2), Joint("tail", 0.0, 0.0, 0)), box=(40.0, 15.0, 60.0, 35.0)
    )
    (label,) = Yolo().labels(Files({"data.yaml": told.encode()}))
    assert label == Label(name="cat", id=0, joints=("nose", "tail"))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("7 0.5 0.5 0.1 0.1", "class 7 has no name; 1 classes have one"),
        ("-1 0.5 0.5 0.1 0.1", "class -1 has no name"),
        ("a 0.5 0.5 0.1 0.1", "'a' is not a whole number"),
        ("0", "0 numbers"),
        ("0 0.5 0.5 0.1", "3 numbers"),
        ("0 0.5 0.5 0.1 x", "x"),
        ("0 0.5 0.5 0.1 nan", "not relative"),
        ("0 312 0.5 0.1 0.1", "not relative"),
        ("0 0.5 0.5 0 0.1", "without an area"),
        ("0 0.5 0.5 0.1 0.1 1.5", "confidence 1.5"),
    ],
)
def test_a_wrong_line_is_named(line: str, reason: str) -> None:
    files: dict[str, bytes | str] = {"data.yaml": "names: [a]", "labels/a.txt": f"{LINE['detect']}\n{line}\n"}
    with pytest.raises(InvalidInput, match=rf"labels/a\.txt: line 2: .*{reason}"):
        read(Yolo(), files)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("names: [a", "no YAML"),
        ("names: abc", "names"),
        ("names: {x: a}", "names"),
        ("names: [[a]]", "class 0: has no name"),
        ("names: [a]\nkpt_shape: [0, 3]", "kpt_shape"),
        ("names: [a]\nkpt_shape: [3]", "kpt_shape"),
        ("names: [a]\nkpt_shape: 3 x 3", "kpt_shape"),
        ("names: [a]\nkpt_names: {0: [[a]]}", "kpt_names"),
        ("names: !!python/object/apply:os.system [echo]", "class 0|names"),
        ("[" * 5000, "no YAML"),
        ("a: &a [x, x, x, x, x, x, x, x, x, x]\n"
         + "".join(f"{n}: &{n} [*{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}]\n" for p, n in itertools.pairwise("abcdefghijk"))
         + "names: *k\nkpt_names: {0: *k}", "kpt_names|class 0"),
        ("names: [a]\ntask: pose", "number of points"),
    ],
)  # fmt: skip
def test_a_wrong_data_yaml_is_named(told: str, reason: str) -> None:
    if told.startswith("names: !!python"):
        assert one(Yolo(), {"data.yaml": told, "labels/a.txt": LINE["detect"]}).annotations[0].label == "echo"
        return
    with pytest.raises(InvalidInput, match=reason) as caught:
        read(Yolo(), {"data.yaml": told, "labels/a.txt": LINE["detect"]})
    assert caught.value.resource in {"data.yaml", "labels/a.txt"}


def test_a_size_that_is_not_known_is_asked_for() -> None:
    files: dict[str, bytes | str] = {
        "classes.txt": "a",
        "labels/a.txt": LINE["detect"],
        "labels/empty.txt": "\n",
    }
    with pytest.raises(
        InvalidInput, match=r"labels/a\.txt: the width and height of images/a are not known; .*probe"
    ):
        read(Yolo(), files, Context())
    del files["labels/a.txt"]
    assert one(Yolo(), files, Context()) == Labelled(key="images/empty", stem=True)


def test_an_unknown_task_is_an_error() -> None:
    with pytest.raises(ConfigError, match="unknown task 'boxes'; known are detect"):
        Yolo("boxes")


def test_where_label_files_go_and_what_data_yaml_says() -> None:
    mark = Annotation(label="no", geometry=Box(0.1, 0.2, 33.3, 40.7))
    keys = ["images/train/a.jpg", "images/val/b.jpg", "c/d.jpg"]
    labels = [Label(name="first"), Label(name="no")]
    files = wrote(Yolo(), *(item(mark, key=key) for key in keys), labels=labels)
    assert sorted(files) == ["c/d.txt", "data.yaml", "labels/train/a.txt", "labels/val/b.txt"]
    assert yaml.safe_load(files["data.yaml"]) == {
        "path": ".", "train": "images/train", "val": "images/val", "names": {0: "first", 1: "no"}, "task": "detect",
    }  # fmt: skip
    assert files["c/d.txt"].startswith(b"1 ")
    found = read(Yolo(), {**files}, Context(size=lambda key, stem: (64, 48)))
    assert [one.key for one in found] == ["c/d", "images/train/a", "images/val/b"]
    assert all(one.annotations == (mark,) for one in found), (
        "pixels are the same, though their shares are not exact"
    )


@pytest.mark.parametrize(
    ("label_file", "key"),
    [
        ("labels/a.txt", "images/a"),
        ("train/labels/a.txt", "train/images/a"),
        ("labels/x/labels/a.txt", "labels/x/images/a"),
        ("mylabels/a.txt", "mylabels/a"),
        ("labels/train.txt", "images/train"),
    ],
)
def test_which_picture_a_label_file_is_about(label_file: str, key: str) -> None:
    found = one(Yolo(), {"data.yaml": "names: [a]", label_file: ""})
    assert (found.key, found.stem) == (key, True)


def test_two_pictures_with_one_label_file_are_an_error() -> None:
    for form in (Yolo(), Voc(), Masks()):
        with pytest.raises(InvalidInput, match="two items would be written to"):
            wrote(form, item(key="x/a.jpg"), item(key="x/a.png"))


def test_a_picture_whose_label_file_would_be_no_label_file_is_a_loss() -> None:
    for key in ("classes.jpg", "readme.png", "labels/a.jpg", "images/classes.jpg"):
        with pytest.raises(Unsupported, match="a picture whose label file is"):
            wrote(Yolo(), item(key=key))


@pytest.mark.parametrize(
    ("task", "mark", "lost"),
    [
        (
            None,
            Annotation(label="a", geometry=Polygon(((TRIANGLE,), (TRIANGLE,)))),
            "a polygon of several parts",
        ),
        (None, Annotation(label="a", geometry=Polygon(((TRIANGLE, TRIANGLE),))), "a polygon with holes"),
        (None, Annotation(label="a", geometry=Polygon(())), "an empty polygon"),
        (None, Annotation(label="a", geometry=Box(4, 0, 4, 4)), "a box without an area"),
        (None, Annotation(label="a", geometry=Box(9000, 0, 9004, 4)), "a box far outside"),
        (None, Annotation(label="a", geometry=Pose(())), "a pose without points"),
        ("segment", Annotation(label="a", geometry=Box(0, 0, 4, 4)), "a box"),
        ("detect", Annotation(label="a", geometry=Polygon(((TRIANGLE,),))), "a polygon"),
        ("detect", Annotation(label="a", geometry=Box(0, 0, 4, 4, 30.0)), "a rotated box"),
    ],
)
def test_what_yolo_cannot_hold(task: str | None, mark: Annotation, lost: str) -> None:
    with pytest.raises(Unsupported, match=rf"a\.jpg: yolo.*{lost}"):
        wrote(Yolo(task), item(mark))


def test_one_tree_is_of_one_task() -> None:
    box, polygon = (
        Annotation(label="a", geometry=shape) for shape in (Box(0, 0, 4, 4), Polygon(((TRIANGLE,),)))
    )
    losses = Losses(allowed=True)
    files = wrote(Yolo(), item(polygon, box, polygon, key="images/a.jpg"), losses=losses)
    assert losses.counts == {"a box": 1}
    assert yaml.safe_load(files["data.yaml"])["task"] == "segment"
    upright = wrote(Yolo("obb"), item(box, key="images/a.jpg"))
    assert len(upright["labels/a.txt"].split()) == 9
    with pytest.raises(Unsupported, match="with other points than those before it"):
        wrote(
            Yolo(),
            item(
                *(Annotation(label=n, geometry=Pose(tuple(Joint(j, 1, 1) for j in n))) for n in ("ab", "abc"))
            ),
        )


# -- Pascal VOC ----------------------------------------------------------------------------------

DEVKIT = """<annotation>
	<folder>VOC2012</folder>
	<filename>2007_000027.jpg</filename>
	<source><database>The VOC2007 Database</database><annotation>PASCAL VOC2007</annotation><image>flickr</image>
		<flickrid>325991873</flickrid></source>
	<owner><flickrid>archintent louisville</flickrid><name>?</name></owner>
	<size><width>10</width><height>8</height><depth>3</depth></size>
	<segmented>{segmented}</segmented>
	<object>
		<name>person</name>
		<actions><jumping>1</jumping><running>0</running></actions>
		<pose>Unspecified</pose>
		<truncated>0</truncated>
		<difficult>1</difficult>
		<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>8</ymax></bndbox>
		<part><name>head</name><bndbox><xmin>2</xmin><ymin>1</ymin><xmax>3.5</xmax><ymax>3</ymax></bndbox></part>
		<part><name>hand</name><bndbox><xmin>1</xmin><ymin>4</ymin><xmax>2</xmax><ymax>5</ymax></bndbox></part>
	</object>
	<object>
		<name>car</name>
		<bndbox><xmax>10</xmax><xmin>6</xmin><ymax>8</ymax><ymin>5</ymin></bndbox>
	</object>
</annotation>
"""
XML = DEVKIT.format(segmented=0)
OBJECT = "<object><name>a</name>{}<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></object>"


def voc_object(told: str) -> Annotation:
    (found,) = one(Voc(), {"a.xml": f"<annotation>{OBJECT.format(told)}</annotation>"}).annotations
    return found


def test_the_devkit() -> None:
    found = one(Voc(), {"VOCdevkit/VOC2012/Annotations/2007_000027.xml": XML})
    assert (found.key, found.stem, found.width, found.height) == ("2007_000027.jpg", False, 10, 8)
    assert found.user == {
        "source": {
            "database": "The VOC2007 Database", "annotation": "PASCAL VOC2007", "image": "flickr", "flickrid": 325991873,
        },
        "owner": {"flickrid": "archintent louisville", "name": "?"},
    }  # fmt: skip
    assert found.annotations == (
        Annotation(
            label="person", geometry=Box(1.0, 1.0, 4.0, 8.0), id="1",
            attributes={"actions.jumping": 1, "actions.running": 0, "pose": "Unspecified", "truncated": 0, "difficult": 1},
        ),
        Annotation(label="head", geometry=Box(2.0, 1.0, 3.5, 3.0), parent="1"),
        Annotation(label="hand", geometry=Box(1.0, 4.0, 2.0, 5.0), parent="1"),
        Annotation(label="car", geometry=Box(6.0, 5.0, 10.0, 8.0)),
    )  # fmt: skip
    again = wrote(Voc(), found)
    assert one(Voc(), {**again}) == found
    assert b"<actions.jumping>1</actions.jumping>" in again["Annotations/2007_000027.xml"]


def test_coordinates_from_one() -> None:
    form = Voc(one_based=True)
    found = one(form, {"Annotations/a.xml": XML})
    assert found.annotations[0].geometry == Box(0.0, 0.0, 4.0, 8.0)
    assert b"<xmin>1</xmin><ymin>1</ymin><xmax>4</xmax>" in wrote(form, found)["Annotations/2007_000027.xml"]


def test_masks_beside_the_devkit_are_those_of_its_objects() -> None:
    classes, objects = np.zeros((8, 10), int), np.zeros((8, 10), int)
    classes[0:4, 0:3], objects[0:4, 0:3] = CLASSES.index("person") + 1, 1
    classes[5:8, 6:9], objects[5:8, 6:9] = CLASSES.index("car") + 1, 2
    classes[4], objects[4] = 255, 255
    classes[0, 9], objects[0, 9] = CLASSES.index("cat") + 1, 3
    files: dict[str, bytes | str] = {
        "V/Annotations/x.xml": DEVKIT.format(segmented=1),
        "V/SegmentationClass/x.png": picture(classes),
        "V/SegmentationObject/x.png": picture(objects),
    }
    found = one(Voc(), files)
    shapes = [(mark.label, mark.object_id) for mark in found.annotations if isinstance(mark.geometry, Mask)]
    assert shapes == [("person", "1"), ("car", "2"), ("cat", "3")]
    assert [mark.object_id for mark in found.annotations[:4]] == ["1", None, None, "2"]
    assert found.annotations[4].geometry == square(0, 0, 3, 4, 10, 8)
    tree = Files({name: data if isinstance(data, bytes) else data.encode() for name, data in files.items()})
    assert list(Voc().read(Only(tree, ["V/Annotations/x.xml"]), SIZE)) == [found], "they are found beside it"
    assert one(Voc(), {**wrote(Voc(), found)}) == found
    del files["V/SegmentationObject/x.png"]
    assert len(one(Voc(), files).annotations) == 7
    files["V/SegmentationObject/x.png"] = files.pop("V/SegmentationClass/x.png")
    with pytest.raises(
        InvalidInput, match=r"V/SegmentationObject/x\.png: there is no V/SegmentationClass/x\.png"
    ):
        read(Voc(), files)


CVAT_MAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nwheel:10,20,30::\ncar:250,50,83::\n"


@pytest.mark.parametrize("palette", [False, True])
def test_the_export_of_cvat(palette: bool) -> None:
    numbers = np.zeros((8, 10), int)
    numbers[0:2, 0:2], numbers[3:5, 3:5] = 1, 2
    colored = np.zeros((8, 10, 3), np.uint8)
    colored[numbers == 1], colored[numbers == 2] = (250, 50, 83), (10, 20, 30)
    out = io.BytesIO()
    made = Image.fromarray(colored)
    (made.quantize(8) if palette else made).save(out, "PNG")
    text = (
        "<annotation><folder>f</folder><filename>f/a.jpg</filename><size><width>10</width><height>8</height></size>"
        "<segmented>1</segmented><object><name>car</name><occluded>1</occluded><bndbox><xmin>0.5</xmin><ymin>0</ymin>"
        "<xmax>2</xmax><ymax>2</ymax></bndbox><attributes><attribute><name>color</name><value>red</value></attribute>"
        "<attribute><name>doors</name><value>4</value></attribute><attribute><name>new</name><value>False</value></attribute>"
        "</attributes></object></annotation>"
    )
    files: dict[str, bytes | str] = {
        "labelmap.txt": CVAT_MAP,
        "Annotations/f/a.xml": text,
        "SegmentationClass/f/a.png": out.getvalue(),
        "SegmentationObject/f/a.png": picture(numbers, palette),
    }
    found = one(Voc(), files)
    assert found.key == "f/a.jpg"
    box, car, wheel = found.annotations
    assert box == Annotation(
        label="car", geometry=Box(0.5, 0.0, 2.0, 2.0), object_id="1",
        attributes={"occluded": 1, "color": "red", "doors": 4, "new": False},
    )  # fmt: skip
    assert (car.label, car.geometry) == ("car", square(0, 0, 2, 2, 10, 8))
    assert (wheel.label, wheel.geometry) == ("wheel", square(3, 3, 5, 5, 10, 8))
    assert [label.name for label in Voc().labels(Files({"labelmap.txt": CVAT_MAP.encode()}))] == [
        "wheel",
        "car",
    ]
    # The same pictures without XML are its "Segmentation mask".
    del files["Annotations/f/a.xml"]
    assert one(Masks(), files) == Labelled(key="f/a", stem=True, width=10, height=8, annotations=(car, wheel))


def test_python_in_attributes_stays_a_text(tmp_path: Path) -> None:
    evil = f"__import__('pathlib').Path({str(tmp_path / 'ran')!r}).touch()"
    for text in (evil, "{'color': 'red'}", "[1, 2]", "{" * 5000, '{"a": 1e999}'):
        assert voc_object(f"<attributes>{text}</attributes><pose>{text}</pose>").attributes == {
            "pose": text,
            "attributes": text,
        }
    assert not (tmp_path / "ran").exists()
    assert voc_object('<attributes>{"color": ["red"], "x": null}</attributes>').attributes == {
        "color": ["red"],
        "x": None,
    }


def test_values_of_tags() -> None:
    told = "<a>1</a><b>-0.5</b><c>007</c><d>1e5</d><e/><f> x </f><g>1</g><g>2</g><h><i>1</i></h><h>2</h>"
    found = voc_object(told).attributes
    assert found == {"a": 1, "b": -0.5, "c": "007", "d": "1e5", "f": " x ", "g": [1, 2], "h.0.i": 1, "h.1": 2}


@pytest.mark.parametrize(
    ("file", "filename", "key"),
    [
        ("a.xml", "<filename>a.jpg</filename>", ("a.jpg", False)),
        ("train/a.xml", "<filename>a.jpg</filename>", ("train/a.jpg", False)),
        ("V/Annotations/x/a.xml", "<filename>a.jpg</filename>", ("x/a.jpg", False)),
        ("V/Annotations/x/a.xml", "<filename>/x/a.jpg</filename>", ("x/a.jpg", False)),
        ("Annotations/n01/n01_18.xml", "<filename>n01_18</filename>", ("n01/n01_18", True)),
        ("Annotations/x/a.b.xml", "", ("x/a.b", True)),
    ],
)
def test_which_picture_an_xml_is_about(file: str, filename: str, key: tuple[str, bool]) -> None:
    found = one(Voc(), {file: f"<annotation>{filename}<size><width>0</width></size></annotation>"})
    assert (found.key, found.stem) == key
    assert (found.width, found.height) == (100, 50), "the catalog's, where the file does not tell"


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        ("<annotations/>", "root is <annotations>"),
        ("<annotation><object/></annotation>", "object 1: has no name"),
        ("<annotation><object><name>a</name></object></annotation>", "object 1: has no bndbox"),
        (XML.replace("<ymax>8</ymax>", "", 1), "object 1: bndbox: '' is not a number"),
        (XML.replace("<xmax>4<", "<xmax>1<"), "object 1: a box without an area"),
        (XML.replace("<xmax>3.5<", "<xmax>nan<"), "object 1, part 1: bndbox"),
        (XML.replace("<width>10<", "<width>x<"), "width"),
        (XML.replace("<width>10<", "<width>1e400<"), "width"),
        (
            f"<annotation>{OBJECT.format('<x>' * 100 + '1' + '</x>' * 100)}</annotation>",
            "object 1: nested too deeply",
        ),
        (f"<annotation>{'<x>' * 50_000}{'</x>' * 50_000}</annotation>", "nested too deeply"),
        ('<?xml version="1.0" encoding="nonsense"?><annotation/>', "no XML"),
        ('<!DOCTYPE a SYSTEM "http://example.com/a.dtd"><annotation/>', "DTD"),
    ],
)
def test_a_wrong_xml_is_named(xml: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=rf"x/a\.xml: .*{reason}") as caught:
        read(Voc(), {"x/a.xml": xml})
    assert caught.value.resource == "x/a.xml"


def test_an_xml_that_is_cut_off_is_an_error() -> None:
    text = XML.strip()
    for at in range(len(text)):
        with pytest.raises(InvalidInput, match=r"^a\.xml: no XML"):
            read(Voc(), {"a.xml": text[:at]})


@pytest.mark.parametrize(
    ("marks", "lost"),
    [
        ([Annotation(label="a", geometry=Box(0, 0, 4, 4, 30.0))], "a rotated box"),
        ([Annotation(label="a", geometry=Box(4, 0, 4, 4))], "a box without an area"),
        ([Annotation(label="a\ufffeb", geometry=Box(0, 0, 4, 4))], "the label"),
        ([Annotation(label="a", geometry=Box(0, 0, 4, 4), parent="9")], "a parent"),
        ([Annotation(label="a", geometry=Box(0, 0, 4, 4), object_id="1")], "an object's id"),
        ([Annotation(label="a", geometry=Box(0, 0, 4, 4), id="1"),
          Annotation(label="a", geometry=Box(0, 0, 4, 4), parent="1", attributes={"b": 1})], "the attribute 'b'"),
        ([Annotation(label="a:b", geometry=square(0, 0, 4, 4))], "a mask of the label 'a:b'"),
        ([Annotation(label="a", geometry=square(0, 0, 0, 0))], "an empty mask"),
        ([Annotation(label="a", geometry=square(0, 0, 2, 2), crowd=True)], "a crowd"),
        ([Annotation(label="a", geometry=square(0, 0, 2, 2), object_id="x")], "an object's id"),
        ([Annotation(label="a", geometry=Box(0, 0, 4, 4)),
          Annotation(label="a", geometry=square(0, 0, 2, 2), object_id="1")], "an object's id"),
        ([Annotation(label="a", geometry=square(n % 60, n // 60, n % 60 + 1, n // 60 + 1)) for n in range(255)], "no number is left"),
    ],
)  # fmt: skip
def test_what_voc_cannot_hold(marks: list[Annotation], lost: str) -> None:
    with pytest.raises(Unsupported, match=lost):
        wrote(Voc(), item(*marks))


def test_a_mask_is_no_box_by_chance() -> None:
    box = Annotation(label="a", geometry=Box(0, 0, 4, 4))
    marks = one(
        Voc(), {**wrote(Voc(), item(box, Annotation(label="a", geometry=square(0, 0, 4, 4))))}
    ).annotations
    assert [mark.object_id for mark in marks] == [None, "2"]


def test_texts_that_xml_has_no_characters_for_are_kept() -> None:
    told = {"pose": "a\ufffeb", "b": "x\r\ny", "c": "\x0b", "d": "<&>]]>", "é": "1", "e": " padded "}
    mark = Annotation(label="a", geometry=Box(0, 0, 4, 4), attributes=told)
    found = one(Voc(), {**wrote(Voc(), item(mark, user=told))})
    assert found.annotations == (mark,)
    assert found.user == told
    with pytest.raises(InvalidInput, match="characters that XML cannot hold"):
        wrote(Voc(), item(key="a\x01.jpg"))


def test_colours_of_labels_are_told_apart() -> None:
    labels = [
        Label(name="a", color="#ff0000"),
        Label(name="b", color="#FF0000"),
        Label(name="c", color="#000000"),
        Label(name="d"),
    ]
    marks = [
        Annotation(label=n, geometry=square(x, 0, x + 1, 1), object_id=str(x + 1))
        for x, n in enumerate("dcba")
    ]
    files = wrote(Voc(), item(*marks), labels=labels)
    assert b"a:255,0,0::" in files["labelmap.txt"]
    assert one(Voc(), {**files}).annotations == tuple(marks)


# -- masks ---------------------------------------------------------------------------------------

NUMBERS = np.array([[1, 1, 0, 2], [0, 0, 0, 2], [1, 0, 0, 0]])


def labels_of(found: Labelled) -> list[tuple[str, str | None, int]]:
    return [
        (m.label, m.object_id, masks.area(m.geometry))
        for m in found.annotations
        if isinstance(m.geometry, Mask)
    ]


@pytest.mark.parametrize("folder", ["instance/", "SegmentationClass/", "mask/", ""])
def test_pictures_of_labels(folder: str) -> None:
    context = Context(labels=["car", "person"])
    found = one(Masks(), {f"{folder}x/a.png": picture(NUMBERS)}, context)
    assert (found.key, found.stem, found.width, found.height) == ("x/a", True, 4, 3)
    assert labels_of(found) == [("car", None, 3), ("person", None, 2)]
    apart = one(Masks(apart=True), {f"{folder}x/a.png": picture(NUMBERS)}, context)
    assert sorted(labels_of(apart)) == [("car", None, 1), ("car", None, 2), ("person", None, 2)]


def test_the_map_of_the_platform_names_numbers() -> None:
    files: dict[str, bytes | str] = {
        "instance_map.json": '{"person": 2, "car": 1}',
        "instance/a.png": picture(NUMBERS),
        "object_id/a.png": picture(NUMBERS * 7),
    }
    assert labels_of(one(Masks(), files)) == [("car", "7", 3), ("person", "14", 2)]
    assert [
        (label.name, label.id) for label in Masks().labels(Files({"instance_map.json": b'{"b": 2, "a": 1}'}))
    ] == [
        ("a", 1),
        ("b", 2),
    ]


def test_colours_of_the_recipe() -> None:
    labels = [
        Label(name="car", color=f"#{voc_color(1):06x}"),
        Label(name="person", color=f"#{voc_color(2):06x}"),
    ]
    found = one(Masks(labels), {"mask/a.png": picture(NUMBERS, palette=False)})
    assert sorted(labels_of(found)) == [("car", None, 3), ("person", None, 2)]
    clear = np.zeros((3, 4, 4), np.uint8)
    clear[NUMBERS == 1] = (128, 0, 0, 255)
    clear[NUMBERS == 2] = (0, 128, 0, 0)  # what is clear is no mask
    out = io.BytesIO()
    Image.fromarray(clear).save(out, "PNG")
    assert labels_of(one(Masks(labels), {"mask/a.png": out.getvalue()})) == [("car", None, 3)]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"a.png": picture(NUMBERS + 1)}, r"a\.png: number 3: no label has it"),
        ({"a.png": picture(NUMBERS, palette=False)}, r"a\.png: colour #008000: no label has it"),
        ({"a.png": picture(NUMBERS)[:-4]}, r"a\.png: no PNG, or it is cut off"),
        ({"a.png": b"GIF89a IEND\xaeB`\x82"}, r"a\.png: no sound PNG"),
        ({"instance_map.json": "[]"}, r"instance_map\.json"),
        ({"instance_map.json": '{"a": "x"}'}, r"instance_map\.json"),
        ({"labelmap.txt": "car:1,2"}, r"labelmap\.txt: entry 1"),
        ({"labelmap.txt": "# x\ncar:1,2,300::"}, r"labelmap\.txt: entry 1"),
        ({"instance/a.png": picture(NUMBERS), "object_id/a.png": picture(NUMBERS[:2])}, "another size"),
        (
            {"instance/a.png": picture(NUMBERS), "object_id/a.png": picture(NUMBERS + 1)},
            "object 1: has no label",
        ),
    ],
)
def test_a_wrong_picture_is_named(files: dict[str, bytes | str], reason: str) -> None:
    context = Context(labels=["car", "person"] if "+ 1" not in reason else [])
    with pytest.raises(InvalidInput, match=reason) as caught:
        read(Masks([Label(name="car", color="#800000"), Label(name="person")]), files, context)
    assert caught.value.resource


def test_number_255_is_a_border_unless_it_is_a_label() -> None:
    told = picture(np.where(NUMBERS == 2, 255, NUMBERS))
    assert labels_of(one(Masks(), {"a.png": told}, Context(labels=["car"]))) == [("car", None, 3)]
    files: dict[str, bytes | str] = {"a.png": told, "instance_map.json": '{"car": 1, "sky": 255}'}
    assert labels_of(one(Masks(), files)) == [("car", None, 3), ("sky", None, 2)]


def test_masks_that_overlap_are_a_loss() -> None:
    marks = (
        Annotation(label="a", geometry=square(0, 0, 4, 4)),
        Annotation(label="b", geometry=square(2, 2, 6, 6)),
    )
    for form in (Masks(), Voc()):
        with pytest.raises(Unsupported, match="pixels of a mask below another"):
            wrote(form, item(*marks))
        losses = Losses(allowed=True)
        files = wrote(form, item(*marks), losses=losses)
        assert losses.counts == {"pixels of a mask below another": 1}
        found = one(form, {**files})
        assert [mark[::2] for mark in labels_of(found)] == [("a", 12), ("b", 16)]


def test_more_labels_and_objects_than_a_byte_holds() -> None:
    marks = [
        Annotation(
            label=f"l{n:03}", geometry=square(n % 60, n // 60, n % 60 + 1, n // 60 + 1), object_id=str(n + 1)
        )
        for n in range(300)
    ]
    files = wrote(Masks(), item(*marks))
    assert one(Masks(), {**files}).annotations == tuple(marks)
    assert Image.open(io.BytesIO(files["instance/a.png"])).mode == "I;16"


def test_the_palette_shows_labels_in_their_colours() -> None:
    marks = [Annotation(label="a", geometry=square(0, 0, 4, 4))]
    files = wrote(Masks(), item(*marks), labels=[Label(name="z"), Label(name="a", color="#12aBc3")])
    shown = Image.open(io.BytesIO(files["instance/a.png"])).convert("RGB")
    assert shown.getpixel((0, 0)) == (0x12, 0xAB, 0xC3)
    assert json.loads(files["instance_map.json"]) == {"z": 1, "a": 2}


# -- all of them ---------------------------------------------------------------------------------

FORMS: list[Callable[[], Format]] = [Coco, Yolo, Voc, Masks]


@pytest.mark.parametrize("form", FORMS)
def test_sizes_that_are_not_known_are_asked_for(form: Callable[[], Format]) -> None:
    mark = Annotation(label="a", geometry=square(0, 0, 4, 4) if form is Masks else Box(0, 0, 4, 4))
    with pytest.raises(InvalidInput, match=r"a\.jpg: \w+ needs the picture's width and height; .*probe"):
        wrote(form(), Labelled(key="a.jpg", annotations=(mark,)))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["coco", "yolo", "voc", "masks"]),
    st.dictionaries(
        st.sampled_from(
            ["a.json", "data.yaml", "classes.txt", "labels/a.txt", "a.xml", "Annotations/a.xml", "labelmap.txt",
             "instance_map.json", "instance/a.png", "object_id/a.png", "SegmentationClass/a.png"]
        ),
        st.binary(max_size=60) | st.sampled_from([
            b'{"images":[{"id":1,"file_name":"a"}],"annotations":[{"image_id":1,"category_id":1,"bbox":[1,1,1,1]}]}',
            b"names: [a]", b"names: {0: a}\nkpt_shape: [1, 3]", b"0 0.5 0.5 0.1 0.1", b"0 .1 .1 .1 .1 .1 .1 2",
            XML.encode(), b'{"car": 1}', b'{"car": -1, "x": 1}', picture(NUMBERS), picture(NUMBERS * 300), CVAT_MAP.encode(),
        ]), min_size=1,
    ),
)  # fmt: skip
def test_files_that_do_not_belong_together_are_errors_and_nothing_else(
    name: str, files: dict[str, bytes]
) -> None:
    try:
        list(get(name).read(Files(files), SIZE))
        get(name).labels(Files(files))
    except SyncAgentError as error:
        assert isinstance(error, InvalidInput)
        assert error.resource


# -- predictions ---------------------------------------------------------------------------------


def test_confidences_of_points_say_which_are_seen() -> None:
    files: dict[str, bytes | str] = {
        "data.yaml": "nc: 1\nkpt_shape: [4, 3]\n",
        "a.txt": "0 0.5 0.5 0.5 0.5 0.5 0.5 0.98 0.25 0.5 1 0.4 0.4 0.2 0 0 0.1\n",
    }
    (mark,) = one(Yolo(), files).annotations
    assert isinstance(mark.geometry, Pose)
    assert (mark.label, [joint.visible for joint in mark.geometry.joints]) == ("class_0", [2, 2, 1, 0])
    with pytest.raises(InvalidInput, match="visibility of a point is not 0, 1 or 2, and no confidence"):
        one(Yolo(), {**files, "a.txt": "0 0.5 0.5 0.5 0.5 0.5 0.5 1.5 0.25 0.5 1 0.4 0.4 0.2 0 0 0.1\n"})


def test_confidences_of_keypoints_are_read_from_coco() -> None:
    told = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "p", "keypoints": ["x", "y", "z"]}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "keypoints": [1, 1, 0.93, 2, 2, 0.1, 0, 0, 0.0], "score": 0.5}
        ],
    }
    (mark,) = one(Coco(), {"a.json": json.dumps(told)}).annotations
    assert mark.geometry == Pose((Joint("x", 1, 1, 2), Joint("y", 2, 2, 1), Joint("z", 0, 0, 0)))


@pytest.mark.parametrize("task", [None, "detect"])
def test_a_track_may_follow_the_confidence_of_a_box(task: str | None) -> None:
    files: dict[str, bytes | str] = {
        "data.yaml": "names: [a]",
        "a.txt": "0 .5 .5 .2 .2 0.9 7\n0 .5 .5 .2 .2 0.8 1\n0 .5 .5 .2 .2 0.5\n",
    }
    found = one(Yolo(task), files).annotations
    assert [(mark.geometry, mark.score, mark.object_id) for mark in found] == [
        (Box(40, 20, 60, 30), 0.9, "7"),
        (Box(40, 20, 60, 30), 0.8, "1"),
        (Box(40, 20, 60, 30), 0.5, None),
    ]


def test_a_track_may_follow_the_confidence_of_other_tasks() -> None:
    corners = "0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5 0.9 12\n"
    (mark,) = one(Yolo("obb"), {"data.yaml": "names: [a]", "a.txt": corners}).annotations
    assert (mark.score, mark.object_id) == (0.9, "12")
    pose = "0 0.5 0.5 0.2 0.2 0.5 0.5 2 0.25 3\n"
    (mark,) = one(Yolo("pose", shape=(1, 3)), {"data.yaml": "names: [a]", "a.txt": pose}).annotations
    assert (mark.score, mark.object_id) == (0.25, "3")


@pytest.mark.parametrize(
    "line",
    [
        "0 .5 .5 .2 .2 0.9 7.5",
        "0 .5 .5 .2 .2 0.9 -2",
        "0 .5 .5 .2 .2 9 7",
        "0 .5 .5 .2 .2 0.9 7 7",
        "0 .5 .5 .2 .2 nan 7",
        "0 .5 .5 .2 .2 0.9 " + "7" * 400,
        "0 .5 .5 .2 .2 0.9 ٧",
    ],
)
def test_what_is_no_track_is_an_error(line: str) -> None:
    for task in (None, "detect"):
        with pytest.raises(InvalidInput, match=r"a\.txt: line 1"):
            one(Yolo(task), {"data.yaml": "names: [a]", "a.txt": line})


def test_a_triangle_stays_one() -> None:
    (mark,) = one(Yolo(), {"data.yaml": "names: [a]", "a.txt": "0 0.1 0.2 1 1 0 1\n"}).annotations
    assert mark.geometry == Polygon((((10.0, 10.0, 100.0, 50.0, 0.0, 50.0),),))


def test_a_number_of_classes_without_names_names_them() -> None:
    files: dict[str, bytes | str] = {"data.yaml": "nc: 3", "a.txt": "2 0.5 0.5 0.1 0.1\n"}
    assert [mark.label for mark in one(Yolo(), files).annotations] == ["class_2"]
    told = Context(labels=["cat"], size=SIZE.size)
    assert [mark.label for mark in one(Yolo(), files, told).annotations] == ["class_2"]
    assert [
        mark.label for mark in one(Yolo(), {**files, "a.txt": "0 0.5 0.5 0.1 0.1\n"}, told).annotations
    ] == ["cat"]
    assert Yolo().labels(Files({"data.yaml": b"nc: 3"})) == []
    named = {**files, "classes.txt": "x\ny\nz\n"}
    assert [mark.label for mark in one(Yolo(), named).annotations] == ["z"]
    for count in ("-1", "x", "100000000", "[1]", "1e300"):
        with pytest.raises(InvalidInput, match=r"data\.yaml"):
            one(Yolo(), {**files, "data.yaml": f"nc: {count}"})


# -- masks of items in folders that are called as ours ---------------------------------------------


@pytest.mark.parametrize(
    "folder", ["mask", "instance", "object_id", "SegmentationClass", "SegmentationObject", "x/mask"]
)
@pytest.mark.parametrize("below", ["", "x/", "instance/"])
def test_items_in_folders_called_as_ours_keep_their_place(folder: str, below: str) -> None:
    key = f"{below}{folder}/a.jpg"
    mark = Annotation(label="cat", geometry=square(1, 1, 5, 5), object_id="1")
    files = wrote(Masks(), item(mark, key=key))
    found = one(Masks(), {**files})
    assert (found.key, found.stem, found.annotations) == (key[: -len(".jpg")], True, (mark,))
    within = {f"set/{name}" if name.endswith(".png") else name: data for name, data in files.items()}
    assert one(Masks(), {**within}).key == key[: -len(".jpg")]


def test_a_folder_mask_above_those_of_masks_is_none_of_them() -> None:
    mark = Annotation(label="cat", geometry=square(1, 1, 5, 5), object_id="7")
    files = wrote(Masks(), item(mark, key="b/a.jpg"))
    told = {f"mask/{name}" if name.endswith(".png") else name: data for name, data in files.items()}
    assert [(found.key, found.annotations) for found in read(Masks(), {**told})] == [("b/a", (mark,))]
    numbers = picture(NUMBERS)
    assert one(Masks([Label(name="x", id=1), Label(name="y", id=2)]), {"mask/c/a.png": numbers}).key == "c/a"
