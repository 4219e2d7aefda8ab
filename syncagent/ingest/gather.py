"""What is to be uploaded: files, folders, bytes, arrays, addresses, links and tables of them, as `Upload` values.

Names and layouts are those of the platform's client (`dtlpy`), whose users they are for; where it drops files or fails half-way, this
does not. Differences are in docs/dataloop.md.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal

from syncagent.catalog import Item
from syncagent.errors import InvalidInput, NotFound, SyncAgentError, Unsupported
from syncagent.ingest import fetch, tables
from syncagent.ingest.formats.base import wrong

Json = dict[str, Any]
FROM_JSON: Literal["from-json"] = "from-json"
"""As `Options.metadata`: take the metadata from the annotation file."""


@dataclass(frozen=True, slots=True)
class Link:
    """An address that is to be kept as a link: its bytes are not fetched."""

    ref: str
    """The address; of an item, its id."""
    mimetype: str = "image"
    name: str | None = None
    dataset: str | None = None
    """Id of the dataset, if `ref` is an item's id."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One item to be."""

    key: str
    """Its path in the dataset, without a first slash."""
    source: str
    """What errors call it."""
    open: Callable[[], tuple[BinaryIO, str | None]]
    """The bytes, from their beginning, and their type if that is known."""
    size: int | None = None
    """Bytes, where that is known before they are read."""
    user: Mapping[str, Any] = field(default_factory=dict)
    system: Mapping[str, Any] = field(default_factory=dict)
    description: str | None = None
    annotations: Path | None = None
    """A file of the platform's JSON with its annotations."""
    error: SyncAgentError | None = None
    """Why it cannot be uploaded; the others can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What holds for everything that is gathered."""

    remote_path: str = "/"
    """Folder in the dataset."""
    remote_name: str | None = None
    """Name there, of a single thing; may have folders."""
    file_types: Sequence[str] = ()
    """Of a folder only files with one of these extensions (``.jpg``), whatever their case."""
    annotations: Path | None = None
    """Of a folder: the folder with the annotation files; of a file: its annotation file."""
    version: Literal[1, 2] = 2
    """How annotation files are called: 1 ``a.json``, 2 ``a.jpg.json``. Of a folder the other one is taken where there is none."""
    metadata: Mapping[str, Any] | Literal["from-json"] = field(default_factory=dict)
    """``metadata.user``; or the ``metadata`` of the annotation file."""
    description: str | None = None
    max_bytes: int = 1 << 30
    """Of an address."""
    allow_private: bool = False
    """Also from addresses of private networks."""


def gather(what: Any, options: Options | None = None) -> Iterator[Upload]:
    """Everything that `what` names.

    :param what: a path (``folder/*`` is a folder without its own name), a URL, bytes, an open file, an array (height, width,
        channels), a `Link`, an `Item` (a link to it), a pandas DataFrame with the names of `from_row` as columns, or a list of those.
    :raises NotFound: no such file. :raises InvalidInput: it needs a name, or is nothing that can be uploaded.
    """
    options = options or Options()
    if isinstance(what, Link):
        yield _link(what, options)
    elif isinstance(what, Item):
        yield _link(Link(what.id, name=PurePosixPath(what.key).stem, dataset=what.dataset), options)
    elif isinstance(what, bytes | bytearray):
        yield _bytes(bytes(what), options)
    elif isinstance(what, str) and what.startswith(("http://", "https://")):
        yield _url(what, options)
    elif isinstance(what, str) and (scheme := _SCHEME.match(what)) and not os.path.exists(what):  # noqa: PTH110  # may be no path
        raise InvalidInput(
            f"{what}: nothing is uploaded from {scheme[0]}", resource=what,
            hint="give a file, a folder or an address with https://; a bucket is mirrored with 'syncagent sync'",
        )  # fmt: skip
    elif isinstance(what, str | os.PathLike):
        yield from _path(os.fspath(what), options)
    elif hasattr(what, "read"):
        yield _stream(what, options)
    elif hasattr(what, "__array_interface__"):
        yield _array(what, options)
    elif hasattr(what, "to_dict") and hasattr(what, "columns"):
        for number, row in enumerate(what.to_dict("records")):
            kept = {name: value for name, value in row.items() if not _gap(value)}
            yield from from_row(kept, "the table", f"row {number}", options)
    elif isinstance(what, Iterable):
        for one in what:
            yield from gather(one, options)
    else:
        raise InvalidInput(f"{type(what).__name__} is nothing that can be uploaded")


def manifest(path: Path, options: Options | None = None) -> Iterator[Upload]:
    """Everything that a CSV, JSONL or Parquet file names; local paths are relative to it. Columns: see `from_row`."""
    options = options or Options()
    for where, row in tables.rows(path):
        if isinstance(row, InvalidInput):
            yield Upload("", f"{path}: {where}", _nothing, error=row)
            continue
        local = row.get("local_path")
        beside = isinstance(local, str) and not local.startswith(("http://", "https://", "/"))
        told = {**row, "local_path": str(path.parent / str(local))} if beside else row
        yield from from_row(told, str(path), where, options)


