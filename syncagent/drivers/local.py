"""A folder as a bucket: ``/folder`` or ``file:///folder``.

A key is a file's path below the folder. Symbolic links are passed over, as rclone does: they
could lead out of the folder. Names that are not valid UTF-8 are passed over with a warning.
"""

from __future__ import annotations

import contextlib
import logging
import mimetypes
import os
import stat as stat_module
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Literal, cast

from syncagent.drivers.base import Capabilities
from syncagent.drivers.streams import Limited
from syncagent.errors import (
    AccessDenied,
    AlreadyExists,
    InvalidInput,
    NotFound,
    SyncAgentError,
    Transient,
    Unsupported,
)
from syncagent.model import DriverSpec, Integration, ObjectInfo

USAGE = "file:///folder"
_PAGE = 1000
_TEMPORARY = ".syncagent-"
_log = logging.getLogger(__name__)


class LocalDriver:
    """`Driver` over a folder of a file system."""

    caps = Capabilities(
        sorted_listing=True,
        conditional_put=True,
        signs=False,
        content_type_in_listing=True,
        any_key=False,
    )

    def __init__(self, root: Path) -> None:
        self._root = root
        self.requests: Counter[str] = Counter()

    def list(
        self, prefix: str = "", *, after: str | None = None, until: str | None = None
    ) -> Iterator[list[ObjectInfo]]:
        """See `Driver.list`. Memory: the names of one folder per level."""
        self.requests["list"] += 1
        page: list[ObjectInfo] = []
        # A folder that is gone or not readable is an error, not an empty listing.
        for info in self._walk(self._root, "", prefix, after or "", until):
            page.append(info)
            if len(page) == _PAGE:
                yield page
                page = []
        if page:
            yield page

    def _walk(
        self, folder: Path, base: str, prefix: str, after: str, until: str | None
    ) -> Iterator[ObjectInfo]:
        try:
            with os.scandir(folder) as entries:
                found = sorted(
                    (e.name + "/" if e.is_dir(follow_symlinks=False) else e.name, e)
                    for e in entries
                    if not e.is_symlink() and _utf8(e)
                )
        except FileNotFoundError as error:
            if folder != self._root:
                return  # removed while the walk went on
            raise _translate(error, str(folder)) from error
        except OSError as error:
            raise _translate(error, str(folder)) from error
        for name, entry in found:
            key = base + name
            if until is not None and key > until:
                return
            if name.endswith("/"):
                below = key.startswith(prefix) or prefix.startswith(key)
                # Every key below starts with `key`, so all of them are <= after only if after sorts past them.
                if below and (after < key or after.startswith(key)):
                    yield from self._walk(Path(entry.path), key, prefix, after, until)
            elif key > after and key.startswith(prefix):
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise _translate(error, key) from error
                if stat_module.S_ISREG(status.st_mode):
                    yield _info(key, status)

    def stat(self, key: str) -> ObjectInfo:
        """See `Driver.stat`."""
        self.requests["head"] += 1
        try:
            status = self._path(key).lstat()
        except OSError as error:
            raise self._of_key(error, key) from error
        if not stat_module.S_ISREG(status.st_mode):
            raise NotFound(f"{key!r} is not a regular file", resource=key) from FileNotFoundError(key)
        return _info(key, status)

    def open(self, key: str, *, offset: int = 0, length: int | None = None) -> closing[BinaryIO]:
        """See `Driver.open`."""
        self.requests["get"] += 1
        try:
            descriptor = os.open(self._path(key), os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        except OSError as error:
            raise self._of_key(error, key) from error
        stream = os.fdopen(descriptor, "rb")
        stream.seek(offset)
        if length is None:
            return closing(cast(BinaryIO, stream))
        return closing(cast(BinaryIO, Limited(stream, length)))

    def put(
        self, key: str, body: BinaryIO, *, content_type: str | None = None, if_absent: bool = False
    ) -> ObjectInfo:
        """See `Driver.put`. Written without a name where the system can do that, then linked or renamed into place.

        So a process that is killed leaves no part of a file; elsewhere it may leave one whose name no listing tells.
        """
        self.requests["put"] += 1
        try:
            target = self._path(key)
        except OSError as error:
            raise InvalidInput(f"{key!r} cannot be a file's name", resource=key) from error
        temporary: Path | None = None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # Outside the mirrored folder there may be another file system, so it is beside the target.
            handle = _unnamed(target.parent)
            if handle is None:
                handle, name = tempfile.mkstemp(dir=target.parent, prefix=_TEMPORARY)
                temporary = Path(name)
                temporary.chmod(0o644)
            with os.fdopen(handle, "wb") as out:
                while chunk := body.read(1 << 20):
                    out.write(chunk)
                out.flush()
                if temporary is None:
                    with contextlib.suppress(FileExistsError):
                        _name(handle, target)
                        return _info(key, target.lstat())
                    # Only a rename takes the place of another file, and that needs a name.
                    temporary = target.parent / f"{_TEMPORARY}{uuid.uuid4().hex}"
                    _name(handle, temporary)
            if if_absent:
                target.hardlink_to(temporary)
                temporary.unlink()
            else:
                temporary.replace(target)
            return _info(key, target.lstat())
        except FileExistsError as error:
            raise AlreadyExists(f"{key!r} is already there", resource=key) from error
        except OSError as error:
            raise _translate(error, key) from error
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)

    def delete(self, key: str) -> None:
        """See `Driver.delete`."""
        self.requests["delete"] += 1
        try:
            self._path(key).unlink(missing_ok=True)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _translate(error, key) from error

    def sign(self, key: str, *, expires: timedelta, method: Literal["GET", "PUT"] = "GET") -> str:
        """Unsupported: a folder has no server that would check a signature."""
        raise Unsupported("file:// cannot sign URLs", resource=key)

    def close(self) -> None:
        """Nothing to release."""

    def _of_key(self, error: OSError, key: str) -> SyncAgentError:
        """A file that is not there; or the whole folder, which says nothing about its files."""
        if not self._root.is_dir():
            gone = f"no such folder: {self._root}"
            return NotFound(gone, resource=str(self._root), hint="is it unmounted?")
        return _translate(error, key)

    def _path(self, key: str) -> Path:
        """The file of a key, inside the folder or nowhere.

        :raises FileNotFoundError: no file can have this key (``a//b``, ``../x``, a leading slash).
        """
        segments = key.split("/")
        if any(segment in {"", ".", ".."} or "\0" in segment for segment in segments):
            raise FileNotFoundError(key)
        path = self._root.joinpath(*segments)
        parent = path.parent.resolve()
        if not parent.is_relative_to(self._root.resolve()):
            raise FileNotFoundError(key)
        return path


