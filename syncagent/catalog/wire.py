"""Formats that every part of the platform's JSON shares."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any


def _encoder() -> Callable[[Any], str]:
    try:
        import msgspec
    except ModuleNotFoundError:
        return json.dumps
    encode = msgspec.json.Encoder().encode
    return lambda value: encode(value).decode()


dumps = _encoder()
"""JSON as text. Annotations are full of numbers, which msgspec writes several times as fast; it comes with the extras that read them."""


def time(seconds: float | None) -> str | None:
    """ISO 8601 in UTC with milliseconds, of Unix seconds."""
    if seconds is None:
        return None
    return (
        datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(seconds % 1 * 1000):03}Z"
    )
