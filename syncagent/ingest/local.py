"""Media files in a local folder, for annotation files that tell neither sizes nor whole names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from msgspec.structs import replace

from syncagent.ingest.annotations import Labelled
from syncagent.ingest.formats.base import safe_path, without_suffix
from syncagent.ingest.formats.carry import named_as_media
from syncagent.ingest.probe import probe


class Media:
    """The files below a folder, which may also be the one that the names begin with: of ``images/a`` the folder ``images``."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def size(self, key: str, stem: bool) -> tuple[int, int] | None:
        """Width and height in pixels of a file, as `formats.base.Context` takes it."""
        path = self._path(key, stem)
        if path is None:
            return None
        with path.open("rb") as file:

            def read(offset: int, length: int) -> bytes:
                file.seek(offset)
                return file.read(length)

            found = probe(read, path.stat().st_size, path.name)
        return (found.width, found.height) if found.width and found.height else None

    def named(self, items: Iterable[Labelled]) -> Iterator[Labelled]:
        """Items with the extensions that their files have."""
        for item in items:
            path = self._path(item.key, stem=True) if item.stem else None
            yield replace(item, key=item.key + path.suffix, stem=False) if path is not None else item

    def _path(self, key: str, stem: bool) -> Path | None:
        parts, above = key.split("/"), self._root.parts
        for count in range(len(parts)):
            if count and tuple(parts[:count]) != above[-count:]:
                continue
            name = "/".join(parts[count:])
            path = self._stems.get(name) if stem else safe_path(self._root, name)
            if path is not None and path.is_file():
                return path
        return None

    @cached_property
    def _stems(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        files = sorted(path for path in self._root.rglob("*") if path.is_file())
        for path in sorted(files, key=lambda path: not named_as_media(path.name)):
            found.setdefault(without_suffix(path.relative_to(self._root).as_posix()), path)
        return found
