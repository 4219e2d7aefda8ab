"""Small pictures of images and films, made when they are asked for, and kept: they change with the bytes only."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from syncagent.errors import InvalidInput, Unsupported
from syncagent.ingest.probe.containers import DEMUXERS, Source, opened
from syncagent.ingest.probe.sniff import content_type
from syncagent.ingest.probe.window import Unreadable, Window

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from PIL.Image import Image as Picture

SIDE = 256
"""Pixels of the longer side, at most."""
MAX_BYTES = 64 << 20
VIDEO_BYTES = 8 << 20
"""What the first frame of a film and the way to it may take; the limit of a window for `video_thumbnail`."""
_MAX_PIXELS = 80_000_000  # less than Pillow's own bound, at which it warns
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_MOST_PACKETS = 256  # of video that give no frame, before it is given up
# A decoded image may take some hundred megabytes: few at once, however many ask.
_turns = threading.BoundedSemaphore(2)


def thumbnail(body: BinaryIO, name: str) -> tuple[bytes, str]:
    """A picture of at most `SIDE` pixels a side, upright, and its media type (``image/jpeg``, or ``image/png`` if it is
    transparent anywhere).

    :param body: an image of at most `MAX_BYTES`; :param name: what errors call it.
    :raises Unsupported: it is no image that Pillow reads, or too large a one.
    """
    _need_pillow(name)
    from PIL import Image, ImageOps, UnidentifiedImageError

    held = body.read(MAX_BYTES + 1)
    if len(held) > MAX_BYTES:
        raise Unsupported(f"{name} is too large for a thumbnail", resource=name)
    try:
        with _turns, Image.open(io.BytesIO(held), formats=_FORMATS) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise Unsupported(f"{name} has too many pixels for a thumbnail", resource=name)
            image.draft("RGB", (SIDE, SIDE))  # a JPEG is then decoded smaller
            upright = ImageOps.exif_transpose(image)
            upright.thumbnail((SIDE, SIDE))
            return _saved(upright)
    except UnidentifiedImageError as error:
        raise Unsupported(f"{name} is no image with a thumbnail", resource=name) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unsupported(f"{name} has too many pixels for a thumbnail", resource=name) from error
    except (OSError, ValueError, SyntaxError) as error:
        raise InvalidInput(f"{name} is not a sound image", resource=name) from error


def video_thumbnail(window: Window, name: str) -> tuple[bytes, str]:
    """The first picture of a film, of at most `SIDE` pixels a side and upright, and its media type (``image/jpeg``).

    :param window: on the film's bytes, with `VIDEO_BYTES` as its limit; :param name: what errors call it.
    :raises Unsupported: it is no film, too large a one, or PyAV (the extra ``video``) is not installed.
    :raises InvalidInput: it is broken, or has no picture within the limit.
    :raises SyncAgentError: its bytes could not be read.
    """
    _need_pillow(name)
    try:
        demuxer = DEMUXERS.get(content_type(window) or "")
        if demuxer is None:
            raise Unsupported(f"{name} is no film with a thumbnail", resource=name)
        source = Source(window)
        with _turns, opened(source, demuxer) as film:
            picture = _first_picture(film, source, name)
    except Unreadable as why:
        kind = Unsupported if "syncagent[video]" in str(why) else InvalidInput
        raise kind(f"{name} has no thumbnail: {why}", resource=name) from why
    return _saved(picture)


def _need_pillow(name: str) -> None:
    try:
        import PIL  # noqa: F401
    except ModuleNotFoundError as missing:
        raise Unsupported(
            "thumbnails need Pillow", resource=name, hint="pip install 'syncagent[server]'"
        ) from missing


def _saved(picture: Picture) -> tuple[bytes, str]:
    clear = picture.has_transparency_data
    out = io.BytesIO()
    picture.convert("RGBA" if clear else "RGB").save(out, "PNG" if clear else "JPEG")
    return out.getvalue(), "image/png" if clear else "image/jpeg"


def _first_picture(film: InputContainer, source: Source, name: str) -> Picture:
    import av

    video = next(iter(film.streams.video), None)
    if video is None:
        raise Unsupported(f"{name} has no pictures", resource=name)
    if video.codec_context.width * video.codec_context.height > _MAX_PIXELS:
        raise Unsupported(f"{name} has too many pixels for a thumbnail", resource=name)
    video.codec_context.thread_count = 1
    video.codec_context.options = {
        "max_pixels": str(_MAX_PIXELS)
    }  # the stream may say another size than its header
    broken: Exception | None = None
    try:
        frame = next(_frames(film), None)
    except (av.FFmpegError, ValueError, MemoryError) as error:
        frame, broken = None, error
    if source.error is not None:
        raise source.error
    if frame is None:
        raise InvalidInput(f"{name} has no sound picture at its beginning", resource=name) from broken
    return _upright(frame)


def _frames(film: InputContainer) -> Iterator[VideoFrame]:
    for number, packet in enumerate(film.demux(film.streams.video[0])):
        if number >= _MOST_PACKETS:
            return
        yield from packet.decode()


def _upright(frame: VideoFrame) -> Picture:
    scale = min(SIDE / max(frame.width, frame.height), 1.0)
    width, height = (max(round(side * scale), 1) for side in (frame.width, frame.height))
    small = frame.reformat(width=width, height=height, format="rgb24", threads=1)
    picture: Picture = small.to_image()  # type: ignore[no-untyped-call]
    return picture.rotate(frame.rotation, expand=True) if frame.rotation % 360 else picture


class Cache:
    """Thumbnails in a folder. Several processes may use it at once.

    What it cannot keep is made again: no method ever fails for want of space or permission.

    :param folder: made on first use, for its owner only.
    :param limit_bytes: when there is more, those that were asked for longest ago go. Exceeded by a sixteenth at most
        for each process.
    """

    _KINDS = ("image/jpeg", "image/png")

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._since = (
            limit_bytes  # bytes put since the folder was last looked through, so that the first put does
        )
        self._lock = threading.Lock()

    def get(self, dataset: str, fingerprint: str) -> tuple[bytes, str] | None:
        """The thumbnail of this write of an object, and its media type; None if it is not kept."""
        path = self._path(dataset, fingerprint)
        try:
            held = path.read_bytes()
        except OSError:
            return None
        if not held or held[0] >= len(self._KINDS):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return held[1:], self._KINDS[held[0]]

    def put(self, dataset: str, fingerprint: str, picture: bytes, kind: str) -> None:
        """Keep a thumbnail. `kind` is ``image/jpeg`` or ``image/png``."""
        held = bytes((self._KINDS.index(kind),)) + picture
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder, prefix=".new-")
            try:
                with os.fdopen(handle, "wb") as out:
                    out.write(held)
                Path(name).replace(self._path(dataset, fingerprint))
            except OSError:
                Path(name).unlink(missing_ok=True)
                raise
            self._make_room(len(held))

    def _path(self, dataset: str, fingerprint: str) -> Path:
        # A digest: fingerprints are the store's words and may hold anything, a path too.
        return self.folder / hashlib.sha256(f"{dataset}\0{fingerprint}".encode()).hexdigest()

    def _make_room(self, put: int) -> None:
        with self._lock:
            self._since += put
            if self._since * 16 < self.limit_bytes:
                return
            self._since = 0
        kept = sorted(self._kept(), reverse=True)
        total = 0
        for _, size, path in kept:
            total += size
            if total > self.limit_bytes:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)  # another process may have been faster

    def _kept(self) -> Iterator[tuple[int, int, Path]]:
        """When each file was last asked for, its size, and where it is; what dead processes left is among them."""
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    told = entry.stat()
                    yield told.st_mtime_ns, told.st_size, Path(entry.path)
