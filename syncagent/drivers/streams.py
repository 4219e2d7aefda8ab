"""What drivers share about streams of bytes."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, BinaryIO


def read_full(body: BinaryIO, size: int) -> bytes:
    """`size` bytes, or all that are left: one `read` of a socket may give fewer."""
    chunks, left = [], size
    while left and (chunk := body.read(left)):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


class Body(io.RawIOBase):
    """An object's bytes as they come from an SDK, whose errors are translated.

    :param read: at most so many bytes, or none at the end; :param close: releases the connection.
    :param translated: a context manager that raises `SyncAgentError` for the SDK's errors.
    """

    def __init__(
        self,
        read: Callable[[int], bytes],
        close: Callable[[], Any],
        translated: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._read, self._close, self._translated = read, close, translated

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase`."""
        with self._translated():
            data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Release the connection; twice is fine."""
        if not self.closed:
            self._close()
        super().close()


class Limited(io.RawIOBase):
    """At most `length` bytes of a stream."""

    def __init__(self, stream: BinaryIO, length: int) -> None:
        self._stream = stream
        self._left = length

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase`."""
        data = self._stream.read(min(len(buffer), self._left))
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the stream as well."""
        self._stream.close()
        super().close()
