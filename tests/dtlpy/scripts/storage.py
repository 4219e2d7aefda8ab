"""A dataset over a bucket: sync, external imports, upload, stream, delete."""

import os
from pathlib import Path

from _sdk import dl, done, home_driver, names, project, refused

home = project()
driver = home_driver(home)
mirror = home.datasets.create("mirror", driver=driver)
mirror.sync()
ALL = ["/images/cat.jpg", "/images/dogs/a+b %20.txt", "/images/dogs/rex.jpg", "/notes.txt"]
assert names(mirror.items.list()) == ALL
cat = mirror.items.get(filepath="/images/cat.jpg")
assert (cat.mimetype, cat.metadata["system"]["size"]) == ("image/jpeg", len("bytes of images/cat.jpg"))
assert cat.download(save_locally=False).read() == b"bytes of images/cat.jpg"
cat.metadata["user"] = {"seen": True}
cat = cat.update()
mirror.sync()
assert mirror.items.get(filepath="/images/cat.jpg").metadata["user"] == {"seen": True}, (
    "a sync keeps what people wrote"
)

imported = home.datasets.create("imported", driver=driver)
bucket = os.environ["BUCKET"]
one = imported.items.upload(local_path=f"external://{bucket}/images/dogs/rex.jpg", remote_path="/images/dogs")
assert (one.filename, one.metadata["system"]["size"]) == (
    "/images/dogs/rex.jpg",
    len("bytes of images/dogs/rex.jpg"),
)
assert one.download(save_locally=False).read() == b"bytes of images/dogs/rex.jpg"
dropped = imported.items.upload(local_path=f"external://{bucket}/images/cat.jpg")
assert dropped.filename == "/cat.jpg", "the client drops the folder"
assert dropped.download(save_locally=False).read() == b"bytes of images/cat.jpg"
several = imported.items.upload(
    local_path=[f"external://{bucket}/images/cat.jpg", f"external://{bucket}/images/dogs/a+b %20.txt"],
    remote_path="/many",
)  # fmt: skip
assert sorted(item.filename for item in several) == ["/many/a+b %20.txt", "/many/cat.jpg"]
dl.client_api.gen_request(  # as releases before 1.119.5 send it: no bucket, no slash
    req_type="post", path=f"/datasets/{imported.id}/imports", json_req=[{"filename": "notes.txt", "storageId": "notes.txt"}]
)  # fmt: skip
assert imported.items.get(filepath="/notes.txt").download(save_locally=False).read() == b"bytes of notes.txt"
imported.sync()
assert set(names(imported.items.list())) == {*ALL, "/cat.jpg", "/many/cat.jpg", "/many/a+b %20.txt"}

Path("new.txt").write_text("uploaded")
new = mirror.items.upload(local_path="new.txt", remote_path="/up")
assert new.filename == "/up/new.txt"
mirror.sync()
assert new.id == mirror.items.get(filepath="/up/new.txt").id
mirror.items.get(filepath="/images/dogs/rex.jpg").delete()
mirror.sync()
assert names(mirror.items.list()) == sorted({*ALL, "/up/new.txt"} - {"/images/dogs/rex.jpg"}), (
    "and the object is gone"
)
with refused(dl.exceptions.NotFound, "no item"):
    dl.items.get(item_id=new.id[:-4] + "ffff")
done()
