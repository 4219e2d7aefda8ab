"""The commands of the ingest core, as a person types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.test_cli import Shell, bucket, photos, put, run

__all__ = ["bucket", "photos", "run"]


def boxes(*labels: str, filename: str | None = None) -> str:
    told = [
        {"type": "box", "label": label, "coordinates": [{"x": n, "y": 1}, {"x": n + 5, "y": 9}]}
        for n, label in enumerate(labels)
    ]
    return json.dumps({"annotations": told, **({"filename": filename} if filename else {})})


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "a.json").write_text(boxes("car", "dog"))
    (folder / "b.json").write_text(boxes("car"))
    return folder


def test_import_stats_and_export(run: Shell, photos: Path, labels: Path, tmp_path: Path) -> None:
    run("sync", photos)
    first = run("annotations", "import", "photos", labels)
    assert (first.code, first.out) == (0, "3 annotations added, 0 there already, on 2 items; 2 new labels\n")
    again = run("annotations", "import", "photos", labels)
    assert again.out.startswith("0 annotations added, 3 there already")
    stats = run("annotations", "stats", "photos", "--json").json
    assert stats[0] == {"label": "car", "type": "box", "annotations": 2, "items": 2}
    assert stats[-1] == {"report": {"items": 3, "annotations": 3, "annotated": 2}}
    (labels / "a.json").write_text(boxes("bus"))
    replaced = run("annotations", "import", "photos", labels, "--replace")
    assert "1 annotations added, 1 there already, 2 removed" in replaced.out
    (labels / "gone.json").write_text(boxes("x"))
    missing = run("annotations", "import", "photos", labels)
    assert missing.code == 1
    assert "! gone: no such item" in missing.err
    done = run("annotations", "export", "photos", tmp_path / "out", "--annotated-only", "--label", "bus")
    assert done.out == "1 annotations of 1 items\n"
    assert [path.name for path in (tmp_path / "out").rglob("*.json")] == ["a.jpg.json"]
    prefix = run("annotations", "export", "photos", tmp_path / "out2", "--prefix", "b")
    assert prefix.out == "1 annotations of 1 items\n"


def test_a_root_and_a_broken_file(run: Shell, photos: Path, labels: Path) -> None:
    (photos / "deep").mkdir()
    (photos / "a.jpg").rename(photos / "deep/a.jpg")
    run("sync", photos)
    (labels / "b.json").unlink()
    assert run("annotations", "import", "photos", labels, "--root", "deep/").code == 0
    (labels / "c.json").write_text('{"annotations": [{"type": "box", "label": "x"}]}')
    broken = run("annotations", "import", "photos", labels)
    assert broken.code == 2
    assert "c.json: annotation 0" in broken.err
    assert run("annotations", "import", "photos", labels, "--format", "cocoa").code == 2


def test_files_are_converted_without_a_catalog(run: Shell, labels: Path, tmp_path: Path) -> None:
    done = run("annotations", "convert", labels, tmp_path / "out", "--to", "dataloop")
    assert (done.code, done.out) == (0, "3 annotations of 2 items\n")
    (tmp_path / "odd.txt").write_text("what is this?")
    unknown = run("annotations", "convert", tmp_path / "odd.txt", tmp_path / "o", "--to", "dataloop")
    assert unknown.code == 2
    assert "looks like none of the annotation formats; name one of" in unknown.err
    assert run("annotations", "stats", labels).out.endswith("3 annotations on 2 of 2 items\n")
    assert run("annotations", "stats", "nothing").code == 4


def test_label_files_in_the_bucket(run: Shell, photos: Path, labels: Path) -> None:
    labels.rename(photos / "labels")
    run("sync", photos)
    added = run("annotations", "source", "add", "photos", "--prefix", "labels/", "--format", "dataloop")
    assert (added.code, added.out) == (0, "2 annotation files taken, 3 annotations\n")
    assert run("annotations", "source", "ls", "photos", "--json").json == [
        {"prefix": "labels/", "format": "dataloop", "root": "", "overwrite": False}
    ]
    (photos / "labels/a.json").write_text(boxes("bus"))
    (photos / "labels/late.json").write_text(boxes("tram"))
    synced = run("sync", "photos")
    assert "2 annotation files taken, 1 annotations; 1 items are not there yet" in synced.out
    (photos / "late.jpg").write_text("x")
    assert "1 items found theirs" in run("sync", "photos").out
    (photos / "labels/a.json").write_text("{")
    broken = run("sync", "photos")
    assert broken.code == 1
    assert "labels" not in broken.out.splitlines()[-1] or "1 not readable" in broken.out
    assert "! a.json:" in broken.err
    assert run("annotations", "source", "add", "photos", "--format", "cocoa").code == 2
    assert run("annotations", "source", "rm", "photos", "--prefix", "none").code == 4
    assert run("annotations", "source", "rm", "photos", "--prefix", "labels/").code == 0
    assert run("annotations", "source", "ls", "photos").out == ""


def test_upload(run: Shell, photos: Path, labels: Path, bucket: str, tmp_path: Path) -> None:
    run("sync", bucket, "--dataset", "box", "--quiet")
    done = run(
        "upload", photos, "box", "--to", "/up", "--annotations", labels, "--metadata", '{"k": 1}', "--json"
    )
    assert done.code == 0
    assert done.json[-1]["report"]["added"] == 3
    assert done.json[-1]["report"]["annotations"] == 3
    item = run("item", "box", "up/photos/a.jpg", "--json").json[0]
    assert (item["metadata"]["user"], item["annotationsCount"]) == ({"k": 1}, 2)
    assert run("upload", photos, "box", "--to", "up").out.endswith(
        "3 there already, 0 failed; 0 bytes, 0 annotations\n"
    )
    log = tmp_path / "errors.jsonl"
    (tmp_path / "table.csv").write_text("local_path,remote_name\nphotos/a.jpg,x.jpg\nphotos/gone.jpg,\n")
    bad = run("upload", "box", "--manifest", tmp_path / "table.csv", "--error-log", log, "--quiet")
    assert (bad.code, bad.out.split(";")[0]) == (1, "1 added, 0 changed, 0 there already, 1 failed")
    assert "gone.jpg" in json.loads(log.read_text())["error"]
    refused = run("upload", "http://127.0.0.1:1/y.jpg", "box")
    assert refused.code == 1
    assert "private network; pass --allow-private" in refused.out
    assert run("upload", "box").code == 2
    assert run("upload", photos, "box", "--metadata", "{").code == 2
    assert run("upload", tmp_path / "gone", "box").code == 4
    assert run("check", "box").code == 0


def test_metadata(run: Shell, photos: Path, tmp_path: Path) -> None:
    run("sync", photos)

    def user(key: str) -> object:
        return run("item", "photos", key, "--json").json[0]["metadata"]["user"]

    assert (
        run("metadata", "photos", "a.jpg", "--set", "a.b=1", "--set", "t=text").out
        == "1 changed, 0 not there\n"
    )
    assert user("a.jpg") == {"a": {"b": 1}, "t": "text"}
    run("metadata", "photos", "a.jpg", "--unset", "a.b", "--merge", '{"l": [1]}')
    assert user("a.jpg") == {"a": {}, "t": "text", "l": [1]}
    assert run("metadata", "photos", "--all", "--set", "all=true").out == "3 changed, 0 not there\n"
    assert (
        run("metadata", "photos", "--query", '{"filename": "*.txt"}', "--set", "q=1").out
        == "1 changed, 0 not there\n"
    )
    run("metadata", "photos", "a.jpg", "--replace", "--set", "only=1")
    assert user("a.jpg") == {"only": 1}
    (tmp_path / "t.csv").write_text("key,city,n\n/a.jpg,Rome,1\nb.jpg,,2\ngone,x,3\n")
    table = run("metadata", "photos", "--from", tmp_path / "t.csv")
    assert (table.code, table.out, table.err) == (1, "2 changed, 1 not there\n", "! gone: no such item\n")
    assert (user("a.jpg"), user("b.jpg")) == ({"only": 1, "city": "Rome", "n": "1"}, {"all": True, "n": "2"})
    for wrong in (
        ["--set", "x=1"],
        ["a.jpg"],
        ["a.jpg", "--set", "x"],
        ["a.jpg", "--merge", "[]"],
        ["a.jpg", "--all", "--set", "x=1"],
    ):
        assert run("metadata", "photos", *wrong).code == 2, wrong


def test_probe_by_hand_and_after_every_sync(run: Shell, tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (7, 5)).save(folder / "a.png")
    (folder / "b.jpg").write_text("no picture")
    run("sync", folder)
    assert run("probe", "pictures").out == "2 probed: 1 with facts, 1 without, 0 failed\n"
    system = run("item", "pictures", "a.png", "--json").json[0]["metadata"]["system"]
    assert (system["width"], system["height"]) == (7, 5)
    assert run("probe", "pictures", "--follow").out == "0 probed: nothing was written since the last look\n"
    Image.new("RGB", (9, 5)).save(folder / "c.png")
    assert "1 probed: 1 with facts" in run("sync", "pictures").out
    run("probe", "pictures", "--no-follow")
    Image.new("RGB", (9, 9)).save(folder / "d.png")
    assert "probed" not in run("sync", "pictures").out
    assert run("probe", "pictures", "--limit", "1", "--json").json[-1]["probed"]["looked"] == 1


def test_items_of_a_bucket_in_memory_are_settled_with_their_labels(run: Shell, bucket: str) -> None:
    run("sync", bucket, "--dataset", "box", "--quiet")
    run("annotations", "source", "add", "box", "--prefix", "l/", "--format", "dataloop")
    put(bucket, "l/a.json", boxes("car", filename="/a").encode())
    settled = run("settle", "box", "l/a.json")
    assert settled.out == "+ l/a.json\n1 annotation files taken, 1 annotations\n"


def test_annotations_are_shown(run: Shell, tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (60, 40), "white").save(folder / "a.png")
    (tmp_path / "a.json").write_text(boxes("car"))
    run("sync", folder)
    run("probe", "pictures")
    run("annotations", "import", "pictures", tmp_path / "a.json")
    for more in ([], ["--mask-only"]):
        done = run("annotations", "show", "pictures", "a.png", "-o", tmp_path / "out.png", "--fill", *more)
        assert (done.code, done.err) == (0, "")
        with Image.open(tmp_path / "out.png") as shown:
            assert shown.size == (60, 40)
            assert shown.convert("RGBA").getpixel((3, 5)) != (255, 255, 255, 255)
            assert shown.convert("RGBA").getpixel((50, 30)) in {(255, 255, 255, 255), (0, 0, 0, 0)}
    assert run("annotations", "show", "pictures", "gone", "-o", tmp_path / "x.png").code == 4
    deep = tmp_path / "not/there/yet.png"
    assert run("annotations", "show", "pictures", "a.png", "-o", deep).code == 0
    assert deep.read_bytes().startswith(b"\x89PNG")
    other = run("annotations", "show", "pictures", "a.png", "-o", tmp_path / "x.jpg")
    assert (other.code, other.err) == (
        2, f"syncagent: error: {tmp_path / 'x.jpg'}: the drawing is a PNG; name it {tmp_path / 'x.png'}\n",
    )  # fmt: skip
    assert not (tmp_path / "x.jpg").exists()


@pytest.fixture
def fresh(run: Shell, tmp_path: Path) -> Path:
    """The dataset `fresh`: two probed pictures of 320x240 below images/."""
    from PIL import Image

    folder = tmp_path / "fresh"
    (folder / "images").mkdir(parents=True)
    for name in ("photo0.jpg", "photo1.jpg"):
        Image.new("RGB", (320, 240)).save(folder / "images" / name)
    run("sync", folder, "--quiet")
    run("probe", "fresh", "--quiet")
    return folder


def yolo(folder: Path, **files: str) -> Path:
    """A folder of YOLO with the two classes bike and bus, and label files by their pictures' names."""
    (folder / "labels").mkdir(parents=True)
    (folder / "data.yaml").write_text("names: {0: bike, 1: bus}\n")
    for name, text in files.items():
        (folder / "labels" / f"{name}.txt").write_text(text)
    return folder


