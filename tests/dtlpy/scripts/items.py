"""Upload, download, metadata, moving, copying, deleting."""

import io
from pathlib import Path

import pandas
from _sdk import dl, done, names, project, refused

home = project()
data = home.datasets.create("items")
Path("in/sub").mkdir(parents=True)
for name in ("a.txt", "sub/b.txt", "sub/c d+é%20#.txt"):
    Path("in", name).write_text(f"text of {name}")

a = data.items.upload(
    local_path="in/a.txt", remote_path="/f", item_metadata={"user": {"k": 1}}, item_description="told"
)
assert (a.filename, a.name, a.dir, a.mimetype) == ("/f/a.txt", "a.txt", "/f", "text/plain")
assert (a.metadata["user"], a.metadata["system"]["size"], a.description) == ({"k": 1}, 13, "told")
assert data.items.upload(local_path="in/a.txt", remote_path="/f").id == a.id, "skipped"
Path("in/a.txt").write_text("other bytes than before")
assert data.items.upload(local_path="in/a.txt", remote_path="/f").id == a.id, "skipped, and not deleted"
assert dl.items.get(item_id=a.id).download(save_locally=False).read() == b"text of a.txt"
assert data.items.upload(local_path="in/a.txt", remote_path="/f", overwrite=True).id == a.id
assert dl.items.get(item_id=a.id).download(save_locally=False).read() == b"other bytes than before"
list(data.items.upload(local_path="in/*", remote_path="/star"))
list(data.items.upload(local_path="in"))
list(data.items.upload(local_path=["in/a.txt", "in/sub/b.txt"], remote_path="/list"))
buffer = io.BytesIO(b"in memory")
buffer.name = "memory.bin"
data.items.upload(local_path=buffer, remote_path="/mem")
frame = pandas.DataFrame(
    [
        {
            "local_path": "in/a.txt",
            "remote_path": "/frame",
            "remote_name": "x.txt",
            "item_metadata": {"user": {"n": 1}},
        }
    ]
)
data.items.upload(local_path=frame)
SUB = ("a.txt", "sub/b.txt", "sub/c d+é%20#.txt")
ALL = sorted(
    ["/f/a.txt", "/list/a.txt", "/list/b.txt", "/mem/memory.bin", "/frame/x.txt"]
    + [f"/{head}/{name}" for head in ("star", "in") for name in SUB]
)
assert names(data.items.list()) == ALL
odd = data.items.get(filepath="/in/sub/c d+é%20#.txt")
assert odd.download(save_locally=False).read() == "text of sub/c d+é%20#.txt".encode()

data.download(local_path="out")
assert (
    sorted("/" + str(p.relative_to("out/items")) for p in Path("out/items").rglob("*") if p.is_file()) == ALL
)

a = dl.items.get(item_id=a.id)
a.metadata["user"]["deep"] = {"list": [1, 2], "text": "x"}
a = a.update()
assert a.metadata["user"] == {"k": 1, "deep": {"list": [1, 2], "text": "x"}}
a.metadata["user"]["deep"]["list"].append(3)
del a.metadata["user"]["k"]
a = a.update()
assert a.metadata["user"] == {"deep": {"list": [1, 2, 3], "text": "x"}}
a.metadata["user"] = {"a.b": 1}
assert a.update().metadata["user"] == {"a.b": 1}
a.metadata["system"]["mine"] = {"s": 1}
a.metadata["system"]["size"] = 999
a = a.update(system_metadata=True)
assert (a.metadata["system"]["mine"], a.metadata["system"]["size"]) == ({"s": 1}, 23), (
    "the size is the bucket's to tell"
)
assert a.set_description("new").description == "new"

a.move("/moved/")
assert (a.filename, dl.items.get(item_id=a.id).filename) == ("/moved/a.txt", "/moved/a.txt")
a.name = "renamed.txt"
assert a.update().filename == "/moved/renamed.txt"
assert a.download(save_locally=False).read() == b"other bytes than before"
folder = data.items.make_dir("/dir/deep")
assert (folder.type, folder.filename) == ("dir", "/dir/deep")
data.items.move_items(destination="/dir/deep", items=[a])
assert dl.items.get(item_id=a.id).filename == "/dir/deep/renamed.txt"
assert {"/", "/dir", "/dir/deep", "/star/sub"} <= set(data.directory_tree.dir_names)

copy = a.clone(remote_filepath="/copy/a.txt", metadata={"user": {"copied": True}})
assert (copy.filename, copy.metadata["user"]["copied"]) == ("/copy/a.txt", True)
assert copy.download(save_locally=False).read() == b"other bytes than before"

link = data.items.upload(
    local_path=dl.UrlLink(ref="http://example.com/flower.jpg", mimetype="image", name="flower")
)
assert link.metadata["system"]["shebang"]["linkInfo"]["ref"] == "http://example.com/flower.jpg"

before = len(names(data.items.list()))
assert data.items.delete(filename="/star/a.txt")
assert data.items.delete(filters=dl.Filters(field="dir", values="/in/sub"))
assert data.items.delete(item_id=copy.id)
assert len(names(data.items.list())) == before - 4
with refused(dl.exceptions.NotFound, "no item"):
    dl.items.get(item_id=copy.id)
with refused(dl.exceptions.NotFound, ""):
    data.items.delete(filename="/never")

other = data.clone("cloned")
assert names(other.items.list()) == names(data.items.list())
assert dl.datasets.merge(merge_name="merged", dataset_ids=[data.id, other.id], project_ids=[home.id]) is True
merged = home.datasets.get(dataset_name="merged")
assert names(merged.items.list()) == names(data.items.list())
assert sorted(one.name for one in home.datasets.list()) == ["cloned", "items", "merged"], "Binaries is hidden"
with refused(dl.exceptions.Conflict, "already"):
    home.datasets.create("merged")
merged.name = "renamed"
assert merged.update().name == "renamed"
dl.client_api.gen_request(req_type="patch", path=f"/datasets/{other.id}", json_req={"readonly": True})
assert other.items.upload(local_path="in/a.txt", remote_path="/no") is None
with refused(dl.exceptions.Forbidden, "read-only"):
    other.items.make_dir("/no")
other.unlock()
assert other.items.make_dir("/yes").type == "dir"
merged.delete(sure=True, really=True)
with refused(dl.exceptions.NotFound, "renamed"):
    home.datasets.get(dataset_name="renamed")
expiring = home.datasets.create("expiring", expiration_options=dl.ExpirationOptions(item_max_days=3))
assert home.datasets.get(dataset_name="expiring").expiration_options.item_max_days == 3
done()
