"""The same datasets downloaded by the platform's client and by syncagent: the same files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from syncagent.ingest import masks
from tests.dtlpy.test_ingest import Shell, bucket, client, shell
from tests.rigs.catalogs import open_at, url_of
from tests.rigs.s3 import S3Rig
from tests.rigs.server import ServerRig

__all__ = ["bucket", "shell"]
LINKS = {"url", "dataset", "stream", "thumbnail", "item"}
"""What the server adds: its own address, in an export."""


def one_of_each(n: int) -> list[dict[str, Any]]:
    """One of each kind that the client knows in a picture."""
    inside = np.zeros((20, 30), dtype=bool)
    inside[3:9, 4 + n : 12] = True
    corners = [{"x": 15.5, "y": 4}, {"x": 28, "y": 5.25}, {"x": 20, "y": 18}]
    told: list[tuple[str, Any]] = [
        ("box", [{"x": 1 + n, "y": 2}, {"x": 9 + n, "y": 8}]),
        ("segment", [corners]),
        ("polyline", [corners]),
        ("point", {"x": 3, "y": 4}),
        ("ellipse", {"angle": 15, "center": {"x": 10, "y": 10}, "rx": 5, "ry": 3}),
        ("binary", masks.to_url(masks.encode(inside), "#112233")),
        ("class", None),
    ]
    return [
        {"type": kind, "label": "car", "metadata": {"system": {"attributes": {"1": "é"}}}}
        | ({} if coordinates is None else {"coordinates": coordinates})
        for kind, coordinates in told
    ]


def files(folder: Path) -> dict[str, Any]:
    """Bytes by name; of JSON, what it says but for the server's address."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            found[name] = path.read_bytes()
            if name.startswith("json/"):
                told = json.loads(found[name])
                inner = [{k: v for k, v in one.items() if k not in LINKS} for one in told["annotations"]]
                found[name] = {k: v for k, v in told.items() if k not in LINKS} | {"annotations": inner}
    return found


def test_both_download_the_same_files(
    server_rig: ServerRig, s3_rig: S3Rig, shell: Shell, bucket: str, tmp_path: Path
) -> None:
    source, labels = tmp_path / "in", tmp_path / "labels"
    for n, name in enumerate(("a.png", "sub/b.png", "sub/c d+é%20#.txt")):
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".png"):
            Image.new("RGB", (30, 20), (200, 10 * n, 0)).save(path)
            told = labels / f"{name.removesuffix('.png')}.json"  # as the client looks for it
            told.parent.mkdir(parents=True, exist_ok=True)
            told.write_text(json.dumps({"annotations": one_of_each(n), "metadata": {"user": {"n": n}}}))
        else:
            path.write_text(f"text of {name}")
    second = f"{bucket}-ours"
    s3_rig.client.create_bucket(Bucket=second)
    here = Shell(server_rig, tmp_path)  # beside the server, with the credentials that it keeps
    here._env["SYNCAGENT_CATALOG"] = url_of(server_rig.folder / "catalog.db")
    with open_at(server_rig.folder / "catalog.db") as catalog:
        catalog.create_integration(replace(s3_rig.integration, name=second))
    target = f"s3://{second}?endpoint={s3_rig.endpoint}&region=us-east-1"
    here("upload", "in/*", target, "--annotations", labels, "--integration", second)
    here("probe", second)
    with open_at(server_rig.folder / "catalog.db") as catalog:
        ours = catalog.dataset(second).id
    theirs = client(
        server_rig, "downloads.py", tmp_path, BUCKET=bucket, S3=s3_rig.endpoint, LABELS=str(labels), OURS=ours
    )

    for name, dataset in (("ours", ours), ("theirs", theirs["dataset"])):
        for version in (1, 2):
            to = tmp_path / f"mine/{name}-V{version}"
            shell("download", dataset, to, "--annotations", "json", "--version", str(version))
            mine, other = files(to), files(tmp_path / f"client/{name}-V{version}")
            assert sorted(mine) == sorted(other)
            for file, wanted in other.items():
                assert mine[file] == wanted, (name, version, file)
            suffix = ".json" if version == 1 else ".png.json"
            assert len(mine[f"json/sub/b{suffix}"]["annotations"]) == len(one_of_each(1))
        for path in source.rglob("*.*"):
            assert mine[f"items/{path.relative_to(source).as_posix()}"] == path.read_bytes()
        here("download", dataset, tmp_path / f"mine/{name}-plain", "--no-items-folder")
        assert files(tmp_path / f"mine/{name}-plain") == files(tmp_path / f"client/{name}-plain")
        # Over what the client wrote, nothing is written but what it does not know.
        again = shell("download", dataset, tmp_path / f"client/{name}-V2", "--overwrite")
        assert "0 downloaded, 0 replaced, 3 there already, 0 failed" in again

    shell("download", ours, tmp_path / "mine/drawn", "--annotations", "mask,instance", "--thickness", "1")
    mine, other = files(tmp_path / "mine/drawn"), files(tmp_path / "client/drawn")
    drawn = [name for name in other if name.startswith(("mask/", "instance/"))]
    assert len(drawn) == 4
    assert set(other) - {name for name in other if name.startswith("json/")} == set(mine) - {
        "instance/instance_map.json"
    }
    for name in drawn:
        with (
            Image.open(tmp_path / "mine/drawn" / name) as one,
            Image.open(tmp_path / "client/drawn" / name) as two,
        ):
            assert (one.size, one.mode) == (two.size, two.mode)
            # The mask's pixels are the same; lines have their own pixels.
            assert one.getpixel((8, 5)) == two.getpixel((8, 5)), name
