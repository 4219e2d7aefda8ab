"""The tasks of a file of Label Studio's, one at a time; see `formats.label_studio`.

`stream.arrays` cuts a window of the file where an element seems to end, and tries the places first after which something begins
as the first element did. A task, its annotations and its results may all begin with ``id``: 22 MB of tasks with two thousand
results each take 2.1 seconds and 17 MiB that way, since it counts brackets then, and 0.4 seconds and 5 MiB here, where the decoder
itself says where each task ends (it names the first byte after a value), and skips at its own speed to get there.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec

from syncagent.ingest.formats import stream
from syncagent.ingest.formats.base import MAX_RECORD, Tree, read_file, refuse, wrong

Json = dict[str, Any]
_WINDOW = 1 << 20
_SPACE = re.compile(rb"[ \t\n\r]*")
_TRAILING = re.compile(r"trailing characters \(byte (\d+)\)")


def tasks(tree: Tree, name: str) -> Iterator[tuple[str, Json]]:
    """The tasks of a file, and how each is called in an error. The file is a list of tasks, one task, or has one in each line.

    :raises InvalidInput: it is none of these.
    """
    with contextlib.closing(tree.open(name)) as file:
        if name.lower().endswith(".jsonl"):
            for line, task in stream.lines(file, name, dict):
                yield f"line {line}", task
            return
        window = _Window(file, name)
        if window.peek() == b"[":
            for count, task in enumerate(window.elements()):
                yield f"task {task.get('id', count)}", task
            return
    yield "task", stream.document(read_file(tree, name), name, dict)


class _Window:
    """A part of a file that moves along it."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self._held, self._at, self._before = file.read(_WINDOW), 0, 0
        if self._held.startswith(b"\xef\xbb\xbf"):
            self._at = 3

    def _more(self) -> bool:
        """Read on, as much again as is held; False at the end of the file."""
        chunk = self._file.read(max(_WINDOW, len(self._held) - self._at))
        self._before += self._at
        self._held, self._at = self._held[self._at :] + chunk, 0
        return bool(chunk)

    def peek(self) -> bytes:
        """The next byte that is no white space; nothing at the end."""
        while True:
            found = _SPACE.match(self._held, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._held) or not self._more():
                return self._held[self._at : self._at + 1]

    def _where(self, further: int = 0) -> str:
        return f"byte {self._before + self._at + further}"

    def elements(self) -> Iterator[Json]:
        """The objects of the list that begins here, up to the end of the file."""
        self._at += 1
        count = 0
        while (found := self.peek()) != b"]":
            if count:
                if found != b",":
                    refuse(
                        self._name,
                        self._where(),
                        "a comma is missing after a task" if found else "the file is cut off",
                    )
                self._at += 1
            if (found := self.peek()) != b"{":
                refuse(
                    self._name,
                    self._where(),
                    "expected a task, an object" if found else "the file is cut off",
                )
            yield self._element(count)
            count += 1
        self._at += 1
        if self.peek():
            refuse(self._name, self._where(), "more follows after the end of the JSON")

    def _element(self, count: int) -> Json:
        end = self._end(count)
        told = memoryview(self._held)[self._at : end]
        try:
            task: Json = msgspec.json.decode(told, type=dict)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise wrong(self._name, f"task {count}", str(error)) from error
        self._at = end
        return task

    def _end(self, count: int) -> int:
        """Where the value that begins here ends."""
        skip = msgspec.json.Decoder(msgspec.Raw).decode
        while True:
            try:
                skip(memoryview(self._held)[self._at :])
            except msgspec.DecodeError as error:
                if found := _TRAILING.search(str(error)):
                    return self._at + int(found[1]) - 1  # it counts the byte that is one too many
                # A cut in the middle of a number, say, is told like any other mistake: more may mend it.
                if len(self._held) - self._at > MAX_RECORD:
                    refuse(self._name, f"task {count}", f"larger than {MAX_RECORD >> 20} MiB, or: {error}")
                if not self._more():
                    raise wrong(self._name, f"task {count}", str(error)) from error
            else:
                return len(self._held)
