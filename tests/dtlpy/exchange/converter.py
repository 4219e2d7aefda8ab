"""The client's converter: a dataset to files, and files that syncagent wrote to a dataset."""

import json
import os
from pathlib import Path

from _sdk import dl

form, theirs, ours = os.environ["FORM"], Path(os.environ["THEIRS"]), Path(os.environ["OURS"])
first, second = (dl.datasets.get(dataset_id=os.environ[name]) for name in ("FIRST", "SECOND"))
theirs.mkdir()
errors = []
told = dl.Converter(return_error_filepath=True).convert_dataset(
    dataset=first, to_format=form, local_path=str(theirs)
)
if isinstance(told, tuple) and told[-2]:
    errors.append(Path(told[-1]).read_text())
written = {"coco": theirs / "coco.json", "yolo": theirs, "voc": theirs / "voc"}[form]
if form == "yolo":
    # Its list of classes has the dataset's name; ours, and everybody's, has one that is known.
    (list_of_classes,) = theirs.glob("*.names")
    (theirs / "yolo" / "classes.txt").write_text(list_of_classes.read_text())
    list_of_classes.unlink()
    written = theirs / "yolo"
kept = {
    "coco": next(iter(sorted(ours.rglob("*.json"))), ours), "yolo": next(iter(ours.glob("labels")), ours),
    "voc": next(iter(ours.glob("Annotations")), ours),
}[form]  # fmt: skip
more = {}
if form == "yolo":
    names = theirs / "ours.names"
    names.write_text("\n".join(json.loads(os.environ.get("NAMES", '["car", "dog"]'))))
    more["local_labels_path"] = str(names)
dl.Converter().upload_local_dataset(
    from_format=form, dataset=second, local_annotations_path=str(kept), **more
)
print(json.dumps({"errors": errors, "file": str(written)}))
