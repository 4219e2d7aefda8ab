"""Facts of sound files by their headers (WAV, AIFF, FLAC, MP3, AAC, Ogg): a few hundred bytes tell them all.

Of the libraries, ``tinytag`` 2.3 reads an Ogg file whole and calls 30 s of AAC 82 s; ``mutagen`` 1.48 reads 72 KiB of an Ogg
file, knows no AAC of FFmpeg's, and is under the GPL; ``PyAV`` calls 60 s of Opus 58 s if it may not read on.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

from syncagent.ingest.probe.facts import MediaInfo, rational, seconds
from syncagent.ingest.probe.window import FIRST, CutOff, Unreadable, Window

_MOST_CHUNKS = 256
# Most writers begin a page each second, or each 4 to 8 KiB; the largest page is of 64 KiB.
_OGG_TAILS = (24 * 1024, 56 * 1024)
_NOT_ENDED = (1 << 64) - 1  # the position of a page on which no packet ends
_PCM = {
    (1, 8): "pcm_u8", (1, 16): "pcm_s16le", (1, 24): "pcm_s24le", (1, 32): "pcm_s32le", (3, 32): "pcm_f32le",
    (3, 64): "pcm_f64le",
}  # fmt: skip
_WAVE_CODECS = {
    2: "adpcm_ms",
    6: "pcm_alaw",
    7: "pcm_mulaw",
    0x11: "adpcm_ima_wav",
    0x31: "gsm_ms",
    0x55: "mp3",
    0xFF: "aac",
}
_AIFF_CODECS = {
    b"sowt": "pcm_s16le", b"fl32": "pcm_f32be", b"FL32": "pcm_f32be", b"fl64": "pcm_f64be", b"FL64": "pcm_f64be",
    b"ulaw": "pcm_mulaw", b"ULAW": "pcm_mulaw", b"alaw": "pcm_alaw", b"ALAW": "pcm_alaw", b"ima4": "adpcm_ima_qt",
}  # fmt: skip
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)


def wav(window: Window) -> MediaInfo:
    """WAV, also of more than 4 GiB (RF64), and streamed ones that do not know their length."""
    layout, long, at = b"", 0, 12
    for _ in range(_MOST_CHUNKS):
        kind, size = struct.unpack("<4sI", window.exactly(at, 8))
        if kind == b"ds64":
            long = struct.unpack("<Q", window.exactly(at + 16, 8))[0]
        elif kind == b"fmt ":
            layout = window.exactly(at + 8, min(size, 40))
        elif kind == b"data":
            return _wave(layout, at + 8, long if size == 0xFFFFFFFF and long else size, window.size)
        at += 8 + size + size % 2
    raise Unreadable("a WAV without samples")


def _wave(layout: bytes, start: int, size: int, end: int) -> MediaInfo:
    if len(layout) < 16:
        raise Unreadable("a WAV without a format")
    tag, channels, rate, speed, _, bits = struct.unpack("<HHIIHH", layout[:16])
    if tag == 0xFFFE and len(layout) >= 26:
        tag = int.from_bytes(layout[24:26], "little")
    streamed = size in (0, 0xFFFFFFFF, 0x7FFFFFFF)
    there = end - start if streamed else min(size, end - start)
    return MediaInfo(
        duration=seconds(there, speed),
        audio_codec=_PCM.get((tag, bits)) or _WAVE_CODECS.get(tag),
        channels=channels or None,
        sample_rate=rate or None,
        reason=None if streamed or start + size <= end else f"cut off after {end} bytes",
    )


def aiff(window: Window) -> MediaInfo:
    """AIFF and AIFF-C."""
    compressed, at = window.exactly(8, 4) == b"AIFC", 12
    for _ in range(_MOST_CHUNKS):
        kind, size = struct.unpack(">4sI", window.exactly(at, 8))
        if kind == b"COMM":
            data = window.exactly(at + 8, 22 if compressed else 18)
            channels, frames, bits, exponent, mantissa = struct.unpack(">HIHHQ", data[:18])
            rate = math.ldexp(mantissa, (exponent & 0x7FFF) - 16383 - 63) if exponent & 0x7FFF < 16483 else 0
            plain = "pcm_s8" if bits <= 8 else f"pcm_s{-(-bits // 8) * 8}be"
            return MediaInfo(
                duration=seconds(frames, rate),
                audio_codec=_AIFF_CODECS.get(data[18:22], plain),
                channels=channels or None,
                sample_rate=round(rate) or None,
            )
        at += 8 + size + size % 2
    raise Unreadable("an AIFF without a format")


def flac(window: Window) -> MediaInfo:
    """By STREAMINFO, also behind an ID3 tag."""
    start = skip_id3(window.at(0, 10))
    bits = int.from_bytes(window.exactly(start + 18, 8), "big")
    rate, channels, samples = bits >> 44, (bits >> 41 & 7) + 1, bits & (1 << 36) - 1
    if not rate:
        raise Unreadable("a FLAC without a sample rate")
    return MediaInfo(
        duration=seconds(samples, rate) if samples else None,
        audio_codec="flac",
        channels=channels,
        sample_rate=rate,
        reason=None if samples else "a FLAC that does not tell its duration",
    )


# -- MP3 -----------------------------------------------------------------------------------------

_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by version
_KBITS = {  # by (MPEG-1, layer)
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


class Frame(NamedTuple):
    """Header of an MPEG audio frame."""

    length: int
    """Bytes, with the header."""
    rate: int
    channels: int
    samples: int
    layer: int
    speed: float
    """Bytes a second."""
    info: int
    """Where a Xing header is, if there is one, from the frame's beginning."""


