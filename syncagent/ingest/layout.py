"""What downloads are called: the layouts of the platform's client, and no two things in one file.

Below the target folder, for the item ``a/b.jpg``: ``items/a/b.jpg``, and its annotations in ``json/a/b.jpg.json``, ``mask/a/b.jpg.png``,
``instance/…``, ``object_id/…``, ``img_mask/…`` (over the picture) and ``vtt/a/b.jpg.vtt``. Version 1 leaves the item's extension out:
``json/a/b.json``. There ``b.jpg`` and ``b.png`` have one name; the client writes both into it, here the item that is older has it,
and the other one is an error that says so. The same goes for names that only some file systems tell apart: by case, or by how an
accent is coded.
"""

from __future__ import annotations

import posixpath
import re
import threading
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from syncagent.catalog.base import Item
from syncagent.errors import InvalidInput
from syncagent.ingest.formats.base import safe_path
from syncagent.ingest.partial import MAX_NAME, is_part
from syncagent.ingest.render import Style

FOLDERS = {
    "json": "json", "mask": "mask", "instance": "instance", "object_id": "object_id", "on-image": "img_mask", "vtt": "vtt",
}  # fmt: skip
"""What can be had of annotations, and the folder that it is in."""
DRAWN = frozenset({"mask", "instance", "object_id", "on-image"})
INSTANCE_MAP = "instance/instance_map.json"
"""The labels' numbers in the pictures beside it."""
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is downloaded, and what it is called.

    :raises InvalidInput: there is no such kind of annotations.
    """

    annotations: Collection[str] = ()
    """Keys of `FOLDERS`."""
    version: Literal[1, 2] = 2
    """Of names: 1 leaves the item's extension out of those of annotations."""
    to_items_folder: bool = True
    """Items go to a folder ``items``."""
    without_relative_path: bool = False
    """Items have no folders: ``items/b.jpg``. Annotations keep theirs."""
    binaries: bool = True
    """The items' own bytes."""
    overwrite: bool = False
    """Replace what is there and different."""
    style: Style = field(default_factory=Style)
    """Of drawings; colours that it does not have are the recipe's."""
    max_bytes: int = 1 << 30
    """Of what a link points to."""
    allow_private: bool = False
    """Also follow links to addresses of private networks."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.annotations) - FOLDERS.keys())
        if unknown:
            raise InvalidInput(
                f"{unknown[0]!r} is nothing that annotations can be had as", resource=unknown[0],
                hint=f"known are {', '.join(FOLDERS)}",
            )  # fmt: skip


def item_name(key: str, options: Options, suffix: str = "") -> str:
    """The file of an item, relative to the target. :param suffix: of what a link points to."""
    name = key.rpartition("/")[2] if options.without_relative_path else key
    name = name if name.endswith(suffix) else name + suffix
    return f"items/{name}" if options.to_items_folder else name


def annotation_stem(key: str, kind: str, options: Options) -> str:
    """The file of an item's annotations, relative to the target, without the extension of its own."""
    return f"{FOLDERS[kind]}/{without_extension(key) if options.version == 1 else key}"


def without_extension(key: str) -> str:
    """As the client cuts it off: a name that begins with its only dot has none."""
    return posixpath.splitext(key)[0]


def link_of(item: Item) -> tuple[str, str] | None:
    """What a link points to: ``url`` and an address, or ``id`` and an item's id; None for an item that is no link."""
    shebang = item.system.get("shebang")
    info = shebang.get("linkInfo") if isinstance(shebang, dict) else None
    if (
        not isinstance(info, dict)
        or info.get("type") not in {"url", "id"}
        or not isinstance(info.get("ref"), str)
    ):
        return None
    return info["type"], info["ref"]


def suffix_of(ref: str) -> str:
    """The extension of an address or a key, as far as it is a plain one."""
    try:
        path = urlsplit(ref).path
    except ValueError:
        return ""
    found = _SUFFIX.search(posixpath.splitext(path)[1])
    return found[0] if found else ""


class Names:
    """Files below a folder, each of them somebody's. Used from many threads."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._owners: dict[str, str] = {}
        self._folders: dict[str, str] = {}
        self._lock = threading.Lock()

    def claim(self, name: str, key: str) -> Path:
        """The file of a relative name, which is `key`'s from now on.

        :raises InvalidInput: no file can have this name, or it is another item's.
        """
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InvalidInput(f"{name!a} is not valid Unicode", resource=ascii(key)) from None
        path = safe_path(self.root, name)
        *folders, last = name.split("/")
        longest = max((*folders, last), key=lambda part: len(part.encode()))
        if (size := len(longest.encode())) > MAX_NAME:
            raise InvalidInput(f"no file can have the name {longest[:40]!r}… of {size} bytes", resource=key)
        if is_part(last):
            raise InvalidInput(f"{last!r} is a name that only half downloaded files have", resource=key)
        folded = _folded(name)
        above = ["/".join(folders[:count]) for count in range(1, len(folders) + 1)]
        with self._lock:
            taken = self._owners.get(folded)
            if taken is not None:
                raise _taken(name, key, taken, "has this file's name already")
            if folded in self._folders:
                raise _taken(name, key, self._folders[folded], "has a folder of this name")
            for folder in map(_folded, above):
                if folder in self._owners:
                    raise _taken(name, key, self._owners[folder], "is a file where this would need a folder")
            self._owners[folded] = key
            for folder in map(_folded, above):
                self._folders.setdefault(folder, key)
        return path


def _taken(name: str, key: str, owner: str, why: str) -> InvalidInput:
    hint = "download them into folders of their own"
    folder = name.partition("/")[0]
    if folder in FOLDERS.values() and owner != key and without_extension(owner) == without_extension(key):
        hint = "names of version 2 tell them apart"
    return InvalidInput(f"{name!r} is not written: the item {owner!r} {why}", resource=key, hint=hint)


def _folded(name: str) -> str:
    """The same for names that some file system takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
