"""Annotation files: one module a format, all alike. `get` gives one by its name, `guess` by looking at the files."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import cast

from syncagent.errors import ConfigError
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
)

__all__ = [
    "NAMES", "Context", "Files", "Folder", "Format", "Losses", "NewFiles", "NewFolder", "Only", "Tree", "Zip", "get",
]  # fmt: skip

NAMES = {
    "dataloop": "dataloop.Dataloop",
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
