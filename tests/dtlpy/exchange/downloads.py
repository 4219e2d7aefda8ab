"""The client's downloads of two datasets: one that syncagent filled, and one that it fills itself."""

import json
import os

from _sdk import dl, home_driver, project

ours = dl.datasets.get(dataset_id=os.environ["OURS"])
home = project()
theirs = home.datasets.create("theirs", driver=home_driver(home))
theirs.add_label(label_name="car", color="#112233")
list(theirs.items.upload(local_path="in/*", local_annotations_path=os.environ["LABELS"]))
theirs = dl.datasets.get(dataset_id=theirs.id)
for name, dataset in (("ours", ours), ("theirs", theirs)):
    for version in (dl.ExportVersion.V1, dl.ExportVersion.V2):
        dataset.download(
            local_path=f"client/{name}-{version.value}", annotation_options=[dl.ViewAnnotationOptions.JSON],
            export_version=version,
        )  # fmt: skip
    dataset.download(local_path=f"client/{name}-plain", to_items_folder=False)
ours.download(
    local_path="client/drawn", annotation_options=[dl.ViewAnnotationOptions.MASK, dl.ViewAnnotationOptions.INSTANCE],
    export_version=dl.ExportVersion.V2,
)  # fmt: skip
print(json.dumps({"dataset": theirs.id}))
