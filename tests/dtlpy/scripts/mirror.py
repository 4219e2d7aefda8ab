"""The same objects mirrored by a sync and by the client's own external upload; statuses, subsets, thumbnails."""

import io
import os

from _sdk import dl, done, home_driver, names, project
from PIL import Image

home = project()
bucket, keys = os.environ["BUCKET"], os.environ["KEYS"].split("\n")
driver = home_driver(home)
synced = home.datasets.create("synced", driver=driver)
synced.sync()
assert names(synced.items.list()) == sorted(f"/{key}" for key in keys)

imported = home.datasets.create("imported", driver=driver)
for key in keys:
    folder, _, name = key.rpartition("/")
    made = imported.items.upload(
        local_path=f"external://{bucket}/{key}", remote_path=f"/{folder}", remote_name=name
    )
    assert (made is None) == ("//" in key), (
        f"{key}: the client collapses slashes, and there is no such object"
    )


def facts(dataset: dl.Dataset) -> dict:
    return {
        item.filename: (item.name, item.dir, item.type, item.mimetype, item.metadata["system"]["size"],
                        item.metadata["system"]["etag"], item.download(save_locally=False).read())
        for item in dataset.items.list().all()
    }  # fmt: skip


mirrored, taken = facts(synced), facts(imported)
assert taken == {name: told for name, told in mirrored.items() if "//" not in name}, set(
    mirrored.items()
) ^ set(taken.items())
imported.sync()
assert facts(imported) == mirrored, "and a sync adds what the client could not"

flat = home.datasets.create("flat", driver=driver)
several = flat.items.upload(
    local_path=[f"external://{bucket}/{key}" for key in ("images/cat.jpg", "images/dogs/rex.jpg")]
)
assert sorted(item.filename for item in several) == ["/cat.jpg", "/rex.jpg"], "the client drops folders"

# -- statuses ------------------------------------------------------------------------------------
cat = synced.items.get(filepath="/images/cat.jpg")
cat.update_status(status=dl.ItemStatus.COMPLETED, task_id="task-1")
cat = dl.items.get(item_id=cat.id)
assert cat.status(task_id="task-1") == "completed"
assert cat.metadata["system"]["annotationStatus"] == ["completed"]
cat.update_status(status=dl.ItemStatus.APPROVED)  # the client finds the task among the item's refs
cat.update_status(status=dl.ItemStatus.DISCARDED, assignment_id="assignment-1")
cat = dl.items.get(item_id=cat.id)
assert (cat.status(task_id="task-1"), cat.status(assignment_id="assignment-1")) == ("approved", "discard")
filters = dl.Filters(field="metadata.system.annotationStatus", values="approved")
assert names(synced.items.list(filters=filters)) == ["/images/cat.jpg"]
cat.update_status(status=dl.ItemStatus.APPROVED, clear=True, task_id="task-1")
assert names(synced.items.list(filters=filters)) == []
synced.sync()
assert dl.items.get(item_id=cat.id).status(assignment_id="assignment-1") == "discard", "a sync keeps it"

# -- subsets -------------------------------------------------------------------------------------
assert synced.split_ml_subsets(percentages={"train": 60, "validation": 20, "test": 20})
tags = [item.metadata["system"]["tags"] for item in synced.items.list().all()]
assert len(tags) == len(keys) and all(list(one.values()) == [True] for one in tags)
assert synced.assign_subset_to_items(subset="test")
assert all(item.metadata["system"]["tags"] == {"test": True} for item in synced.items.list().all())
assert synced.remove_subset_from_items()
assert not any(item.metadata["system"].get("tags") for item in synced.items.list().all())

# -- thumbnails ----------------------------------------------------------------------------------
held = home.datasets.create("held", expiration_options=dl.ExpirationOptions(item_max_days=3))
assert home.datasets.get(dataset_name="held").expiration_options.item_max_days == 3
buffer = io.BytesIO()
Image.new("RGB", (900, 300), "red").save(buffer, "PNG")
buffer.seek(0)
picture = held.items.upload(local_path=buffer, remote_name="red.png")
assert picture.thumbnail.endswith(f"/items/{picture.id}/thumbnail")
ok, answer = dl.client_api.gen_request(req_type="get", path=f"/items/{picture.id}/thumbnail")
assert ok and Image.open(io.BytesIO(answer.content)).size == (256, 85)

# -- commands ------------------------------------------------------------------------------------
command = synced.sync(wait=False)
assert dl.commands.get(command_id=command.id).id == command.id
assert command.id in [one.id for one in dl.commands.list()]
command.wait()
assert dl.commands.get(command_id=command.id).status == "success"
assert dl.commands.abort(command_id=command.id).status == "success", "it had ended"
synced.set_readonly(True)  # sends nothing
assert not home.datasets.get(dataset_id=synced.id).readonly
done()
