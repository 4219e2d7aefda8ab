"""What a format of annotation files is, and what readers and writers share.

A format is pure: files in, `Labelled` out, and back. It knows no catalog, no network and no clock, changes nothing that it
is given, and never runs what a file says. It is right when `tests/contract/test_formats.py` says so.
"""

from __future__ import annotations

import contextlib
import errno
import io
import lzma
import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, ClassVar, NoReturn, Protocol, cast

from syncagent.errors import InvalidInput, NotFound, Unsupported
from syncagent.ingest.annotations import Geometry, Label, Labelled, kind

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAX_RECORD = 64 << 20
"""Bytes that one record of a file may have: beyond that it is no annotation."""
_SHOWN = 300
# What an operating system says of a name that no file can have, or that is a folder's, or another file's.
_OF_NAMES = frozenset(
    {
        errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.EINVAL,
        errno.EILSEQ,
    }
)  # fmt: skip


def shown(text: str, most: int = _SHOWN) -> str:
    """A text of a file or a key as a message may have it: one line of characters that can be printed, of which the middle is cut.

    What it gives stays as it is when it is shown again.
    """
    if len(text) > most:
        head, tail = most * 2 // 3, most // 3
        text = f"{text[:head]} … {text[-tail:]}" if len(text) > head + tail + 3 else text
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


class Tree(Protocol):
    """Files by name: a folder, a zip, a bucket. Names are relative, with `/`."""

    def names(self) -> Iterator[str]:
        """The files that are to be read, in order."""
        ...

    def open(self, name: str) -> BinaryIO:
        """A file's bytes, also of one that `names` leaves out (a list of classes beside it).

        :raises NotFound: there is none.
        """
        ...


class Folder:
    """A local file, or a folder with everything below it. Symbolic links that leave it are passed over."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise NotFound(f"no such file: {path}", resource=str(path))
        self._only = None if path.is_dir() else path.name
        self.root = (path if path.is_dir() else path.parent).resolve()

    def __repr__(self) -> str:
        return f"<Folder {self.root}>"

    def names(self) -> Iterator[str]:
        """See `Tree.names`."""
        if self._only is not None:
            yield self._only
            return
        for folder, below, files in os.walk(self.root):
            below.sort()
            for name in sorted(files):
                path = Path(folder, name)
                # Of links that lead in a circle it gives one of them, and that is no file.
                if Path(os.path.realpath(path)).is_relative_to(self.root) and path.is_file():
                    yield path.relative_to(self.root).as_posix()

    def open(self, name: str) -> BinaryIO:
        """See `Tree.open`."""
        try:
            path = Path(os.path.realpath(self.root / name))
            if not path.is_relative_to(self.root):
                raise InvalidInput(f"{shown(repr(name))} leaves the folder {self.root}", resource=name)
            return path.open("rb")
        except (OSError, ValueError) as error:  # a ValueError: no file's name has a zero byte
            if isinstance(error, OSError) and error.errno not in _OF_NAMES | {errno.ENOENT}:
                raise
            raise NotFound(f"no such file: {shown(str(self.root / name))}", resource=name) from error


_DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError,
    IndexError, OverflowError, OSError,
)  # fmt: skip
"""What zipfile raises on a damaged file, an encrypted one, or one that is packed in a way that it does not know."""


class Zip:
    """The members of a zip file.

    :param name: what errors call it, where it is no file on the disk.
    """

    def __init__(self, file: BinaryIO | Path, name: str | None = None) -> None:
        self._name = name or (str(file) if isinstance(file, Path) else "zip")
        try:
            self._zip = zipfile.ZipFile(file)
        except FileNotFoundError as error:
            raise NotFound(f"no such file: {shown(self._name)}", resource=self._name) from error
        except _DAMAGED as error:
            raise wrong(self._name, None, f"not a zip file: {str(error) or type(error).__name__}") from error

    def names(self) -> Iterator[str]:
        """See `Tree.names`. A name that is there twice is told once: the later member is the one that counts."""
        yield from sorted({one.filename for one in self._zip.infolist() if not one.is_dir()})

    def open(self, name: str) -> BinaryIO:
        """See `Tree.open`."""
        with _member(name):
            try:
                found = self._zip.open(name)
            except KeyError as error:
                raise NotFound(f"the zip has no {shown(repr(name))}", resource=name) from error
        return cast(BinaryIO, _Member(cast(zipfile.ZipExtFile, found), name))


@contextlib.contextmanager
def _member(name: str) -> Iterator[None]:
    """Errors of unpacking name the member."""
    try:
        yield
    except _DAMAGED as error:
        reason = f"is not readable in the zip: {str(error) or type(error).__name__}"
        raise wrong(name, None, reason, hint="pack it again") from error


class _Member(io.BufferedIOBase):
    """A member of a zip. That it is damaged shows when it is read, and seldom when it is opened."""

    def __init__(self, file: zipfile.ZipExtFile, name: str) -> None:
        self._file, self.name = file, name

    def read(self, size: int | None = -1) -> bytes:
        with _member(self.name):
            return self._file.read(-1 if size is None else size)

    def read1(self, size: int = -1) -> bytes:
        with _member(self.name):
            return self._file.read1(size)

    def readinto(self, buffer: Buffer) -> int:
        with _member(self.name):
            return self._file.readinto(buffer)

    def readline(self, size: int | None = -1) -> bytes:
        with _member(self.name):
            return self._file.readline(-1 if size is None else size)

    def seek(self, offset: int, whence: int = 0) -> int:
        with _member(self.name):
            return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def close(self) -> None:
        self._file.close()
        super().close()


class Files:
    """Files in memory, by name."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files

    def names(self) -> Iterator[str]:
        """See `Tree.names`."""
        yield from sorted(self._files)

    def open(self, name: str) -> BinaryIO:
        """See `Tree.open`."""
        if name not in self._files:
            raise NotFound(f"no such file: {name!r}", resource=name)
        return io.BytesIO(self._files[name])


