"""What a format of annotation files is, and what readers and writers share.

A format is pure: files in, `Labelled` out, and back. It knows no catalog, no network and no clock, changes nothing that it
is given, and never runs what a file says. It is right when `tests/contract/test_formats.py` says so.
"""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, ClassVar, NoReturn, Protocol

from syncagent.errors import InvalidInput, NotFound, Unsupported
from syncagent.ingest.annotations import Geometry, Label, Labelled, kind

MAX_RECORD = 64 << 20
"""Bytes that one record of a file may have: beyond that it is no annotation."""


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
                if path.resolve().is_relative_to(self.root) and path.is_file():
                    yield path.relative_to(self.root).as_posix()

    def open(self, name: str) -> BinaryIO:
        """See `Tree.open`."""
        path = (self.root / name).resolve()
        if not path.is_relative_to(self.root):
            raise InvalidInput(f"{name!r} leaves the folder {self.root}", resource=name)
        try:
            return path.open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise NotFound(f"no such file: {path}", resource=name) from error


class Zip:
    """The members of a zip file."""

    def __init__(self, file: BinaryIO | Path) -> None:
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError) as error:
            raise InvalidInput(f"not a zip file: {error}", resource=str(file)) from error

    def names(self) -> Iterator[str]:
        """See `Tree.names`."""
        yield from sorted(one.filename for one in self._zip.infolist() if not one.is_dir())

    def open(self, name: str) -> BinaryIO:
        """See `Tree.open`."""
        try:
            return self._zip.open(name)  # type: ignore[return-value]  # it has all that BinaryIO promises
        except KeyError as error:
            raise NotFound(f"the zip has no {name!r}", resource=name) from error
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise InvalidInput(f"{name!r} in the zip is not readable: {error}", resource=name) from error


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


def read_file(tree: Tree, name: str, *, limit: int = MAX_RECORD) -> bytes:
    """A small file, whole.

    :raises InvalidInput: it is larger than `limit` bytes.
    """
    with contextlib.closing(tree.open(name)) as stream:
        found = stream.read(limit + 1)
    if len(found) > limit:
        raise InvalidInput(f"{name}: larger than {limit >> 20} MiB", resource=name)
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

    @contextlib.contextmanager
    def create(self, name: str) -> Generator[BinaryIO, None, None]:
        """See `Out.create`."""
        _claim(self._written, name)
        path = safe_path(self.root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name[:100]}.part")
        try:
            with temporary.open("wb") as out:
                yield out
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


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
            f"two items would be written to {name!r}",
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
        raise InvalidInput(f"no file can be called {name!r} below {root}", resource=name)
    path = root.joinpath(*parts)
    # A link inside the folder may lead out of it.
    if not path.parent.resolve().is_relative_to(root):
        raise InvalidInput(f"{name!r} leaves the folder {root}", resource=name)
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
        if not self.allowed:
            raise Unsupported(
                f"{item}: {format_name} cannot hold {what}",
                resource=item,
                hint="pass --lossy to leave it out",
            )
        self.counts[what] += 1
        self.tell(f"{item}: {what} left out")


@dataclass(frozen=True, slots=True)
class Context:
    """What annotation files leave to be known from elsewhere."""

    labels: Sequence[str] = ()
    """Label names by class number, where the files do not name them."""
    size: Callable[[str, bool], tuple[int, int] | None] = lambda key, stem: None
    """Width and height of an item, by `Labelled.key` and `Labelled.stem`."""
    fps: Callable[[str, bool], str | None] = lambda key, stem: None
    """Frames a second of a video, as a rational."""


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


def wrong(file: str, record: object, reason: str) -> InvalidInput:
    """The error of a file that is not what it claims to be."""
    where = f"{file}: {record}" if record is not None else file
    return InvalidInput(f"{where}: {reason}", resource=file)


def refuse(file: str, record: object, reason: str) -> NoReturn:
    """Raise the error of a file that is not what it claims to be."""
    raise wrong(file, record, reason)


def needs_size(item: Labelled, format_name: str) -> tuple[int, int]:
    """Width and height of an item, for formats that cannot be written without.

    :raises InvalidInput: it has none.
    """
    if not item.width or not item.height:
        raise InvalidInput(
            f"{item.key}: {format_name} needs the picture's width and height", resource=item.key,
            hint="run 'syncagent probe' first",
        )  # fmt: skip
    return item.width, item.height


def a(geometry: Geometry) -> str:
    """A geometry in words, with its article."""
    word = {"class": "classification", "segment": "polygon", "binary": "mask", "cube": "cuboid"}.get(
        kind(geometry), kind(geometry)
    )
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def without_suffix(name: str) -> str:
    """A path without its last extension."""
    path = PurePosixPath(name)
    return name[: -len(path.suffix)] if path.suffix else name


def numbered(labels: Sequence[Label], used: Iterable[str]) -> list[Label]:
    """The recipe's labels in their order, then those that are used beside them, sorted."""
    known = {label.name for label in labels}
    return [*labels, *(Label(name=name) for name in sorted(set(used) - known))]