def _gap(value: Any) -> bool:
    """Whether a cell of a DataFrame is empty."""
    return value is None or (isinstance(value, float) and math.isnan(value))


_SCHEME = re.compile("[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_COLUMNS = {
    "local_path", "local_annotations_path", "remote_path", "remote_name", "item_metadata", "item_description", "file_types",
}  # fmt: skip


def from_row(row: Mapping[str, Any], table: str, where: str, options: Options) -> Iterator[Upload]:
    """What a row names: ``local_path``, and what else it says. A row that is wrong is one upload that fails.

    Columns: ``local_path`` (also an address), ``local_annotations_path``, ``remote_path``, ``remote_name``, ``item_metadata`` (JSON:
    ``{"user": …}``), ``item_description``, ``file_types``.
    """
    try:
        unknown = set(row) - _COLUMNS
        if unknown:
            raise wrong(
                table,
                where,
                f"unknown column {sorted(unknown)[0]!r}; known are {', '.join(sorted(_COLUMNS))}",
            )
        if not row.get("local_path"):
            raise wrong(table, where, "has no local_path")
        told = tables.json_cell(row.get("item_metadata", {}), table, where, "item_metadata")
        if not isinstance(told, Mapping):
            raise wrong(table, where, "item_metadata must be an object")
        changes: Json = {"metadata": told.get("user", told)} if told else {}
        if "remote_path" in row:
            changes["remote_path"] = str(row["remote_path"])
        if "remote_name" in row:
            changes["remote_name"] = str(row["remote_name"])
        if "item_description" in row:
            changes["description"] = str(row["item_description"])
        if "local_annotations_path" in row:
            changes["annotations"] = Path(str(row["local_annotations_path"]))
        if "file_types" in row:
            types = row["file_types"]
            changes["file_types"] = types.split(",") if isinstance(types, str) else list(types)
        yield from gather(row["local_path"], replace(options, **changes))
    except SyncAgentError as error:
        source = str(row.get("local_path") or f"{table}: {where}")
        yield Upload("", source, _nothing, error=error)


def _nothing() -> tuple[BinaryIO, str | None]:
    raise InvalidInput("there is nothing to upload")


# -- one kind each -------------------------------------------------------------------------------


def _path(text: str, options: Options) -> Iterator[Upload]:
    inside = text.endswith(("/*", os.sep + "*"))
    path = Path(text[:-2] or "/") if inside else Path(text)
    if path.is_dir():
        if options.remote_name:
            raise InvalidInput(
                f"{text} is a folder, and cannot have the name {options.remote_name!r}", resource=text
            )
        yield from _folder(path, "" if inside else path.resolve().name, options)
    elif path.is_file() and not inside:
        found = options.annotations
        if found is not None and found.is_dir():
            found = _beside(found, path.name, options.version)
        elif found is not None and not found.is_file():
            raise NotFound(f"no such annotation file: {found}", resource=str(found))
        yield _file(path, _remote(options, path.name), found, options)
    else:
        hint = None
        if set(text) & set("*?["):
            hint = "of patterns only FOLDER/* is known here, with --types for extensions; a shell expands others if they are not quoted"
        raise NotFound(f"no such file or folder: {text}", resource=text, hint=hint)


def _folder(root: Path, head: str, options: Options) -> Iterator[Upload]:
    if options.annotations is not None and not options.annotations.is_dir():
        raise NotFound(
            f"no such folder of annotations: {options.annotations}", resource=str(options.annotations)
        )
    # jpg, .jpg and *.jpg are the same.
    types = {f".{one.strip().lower().removeprefix('*').removeprefix('.')}" for one in options.file_types}
    for folder, below, files in os.walk(root):
        below.sort()
        for name in sorted(files):
            path = Path(folder, name)
            if types and path.suffix.lower() not in types:
                continue
            relative = path.relative_to(root).as_posix()
            try:
                relative.encode()
            except UnicodeEncodeError:
                error = InvalidInput(f"{str(path)!a} is a name that is not UTF-8", resource=ascii(str(path)))
                yield Upload("", ascii(str(path)), _nothing, error=error)
                continue
            found = _beside(options.annotations, relative, options.version) if options.annotations else None
            yield _file(path, _remote(options, f"{head}/{relative}" if head else relative), found, options)


def _beside(annotations: Path, relative: str, version: int) -> Path | None:
    """The annotation file of an item, of one version's naming or else of the other's."""
    second = annotations / f"{relative}.json"
    first = annotations / PurePosixPath(relative).with_suffix(".json")
    wanted = (second, first) if version == 2 else (first, second)
    return next((one for one in wanted if one.is_file()), None)