POLYGON = "1 0.1 0.1 0.4 0.1 0.4 0.4\n"
CENTRED = "0 0.5 0.5 0.2 0.2\n"


def test_polygons_without_a_name_of_their_own_are_imported(run: Shell, fresh: Path, tmp_path: Path) -> None:
    files = yolo(tmp_path / "y", photo0=POLYGON + CENTRED)
    done = run("annotations", "import", "fresh", files)
    assert (done.code, done.out[:19], done.err) == (0, "2 annotations added", "")
    again = run("annotations", "import", "fresh", files)
    assert again.out.startswith("0 annotations added, 2 there already")


def test_a_bucket_that_is_not_there_leaves_no_dataset(run: Shell, photos: Path, tmp_path: Path) -> None:
    for target in ("./nosuchbucket", (tmp_path / "sub2").as_uri()):
        for words in (["upload", photos / "a.jpg", target], ["sync", target]):
            done = run(*words)
            assert (done.code, "no such folder" in done.err) == (4, True), words
    assert run("datasets", "ls").out == ""


def test_a_path_that_cannot_be_used_is_one_line(
    run: Shell, photos: Path, labels: Path, tmp_path: Path
) -> None:
    run("sync", photos)
    taken = labels / "a.json"
    before = taken.read_text()
    for words in (
        ["export", "photos", taken],
        ["convert", taken, taken, "--to", "dataloop"],
        ["show", "photos", "a.jpg", "-o", labels],
    ):
        done = run("annotations", *words)
        assert (done.code, "bug" in done.err) == (2, False), words
        assert str(words[-1] if words[0] == "show" else taken) in done.err
    assert taken.read_text() == before
    below = run("annotations", "export", "photos", taken / "below")
    assert (below.code, "bug" in below.err, str(taken) in below.err) == (2, False, True)
    nowhere = run("upload", photos / "a.jpg", "photos", "--error-log", tmp_path / "no/such/log")
    assert nowhere.err == f"syncagent: error: {tmp_path / 'no/such/log'}: No such file or directory\n"
    assert nowhere.code == 4


