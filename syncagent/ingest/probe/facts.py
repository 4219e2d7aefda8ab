"""What a probe tells of an object."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from typing import Any


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """Facts of an object's content; None for what it does not tell."""

    mimetype: str = ""
    """By content; by the name only where the content says nothing. ``application/octet-stream`` if neither does."""
    width: int | None = None
    """Pixels as displayed: an orientation or a rotation on its side is taken into account."""
    height: int | None = None
    orientation: int | None = None
    """As in EXIF, 1 to 8."""
    taken_at: str | None = None
    """The camera's clock, ISO 8601; without an offset where the camera did not know it."""
    latitude: float | None = None
    """Degrees, north positive; always with `longitude`."""
    longitude: float | None = None
    duration: float | None = None
    """Seconds."""
    fps: str | None = None
    """Frames a second as a rational: ``30000/1001``, ``25/1``."""
    frames: int | None = None
    video_codec: str | None = None
    """FFmpeg's name: ``h264``, ``hevc``, ``vp9`` …"""
    audio_codec: str | None = None
    """FFmpeg's name: ``aac``, ``pcm_s16le``, ``opus`` …"""
    channels: int | None = None
    sample_rate: int | None = None
    """Hertz."""
    reason: str | None = None
    """Why facts are missing, one line; None when all is well."""

    def system(self) -> dict[str, Any]:
        """What an item's ``metadata.system`` gets, without the media type and without what is not known."""
        told: dict[str, Any] = {
            "width": self.width,
            "height": self.height,
            "exif": None if self.orientation is None else {"Orientation": self.orientation},
            "takenAt": self.taken_at,
            "gps": None
            if self.latitude is None
            else {"latitude": self.latitude, "longitude": self.longitude},
            "duration": self.duration,
            "fps": None if self.fps is None else float(Fraction(self.fps)),
            "fpsRational": self.fps,
            "nb_frames": self.frames,
            "videoCodec": self.video_codec,
            "audioCodec": self.audio_codec,
            "channels": self.channels,
            "sampleRate": self.sample_rate,
            "mediaError": self.reason,
        }
        return {key: value for key, value in told.items() if value is not None}

    def believable(self) -> bool:
        """Whether its numbers are such that a file can have them, and a database."""
        numbers = (self.width, self.height, self.frames, self.channels, self.sample_rate)
        return all(number is None or 0 < number < 1 << 31 for number in numbers)

    def upright(self) -> MediaInfo:
        """The same with width and height as displayed, where they are still as stored."""
        if self.orientation is None or self.orientation < 5:
            return self
        return dataclasses.replace(self, width=self.height, height=self.width)


def seconds(units: float, speed: float) -> float | None:
    """How long `units` last at `speed` units a second; None where that is no time that a file can last."""
    if speed <= 0 or not 0 <= units / speed < 1e9:
        return None
    return round(units / speed, 6)


def rational(rate: Fraction | None) -> str | None:
    """A frame rate as it is written; None where there is none, or none that a film can have."""
    if rate is None or not 0 < rate <= 10_000:
        return None
    rate = rate.limit_denominator(1_000_000)
    return f"{rate.numerator}/{rate.denominator}" if rate > 0 else None
