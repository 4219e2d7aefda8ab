"""Files that are damaged, hostile or merely odd, in what is common to the formats: each is read, or is one line of an error."""

from __future__ import annotations

import errno
import io
import os
import random
import zipfile
from pathlib import Path

import msgspec
import pytest

from syncagent.errors import InvalidInput, NotFound, Unsupported
from syncagent.ingest import masks
from syncagent.ingest.annotations import (
    Annotation,
    Box,
    Classification,
    Ellipse,
    Joint,
    KeyFrame,
    Label,
    Labelled,
    Other,
    Polygon,
    Pose,
    Subtitle,
)
from syncagent.ingest.formats import (
    NAMES,
    Context,
    Files,
    Folder,
    Losses,
    NewFiles,
    NewFolder,
    Zip,
    get,
    guess,
)
from syncagent.ingest.formats.base import a, read_file, shown, wrong

SIZE = Context(size=lambda key, stem: (100, 50))
# A small file of each format, of one item with one annotation.
SMALL = {
    "dataloop": ("a.json", b'{"filename": "/a.jpg", "annotations": [{"type": "class", "label": "cat"}]}'),
    "coco": (
        "a.json",
        b'{"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 1, "name": "cat"}],'
        b'"annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 1, 1]}]}',
    ),
    "yolo": ("a.txt", b"0 0.5 0.5 0.1 0.1\n"),
    "voc": (
        "a.xml",
        b"<annotation><filename>a.jpg</filename><object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
        b"<xmax>2</xmax><ymax>2</ymax></bndbox></object></annotation>",
    ),
    "vtt": ("a.vtt", b"WEBVTT\n\n00:01.000 --> 00:02.000\nHello\n"),
    "srt": ("a.srt", b"1\n00:00:01,000 --> 00:00:02,000\nHello\n"),
    "cvat": ("a.xml", b'<annotations><image id="0" name="a.jpg"><tag label="cat"/></image></annotations>'),
    "mot": ("a.txt", b"1,1,1,1,2,2,1,1,1\n"),
    "label-studio": (
        "a.json",
        b'[{"data": {"image": "a.jpg"}, "annotations": [{"result": [{"type": "choices", "from_name": "c",'
        b'"value": {"choices": ["cat"]}}]}]}]',
    ),
    "table": ("a.csv", b"key,label\na.jpg,cat\n"),
}


def one_line(error: BaseException) -> str:
    """The text of an error, which is one line that any terminal and file can hold."""
    told = str(error)
    assert told.isprintable()
    assert len(told) < 1500
    told.encode()
    return told


