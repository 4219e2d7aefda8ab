"""Facts of media files in a local folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from syncagent.ingest.formats.base import safe_path, without_suffix
from syncagent.ingest.probe import probe


def size_below(root: Path) -> Callable[[str, bool], tuple[int, int] | None]:
    """A function from a file's name below a folder to its width and height in pixels, as `formats.base.Context` takes it."""
    root = root.resolve()
    stems: dict[str, Path] = {}

    def of_stem(stem: str) -> Path | None:
        if not stems:
            for path in sorted(root.rglob("*")):
                if path.is_file():
                    stems.setdefault(without_suffix(path.relative_to(root).as_posix()), path)
        return stems.get(stem)

    def size(key: str, stem: bool) -> tuple[int, int] | None:
        path = of_stem(key) if stem else safe_path(root, key)
        if path is None or not path.is_file():
            return None
        with path.open("rb") as file:

            def read(offset: int, length: int) -> bytes:
                file.seek(offset)
                return file.read(length)

            found = probe(read, path.stat().st_size, path.name)
        return (found.width, found.height) if found.width and found.height else None

    return size