def _file(path: Path, key: str, annotations: Path | None, options: Options) -> Upload:
    def opened() -> tuple[BinaryIO, str | None]:
        try:
            return path.open("rb"), None
        except OSError as error:
            raise InvalidInput(f"cannot read {path}: {error.strerror}", resource=str(path)) from error

    user: Mapping[str, Any] = {}
    system: Mapping[str, Any] = {}
    error: SyncAgentError | None = None
    if options.metadata == FROM_JSON:
        try:
            user, system = _from_json(annotations)
        except SyncAgentError as wrong_file:
            error = wrong_file
    else:
        user = options.metadata
    return Upload(
        key, str(path), opened, path.stat().st_size, user=user, system=system, description=options.description,
        annotations=annotations, error=error,
    )  # fmt: skip


def _from_json(path: Path | None) -> tuple[Json, Json]:
    if path is None:
        return {}, {}
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise wrong(str(path), None, f"no JSON: {error}") from error
    metadata = told.get("metadata") if isinstance(told, dict) else None
    parts = [metadata.get(name) if isinstance(metadata, dict) else None for name in ("user", "system")]
    return tuple(part if isinstance(part, dict) else {} for part in parts)  # type: ignore[return-value]  # two of them


def _bytes(data: bytes, options: Options) -> Upload:
    key = _remote(options, _needed(options, "bytes"))
    return _made(Upload(key, key, lambda: (io.BytesIO(data), None), len(data)), options)


def _stream(stream: Any, options: Options) -> Upload:
    name = options.remote_name or Path(str(getattr(stream, "name", "") or "")).name
    if not name or name.isdecimal():
        raise InvalidInput("an open file needs a name", hint="give it remote_name")
    key = _remote(options, name)
    start = stream.tell() if stream.seekable() else None

    def opened() -> tuple[BinaryIO, str | None]:
        if start is not None:
            stream.seek(start)
        return _Kept(stream), None  # type: ignore[return-value]  # it has what a reader needs

    return _made(Upload(key, key, opened), options)


class _Kept:
    """A stream of the caller's, which is not ours to close."""

    def __init__(self, stream: Any) -> None:
        self.read = stream.read

    def close(self) -> None:
        """Nothing: whoever opened it closes it."""


def _array(array: Any, options: Options) -> Upload:
    name = _needed(options, "an array")
    form = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}.get(PurePosixPath(name).suffix.lower())
    if form is None:
        raise InvalidInput(f"an array is uploaded as .png or .jpg, not as {name!r}", resource=name)
    try:
        import numpy
        from PIL import Image
    except ModuleNotFoundError as missing:
        raise Unsupported("arrays need numpy and Pillow", hint="pip install 'syncagent[ingest]'") from missing
    pixels = numpy.asarray(array)
    if pixels.dtype == bool:
        pixels = pixels.astype(numpy.uint8) * 255
    if (
        pixels.dtype != numpy.uint8
        or pixels.ndim not in (2, 3)
        or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4))
    ):
        raise InvalidInput(
            f"an array of {pixels.dtype} and shape {pixels.shape} is no picture", resource=name,
            hint="give uint8 of (height, width) or (height, width, 3 or 4)",
        )  # fmt: skip
    out = io.BytesIO()
    picture = Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
    (picture.convert("RGB") if form == "JPEG" and picture.mode == "RGBA" else picture).save(out, form)
    return _bytes(out.getvalue(), options)


def _url(url: str, options: Options) -> Upload:
    name = options.remote_name or fetch.name_of(url)
    key = _remote(options, name)

    def opened() -> tuple[BinaryIO, str | None]:
        return fetch.fetch(url, limit=options.max_bytes, private=options.allow_private)

    return _made(Upload(key, key, opened), options)


def _link(link: Link, options: Options) -> Upload:
    info = {"type": "url", "ref": link.ref, "mimetype": link.mimetype}
    if link.dataset is not None:
        info = {"type": "id", "ref": link.ref, "datasetId": link.dataset}
    data = json.dumps(
        {"type": "link", "shebang": "dataloop", "metadata": {"dltype": "link", "linkInfo": info}}
    )
    name = options.remote_name or link.name
    if not name:
        name = link.ref if link.dataset is not None else PurePosixPath(fetch.name_of(link.ref)).stem
    name = name if name.endswith(".json") else f"{name.removesuffix('_link')}_link.json"
    made = _bytes(data.encode(), replace(options, remote_name=name))
    return replace(made, system={**made.system, "shebang": {"dltype": "link", "linkInfo": info}})


def _made(upload: Upload, options: Options) -> Upload:
    """With what the options say of something that is no file."""
    user: Mapping[str, Any] = {} if options.metadata == FROM_JSON else options.metadata
    system: Mapping[str, Any] = {}
    if options.metadata == FROM_JSON:
        user, system = _from_json(options.annotations)
    return replace(
        upload, user=user, system=system, description=options.description, annotations=options.annotations
    )


def _needed(options: Options, what: str) -> str:
    if not options.remote_name:
        raise InvalidInput(f"{what} cannot be uploaded without a name", hint="give it remote_name")
    return options.remote_name


def _remote(options: Options, name: str) -> str:
    """The key of a name below the remote folder."""
    folder = options.remote_path.strip("/")
    name = (options.remote_name or name).removeprefix("/")
    return f"{folder}/{name}" if folder else name
