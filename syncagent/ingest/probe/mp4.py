"""Facts of MP4, QuickTime, M4A and 3GP files, by their boxes.

Wherever the ``moov`` box is, and however large: its tables of samples, which grow with the length of the film, are passed
over. No library does that and tells pictures as well: of a film of 11 minutes and 43 MB, ``PyAV`` 18.1 read 244 KiB and
``pymediainfo`` 7.0 340 KiB; ``tinytag`` and ``mutagen`` 20 KiB, and they tell the sound only. Here it is 16 KiB.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import NamedTuple

from syncagent.ingest.probe.boxes import Box, boxes, inside
from syncagent.ingest.probe.facts import MediaInfo, rational, seconds
from syncagent.ingest.probe.window import CutOff, Unreadable, Window

_MOST_TRACKS = 16
_MOST_RUNS = 512  # of samples of the same length, 8 bytes each
_VIDEO = {
    b"avc1": "h264", b"avc3": "h264", b"hev1": "hevc", b"hvc1": "hevc", b"dvh1": "hevc", b"dvhe": "hevc", b"av01": "av1",
    b"vp08": "vp8", b"vp09": "vp9", b"mp4v": "mpeg4", b"s263": "h263", b"h263": "h263", b"jpeg": "mjpeg", b"mjpa": "mjpeg",
    b"mjpb": "mjpegb", b"apch": "prores", b"apcn": "prores", b"apcs": "prores", b"apco": "prores", b"ap4h": "prores",
    b"ap4x": "prores", b"SVQ3": "svq3", b"SVQ1": "svq1", b"cvid": "cinepak", b"rle ": "qtrle", b"png ": "png",
    b"dvc ": "dvvideo", b"dvcp": "dvvideo", b"AVdn": "dnxhd", b"raw ": "rawvideo", b"2vuy": "rawvideo", b"vvc1": "vvc",
}  # fmt: skip
_AUDIO = {
    b"mp4a": "aac", b"Opus": "opus", b"fLaC": "flac", b"alac": "alac", b"ac-3": "ac3", b"ec-3": "eac3", b".mp3": "mp3",
    b"samr": "amr_nb", b"sawb": "amr_wb", b"sowt": "pcm_s16le", b"twos": "pcm_s16be", b"in24": "pcm_s24be",
    b"in32": "pcm_s32be", b"fl32": "pcm_f32be", b"fl64": "pcm_f64be", b"ulaw": "pcm_mulaw", b"alaw": "pcm_alaw",
    b"ima4": "adpcm_ima_qt", b"dtsc": "dts", b"raw ": "pcm_u8",
}  # fmt: skip
# What an ``esds`` says is in an ``mp4a`` or ``mp4v`` entry.
_OBJECTS = {
    0x20: "mpeg4", 0x21: "h264", 0x23: "hevc", 0x40: "aac", 0x60: "mpeg2video", 0x61: "mpeg2video", 0x66: "aac",
    0x67: "aac", 0x69: "mp3", 0x6A: "mpeg1video", 0x6B: "mp3", 0x6C: "mjpeg", 0xA5: "ac3", 0xA6: "eac3", 0xA9: "dts",
}  # fmt: skip


class _Track(NamedTuple):
    box: Box
    handler: bytes
    timescale: int
    duration: int
    """In units of its timescale."""
    table: Box
    """Its ``stbl``."""


def mp4(window: Window) -> MediaInfo:
    """Facts of the first video track and the first audio track."""
    film = _film(window)
    header = inside(window, film, b"mvhd")
    if header is None:
        raise Unreadable("a film without a header")
    timescale, length = _times(window, header)
    tracks = [_track(window, box) for box in _tracks(window, film)]
    video = next((track for track in tracks if track and track.handler == b"vide"), None)
    audio = next((track for track in tracks if track and track.handler == b"soun"), None)
    info = _video(window, video) if video else MediaInfo()
    codec, channels, rate = _sound(window, audio) if audio else (None, None, None)
    duration = seconds(length or _foreseen(window, film), timescale) or None
    return MediaInfo(
        width=info.width,
        height=info.height,
        duration=duration,
        fps=info.fps,
        frames=info.frames,
        video_codec=info.video_codec,
        audio_codec=codec,
        channels=channels,
        sample_rate=rate,
        reason=None if duration is not None else "a film in fragments that does not tell its duration",
    )


def _film(window: Window) -> Box:
    """The ``moov`` box, whether it is before the pictures or after them."""
    end = 0
    for box in boxes(window, 0, window.size):
        if box.kind == b"moov":
            return box
        end = box.end
        if box.kind == b"mdat" and end >= window.size:
            break
    # Without a moov, nobody can play what there is: an upload that ended early, or a camera that lost its power.
    raise CutOff(f"cut off after {window.size} bytes: the film's index is missing")


def _tracks(window: Window, film: Box) -> list[Box]:
    return [box for box in boxes(window, film.start, film.end) if box.kind == b"trak"][:_MOST_TRACKS]


def _times(window: Window, header: Box) -> tuple[int, int]:
    """Units a second and duration, of an ``mvhd`` or ``mdhd`` box; 0 for a duration that is not known."""
    long = window.exactly(header.start, 1)[0] == 1
    timescale, length = struct.unpack(
        ">IQ" if long else ">II", window.exactly(header.start + (20 if long else 12), 12 if long else 8)
    )
    return timescale, 0 if length == (1 << (64 if long else 32)) - 1 else length


def _track(window: Window, box: Box) -> _Track | None:
    media = inside(window, box, b"mdia")
    if media is None:
        return None
    header, handler = inside(window, media, b"mdhd"), inside(window, media, b"hdlr")
    table = inside(window, media, b"minf", b"stbl")
    if header is None or handler is None or table is None:
        return None
    return _Track(box, window.exactly(handler.start + 8, 4), *_times(window, header), table)


def _foreseen(window: Window, film: Box) -> int:
    """Duration of a film in fragments, where its header tells it before they come; 0 where not."""
    header = inside(window, film, b"mvex", b"mehd")
    if header is None:
        return 0
    width = 8 if window.exactly(header.start, 1)[0] == 1 else 4
    return int.from_bytes(window.exactly(header.start + 4, width), "big")


def _entry(window: Window, track: _Track) -> tuple[bytes, bytes]:
    """Kind and content of the first sample description."""
    table = inside(window, track.table, b"stsd")
    box = next(boxes(window, table.start + 8, table.end), None) if table else None
    if box is None:
        return b"", b""
    return box.kind, window.exactly(box.start, min(box.end - box.start, 1024))


def _codec(kind: bytes, data: bytes, names: dict[bytes, str]) -> str | None:
    at = data.find(b"esds") if kind in (b"mp4a", b"mp4v") else -1
    told = _object_type(data[at + 8 :]) if at >= 0 else None
    plain = kind.decode("ascii", "replace").strip()
    return _OBJECTS.get(told or 0) or names.get(kind) or (plain if plain.isalnum() else None)


def _object_type(data: bytes) -> int | None:
    """The codec of an elementary stream: descriptor 3, in it descriptor 4, in that the first byte."""
    at = 0
    for tag, head in ((3, 3), (4, 1)):
        if data[at : at + 1] != bytes((tag,)):
            return None
        at += 1
        while data[at : at + 1] >= b"\x80":  # a length is as long as its bytes have the highest bit
            at += 1
        at += 1 + head
    return data[at - 1] if at <= len(data) else None


def _video(window: Window, track: _Track) -> MediaInfo:
    kind, data = _entry(window, track)
    width, height = struct.unpack(">HH", data[24:28]) if len(data) >= 28 else (0, 0)
    matrix, *display = _display(window, track.box)
    if not (width and height):
        width, height = display
    if matrix[0] == matrix[3] == 0 and matrix[1] and matrix[2]:  # on its side
        width, height = height, width
    frames, rate = _rate(window, track)
    return MediaInfo(
        width=width or None,
        height=height or None,
        fps=rational(rate),
        frames=frames or None,
        video_codec=_codec(kind, data, _VIDEO),
    )


def _display(window: Window, box: Box) -> tuple[tuple[int, ...], int, int]:
    """The turn of a track (a, b, c, d of its matrix), and its width and height as shown, from ``tkhd``."""
    header = inside(window, box, b"tkhd")
    if header is None:
        return (1, 0, 0, 1), 0, 0
    at = header.start + (52 if window.exactly(header.start, 1)[0] == 1 else 40)
    a, b, _, c, d, *_, width, height = struct.unpack(">9i2I", window.exactly(at, 44))
    return (a, b, c, d), width >> 16, height >> 16


def _rate(window: Window, track: _Track) -> tuple[int, Fraction | None]:
    """How many frames there are, and how many a second."""
    table = inside(window, track.table, b"stts")
    if table is None or not track.timescale:
        return 0, None
    runs = int.from_bytes(window.exactly(table.start + 4, 4), "big")
    if runs > _MOST_RUNS:  # frames of many lengths: their mean, over the duration that the track tells
        frames = _samples(window, track)
        return frames, Fraction(frames * track.timescale, track.duration) if track.duration else None
    values = struct.unpack(f">{2 * runs}I", window.exactly(table.start + 8, 8 * runs))
    pairs = list(zip(values[::2], values[1::2], strict=True))
    frames, total = sum(count for count, _ in pairs), sum(count * length for count, length in pairs)
    if pairs and pairs[0][0] >= frames - 1 and pairs[0][1]:  # the last frame may be shown longer
        return frames, Fraction(track.timescale, pairs[0][1])
    return frames, Fraction(frames * track.timescale, total) if total else None


def _samples(window: Window, track: _Track) -> int:
    table = inside(window, track.table, b"stsz")
    return int.from_bytes(window.exactly(table.start + 8, 4), "big") if table else 0


def _sound(window: Window, track: _Track) -> tuple[str | None, int | None, int | None]:
    """Codec, channels, and samples a second."""
    kind, data = _entry(window, track)
    if len(data) < 28:
        return _codec(kind, data, _AUDIO), None, None
    version, channels, rate = struct.unpack(">8xH6xH6xI", data[:28])
    rate >>= 16
    if version == 2 and len(data) >= 44:  # QuickTime's for many channels and high rates
        exact, channels = struct.unpack(">dI", data[32:44])
        rate = round(exact) if 0 < exact < 1e7 else 0
    codec = _codec(kind, data, _AUDIO)
    return codec, channels or None, rate or track.timescale or None
