"""`download`, as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from tests.unit.test_cli import Shell, bucket, photos, put, run
from tests.unit.test_cli_ingest import boxes
from tests.unit.test_download import files

__all__ = ["bucket", "photos", "run"]


def test_download_and_again(run: Shell, photos: Path, tmp_path: Path) -> None:
    run("sync", photos)
    out = tmp_path / "out"
    first = run("download", "photos", out)
    assert (first.code, first.err) == (0, "")
    assert sorted(first.out.splitlines()) == [
        "+ a.jpg", "+ b.jpg", "+ c.txt",
        "3 downloaded, 0 replaced, 0 there already, 0 failed; 42 bytes, 0 annotation files",
    ]  # fmt: skip
    assert (out / "items/a.jpg").read_text() == "bytes of a.jpg"
    assert sorted(run("download", "photos", out).out.splitlines())[-1] == "= c.txt"
    quiet = run("download", "photos", out, "--quiet")
    assert quiet.out == "0 downloaded, 0 replaced, 3 there already, 0 failed; 0 bytes, 0 annotation files\n"
    assert run("download", "gone", out).code == 4


def test_overwriting_reads_nothing_that_is_there_and_the_same(
    run: Shell, photos: Path, tmp_path: Path
) -> None:
    run("sync", photos)
    run("download", "photos", tmp_path / "out")
    (tmp_path / "out/items/b.jpg").write_text("mine")
    again = run("download", "photos", tmp_path / "out", "--overwrite")
    assert sorted(again.out.splitlines()) == [
        "* b.jpg",
        "0 downloaded, 1 replaced, 2 there already, 0 failed; 14 bytes, 0 annotation files",
        "= a.jpg", "= c.txt",
    ]  # fmt: skip


def test_options_are_the_layouts(run: Shell, photos: Path, tmp_path: Path) -> None:
    (photos / "sub").mkdir()
    (photos / "a.jpg").rename(photos / "sub/a.jpg")
    run("sync", photos)
    run("download", "photos", tmp_path / "1", "--no-items-folder", "--flat", "--prefix", "sub/")
    assert [path.name for path in (tmp_path / "1").iterdir()] == ["a.jpg"]
    run(
        "download",
        "photos",
        tmp_path / "2",
        "--annotations",
        "json",
        "--version",
        "1",
        "--no-binaries",
        "--label",
        "x",
    )
    assert list((tmp_path / "2").rglob("*.json")) == []
    run("download", "photos", tmp_path / "2", "--annotations", "json", "--version", "1", "--no-binaries")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "2").rglob("*.*")) == [
        "2/json/b.json", "2/json/c.json", "2/json/sub/a.json",
    ]  # fmt: skip
    wrong = run("download", "photos", tmp_path / "3", "--annotations", "json,masks")
    assert (wrong.code, wrong.out) == (2, "")
    assert "known are json, mask, instance, object_id, on-image, vtt" in wrong.err
    assert not (tmp_path / "3").exists()


def test_failures_are_lines_and_a_log(run: Shell, bucket: str, tmp_path: Path) -> None:
    put(bucket, "x//y", b"1")
    run("sync", bucket, "--dataset", "data")
    log = tmp_path / "errors.jsonl"
    done = run("download", "data", tmp_path / "out", "--error-log", log, "--json")
    assert done.code == 1
    assert [json.loads(line)["key"] for line in log.read_text().splitlines()] == ["x//y"]
    told = done.json
    assert {one["key"]: one["action"] for one in told[:-1]} == {"a": "added", "b": "added", "x//y": "failed"}
    assert told[-1] == {
        "report": {"added": 2, "changed": 0, "same": 0, "failed": 1, "bytes": 2, "files": 0, "left_out": 0}
    }
    quiet = run("download", "data", tmp_path / "out", "--quiet")
    assert quiet.err.startswith("! x//y: no file can be called 'items/x//y'")


def test_a_different_file_is_replaced_where_that_is_asked_for(
    run: Shell, bucket: str, tmp_path: Path
) -> None:
    run("sync", bucket, "--dataset", "data")
    run("download", "data", tmp_path)
    (tmp_path / "items/a").write_text("mine")
    refused = run("download", "data", tmp_path)
    assert refused.code == 1
    assert "--overwrite replaces it" in refused.out
    assert "* a\n" in run("download", "data", tmp_path, "--overwrite").out
    assert (tmp_path / "items/a").read_bytes() == b"a"


def test_drawings(run: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (60, 40), "white").save(folder / "a.png")
    (tmp_path / "a.json").write_text(boxes("car"))
    run("sync", folder)
    run("annotations", "import", "pictures", tmp_path / "a.json")
    words = [
        "--annotations",
        "mask, object_id,on-image",
        "--thickness",
        "1",
        "--alpha",
        "0.5",
        "--fill",
    ]
    done = run("download", "pictures", tmp_path / "out", *words)
    assert done.code == 0
    assert done.err == "left out: a.png: an annotation 'car': it has no object id\n"
    with Image.open(tmp_path / "out/mask/a.png.png") as mask:
        assert mask.getchannel("A").getpixel((3, 6)) in {127, 128}
    assert not (tmp_path / "out/object_id").exists()
    run("download", "pictures", tmp_path / "words", *words, "--text")
    assert files(tmp_path / "out")["mask/a.png.png"] != files(tmp_path / "words")["mask/a.png.png"]
    for more in ([], ["--mask-only"]):  # without a probe before it
        shown = run("annotations", "show", "pictures", "a.png", "-o", tmp_path / "x.png", *more)
        assert (shown.code, shown.err) == (0, "")
        with Image.open(tmp_path / "x.png") as picture:
            assert picture.size == (60, 40)
