"""Formats that every part of the platform's JSON shares."""

from __future__ import annotations

from datetime import UTC, datetime


def time(seconds: float | None) -> str | None:
    """ISO 8601 in UTC with milliseconds, of Unix seconds."""
    if seconds is None:
        return None
    return (
        datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(seconds % 1 * 1000):03}Z"
    )
