"""Size and EXIF of images by their headers, without a decoder: nothing is decompressed, so nothing can be a bomb.

Why not Pillow, which knows all of these: it reads WebP and AVIF whole, a JPEG's profiles and previews up to its frame, a
TIFF's tables. Of 17 files of up to 4 MB it read 4 KiB to 3.2 MB each; here it is 8 to 12 KiB, 40 for a profile of half a
megabyte, and a function that mirrors a bucket needs neither Pillow nor its codecs. Tests hold every one of these readers against it.
"""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Callable

from syncagent.ingest.probe.boxes import boxes, inside
from syncagent.ingest.probe.exif import exif, tiff
from syncagent.ingest.probe.facts import MediaInfo
from syncagent.ingest.probe.heif import heif
from syncagent.ingest.probe.markup import svg
from syncagent.ingest.probe.window import FIRST, Spent, Unreadable, Window

_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of a JPEG that tell its size
_ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a content
_MOST_CHUNKS = 2048


def jpeg(window: Window) -> MediaInfo:
    """By the frame header; segments before it are passed over, the EXIF is read."""
    facts, at = MediaInfo(), 2
    for _ in range(_MOST_CHUNKS):
        mark = window.exactly(at, 2)
        if mark[0] != 0xFF:
            raise Unreadable("no JPEG marker where one has to be")
        if mark[1] == 0xFF or mark[1] in _ALONE:  # padding
            at += 1 if mark[1] == 0xFF else 2
            continue
        if mark[1] in (0xD9, 0xDA):
            break
        length = int.from_bytes(window.exactly(at + 2, 2), "big")
        if mark[1] in _FRAMES:
            height, width = struct.unpack(">HH", window.exactly(at + 5, 4))
            return _sized(width, height, facts).upright()
        if mark[1] == 0xE1 and facts == MediaInfo() and window.at(at + 4, 6) == b"Exif\0\0":
            facts = exif(window, at + 4, length - 2)
        at += 2 + max(length, 2)
    raise Unreadable("a JPEG without a frame")


def png(window: Window) -> MediaInfo:
    """By IHDR; EXIF where it comes before the pixels, as it does from every writer that is not a rewriter."""
    width, height = struct.unpack(">II", window.exactly(16, 8))
    facts, at = MediaInfo(), 8
    try:
        for _ in range(_MOST_CHUNKS):
            head = window.at(at, 8)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if kind in (b"IDAT", b"IEND", b""):
                break
            if kind == b"eXIf":
                facts = exif(window, at + 8, length)
                break
            at += 12 + length
    except Spent:
        facts = MediaInfo(reason="EXIF: not looked for behind so much else")
    return _sized(width, height, facts).upright()


def webp(window: Window) -> MediaInfo:
    """By the first chunk; EXIF, which comes after the pixels, only where that chunk says that there is some."""
    kind = window.exactly(12, 4)
    data = window.exactly(20, 10 if kind != b"VP8L" else 5)
    if kind == b"VP8 " and data[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", data[6:10])
        return _sized(width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L" and data[0] == 0x2F:
        bits = int.from_bytes(data[1:5], "little")
        return _sized((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind != b"VP8X":
        raise Unreadable("a WebP without a size")
    width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (4, 7))
    facts = _webp_exif(window) if data[0] & 8 else MediaInfo()
    return dataclasses.replace(facts, width=width, height=height).upright()


def _webp_exif(window: Window) -> MediaInfo:
    at = 12
    try:
        for _ in range(_MOST_CHUNKS):
            head = window.exactly(at, 8)
            length = int.from_bytes(head[4:], "little")
            if head[:4] == b"EXIF":
                return exif(window, at + 8, length)
            at += 8 + length + length % 2
    except Unreadable as why:
        return MediaInfo(reason=f"EXIF: {why}")
    return MediaInfo(reason="EXIF: too far behind")


def gif(window: Window) -> MediaInfo:
    """The logical screen."""
    return _sized(*struct.unpack("<HH", window.exactly(6, 4)))


def bmp(window: Window) -> MediaInfo:
    """By the info header, or the core header of old."""
    if window.exactly(14, 1)[0] == 12:
        return _sized(*struct.unpack("<HH", window.exactly(18, 4)))
    width, height = struct.unpack("<ii", window.exactly(18, 8))
    return _sized(abs(width), abs(height))


def psd(window: Window) -> MediaInfo:
    """By the header."""
    height, width = struct.unpack(">II", window.exactly(14, 8))
    return _sized(width, height)


def ico(window: Window) -> MediaInfo:
    """The largest of its pictures."""
    count = int.from_bytes(window.exactly(4, 2), "little")
    rows = window.exactly(6, 16 * count)
    sizes = [(rows[at] or 256, rows[at + 1] or 256) for at in range(0, len(rows), 16)]
    return _sized(*max(sizes, key=lambda size: size[0] * size[1]))


def jp2(window: Window) -> MediaInfo:
    """By the image header box of a JPEG 2000."""
    for box in boxes(window, 0, window.size):
        if box.kind == b"jp2h" and (header := inside(window, box, b"ihdr")):
            height, width = struct.unpack(">II", window.exactly(header.start, 8))
            return _sized(width, height)
    raise Unreadable("a JPEG 2000 without a header")


def j2c(window: Window) -> MediaInfo:
    """By the size marker of a bare JPEG 2000 stream."""
    right, bottom, left, top = struct.unpack(">IIII", window.exactly(8, 16))
    return _sized(right - left, bottom - top)


def pnm(window: Window) -> MediaInfo:
    """By the text that a PBM, PGM or PPM begins with."""
    head = re.sub(rb"#[^\n]*\n", b"\n", window.at(2, FIRST - 2))
    numbers = re.match(rb"\s+([0-9]{1,9})\s+([0-9]{1,9})\s", head)
    if not numbers:
        raise Unreadable("a pixmap without a size")
    return _sized(int(numbers[1]), int(numbers[2]))


def _sized(width: int, height: int, facts: MediaInfo | None = None) -> MediaInfo:
    if width <= 0 or height <= 0:
        raise Unreadable(f"an image of {width} by {height} pixels")
    return dataclasses.replace(facts or MediaInfo(), width=width, height=height)


READERS: dict[str, Callable[[Window], MediaInfo]] = {
    "image/jpeg": jpeg,
    "image/png": png,
    "image/webp": webp,
    "image/gif": gif,
    "image/bmp": bmp,
    "image/tiff": tiff,
    "image/vnd.adobe.photoshop": psd,
    "image/x-icon": ico,
    "image/jp2": jp2,
    "image/jpx": jp2,
    "image/j2c": j2c,
    "image/avif": heif,
    "image/heic": heif,
    "image/heif": heif,
    "image/svg+xml": svg,
    "image/x-portable-bitmap": pnm,
    "image/x-portable-graymap": pnm,
    "image/x-portable-pixmap": pnm,
}