def zipped(name: str, data: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytearray:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as out:
        out.writestr(name, data)
    return bytearray(packed.getvalue())


# -- zips ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_LZMA])
def test_a_damaged_member_of_a_zip_is_told_by_its_name(name: str, method: int) -> None:
    file, data = SMALL[name]
    whole = zipped(file, data, method)
    assert len(list(get(name).read(Zip(io.BytesIO(whole)), _context(name)))) == 1
    spoiled = bytearray(whole)
    for at in range(37, 43):  # the header ends at 35
        spoiled[at] ^= 0xFF
    with pytest.raises(InvalidInput) as caught:
        list(get(name).read(Zip(io.BytesIO(spoiled)), _context(name)))
    assert file in one_line(caught.value)


def _context(name: str) -> Context:
    return Context(labels=["cat"], size=lambda key, stem: (100, 50))


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_wrong_with_a_zip_is_an_error_of_it(seed: int) -> None:
    chance = random.Random(seed)
    whole = zipped("a.csv", b"key,label\n" + b"a.jpg,cat\n" * 500)
    for _ in range(300):
        spoiled = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            spoiled[chance.randrange(len(spoiled))] = chance.randrange(256)
        if chance.random() < 0.2:
            spoiled = spoiled[: chance.randrange(len(spoiled))]
        try:
            tree = Zip(io.BytesIO(spoiled))
            for name in tree.names():
                read_file(tree, name)
                with tree.open(name) as file:
                    file.seek(0)
                    list(file)
        except InvalidInput as error:
            one_line(error)
            assert error.resource


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_twice_in_a_zip_is_read_once() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as out:
        out.writestr("a.csv", "key,label\na.jpg,first\n")
        out.writestr("a.csv", "key,label\na.jpg,last\n")
    (item,) = get("table").read(Zip(packed))
    assert [one.label for one in item.annotations] == ["last"]


# -- the looks of a file -------------------------------------------------------------------------


def test_a_line_of_numbers_is_looked_at_once() -> None:
    assert guess(Files({"a.txt": b"0" + b" -1" * 20_000 + b" x\n"})) == []
    assert guess(Files({"a.txt": b"0 -1 1e-3 .5 +2\n"})) == ["yolo"]


# -- names of files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keys", [["x" * 300 + ".jpg"], ["日" * 90 + ".jpg"], ["x", "x.json/y.jpg"], ["x.json/y.jpg", "x"]]
)
def test_a_name_that_no_file_can_have_is_an_error_of_its_item(tmp_path: Path, keys: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        get("dataloop").write([Labelled(key=key) for key in keys], NewFolder(tmp_path / "out"))
    told = one_line(caught.value)
    assert keys[-1][:20] in told
    assert "rename the item, or leave it out" in told
    assert not list(tmp_path.rglob("*.part"))


def test_a_name_of_many_bytes_is_written(tmp_path: Path) -> None:
    key = "日" * 81 + ".jpg"  # with .json 252 bytes, of 255 that a name has
    get("dataloop").write([Labelled(key=key)], NewFolder(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [f"{key}.json"]
    assert [item.key for item in get("dataloop").read(Folder(tmp_path))] == [key]


def test_a_disk_that_is_full_is_no_error_of_an_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        get("dataloop").write([Labelled(key="a.jpg")], NewFolder(tmp_path))


def test_links_in_a_circle_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.vtt").write_bytes(SMALL["vtt"][1])
    (tmp_path / "b.vtt").symlink_to(tmp_path / "c.vtt")
    (tmp_path / "c.vtt").symlink_to(tmp_path / "b.vtt")
    tree = Folder(tmp_path)
    assert list(tree.names()) == ["a.vtt"]
    for name in ("b.vtt", "a.vtt/x", "x" * 300, "a\0b"):
        with pytest.raises(NotFound):
            tree.open(name)


@pytest.mark.parametrize("name", SMALL)
def test_a_name_that_is_no_text_is_refused_as_a_key(tmp_path: Path, name: str) -> None:
    """Of formats whose files are called as their items. The others tell the key themselves, and read whatever the file is called."""
    file, data = SMALL[name]
    folder = tmp_path / "t"
    folder.mkdir()
    target = os.fsencode(folder) + b"/\xff" + file.encode()
    try:
        with open(target, "wb") as out:  # noqa: PTH123  # its name is bytes
            out.write(data)
    except OSError:
        pytest.skip("this file system has no such names")
    try:
        found = list(get(name).read(Folder(folder), _context(name)))
    except InvalidInput as error:
        assert "\\udcff" in one_line(error)
        assert name in {"vtt", "srt", "yolo", "mot"}
    else:
        assert [item.key for item in found] == ["a.jpg"]
        assert name not in {"vtt", "srt", "yolo", "mot"}


@pytest.mark.parametrize("name", NAMES)
def test_a_key_that_is_no_text_is_not_written(name: str) -> None:
    out = NewFiles()
    with pytest.raises(InvalidInput) as caught:
        get(name).write([Labelled(key="a\udcff.jpg", width=64, height=48, fps="10")], out)
    assert "a\\udcff.jpg" in one_line(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_label_that_is_no_text_is_not_written(name: str) -> None:
    one = Annotation(label="a\udcff", geometry=Classification())
    with pytest.raises(InvalidInput) as caught:
        get(name).write([Labelled(key="a.jpg", width=64, height=48, annotations=(one,))], NewFiles())
    assert "a.jpg: annotation 0: " in one_line(caught.value)
    with pytest.raises(InvalidInput):
        get(name).write([Labelled(key="a.jpg", width=64, height=48, user={"x": ["\udcff"]})], NewFiles())


# -- messages ------------------------------------------------------------------------------------


def test_texts_of_files_are_shortened_and_on_one_line() -> None:
    assert shown("a.jpg") == "a.jpg"
    assert shown("日本 語") == "日本 語"
    assert shown("a\nb\x1b[2J\udcff\u2028") == "a\\nb\\x1b[2J\\udcff\\u2028"
    long = shown("x" * 1_000_000 + " is no number")
    assert len(long) <= 310
    assert long.endswith("is no number")
    for text in ("a\nb" * 1000, "x" * 301, "\\n", "\udcff" * 400):
        assert shown(shown(text)).isprintable()
    error = wrong("a\n.json", "task 'x\ny'", "z" * 5000 + "\r", hint="look at it")
    assert one_line(error).startswith("a\\n.json: task 'x\\ny': zzz")
    assert error.resource == "a\\n.json"


@pytest.mark.parametrize(
    ("name", "file", "data"),
    [
        ("label-studio", "a.json", b'[{"id": "a\\nb%s", "data": 5}]'),
        ("voc", "a.xml", b"<annotation><size><width>x\ny%s</width></size></annotation>"),
        ("cvat", "a.xml", b'<annotations><image name="a"><points label="x" points="1,\t%s"/></image></annotations>'),
        ("yolo", "a.txt", b"%s 1 1 1 1"),
        ("mot", "a/gt.txt", b"%s,1,1,1,1,1,1"),
        ("table", "a.csv", b'key,type\na.jpg,"x\ny%s"\n'),
        ("coco", "a.json", b'{"images": [{"id": "x\\ny%s", "file_name": "a"}, {"id": "x\\ny%s", "file_name": "b"}]}'),
        ("dataloop", "a.json", b'{"annotations": [{"type": "box", "label": "a", "coordinates": "x\\ny%s"}]}'),
        ("vtt", "a\nb.vtt", b"x%s"),
        ("masks", "instance_map.json", b'{"x\\ny%s": "x"}'),
    ],
)  # fmt: skip
def test_an_error_of_a_file_is_one_line_whatever_the_file_says(name: str, file: str, data: bytes) -> None:
    told = data.replace(b"%s", b"z" * 3000)
    with pytest.raises(InvalidInput) as caught:
        list(get(name).read(Files({file: told}), _context(name)))
    one_line(caught.value)


def test_a_geometry_without_a_type_has_words() -> None:
    assert a(Other("")) == "a geometry without a type"
    assert a(Other("text_mark")) == "a text_mark"


# -- sizes, keys and numbers ---------------------------------------------------------------------

_DATALOOP_SIZE = (
    b'{"filename": "/a.jpg", "annotations": [], "metadata": {"system": {"width": %s, "height": 9}}}'
)
_COCO_SIZE = b'{"images": [{"id": 1, "file_name": "a", "width": %s, "height": 9}]}'
_VOC_SIZE = (
    b"<annotation><filename>a.jpg</filename><size><width>%s</width><height>9</height></size></annotation>"
)
_CVAT_SIZE = b'<annotations><image id="0" name="a.jpg" width="%s" height="9"/></annotations>'


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("coco", {"a.json": _COCO_SIZE}),
        ("voc", {"a.xml": _VOC_SIZE}),
        ("cvat", {"a.xml": _CVAT_SIZE}),
        ("mot", {"a/gt/gt.txt": b"1,1,1,1,2,2,1\n", "a/seqinfo.ini": b"[Sequence]\nimWidth=%s\n"}),
        ("table", {"a.csv": b"key,width,height\na.jpg,%s,9\n"}),
    ],
)
@pytest.mark.parametrize("size", [b"-9", b"1e300", b"99999999999999", b"2147483648"])
def test_a_size_that_no_picture_has_is_refused(name: str, files: dict[str, bytes], size: bytes) -> None:
    told = {file: data.replace(b"%s", size) for file, data in files.items()}
    with pytest.raises(InvalidInput) as caught:
        list(get(name).read(Files(told)))
    assert "a" in one_line(caught.value)
    whole = {file: data.replace(b"%s", b"2147483647") for file, data in files.items()}
    (item,) = get(name).read(Files(whole))
    assert item.width == 2147483647


@pytest.mark.parametrize(
    ("name", "file", "data"),
    [
        ("dataloop", "a.json", b'{"filename": "/", "annotations": []}'),
        ("dataloop", "a.json", b'{"filename": "", "annotations": []}'),
        ("coco", "a.json", b'{"images": [{"id": 1, "file_name": ""}]}'),
        ("cvat", "a.xml", b'<annotations><image id="0" name="" width="9" height="9"/></annotations>'),
        ("label-studio", "a.json", b'[{"data": {"image": "/"}}]'),
        ("table", "a.csv", b"key,label\n,cat\n"),
        ("vtt", ".vtt", b"WEBVTT\n"),
    ],
)
def test_a_name_of_nothing_is_refused(name: str, file: str, data: bytes) -> None:
    try:
        found = list(get(name).read(Files({file: data})))
    except InvalidInput as error:
        assert file in one_line(error)
    else:
        assert [item.key for item in found] == [".vtt"]


NAN, INFINITE = float("nan"), float("inf")
UNTOLD = {
    "corner": Annotation(label="a", geometry=Box(0, 0, INFINITE, 5)),
    "not a number": Annotation(label="a", geometry=Box(NAN, 0, 5, 5)),
    "angle": Annotation(label="a", geometry=Box(0, 0, 5, 5, NAN)),
    "polygon": Annotation(label="a", geometry=Polygon((((0.0, 0.0, 5.0, INFINITE, 5.0, 5.0),),))),
    "joint": Annotation(label="a", geometry=Pose((Joint("x", NAN, 1.0),))),
    "ellipse": Annotation(label="a", geometry=Ellipse(1, 1, INFINITE, 1)),
    "time": Annotation(label="a", geometry=Subtitle("x"), start=0.0, end=INFINITE),
    "key frame": Annotation(
        label="a", geometry=Box(0, 0, 5, 5), object_id="1", frame=0, end_frame=2,
        key_frames=(KeyFrame(frame=1, geometry=Box(0, 0, 5, NAN)),),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", UNTOLD)
def test_numbers_that_are_not_finite_are_a_loss(name: str, what: str) -> None:
    item = Labelled(key="v/a.mp4", width=64, height=48, fps="10", frames=9, annotations=(UNTOLD[what],))
    with pytest.raises(Unsupported) as caught:
        get(name).write([item], NewFiles())
    assert one_line(caught.value).startswith("v/a.mp4: ")
    losses, out = Losses(allowed=True), NewFiles()
    get(name).write([item], out, losses=losses)
    assert sum(losses.counts.values()) == 1
    form = get(name)
    assert [one for item in form.read(Files(out.files), SIZE) for one in item.annotations] == []


@pytest.mark.parametrize("name", ["coco", "mot", "label-studio", "voc", "cvat", "table", "dataloop"])
def test_numbers_of_which_a_format_computes_others_are_not_too_large(name: str) -> None:
    far = Annotation(label="a", geometry=Box(-1e308, 0, 1e308, 5), object_id="1", frame=0, end_frame=0)
    item = Labelled(key="v/a.mp4", width=64, height=48, fps="10", frames=9, annotations=(far,))
    out, losses = NewFiles(), Losses(allowed=True)
    get(name).write([item], out, losses=losses)
    found = [one.geometry for item in get(name).read(Files(out.files), SIZE) for one in item.annotations]
    if name in {"coco", "mot", "label-studio"}:
        assert found == []
        assert losses.counts["a box with numbers that are not finite, or too large"] == 1
    else:
        assert found == [far.geometry]


@pytest.mark.parametrize("name", ["coco", "voc", "label-studio", "table", "dataloop"])
def test_attributes_and_scores_that_are_not_finite_are_a_loss(name: str) -> None:
    held = {"kept": "yes", "odd": NAN, "deep": [1, {"x": INFINITE}]}
    one = Annotation(label="a", geometry=Box(0, 0, 5, 5), attributes=held)
    score = Annotation(label="a", geometry=Box(0, 0, 5, 5), score=NAN)
    item = Labelled(key="a.jpg", width=64, height=48, annotations=(one, score), user={"u": NAN, "v": "x"})
    losses, out = Losses(allowed=True), NewFiles()
    with pytest.raises(Unsupported, match="which is not finite"):
        get(name).write([item], NewFiles())
    get(name).write([item], out, losses=losses)
    assert {"the attribute 'odd', which is not finite", "a score that is not finite"} <= losses.counts.keys()
    (found,) = get(name).read(Files(out.files), SIZE)
    assert [mark.attributes for mark in found.annotations] == [{"kept": "yes"}, {}]
    assert dict(found.user) == {"v": "x"}
    assert losses.counts["the metadata 'u', not finite"] == 1
    get(name).write([msgspec.structs.replace(item, annotations=())], NewFiles())  # is no loss of labels


@pytest.mark.parametrize("color", ["#ff00ff80", "red", "#ff", "", "rgb(1,2,3)"])
def test_a_colour_that_is_none_is_dropped(color: str) -> None:
    meta = f"<meta><task><labels><label><name>cat</name><color>{color}</color></label></labels></task></meta>"
    (label,) = get("cvat").labels(Files({"a.xml": f"<annotations>{meta}</annotations>".encode()}))
    assert label == Label(name="cat")
    mask = masks.from_runs([0, 10, 90], 10, 10)
    item = Labelled(key="a.jpg", width=10, height=10, annotations=(Annotation(label="cat", geometry=mask),))
    for name in ("masks", "voc", "dataloop", "coco", "cvat"):
        out = NewFiles()
        get(name).write([item], out, labels=[Label(name="cat", color=color)], losses=Losses(allowed=True))
        assert [one.label for item in get(name).read(Files(out.files), SIZE) for one in item.annotations] in (
            ["cat"],
            [],
        )
    assert masks.from_url(masks.to_url(mask, color)) == mask
