"""Metadata files beside the media: ``a.json`` or ``a.jpg.json`` for one item, ``metadata.jsonl`` for the items of a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from syncagent.catalog.labels import Entry
from syncagent.ingest.formats import stream
from syncagent.ingest.formats.base import Tree, read_file, refuse

SUFFIXES = (".json", "metadata.jsonl")
_NAME = ("file_name", "filename", "key")


def read(tree: Tree) -> Iterator[Entry]:
    """What the tree's files say about items, as names of those beside them.

    :raises InvalidInput: a file is no JSON object, or a line names no file.
    """
    for name in tree.names():
        folder = PurePosixPath(name).parent.as_posix()
        base = "" if folder == "." else f"{folder}/"
        if name.endswith(".jsonl"):
            with tree.open(name) as file:
                for line, told in stream.lines(file, name, dict[str, Any]):
                    key = next((told[one] for one in _NAME if isinstance(told.get(one), str)), None)
                    if not key:
                        refuse(name, f"line {line}", f"names no file; give it {_NAME[0]}")
                    yield Entry(f"{base}{key}", False, user={k: v for k, v in told.items() if k not in _NAME})
        else:
            told = stream.document(read_file(tree, name), name, dict[str, Any])
            # With the media's own extension or without: an item that is called exactly so is found as well.
            yield Entry(name.removesuffix(".json"), True, user=told)
