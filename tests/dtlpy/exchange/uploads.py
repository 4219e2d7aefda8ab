"""The calls of `tests/dtlpy/test_ingest.py`, made by the platform's client."""

import json
import os

from _sdk import dl, home_driver, project

home = project()
data = home.datasets.create("theirs", driver=home_driver(home))
labels = os.environ["LABELS"]
list(data.items.upload(local_path="in/*", remote_path="/star", local_annotations_path=labels))
list(data.items.upload(local_path="in", item_metadata={"user": {"k": [1, {"deep": "é"}]}}))
data.items.upload(local_path="in", remote_path="/types", file_types=[".png"])
data.items.upload(
    local_path="in/a.png", remote_path="/one", remote_name="other name.png", item_description="told"
)
data.items.upload(
    local_path="in/a.png", remote_path="/json", local_annotations_path=f"{labels}/a.json",
    item_metadata=dl.ExportMetadata.FROM_JSON,
)  # fmt: skip
data.items.upload(
    local_path=dl.UrlLink(ref="https://example.com/flower.jpg", mimetype="image", name="flower")
)
data.items.upload(local_path="in/sub/b.txt", remote_path="/twice", remote_name="x.txt")
data.items.upload(
    local_path="in/sub/c d+é%20#.txt", remote_path="/twice", remote_name="x.txt", overwrite=True
)
data.items.upload(local_path="in/a.png", remote_path="/twice", remote_name="x.txt")  # skipped
print(json.dumps({"dataset": data.id}))
