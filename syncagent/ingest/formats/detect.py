"""Which format some files are of, by a look at their names and beginnings. Never certain: a command says what it took them for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from syncagent.ingest.formats.base import Tree

_FILES = 200
_HEAD = 1 << 16
_NUMBERS = re.compile(rb"\s*+\d++(?:\s++[\d.eE+-]++){4,}\s*\Z")
_MOT = re.compile(rb"\d+,-?\d+,")


def looks_like(tree: Tree) -> list[str]:
    """Names of formats, most likely first."""
    names = list(islice(tree.names(), _FILES))
    found: dict[str, None] = {}
    for name in names:
        for form in _one(tree, name):
            found[form] = None
    lower = {name.rpartition("/")[2].lower() for name in names}
    if {"data.yaml", "data.yml", "classes.txt"} & lower and "yolo" not in found:
        found["yolo"] = None
    if "yolo" in found or "voc" in found:
        found.pop("masks", None)
    return list(found)


def _one(tree: Tree, name: str) -> Iterator[str]:
    suffix = name.rpartition(".")[2].lower()
    if suffix in {"vtt", "srt"}:
        yield suffix
    elif suffix == "parquet":
        yield "table"
    elif suffix in {"json", "jsonl", "xml", "txt", "csv"}:
        with tree.open(name) as file:
            head = file.read(_HEAD)
        yield from {"json": _json, "jsonl": _json, "xml": _xml, "txt": _txt, "csv": _csv}[suffix](head)
    elif suffix == "png" and "Segmentation" not in name:
        yield "masks"


def _json(head: bytes) -> Iterator[str]:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if re.search(rb'"(categories|segmentation|bbox|image_id)"\s*:', head) and b'"image' in head:
        yield "coco"
    elif re.search(rb'"(from_name|to_name)"\s*:', head) or (b'"data"' in head and b'"predictions"' in head):
        yield "label-studio"
    elif b'"annotations"' in text and re.search(rb'"(coordinates|metadata|filename|type)"', head):
        yield "dataloop"
    elif re.search(rb'"(images|info|licenses)"\s*:', head):
        yield "coco"


def _xml(head: bytes) -> Iterator[str]:
    if b"<annotations" in head:
        yield "cvat"
    elif b"<annotation" in head:
        yield "voc"


def _txt(head: bytes) -> Iterator[str]:
    first = head.partition(b"\n")[0]
    if _MOT.match(first):
        yield "mot"
    elif _NUMBERS.match(first):
        yield "yolo"


def _csv(head: bytes) -> Iterator[str]:
    header = head.partition(b"\n")[0].lower()
    if b"key" in header and b"label" in header:
        yield "table"