def _utf8(entry: os.DirEntry[str]) -> bool:
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        _log.warning("passed over %s: the name is not valid UTF-8", ascii(entry.path))
        return False
    return not entry.name.startswith(_TEMPORARY)


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    modified = datetime.fromtimestamp(status.st_mtime_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    etag = f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"
    # A renamed file keeps its inode and its times; another file with the same inode has other times.
    same = f"inode:{status.st_dev:x}:{status.st_ino:x}:{status.st_mtime_ns:x}"
    return ObjectInfo(key, etag, status.st_size, modified, etag, None, same, mimetypes.guess_type(key)[0])


def _translate(error: OSError, resource: str) -> SyncAgentError:
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return NotFound(f"no such file or folder: {resource}", resource=resource)
    if isinstance(error, PermissionError):
        return AccessDenied(
            f"not allowed to read or write {resource}", resource=resource, permission="file permissions"
        )
    if error.errno in {36, 40, 22}:  # name too long, symbolic link, invalid
        return NotFound(f"no such file: {resource}", resource=resource)
    return Transient(f"{error.strerror or 'input/output error'}: {resource}", resource=resource)


def _unnamed(folder: Path) -> int | None:
    """A file without a name, which is gone with its process; None where there are none."""
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None or not Path("/proc/self/fd").is_dir():
        return None
    try:
        handle = os.open(folder, flag | os.O_WRONLY, 0o600)
        os.fchmod(handle, 0o644)
        return handle
    except OSError:  # the file system has no such files; whatever else is wrong, the next step tells
        return None


def _name(handle: int, path: Path) -> None:
    """Give a file without a name one that nobody has.

    :raises FileExistsError: somebody has it.
    """
    # The folder's descriptor is not used; with one, Python lets the system follow /proc's link.
    os.link(f"/proc/self/fd/{handle}", path, src_dir_fd=handle, follow_symlinks=True)


def open_driver(spec: DriverSpec, integration: Integration | None = None) -> LocalDriver:
    """Open a folder.

    :raises NotFound: the folder does not exist.
    """
    root = Path(spec.bucket)
    if not root.is_dir():
        raise NotFound(f"no such folder: {root}", resource=str(root), hint="check the path")
    return LocalDriver(root)
