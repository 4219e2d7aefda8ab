"""Bytes that belong to no bucket: files named by their content, in a folder beside the catalog."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

from syncagent.errors import NotFound

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class Files:
    """Content-addressed files. The same bytes are kept once, and none is ever changed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, body: BinaryIO) -> tuple[str, int]:
        """Keep what `body` holds; returns its SHA-256 in hexadecimal and its size in bytes."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        handle, name = tempfile.mkstemp(dir=self.root, prefix=".new-")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as out:
                while chunk := body.read(1 << 20):
                    digest.update(chunk)
                    size += len(chunk)
                    out.write(chunk)
                out.flush()
                os.fsync(out.fileno())
            target = self._path(digest.hexdigest())
            target.parent.mkdir(mode=0o700, exist_ok=True)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return digest.hexdigest(), size

    def open(self, digest: str) -> BinaryIO:
        """The bytes of a digest, from their beginning.

        :raises NotFound: nobody put them.
        """
        try:
            return self._path(digest).open("rb")
        except FileNotFoundError as error:
            raise NotFound(f"no bytes {digest} beside the catalog", resource=digest) from error

    def collect(self, wanted: Collection[str], *, before: float) -> int:
        """Remove files that nobody refers to; returns how many.

        :param wanted: digests of those that stay; :param before: as do those put later than this, in Unix seconds: an
            upload comes before its item.
        """
        removed = 0
        for path in self.root.glob("[0-9a-f][0-9a-f]/*") if self.root.is_dir() else ():
            if path.parent.name + path.name in wanted or path.stat().st_mtime >= before:
                continue
            aside = path.with_name(f".gone-{path.name}")
            path.replace(aside)
            if aside.stat().st_mtime >= before:
                aside.replace(path)  # put again between the two looks
                continue
            aside.unlink()
            removed += 1
        for left in self.root.glob(".new-*") if self.root.is_dir() else ():
            if left.stat().st_mtime < before:
                left.unlink()  # of a process that died
        return removed

    def _path(self, digest: str) -> Path:
        if not _DIGEST.match(digest):
            raise NotFound(f"{digest!r} is no digest", resource=digest)
        return self.root / digest[:2] / digest[2:]