class Only:
    """Some files of a tree are to be read; the others can be opened beside them."""

    def __init__(self, tree: Tree, names: Sequence[str]) -> None:
        self._tree, self._names = tree, names

    def names(self) -> Iterator[str]:
        """See `Tree.names`."""
        yield from self._names

    def open(self, name: str) -> BinaryIO:
        """See `Tree.open`."""
        return self._tree.open(name)


def read_file(tree: Tree, name: str, *, limit: int | None = None) -> bytes:
    """A small file, whole.

    :param limit: in bytes; that of a record where none is told.
    :raises InvalidInput: it is larger than that.
    """
    with contextlib.closing(tree.open(name)) as stream:
        return read_rest(stream, name, limit=limit)


def read_rest(stream: BinaryIO, name: str, *, limit: int | None = None) -> bytes:
    """What is left of a small file.

    :param limit: in bytes; that of a record where none is told.
    :raises InvalidInput: it is more than that.
    """
    most = MAX_RECORD if limit is None else limit
    found = stream.read(most + 1)
    if len(found) > most:
        raise wrong(name, None, f"larger than {most >> 20} MiB")
    return found


def read_text(tree: Tree, name: str) -> str:
    """A small file as text: UTF-8, with or without its mark.

    :raises InvalidInput: it is something else.
    """
    try:
        return read_file(tree, name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise wrong(name, None, f"not UTF-8 at byte {error.start}") from error


def exists(tree: Tree, name: str) -> bool:
    """Whether a tree has a file."""
    try:
        tree.open(name).close()
    except NotFound:
        return False
    return True


class Out(Protocol):
    """Where a writer puts files."""

    def create(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """A new file, by relative name with `/`.

        :raises InvalidInput: the name leaves the target, or is taken.
        """
        ...


class NewFolder:
    """Writes files below a folder. Each appears whole, or not at all; none leaves the folder, none is written twice."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._written: set[str] = set()
        self._made: list[Path] = []

    def discard(self) -> None:
        """Remove the files and folders that were not there before: half of an export is none."""
        for path in reversed(self._made):
            with contextlib.suppress(OSError):  # a folder that something else is in by now
                path.rmdir() if path.is_dir() else path.unlink()

    @contextlib.contextmanager
    def create(self, name: str) -> Generator[BinaryIO, None, None]:
        """See `Out.create`."""
        _claim(self._written, name)
        with _as_a_name(name, self.root):
            path = safe_path(self.root, name)
            new = [one for one in (path.parent, *path.parent.parents) if not one.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
            self._made += reversed(new)
            # A file system counts bytes. What is left of the name is for people, and need not be whole.
            head = os.fsencode(path.name)[:100].decode("ascii", "replace").replace("\ufffd", "_")
            temporary = path.with_name(f".{head}.part")
            out = temporary.open("wb")
        try:
            with out:
                yield out
            with _as_a_name(name, self.root):
                fresh = not path.exists()
                temporary.replace(path)
                self._made += [path] if fresh else []
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _as_a_name(name: str, root: Path) -> Iterator[None]:
    """A name that the file system cannot have is an error like one that leaves the folder; a full disk is none of ours."""
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_NAMES:
            raise
        reason = f"no file can be called so below {root}: {error.strerror}"
        raise wrong(name, None, reason, hint="rename the item, or leave it out") from error


class NewFiles:
    """Writes files into memory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    @contextlib.contextmanager
    def create(self, name: str) -> Generator[BinaryIO, None, None]:
        """See `Out.create`."""
        if name in self.files:
            _claim({name}, name)
        out = io.BytesIO()
        yield out
        self.files[name] = out.getvalue()


def _claim(taken: set[str], name: str) -> None:
    if name in taken:
        raise InvalidInput(
            f"two items would be written to {shown(repr(name))}",
            resource=name,
            hint="export them into folders of their own",
        )
    taken.add(name)


def safe_path(root: Path, name: str) -> Path:
    """The file of a relative name below a resolved folder.

    :raises InvalidInput: no file below the folder can have this name.
    """
    parts = name.split("/")
    if (
        not name
        or "\0" in name
        or any(part in {"", ".", ".."} for part in parts)
        or ("\\" in name and os.name == "nt")
    ):
        raise InvalidInput(f"no file can be called {shown(repr(name))} below {root}", resource=name)
    path = root.joinpath(*parts)
    # A link inside the folder may lead out of it.
    if not Path(os.path.realpath(path.parent)).is_relative_to(root):
        raise InvalidInput(f"{shown(repr(name))} leaves the folder {root}", resource=name)
    return path


@dataclass(slots=True)
class Losses:
    """What a format could not hold.

    :param allowed: go on without it; else the first loss raises.
    :param tell: called with a line about each; the same line comes once an item.
    """

    allowed: bool = False
    tell: Callable[[str], None] = lambda line: None
    counts: Counter[str] = field(default_factory=Counter)
    """How often each kind of loss."""

    def add(self, format_name: str, item: str, what: str) -> None:
        """Something of an item cannot be written.

        :param what: what would be lost, such as ``a polyline``.
        :raises Unsupported: it may not be.
        """
        what = shown(what)
        if not self.allowed:
            raise Unsupported(
                f"{shown(item)}: {format_name} cannot hold {what}",
                resource=item,
                hint="pass --lossy to leave it out",
            )
        self.counts[what] += 1
        self.tell(f"{shown(item)}: {what} left out")

    def aside(self, what: str, item: str | None = None) -> None:
        """Something that is no annotation has no place in the format: it is counted, and stops nothing.

        :param item: whose line there is to be about it.
        """
        self.counts[what] += 1
        if item is not None:
            self.tell(f"{shown(item)}: {what} left out")


@dataclass(frozen=True, slots=True)
class Context:
    """What annotation files leave to be known from elsewhere."""

    labels: Sequence[str] = ()
    """Label names by class number, where the files do not name them."""
    size: Callable[[str, bool], tuple[int, int] | None] = lambda key, stem: None
    """Width and height of an item, by `Labelled.key` and `Labelled.stem`."""
    fps: Callable[[str, bool], str | None] = lambda key, stem: None
    """Frames a second of a video, as a rational."""
    known: Callable[[str, bool], bool] = lambda key, stem: True
    """Whether there is one such item. What is said of any other is not looked at, and lacks nothing."""
    sizes: str = "run 'syncagent probe' first"
    """What to do about a size that is not known."""


class Format(Protocol):
    """One kind of annotation file."""

    name: ClassVar[str]
    """As in ``--format``."""
    suffixes: ClassVar[tuple[str, ...]]
    """Of its files, in lower case, with the dot."""
    holds: ClassVar[frozenset[type]]
    """Geometries that it can write."""

    def read(self, tree: Tree, context: Context = ...) -> Iterator[Labelled]:
        """All items that the tree's files tell of, one at a time; memory does not grow with them.

        An item may come in several pieces, where several files tell of it.

        :raises InvalidInput: a file is not of this format; says the file, the record and the reason.
        """
        ...

    def labels(self, tree: Tree) -> list[Label]:
        """The classes that the files declare, in their order; empty where the format declares none."""
        ...

    def write(
        self,
        items: Iterable[Labelled],
        out: Out,
        *,
        labels: Sequence[Label] = (),
        losses: Losses | None = None,
    ) -> None:
        """Write items. Those without annotations are written too, where the format has a place for them.

        :param labels: the recipe's, for formats that number them; those used and not in there come after them.
        :raises Unsupported: the format cannot hold something, and `losses` does not allow to leave it out.
        :raises InvalidInput: an item lacks what the format needs of it, such as its size.
        """
        ...


def wrong(file: str, record: object, reason: str, *, hint: str | None = None) -> InvalidInput:
    """The error of a file that is not what it claims to be, or of an item that cannot be written."""
    where = f"{shown(file)}: {shown(str(record))}" if record is not None else shown(file)
    resource = file if file.isprintable() else shown(file, len(file))
    return InvalidInput(f"{where}: {shown(reason)}", resource=resource, hint=hint)


def refuse(file: str, record: object, reason: str) -> NoReturn:
    """Raise the error of a file that is not what it claims to be."""
    raise wrong(file, record, reason)


def needs_size(item: Labelled, format_name: str) -> tuple[int, int]:
    """Width and height of an item, for formats that cannot be written without.

    :raises InvalidInput: it has none.
    """
    if not item.width or not item.height:
        reason = f"{format_name} needs the picture's width and height"
        raise wrong(item.key, None, reason, hint="run 'syncagent probe' first")
    return item.width, item.height


def a(geometry: Geometry) -> str:
    """A geometry in words, with its article."""
    word = {"class": "classification", "segment": "polygon", "binary": "mask", "cube": "cuboid"}.get(
        kind(geometry), kind(geometry)
    )
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}" if word else "a geometry without a type"


def without_suffix(name: str) -> str:
    """A path without its last extension."""
    path = PurePosixPath(name)
    return name[: -len(path.suffix)] if path.suffix else name


def numbered(labels: Sequence[Label], used: Iterable[str]) -> list[Label]:
    """The recipe's labels in their order, then those that are used beside them, sorted."""
    known = {label.name for label in labels}
    return [*labels, *(Label(name=name) for name in sorted(set(used) - known))]
