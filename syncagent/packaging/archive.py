"""A zip whose bytes depend on its files only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest that a zip can tell
_MODE = 0o644 << 16  # Lambda runs as another user, who must be able to read
_UNIX = 3


def write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    """Write files in order of name, with one date and one mode."""
    part = path.with_name(path.name + ".part")
    with ZipFile(part, "w") as archive:
        for name in sorted(files):
            member = ZipInfo(name, _EPOCH)
            member.compress_type, member.external_attr, member.create_system = ZIP_DEFLATED, _MODE, _UNIX
            archive.writestr(member, files[name], compresslevel=9)
    part.replace(path)
