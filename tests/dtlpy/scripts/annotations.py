"""Labels, annotations of every type, joins, exports."""

import io
import json
from pathlib import Path

import numpy
from _sdk import dl, done, names, project, refused
from PIL import Image

data = project().datasets.create("annotations")
picture = io.BytesIO()
Image.fromarray(numpy.zeros((20, 30, 3), numpy.uint8)).save(picture, "PNG")
picture.name = "p.png"
item = data.items.upload(local_path=picture, remote_path="/sub")
item.metadata["system"].update(height=20, width=30)
item = item.update(system_metadata=True)
plain = data.items.upload(local_path=io.BytesIO(b"no labels"), remote_name="plain.txt")

data.add_labels(
    label_list=[dl.Label(tag="animal", color="#112233", children=[dl.Label(tag="cat"), dl.Label(tag="dog")])]
)
data.add_label(label_name="car", color="#010203")
data.add_label(label_name="thing.wheel")
fresh = dl.datasets.get(dataset_id=data.id)
assert list(fresh.instance_map) == ["animal", "animal.cat", "animal.dog", "car", "thing", "thing.wheel"]
assert {label.tag: label.color for label in fresh.labels}["car"] == "#010203"
fresh.update_label(label_name="car", color="#0a0b0c")
fresh = dl.datasets.get(dataset_id=data.id)
assert {label.tag: label.color for label in fresh.labels}["car"] == "#0a0b0c"
with refused(dl.exceptions.NotFound, "no label"):
    fresh.update_label(label_name="unheard of", color="#0a0b0c")
fresh.delete_labels("thing")
fresh = dl.datasets.get(dataset_id=data.id)
assert "thing" not in fresh.instance_map
ontology = fresh.recipes.list()[0].ontologies.list()[0]
ontology.update_attributes(
    title="colour", key="1", attribute_type=dl.AttributesTypes.CHECKBOX, values=["red", "blue"], scope=["car"]
)
assert [one["key"] for one in fresh.recipes.list()[0].ontologies.list()[0].metadata["attributes"]] == ["1"]

builder = item.annotations.builder()
SHAPES = [
    dl.Box(top=1, left=2, bottom=8, right=9, label="car"), dl.Point(x=3, y=4, label="animal.cat"),
    dl.Classification(label="animal"), dl.Polygon(geo=[(1, 1), (5, 1), (5, 5)], label="car"),
    dl.Polyline(geo=[(1, 1), (5, 1), (5, 5)], label="car"), dl.Ellipse(x=10, y=10, rx=5, ry=8, angle=15, label="car"),
    dl.Segmentation(geo=numpy.ones((20, 30)), label="car"), dl.Box(top=1, left=2, bottom=8, right=9, angle=30, label="car"),
    dl.FreeText(text="free", label="car"), dl.RefImage(ref="http://x/y.png", ref_type="url", label="car"),
]  # fmt: skip
for shape in SHAPES:
    builder.add(
        annotation_definition=shape,
        model_info={"name": "m", "confidence": 0.5} if shape is SHAPES[0] else None,
    )
uploaded = item.annotations.upload(builder)
assert len(uploaded) == len(SHAPES)
known = {one.id: one for one in item.annotations.list()}
assert sorted(one.type for one in known.values()) == sorted(shape.type for shape in SHAPES)
uploaded = list(known.values())
box = next(one for one in uploaded if one.type == "box" and not one.angle)
uploaded.remove(box)
uploaded.insert(0, box)
box = item.annotations.get(annotation_id=uploaded[0].id)
assert (box.top, box.left, box.bottom, box.right, box.label) == (1, 2, 8, 9, "car")
assert box.metadata["user"]["model"]["confidence"] == 0.5
item.annotations.upload([{"type": "point", "label": "raw", "coordinates": {"x": 1, "y": 2}, "metadata": {}}])

box.label = "animal.dog"
box.attributes = {"1": ["red"]}
box = box.update(system_metadata=True)
assert item.annotations.get(annotation_id=box.id).attributes == {"1": ["red"]}
box.update_status(dl.AnnotationStatus.ISSUE)
assert item.annotations.get(annotation_id=box.id).status == "issue"
child, grandchild = uploaded[1], uploaded[2]
child.parent_id = box.id
child.update(system_metadata=True)
grandchild.parent_id = child.id
grandchild.update(system_metadata=True)
answer = dl.client_api.gen_request(
    req_type="put",
    path=f"/annotations/{box.id}",
    json_req={"metadata": {"system": {"parentId": grandchild.id}}},
)
assert answer[0] is False and answer[1].status_code == 400, "a circle"

joined = dl.Filters()
joined.add_join(field="label", values="animal.dog")
assert names(data.items.list(filters=joined)) == ["/sub/p.png"]
both = dl.Filters()
both.add_join(field="type", values="point")
both.add_join(field="label", values="animal.dog")
assert names(data.items.list(filters=both)) == [], "no point is a dog"
of_text = dl.Filters(resource=dl.FiltersResource.ANNOTATION)
of_text.add_join(field="metadata.system.mimetype", values="text*")
assert data.annotations.list(filters=of_text).items_count == 0
wanted = dl.Filters(resource=dl.FiltersResource.ANNOTATION, field="label", values="car")
assert data.annotations.list(filters=wanted).items_count == 7
assert names(data.items.list(filters=dl.Filters(field="annotated", values=True))) == ["/sub/p.png"]

data.download_annotations(local_path="out", annotation_options=[dl.ViewAnnotationOptions.JSON])
told = json.loads(Path("out/json/sub/p.json").read_text())
assert len(told["annotations"]) == len(SHAPES) + 1
data.download(local_path="all", annotation_options=[dl.ViewAnnotationOptions.JSON])
assert len(json.loads(Path("all/json/sub/p.json").read_text())["annotations"]) == len(SHAPES) + 1
again = data.clone("again")
assert len(again.items.get(filepath="/sub/p.png").annotations.list()) == len(SHAPES) + 1

Path("labels").mkdir()
Path("labels/x.json").write_text(
    json.dumps({"annotations": [{"type": "class", "label": "fromfile", "metadata": {}}]})
)
Path("x.txt").write_text("x")
filed = data.items.upload(local_path="x.txt", local_annotations_path="labels/x.json")
assert [one.label for one in filed.annotations.list()] == ["fromfile"]

video = data.items.upload(local_path=io.BytesIO(b"not really"), remote_name="v.mp4")
track = dl.Annotation.new(
    item=video,
    annotation_definition=dl.Box(top=1, left=1, bottom=5, right=5, label="car"),
    object_id=1,
    frame_num=0,
)
track.add_frame(annotation_definition=dl.Box(top=2, left=2, bottom=6, right=6, label="car"), frame_num=5)
video.annotations.upload([track])
assert len(video.annotations.list()[0].frames) == 6 or 5 in video.annotations.list()[0].frames

uploaded[3].delete()
assert item.annotations.delete(annotation_id=uploaded[4].id)
assert len(item.annotations.list()) == len(SHAPES) - 1
item.annotations.delete(
    filters=dl.Filters(resource=dl.FiltersResource.ANNOTATION, field="label", values="raw")
)
assert "raw" not in {one.label for one in item.annotations.list()}
item.annotations.delete(filters=dl.Filters(resource=dl.FiltersResource.ANNOTATION))
assert len(item.annotations.list()) == 0
with refused(dl.exceptions.NotFound, "no annotation"):
    dl.annotations.get(annotation_id=box.id)
recipe = data.recipes.list()[0]
assert recipe.clone().id != recipe.id
done()