def test_overwriting_a_folders_files_sends_only_what_differs(
    run: Shell, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "bucket").mkdir()
    run("upload", f"{photos}/*", "./bucket", "--quiet")
    written = (tmp_path / "bucket/a.jpg").stat()
    (photos / "b.jpg").write_text("bytes of B.jpg")  # as many as before
    again = run("upload", f"{photos}/*", "bucket", "--overwrite", "--metadata", '{"k": 1}')
    assert sorted(again.out.splitlines()) == [
        "* b.jpg", "0 added, 1 changed, 2 there already, 0 failed; 14 bytes, 0 annotations", "= a.jpg", "= c.txt",
    ]  # fmt: skip
    left = (tmp_path / "bucket/a.jpg").stat()
    assert (left.st_ino, left.st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    assert (tmp_path / "bucket/b.jpg").read_text() == "bytes of B.jpg"
    assert run("item", "bucket", "a.jpg", "--json").json[0]["metadata"]["user"] == {"k": 1}
    (tmp_path / "bucket/c.txt").unlink()
    assert "* c.txt\n" in run("upload", photos / "c.txt", "bucket", "--overwrite").out


def test_labels_of_items_with_metadata_are_exported(run: Shell, fresh: Path, tmp_path: Path) -> None:
    run("annotations", "import", "fresh", yolo(tmp_path / "y", photo0=POLYGON))
    run("metadata", "fresh", "--all", "--set", "city=Rome")
    done = run("annotations", "export", "fresh", tmp_path / "out", "--format", "yolo")
    assert (done.code, done.out) == (0, "1 annotations of 2 items\n")
    assert done.err == "left out: 2 times the item's metadata\n"
    assert (tmp_path / "out/labels/photo0.txt").read_text() == POLYGON


@pytest.mark.parametrize("form", ["coco", "voc"])
def test_what_is_no_picture_stops_no_export(run: Shell, fresh: Path, tmp_path: Path, form: str) -> None:
    (fresh / "note.txt").write_text("words")
    run("sync", fresh, "--quiet")
    run("probe", "fresh", "--quiet")
    run("annotations", "import", "fresh", yolo(tmp_path / "y", photo0=CENTRED))
    done = run("annotations", "export", "fresh", tmp_path / form, "--format", form)
    assert (done.code, done.out) == (0, "1 annotations of 3 items\n")
    assert done.err.splitlines() == [
        "note.txt: an item without annotations and without a known size left out",
        "left out: 1 times an item without annotations and without a known size",
    ]
    assert run("annotations", "stats", tmp_path / form).out.endswith("1 annotations on 1 of 2 items\n")


def test_a_label_file_without_an_item_is_a_line(run: Shell, fresh: Path, tmp_path: Path) -> None:
    files = yolo(tmp_path / "y", ghost=CENTRED, photo0=POLYGON)
    done = run("annotations", "import", "fresh", files)
    assert (done.code, done.err) == (1, "! images/ghost: no such item\n")
    assert done.out.startswith("1 annotations added, 0 there already, on 1 items")
    from PIL import Image

    Image.new("RGB", (4, 4)).save(fresh / "images/ghost.png")
    run("sync", fresh, "--quiet")
    unprobed = run("annotations", "import", "fresh", files)
    assert (unprobed.code, unprobed.err) == (
        2,
        "syncagent: error: labels/ghost.txt: the width and height of images/ghost are not known; "
        "run 'syncagent probe' first\n",
    )


def test_files_that_tell_no_sizes_are_looked_up_in_a_folder(run: Shell, fresh: Path, tmp_path: Path) -> None:
    files = yolo(tmp_path / "y", photo0=POLYGON, photo1=CENTRED)
    for words in (["stats", files], ["convert", files, tmp_path / "no", "--to", "coco"]):
        lost = run("annotations", *words)
        assert lost.code == 2
        assert "of images/photo0 are not known; name the pictures' folder with --media" in lost.err
    for n, media in enumerate((fresh, fresh / "images")):
        told = run("annotations", "stats", files, "--media", media)
        assert (told.code, told.out.splitlines()[-1]) == (0, "2 annotations on 2 of 2 items")
        done = run("annotations", "convert", files, tmp_path / f"c{n}", "--to", "coco", "--media", media)
        assert (done.code, done.out) == (0, "2 annotations of 2 items\n")
        images = json.loads((tmp_path / f"c{n}/coco.json").read_text())["images"]
        assert [(one["file_name"], one["width"]) for one in images] == [
            ("images/photo0.jpg", 320), ("images/photo1.jpg", 320),
        ]  # fmt: skip
    assert run("annotations", "import", "fresh", tmp_path / "c0").code == 0
    (fresh / "images/photo1.jpg").unlink()
    gone = run("annotations", "stats", files, "--media", fresh)
    assert (gone.code, gone.err.split(": ", 2)[2]) == (
        2,
        "labels/photo1.txt: the width and height of images/photo1 are not known; "
        f"put the picture below {fresh}\n",
    )
    assert run("annotations", "stats", files, "--media", tmp_path / "none").code == 2


def test_files_of_another_format_are_told_so(run: Shell, fresh: Path, tmp_path: Path) -> None:
    files = yolo(tmp_path / "y", photo0=CENTRED)
    for form in ("coco", "voc"):
        run("annotations", "convert", files, tmp_path / form, "--to", form, "--media", fresh)
    for given, form, looks in (
        (tmp_path / "coco/coco.json", "yolo", "coco"),
        (files, "voc", "yolo"),
        (tmp_path / "voc/Annotations/images/photo0.xml", "coco", "voc"),
        (tmp_path / "voc", "coco", "voc"),
    ):
        for words in (["import", "fresh", given, "--format", form], ["stats", given, "--format", form]):
            wrong = run("annotations", *words)
            assert (wrong.code, wrong.err, wrong.out) == (
                2, f"syncagent: error: {given}: no file of it is {form}; it looks like {looks}\n", "",
            )  # fmt: skip
    (tmp_path / "empty").mkdir()
    nothing = run("annotations", "import", "fresh", tmp_path / "empty", "--format", "coco")
    assert (nothing.code, nothing.err) == (
        2, f"syncagent: error: {tmp_path / 'empty'}: no file of it is coco; those end in .json\n",
    )  # fmt: skip
    (tmp_path / "none.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert run("annotations", "import", "fresh", tmp_path / "none.json").code == 0


def test_an_import_that_fails_leaves_the_recipe_alone(run: Shell, fresh: Path, tmp_path: Path) -> None:
    def labels() -> object:
        run("annotations", "export", "fresh", tmp_path / "out", "--format", "yolo")
        text = (tmp_path / "out/data.yaml").read_text()
        return text[text.index("names:") :].split("task:")[0].strip()

    files = yolo(tmp_path / "y", photo0=CENTRED)
    run("annotations", "convert", files, tmp_path / "c", "--to", "coco", "--media", fresh)
    coco = json.loads((tmp_path / "c/coco.json").read_text())
    good = json.dumps(coco)
    coco["annotations"][0]["category_id"] = 9
    (tmp_path / "c/coco.json").write_text(json.dumps(coco))
    bad = run("annotations", "import", "fresh", tmp_path / "c")
    assert (bad.code, labels()) == (2, "names: {}")
    (tmp_path / "c/coco.json").write_text(good.replace("images/", ""))
    lost = run("annotations", "import", "fresh", tmp_path / "c", "--root", "images")
    assert (lost.code, labels()) == (1, "names: {}")
    assert lost.err.splitlines() == [
        "! imagesphoto0.jpg: no such item", "--root images stands before the names as it is; a folder ends in '/'",
    ]  # fmt: skip
    assert lost.out.startswith("0 annotations added, 0 there already, on 0 items; 0 new labels")
    assert run("annotations", "import", "fresh", tmp_path / "c", "--root", "images/").code == 0
    assert labels() == "names:\n  0: bike\n  1: bus"


def test_a_row_that_is_wrong_is_a_line_and_the_rest_goes_on(run: Shell, photos: Path, bucket: str) -> None:
    run("sync", bucket, "--dataset", "box", "--quiet")
    table = photos / "m.jsonl"
    table.write_text('{"local_path": "a.jpg"}\nnot json\n[1]\n{"local_path": "b.jpg"}\n')
    done = run("upload", "box", "--manifest", table)
    assert done.code == 1
    assert sorted(line.split(" (")[0] for line in done.out.splitlines()) == [
        f"! {table}: line 2: JSON is malformed: invalid character",
        f"! {table}: line 3: Expected `object`, got `array`",
        "+ a.jpg", "+ b.jpg", "2 added, 0 changed, 0 there already, 2 failed; 28 bytes, 0 annotations",
    ]  # fmt: skip
    table = photos / "m.csv"
    table.write_text("path,remote_path\na.jpg,/x\n")
    header = run("upload", "box", "--manifest", table)
    assert header.out.startswith(f"! {table}: line 2: unknown column 'path'; known are ")
    table.write_text("local_path,remote_path\na.jpg\nc.txt,/x\n")
    cells = run("upload", "box", "--manifest", table)
    assert f"! {table}: line 2: has another number of cells than the header\n" in cells.out
    assert "+ x/c.txt\n" in cells.out
    table.write_text("key,k\na.jpg\n")
    assert run("metadata", "box", "--from", table).code == 2


def test_yolo_tells_of_pictures_only_and_leaves_no_half(run: Shell, tmp_path: Path) -> None:
    from PIL import Image

    folder, out = tmp_path / "flat", tmp_path / "out"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (320, 240)).save(folder / name)
    (folder / "note.txt").write_text("words")
    run("sync", folder, "--quiet")
    done = run("annotations", "export", "flat", out, "--format", "yolo")
    assert (done.code, done.err.splitlines()[0][:8]) == (0, "note.txt")
    assert sorted(path.name for path in out.iterdir()) == ["a.txt", "b.txt", "data.yaml"]
    (out / "a.txt").unlink()
    (folder / "sub").mkdir()
    for name in ("sub/c.jpg", "sub/c.png"):
        Image.new("RGB", (320, 240)).save(folder / name)
    run("sync", folder, "--quiet")
    for target in (out, tmp_path / "new/deep"):
        clash = run("annotations", "export", "flat", target, "--format", "yolo")
        assert clash.code == 2
        assert "two items would be written to 'sub/c.txt'" in clash.err
    assert sorted(path.name for path in out.iterdir()) == ["b.txt", "data.yaml"]
    assert not (tmp_path / "new").exists()


def test_keys_are_printed_as_they_are_taken_and_the_platforms_paths_are_taken_too(
    run: Shell, fresh: Path, tmp_path: Path
) -> None:
    assert [line.split()[-1] for line in run("items", "fresh").out.splitlines()] == [
        "images/photo0.jpg", "images/photo1.jpg",
    ]  # fmt: skip
    assert run("items", "fresh", "--limit", "1", "--json").json[0]["filename"] == "/images/photo0.jpg"
    assert run("item", "fresh", "/images/photo0.jpg").code == 0
    assert run("item", "fresh", "/gone").code == 4
    assert run("annotations", "show", "fresh", "/images/photo0.jpg", "-o", tmp_path / "x.png").code == 0
    assert run("metadata", "fresh", "/images/photo0.jpg", "--set", "a=1").out == "1 changed, 0 not there\n"
    for words in (["items", "fresh"], ["annotations", "stats", "fresh"]):
        assert run(*words, "--prefix", "/im").err == "--prefix /im: keys begin without '/', as in 'im'\n"


def test_commands_that_find_nothing_to_do_say_so(run: Shell, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    typed = run("upload", photos, "./to", "--types", "*.jpg, TXT", "--quiet")
    assert (typed.code, typed.out.split(",")[0]) == (0, "3 added")
    none = run("upload", photos, "to", "--types", ".png")
    assert (none.code, none.err) == (0, "no file was found to upload that ends in .png\n")
    (tmp_path / "empty.csv").write_text("local_path\n")
    assert run("upload", "to", "--manifest", tmp_path / "empty.csv").err == "no file was found to upload\n"
    for words, code, says in (
        (["upload", f"{photos}/*.jpg", "to"], 4, "of patterns only FOLDER/* is known here"),
        (["upload", photos], 2, f"there is nothing to upload: '{photos}' is taken as the dataset"),
        (["upload", "ftp://host/a.jpg", "to"], 2, "ftp://host/a.jpg: nothing is uploaded from ftp://"),
        (["upload", "s3://box/a.jpg", "to"], 2, "a bucket is mirrored with 'syncagent sync'"),
        (["metadata", "to", "a.jpg", "--prefix", "t1", "--set", "z=1"], 2, "exclude each other"),
        (["metadata", "to", "--set", "z=1"], 2, "say which items"),
        (["download", "to", tmp_path / "out", "--flat", "--no-binaries"], 2, "leaves nothing to download"),
    ):
        wrong = run(*words)
        assert (wrong.code, says in wrong.err) == (code, True), (words, wrong)
    assert not (tmp_path / "out").exists()


def test_a_link_is_called_after_its_address(run: Shell, bucket: str) -> None:
    run("sync", bucket, "--dataset", "box", "--quiet")
    assert "+ a_link.json\n" in run("upload", "box", "--link", "https://example.com/a.jpg").out
    named = run("upload", "box", "--link", "https://example.com/a.jpg", "--name", "b")
    assert "+ b_link.json\n" in named.out
