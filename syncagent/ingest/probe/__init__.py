"""Media facts of an object, by ranged reads of a few KiB and never the whole object.

    info = probe_object(bucket, "photos/a.jpg", 3_141_592)
    info.mimetype, info.width, info.height        # "image/jpeg", 4032, 3024

Images, sound, and MP4 and its kin are read by their headers here, with nothing but the standard library; Matroska, WebM,
AVI and MPEG by PyAV, the extra ``video``. Over 63 files of 0.1 KB to 43 MB it was 9 KiB and 1.6 requests a file, 16 KiB and
4 requests for the longest film; for none is it ever more than `LIMIT`.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable

from syncagent.drivers.bucket import Bucket
from syncagent.drivers.streams import read_full
from syncagent.ingest.probe import audio, containers, images, mp4
from syncagent.ingest.probe.facts import MediaInfo
from syncagent.ingest.probe.sniff import agreed, by_name, content_type
from syncagent.ingest.probe.window import LIMIT, Unreadable, Window

__all__ = ["LIMIT", "MediaInfo", "Window", "probe", "probe_object"]

_FILMS = {"video/mp4", "video/quicktime", "video/3gpp", "video/3gpp2", "audio/mp4"}
_SOUND_TOO = {"video/mp4", "video/3gpp", "video/3gpp2", "video/webm", "video/x-matroska"}
_UNSOUND = "its header is not sound"
_MEDIA = ("image/", "audio/", "video/")


def probe(read: Callable[[int, int], bytes], size: int, name: str, *, limit: int = LIMIT) -> MediaInfo:
    """What an object of `size` bytes is, and what its header tells.

    Bad content is never an error: facts that cannot be had are None, and `MediaInfo.reason` says why.

    :param read: bytes ``[offset, offset + length)``, fewer only at the end.
    :param name: a file name or key, for its type where the content says nothing.
    :param limit: bytes that are read at most.
    :raises SyncAgentError: whatever `read` raises.
    """
    window = Window(read, size, limit=limit)
    named, content = by_name(name), None
    try:
        content = content_type(window)
        info = _facts(window, content, named)
        if not info.believable():
            raise Unreadable(_UNSOUND)
    except (Unreadable, struct.error, IndexError, OverflowError) as why:
        text = str(why) if isinstance(why, Unreadable) else _UNSOUND
        info = MediaInfo(reason=text)
    kind = agreed(_heard(content, info), named)
    return dataclasses.replace(info, mimetype=kind)


def probe_object(bucket: Bucket, key: str, size: int, *, limit: int = LIMIT) -> MediaInfo:
    """`probe` of an object in a bucket.

    :raises NotFound: there is no such object; :raises SyncAgentError: the bucket could not be read.
    """

    def read(offset: int, length: int) -> bytes:
        with bucket.open(key, offset=offset, length=length) as stream:
            return read_full(stream, length)

    return probe(read, size, key, limit=limit)


def _facts(window: Window, content: str | None, named: str | None) -> MediaInfo:
    if content is None:
        return _nothing(window, named)
    if content in _FILMS:
        return mp4.mp4(window)
    reader = images.READERS.get(content) or audio.READERS.get(content)
    if reader is not None:
        return reader(window)
    if content in containers.DEMUXERS:
        return containers.container(window, content)
    if content.startswith(_MEDIA):
        raise Unreadable(f"facts of {content} are not read")
    return MediaInfo()


def _nothing(window: Window, named: str | None) -> MediaInfo:
    """For content that says nothing. Whoever gave it the name of an image wants to know that it is none."""
    if named is None or not named.startswith(_MEDIA):
        return MediaInfo()
    if window.size < 16:
        raise Unreadable(f"cut off after {window.size} bytes" if window.size else "empty")
    raise Unreadable(f"its content is not that of {named}")


def _heard(content: str | None, info: MediaInfo) -> str | None:
    """An MP4 or a Matroska film without pictures is a sound file."""
    if content in _SOUND_TOO and info.audio_codec and not info.video_codec:
        return content.replace("video/", "audio/")
    return content