def mp3_frame(data: bytes, at: int) -> Frame | None:
    """The MPEG audio frame at `at`, or None if there is none."""
    head = int.from_bytes(data[at : at + 4], "big")
    if len(data) < at + 4 or head >> 21 != 0x7FF:
        return None
    version, layer = head >> 19 & 3, 4 - (head >> 17 & 3)
    speed, rate, padding = head >> 12 & 15, head >> 10 & 3, head >> 9 & 1
    if version == 1 or layer == 4 or speed in (0, 15) or rate == 3:
        return None
    first = version == 3
    samples = {1: 384, 2: 1152, 3: 1152 if first else 576}[layer]
    hertz, kbits = _RATES[version][rate], _KBITS[first, layer][speed]
    if layer == 1:
        length = (12_000 * kbits // hertz + padding) * 4
    else:
        length = samples // 8 * kbits * 1000 // hertz + padding
    channels = 1 if head >> 6 & 3 == 3 else 2
    info = 4 + ((17 if channels == 1 else 32) if first else (9 if channels == 1 else 17))
    return Frame(length, hertz, channels, samples, layer, kbits * 125, info)


def sound_mp3(data: bytes) -> bool:
    """Whether `data` begins with MPEG audio: two frames of one kind, or one and no more; eleven bits may be chance."""
    first = mp3_frame(data, 0)
    if first is None or first.length == len(data):
        return first is not None
    second = mp3_frame(data, first.length)
    return second is not None and (first.rate, first.layer) == (second.rate, second.layer)


def skip_id3(data: bytes) -> int:
    """Where the sound begins behind an ID3 tag; 0 without one."""
    if len(data) < 10 or not data.startswith(b"ID3") or max(data[6:10]) > 127:
        return 0
    size = data[6] << 21 | data[7] << 14 | data[8] << 7 | data[9]
    return 10 + size + (10 if data[5] & 0x10 else 0)


def mp3(window: Window) -> MediaInfo:
    """By the first frame and its Xing, Info or VBRI header; without one, all frames are taken to be as fast as the first."""
    start = skip_id3(window.at(0, 10))
    data = window.at(start, 4096)
    at = next((at for at in range(len(data) - 4) if data[at] == 0xFF and sound_mp3(data[at:])), None)
    frame = None if at is None else mp3_frame(data, at)
    if at is None or frame is None:
        cut = start >= window.size
        raise CutOff(f"cut off after {window.size} bytes") if cut else Unreadable("no MP3 frames")
    frames = _counted(data[at:], frame)
    if frames is None:
        end = window.size - (128 if window.at(window.size - 128, 3) == b"TAG" else 0)
        duration = seconds(end - start - at, frame.speed)
    else:
        duration = seconds(frames * frame.samples - _silence(data[at:], frame), frame.rate)
    return MediaInfo(
        duration=duration, audio_codec=f"mp{frame.layer}", channels=frame.channels, sample_rate=frame.rate
    )


def _counted(data: bytes, frame: Frame) -> int | None:
    """How many frames the first one says that follow it."""
    tag = data[frame.info : frame.info + 12]
    if tag[:4] in (b"Xing", b"Info") and len(tag) == 12 and tag[7] & 1:
        return int.from_bytes(tag[8:12], "big") or None
    if data[36:40] == b"VBRI":
        return int.from_bytes(data[50:54], "big") or None
    return None


def _silence(data: bytes, frame: Frame) -> int:
    """Samples that the encoder put before and after the sound, where LAME says so."""
    at = frame.info + 120
    if data[frame.info : frame.info + 4] not in (b"Xing", b"Info") or not data[at : at + 4].isalnum():
        return 0
    told = int.from_bytes(data[at + 21 : at + 24], "big")
    return (told >> 12) + (told & 0xFFF)


# -- AAC -----------------------------------------------------------------------------------------


def adts_frame(data: bytes, at: int) -> Frame | None:
    """The ADTS frame at `at`, or None if there is none."""
    head = int.from_bytes(data[at : at + 7], "big")
    rate, channels, length = head >> 34 & 15, head >> 30 & 7, head >> 13 & 0x1FFF
    if len(data) < at + 7 or head >> 44 != 0xFFF or head >> 41 & 3 or rate >= len(_AAC_RATES) or length < 7:
        return None
    return Frame(length, _AAC_RATES[rate], {7: 8}.get(channels, channels), 1024 * ((head & 3) + 1), 0, 0.0, 0)


def adts(window: Window) -> MediaInfo:
    """By the first frame. The duration is counted where the object is small enough to be read; nothing in it tells it."""
    at = skip_id3(window.at(0, 10))
    first = adts_frame(window.exactly(at, 7), 0)
    if first is None:
        raise Unreadable("no AAC frames")
    samples: int | None = None
    if window.size <= window.limit // 2:
        samples = 0
        while frame := adts_frame(window.at(at, 7), 0):
            samples += frame.samples
            at += frame.length
    return MediaInfo(
        duration=None if samples is None else seconds(samples, first.rate),
        audio_codec="aac",
        channels=first.channels or None,
        sample_rate=first.rate,
        reason="a stream of AAC does not tell its duration" if samples is None else None,
    )


# -- Ogg -----------------------------------------------------------------------------------------


def ogg_type(head: bytes) -> str:
    """The media type of an Ogg file by the streams that begin in it."""
    starts = [data for _, data in _ogg_starts(head)]
    if any(data.startswith((b"\x80theora", b"fishead", b"BBCD")) for data in starts):
        return "video/ogg"
    known = any(data.startswith((b"OpusHead", b"\x01vorbis", b"\x7fFLAC", b"Speex")) for data in starts)
    return "audio/ogg" if known else "application/ogg"


def _ogg_starts(head: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Serial number and first packet of each stream: their pages are the first ones."""
    at = 0
    while head[at : at + 4] == b"OggS" and len(head) > at + 27 and head[at + 5] & 2:
        segments = head[at + 27 : at + 27 + head[at + 26]]
        body = at + 27 + len(segments)
        yield head[at + 14 : at + 18], head[body : body + sum(segments)]
        at = body + sum(segments)


class _Stream(NamedTuple):
    info: MediaInfo
    rate: float
    """Units of its positions a second."""
    before: int = 0
    """Units that are not played."""
    shift: int = 0
    """A position has the frames since the last key frame in so many bits of its own."""

    def units(self, position: int) -> int:
        """A position as one number."""
        return (position >> self.shift) + (position & (1 << self.shift) - 1) if self.shift else position


def ogg(window: Window) -> MediaInfo:
    """By the first packets, and the position on the last page."""
    streams = {
        serial: stream
        for serial, data in _ogg_starts(window.at(0, FIRST))
        if (stream := _ogg_stream(data)) is not None
    }
    if not streams:
        raise Unreadable("an Ogg file with no known streams")
    video = next((s.info for s in streams.values() if s.info.video_codec), MediaInfo())
    audio = next((s.info for s in streams.values() if s.info.audio_codec), MediaInfo())
    duration = _ogg_duration(window, streams)
    return MediaInfo(
        width=video.width,
        height=video.height,
        duration=duration,
        fps=video.fps,
        video_codec=video.video_codec,
        audio_codec=audio.audio_codec,
        channels=audio.channels,
        sample_rate=audio.sample_rate,
        reason=None if duration is not None else "an Ogg file whose last page is not found",
    )


def _ogg_stream(data: bytes) -> _Stream | None:
    if data.startswith(b"OpusHead") and len(data) >= 19:
        info = MediaInfo(audio_codec="opus", channels=data[9] or None, sample_rate=48000)
        return _Stream(info, 48000, before=int.from_bytes(data[10:12], "little"))
    if data.startswith(b"\x01vorbis") and len(data) >= 16:
        rate = int.from_bytes(data[12:16], "little")
        return _Stream(
            MediaInfo(audio_codec="vorbis", channels=data[11] or None, sample_rate=rate or None), rate
        )
    if data.startswith(b"\x7fFLAC") and len(data) >= 35:
        bits = int.from_bytes(data[27:35], "big")
        info = MediaInfo(audio_codec="flac", channels=(bits >> 41 & 7) + 1, sample_rate=bits >> 44 or None)
        return _Stream(info, bits >> 44)
    if data.startswith(b"Speex   ") and len(data) >= 52:
        rate, channels = struct.unpack("<I8xI", data[36:52])
        return _Stream(
            MediaInfo(audio_codec="speex", channels=channels or None, sample_rate=rate or None), rate
        )
    if data.startswith(b"\x80theora") and len(data) >= 42:
        return _theora(data)
    return None


def _theora(data: bytes) -> _Stream:
    width, height = int.from_bytes(data[14:17], "big"), int.from_bytes(data[17:20], "big")
    up, down = struct.unpack(">II", data[22:30])
    rate = Fraction(up, down) if down else Fraction(0)
    info = MediaInfo(width=width or None, height=height or None, fps=rational(rate), video_codec="theora")
    return _Stream(info, float(rate), shift=int.from_bytes(data[40:42], "big") >> 5 & 31)


def _ogg_duration(window: Window, streams: dict[bytes, _Stream]) -> float | None:
    """By the last page that ends a packet of a stream that is known."""
    for length in _OGG_TAILS:
        if FIRST + length > window.limit:
            break
        tail = window.at(max(window.size - length, 0), length)
        at = tail.rfind(b"OggS")
        while at >= 0:
            serial, position = tail[at + 14 : at + 18], int.from_bytes(tail[at + 6 : at + 14], "little")
            stream = streams.get(serial)
            if stream is not None and position != _NOT_ENDED:
                return seconds(max(stream.units(position) - stream.before, 0), stream.rate)
            at = tail.rfind(b"OggS", 0, at)
    return None


READERS: dict[str, Callable[[Window], MediaInfo]] = {
    "audio/wav": wav,
    "audio/aiff": aiff,
    "audio/flac": flac,
    "audio/mpeg": mp3,
    "audio/aac": adts,
    "audio/ogg": ogg,
    "video/ogg": ogg,
}
