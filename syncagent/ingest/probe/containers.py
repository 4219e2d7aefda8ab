"""Facts of Matroska, WebM, AVI, MPEG, FLV and ASF files by FFmpeg, through PyAV: the optional extra ``video``.

PyAV 18.1 opens all of them from a Python file; ``tinytag`` and ``mutagen`` know none, and ``pymediainfo`` read a WebM of
6.7 MB whole. Whatever its ``probesize``, FFmpeg reads on to the end of the first frame (376 KiB of a sharp MKV), to learn
what the header had told it. So past the limit it is shown the end of the file: the facts of headers are there by then.
What it would have found by reading on, and guesses from what it saw, is not told: the duration of an MPEG stream.

One demuxer is named each time, the one of the content: FFmpeg does not choose, and playlists, which open other
files, are not among them.
"""

from __future__ import annotations

import io
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from syncagent.ingest.probe.facts import MediaInfo, rational
from syncagent.ingest.probe.window import Spent, Unreadable, Window

if TYPE_CHECKING:
    from av.container import InputContainer

DEMUXERS = {
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "video/3gpp": "3gp",
    "video/3gpp2": "3g2",
    "video/x-matroska": "matroska",
    "video/webm": "matroska",
    "video/x-msvideo": "avi",
    "video/mp2t": "mpegts",
    "video/mpeg": "mpeg",
    "video/x-flv": "flv",
    "video/x-ms-asf": "asf",
    "video/ogg": "ogg",
}
_GUESSED = {"mpegts", "mpeg"}  # demuxers whose durations are a guess until the last byte is read
_BY_CODEC = {"mpegts", "mpeg", "flv"}  # and whose rates are one always, but for what the codec tells itself
_NEEDED = "needs the extra video: pip install 'syncagent[video]'"


class Source(io.RawIOBase):
    """A window as FFmpeg reads it: at an end, or an error, there are no more bytes."""

    def __init__(self, window: Window) -> None:
        self._file = window.file()
        self.spent = False
        self.error: BaseException | None = None
        """What reading raised; raise it where FFmpeg gave up."""

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See `io.IOBase.seek`."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """See `io.IOBase.tell`."""
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase.readinto`."""
        data = b""
        if self.error is None and not self.spent:
            try:
                data = self._file.read(len(buffer))
            except Spent:
                self.spent = True
            except (
                BaseException
            ) as error:  # FFmpeg must not meet it: kept, and raised by whoever called FFmpeg
                self.error = error
        buffer[: len(data)] = data
        return len(data)


def opened(source: Source, demuxer: str) -> InputContainer:
    """The container in `source`, with its streams.

    :raises Unreadable: there is no PyAV, or it finds no streams.
    """
    try:
        import av
    except ModuleNotFoundError as missing:
        raise Unreadable(_NEEDED) from missing
    try:
        options = {"probesize": "8192", "analyzeduration": "0", "fpsprobesize": "0"}
        return av.open(
            source, "r", format=demuxer, options=options, buffer_size=4096, metadata_errors="replace"
        )
    except (av.FFmpegError, ValueError, OverflowError, MemoryError) as error:
        if source.error is not None:
            raise source.error from None
        raise Unreadable("its header is cut off or not sound") from error


def container(window: Window, mimetype: str) -> MediaInfo:
    """Facts of the first video stream and the first audio stream.

    :param mimetype: what the content is, one of `DEMUXERS`.
    """
    source = Source(window)
    with opened(source, DEMUXERS[mimetype]) as film:
        if source.error is not None:
            raise source.error
        info = _facts(film, DEMUXERS[mimetype], spent=source.spent)
    if not (info.video_codec or info.audio_codec):
        raise Unreadable("no video and no sound was found in it")
    return info


def _facts(film: InputContainer, demuxer: str, *, spent: bool) -> MediaInfo:
    guessed = spent and demuxer in _GUESSED
    video = film.streams.video[0] if film.streams.video else None
    audio = film.streams.audio[0] if film.streams.audio else None
    duration = film.duration / 1_000_000 if film.duration and film.duration > 0 and not guessed else None
    width = height = frames = rate = None
    if video is not None and video.codec_context is not None:
        width, height = video.codec_context.width or None, video.codec_context.height or None
        rate = video.codec_context.framerate if demuxer in _BY_CODEC else video.average_rate
        frames = _frames(video, rate, duration if audio is None else None)
    missing = "it does not tell its duration in the bytes that were read" if duration is None else None
    if video is not None and width is None:
        missing = "its size is not in the bytes that were read"
    return MediaInfo(
        width=width,
        height=height,
        duration=duration,
        fps=rational(rate),
        frames=frames,
        video_codec=_codec(video),
        audio_codec=_codec(audio),
        channels=(audio.codec_context.channels or None) if audio and audio.codec_context else None,
        sample_rate=(audio.codec_context.sample_rate or None) if audio and audio.codec_context else None,
        reason=missing,
    )


def _codec(stream: Any) -> str | None:
    if stream is None or stream.codec_context is None:
        return None
    name = str(stream.codec_context.codec.canonical_name)
    # An MPEG stream calls all layers one until a frame was seen.
    return None if name == "mp3" and not stream.codec_context.sample_rate else name


def _frames(video: Any, rate: Fraction | None, alone: float | None) -> int | None:
    """How many frames the container tells, or what the duration comes to where that is a whole number.

    :param alone: the duration, if nothing but this stream can be what makes it so long.
    """
    told = video.frames or _number(video.metadata.get("NUMBER_OF_FRAMES"))
    if told or not rate:
        return told or None
    duration = _clock(video.metadata.get("DURATION")) or alone
    if not duration:
        return None
    count = duration * float(rate)
    # Matroska counts in milliseconds.
    return round(count) if abs(count - round(count)) <= float(rate) * 0.001 else None


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 12 else 0


def _clock(text: str | None) -> float | None:
    """Seconds of ``00:00:05.005000000``."""
    try:
        hours, minutes, seconds = (text or "").split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None
