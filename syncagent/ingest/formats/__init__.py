"""Annotation files: one module a format, all alike. `get` gives one by its name, `guess` by looking at the files."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import cast

from syncagent.errors import ConfigError, InvalidInput
from syncagent.ingest.annotations import Labelled
from syncagent.ingest.formats.base import (
    Context,
    Files,
    Folder,
    Format,
    Losses,
    NewFiles,
    NewFolder,
    Only,
    Tree,
    Zip,
    shown,
    wrong,
)

__all__ = [
    "NAMES", "Context", "Files", "Folder", "Format", "Losses", "NewFiles", "NewFolder", "Only", "Tree", "Zip", "get", "guess", "open_tree", "pick",
    "read",
]  # fmt: skip

NAMES = {
    "dataloop": "dataloop.Dataloop",
    "coco": "coco.Coco",
    "masks": "png.Masks",
    "yolo": "yolo.Yolo",
    "voc": "voc.Voc",
    "vtt": "vtt.Vtt",
    "srt": "vtt.Srt",
    "cvat": "cvat.Cvat",
    "mot": "mot.Mot",
    "label-studio": "label_studio.LabelStudio",
    "table": "table.Table",
}
"""Module and class of each format; loaded when used."""


def get(name: str) -> Format:
    """A format by its name.

    :raises ConfigError: there is no such format.
    """
    if name not in NAMES:
        close = difflib.get_close_matches(name, NAMES, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(NAMES)}"
        raise ConfigError(f"unknown annotation format {name!r}", resource=name, hint=hint)
    module, _, kind = NAMES[name].partition(".")
    return cast(Format, getattr(import_module(f"syncagent.ingest.formats.{module}"), kind)())


def open_tree(path: Path) -> Tree:
    """The files at a path: of a folder, of a zip, or the one file.

    :raises NotFound: there is none.
    """
    if path.suffix.lower() == ".zip" and path.is_file():
        return Zip(path)
    return Folder(path)


def pick(name: str | None, tree: Tree, what: str) -> Format:
    """The format of a name; without one, the format that the files look like.

    :param what: what errors call the files.
    :raises ConfigError: there is no such format. :raises InvalidInput: they look like none, or like several.
    """
    if name is not None:
        return get(name)
    likely = guess(tree)
    if len(likely) != 1:
        told = f"may be {' or '.join(likely)}" if likely else "looks like none of the annotation formats"
        raise InvalidInput(f"{shown(what)} {told}", resource=what, hint=f"name one of {', '.join(NAMES)}")
    return get(likely[0])


def read(form: Format, tree: Tree, what: str, context: Context = Context()) -> Iterator[Labelled]:  # noqa: B008  # frozen
    """What a format reads of some files.

    :param what: what errors call the files.
    :raises InvalidInput: it reads nothing, and they are another format's; see `Format.read`.
    """
    empty = True
    for item in form.read(tree, context):
        empty = False
        yield item
    if empty and form.name not in (likely := guess(tree)):
        if likely:
            reason, hint = f"no file of it is {form.name}", f"it looks like {' or '.join(likely)}"
        elif any(name.lower().endswith(form.suffixes) for name in tree.names()):
            return  # nothing can be said against it
        else:
            reason, hint = f"no file of it is {form.name}", f"those end in {', '.join(form.suffixes)}"
        raise wrong(what, None, reason, hint=hint)


def guess(tree: Tree) -> list[str]:
    """Names of the formats that the first files of a tree look like."""
    from syncagent.ingest.formats.detect import looks_like

    return [name for name in looks_like(tree) if name in NAMES]
