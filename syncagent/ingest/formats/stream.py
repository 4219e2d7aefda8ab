"""JSON files of any size, element by element, at the speed of a decoder that has the whole file in memory.

A gigabyte of COCO is one JSON object with a few huge arrays. Reading it token by token is slow in Python, and decoding it whole
takes ten times its size. Here a window of the file is cut where an element of an array seems to end (``},``) and everything up
to there is handed to msgspec as an array of its own. A cut at the wrong place, inside a nested array or a text, leaves brackets
or quotes open, so that it can never be mistaken for a right one. Tried are the last two places after which an element begins
with the same name as the first one did: nested objects are many, and mostly begin otherwise. Where they do not, and at the
end of an array, brackets are counted instead: slower, and still once through the file. Measured in docs/performance.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, TypeVar

import msgspec

from syncagent.ingest.formats.base import MAX_RECORD, refuse, wrong

T = TypeVar("T")
_WINDOW = 1 << 20
_DEPTH = 64
_INSIDE = 2000  # levels inside an element: more than the decoder goes
_SPACE = re.compile(rb"[ \t\n\r]*")
# Possessive throughout: nothing is kept to go back to, which would take a hundred times the text.
_WITHIN_TEXT = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_SCALAR = re.compile(rb"[-+.\w]*+")
_END = re.compile(rb"\}(?=[ \t\n\r]*,)")
_OPENING = re.compile(rb'\{[ \t\n\r]*+("(?:[^"\\]++|\\.)*+")', re.DOTALL)
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+("?)|[\[\]{},]', re.DOTALL)
_CANDIDATES = 2
_MARK = b"\xef\xbb\xbf"  # of UTF-8, which some editors put before a file
_BACKSLASH = ord("\\")


def arrays(stream: BinaryIO, file: str, kinds: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """Batches of the elements of some arrays of a JSON object, in the order of the file.

    :param kinds: type of the elements by the array's name; ``""`` is the file itself, where it is an array. Members that are
        not in here are passed over. A member that is called so and is no array is an error.
    :raises InvalidInput: it is no such JSON; tells where.
    """
    reader = _Reader(stream, file)
    first = reader.peek()
    if first == b"[" and "" in kinds:
        for batch in reader.elements(kinds[""], "record"):
            yield "", batch
    elif first == b"{":
        for name in reader.members():
            if name in kinds and reader.peek() != b"n":  # null is no array, and no error
                if reader.peek() != b"[":
                    refuse(file, name, "must be an array")
                for batch in reader.elements(kinds[name], name):
                    yield name, batch
            else:
                reader.skip(0)
    else:
        refuse(file, None, "no JSON object or array")
    if reader.peek():
        refuse(file, f"byte {reader.offset}", "more follows after the end of the JSON")


def lines(stream: BinaryIO, file: str, kind: type[T]) -> Iterator[tuple[int, T]]:
    """The JSON values of a file with one on each line, with the line's number, from 1."""
    decode = msgspec.json.Decoder(kind).decode
    for number, line in enumerate(iter(lambda: stream.readline(MAX_RECORD), b""), 1):
        if number == 1:
            line = line.removeprefix(_MARK)  # noqa: PLW2901
        if line.strip():
            try:
                yield number, decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise wrong(file, f"line {number}", str(error)) from error
            except RecursionError as error:
                raise wrong(file, f"line {number}", "nested too deeply") from error


def document(data: bytes, file: str, kind: type[T]) -> T:
    """A small JSON file, whole.

    :raises InvalidInput: it is no such JSON.
    """
    try:
        return msgspec.json.decode(data.removeprefix(_MARK), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise wrong(file, None, str(error)) from error
    except RecursionError as error:
        raise wrong(file, None, "nested too deeply") from error


class _Reader:
    """A window of a file that moves along it."""

    def __init__(self, stream: BinaryIO, file: str) -> None:
        self._stream, self._file = stream, file
        self._held, self._at = b"", 0
        self._before = 0  # bytes of the file before the window
        self._ended = False
        self._guess = True
        self._more(_WINDOW)
        if self._held.startswith(_MARK):
            self._at = 3

    @property
    def offset(self) -> int:
        """Where in the file we are."""
        return self._before + self._at

    def _more(self, size: int) -> bool:
        """Read on; False at the end of the file."""
        if self._ended:
            return False
        chunk = self._stream.read(size)
        if not chunk:
            self._ended = True
            return False
        self._before += self._at
        self._held = self._held[self._at :] + chunk
        self._at = 0
        return True

    def peek(self) -> bytes:
        """The next byte that is no white space; nothing at the end."""
        while True:
            found = _SPACE.match(self._held, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._held):
                return self._held[self._at : self._at + 1]
            if not self._more(_WINDOW):
                return b""

    def _take(self, wanted: bytes) -> None:
        if self.peek() != wanted:
            found = self.peek()
            refuse(
                self._file, f"byte {self.offset}",
                f"expected {wanted.decode()!r}, found {found.decode(errors='replace')!r}" if found else "the file is cut off",
            )  # fmt: skip
        self._at += 1

    def _along(self, pattern: re.Pattern[bytes], start: int) -> Iterator[bytes]:
        """What a pattern matches from here on, a window at a time: nothing is looked at twice, and nothing is kept.

        :param start: where the value begins, which may not be larger than a record.
        """
        while True:
            found = pattern.match(self._held, self._at)
            end = found.end() if found else self._at
            yield self._held[self._at : end]
            self._at = end
            # What reaches the end of the window may go on after it; so may a backslash that stands there.
            if len(self._held) - end > 1 or (end < len(self._held) and self._held[end] != _BACKSLASH):
                return
            if self.offset - start > MAX_RECORD:
                refuse(self._file, f"byte {start}", f"larger than {MAX_RECORD >> 20} MiB")
            if not self._more(_WINDOW):
                return

    def _text(self) -> Iterator[bytes]:
        """A text as it stands there, in pieces."""
        start = self.offset
        self._take(b'"')
        yield b'"'
        yield from self._along(_WITHIN_TEXT, start)
        if self._held[self._at : self._at + 1] != b'"':
            refuse(self._file, f"byte {start}", "the file is cut off in a text")
        self._at += 1
        yield b'"'

    def _scalar(self) -> None:
        """Pass over a number, a truth, or null."""
        start = self.offset
        for _ in self._along(_SCALAR, start):
            pass
        if self.offset == start:
            found = self.peek().decode(errors="replace")
            refuse(
                self._file,
                f"byte {start}",
                f"expected a value, found {found!r}" if found else "the file is cut off",
            )

    def members(self) -> Iterator[str]:
        """Names of an object's members. Whoever is given one must read its value."""
        self._take(b"{")
        if self.peek() == b"}":
            self._at += 1
            return
        while True:
            self.peek()
            try:
                name = msgspec.json.decode(b"".join(self._text()), type=str)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise wrong(self._file, f"byte {self.offset}", str(error)) from error
            self._take(b":")
            yield name
            if self.peek() == b"}":
                self._at += 1
                return
            self._take(b",")

    def skip(self, depth: int) -> None:
        """Pass over a value."""
        if depth > _DEPTH:
            refuse(self._file, f"byte {self.offset}", "nested too deeply")
        match self.peek():
            case b"{":
                for _ in self.members():
                    self.skip(depth + 1)
            case b"[":
                for _ in self.elements(msgspec.Raw, "element"):
                    pass
            case b'"':
                for _ in self._text():
                    pass
            case _:
                self._scalar()

    def elements(self, kind: Any, name: str) -> Iterator[list[Any]]:
        """Batches of an array's elements."""
        decode = msgspec.json.Decoder(list[kind]).decode
        self._take(b"[")
        count, window, likely = 0, _WINDOW, _END
        self._guess = True
        while self.peek() != b"]":
            if count == 0 and (opening := _OPENING.match(self._held, self._at)):
                begins = rb"[ \t\n\r]*,[ \t\n\r]*\{[ \t\n\r]*" + re.escape(opening[1])
                likely = re.compile(rb"\}(?=" + begins + rb")")
            while len(self._held) - self._at < window and self._more(window):
                pass
            batch, end = self._batch(decode, name, count, likely)
            if batch is None:
                if self._ended:
                    refuse(self._file, f"{name} {count}", "the file is cut off")
                window *= 2
                if window > 2 * MAX_RECORD:
                    refuse(self._file, f"{name} {count}", f"larger than {MAX_RECORD >> 20} MiB")
                continue
            window = _WINDOW
            self._at = end
            count += len(batch)
            yield batch
            if self.peek() != b"]":
                self._take(b",")
                if self.peek() == b"]":
                    refuse(self._file, f"byte {self.offset}", "a comma before the end of an array")
        self._at += 1

    def _batch(
        self, decode: Any, name: str, count: int, likely: re.Pattern[bytes]
    ) -> tuple[list[Any] | None, int]:
        """The elements up to a place where one ends, and that place; None if none ends in the window."""
        near = max(self._at, len(self._held) - _WINDOW // 8)
        cuts = [found.end() for found in likely.finditer(self._held, near)][: -_CANDIDATES - 1 : -1]
        for cut in cuts if self._guess else ():
            try:
                return decode(b"[" + self._held[self._at : cut] + b"]"), cut
            except msgspec.ValidationError as error:
                raise wrong(self._file, *_where(name, count, str(error))) from error
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue  # inside an element, or beyond the array
        found = self._counted_end()
        if found is None:
            if self._ended:
                refuse(self._file, f"{name} {count} or after it", "the file is cut off, or this is no JSON")
            return None, 0
        # Where guesses go wrong inside the array, they do so again and again: elements like what they hold.
        self._guess = self._guess and (not cuts or self._held[found : found + 1] == b"]")
        try:
            return decode(b"[" + self._held[self._at : found] + b"]"), found
        except msgspec.ValidationError as error:
            raise wrong(self._file, *_where(name, count, str(error))) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise wrong(self._file, f"{name} {count} or after it", str(error)) from error
        except RecursionError as error:
            raise wrong(self._file, f"{name} {count} or after it", "nested too deeply") from error

    def _counted_end(self) -> int | None:
        """Where the last whole element of the window ends, by counting brackets; None if none does."""
        depth, end = 0, None
        for token in _TOKEN.finditer(self._held, self._at):
            match token[0][:1]:
                case b"[" | b"{":
                    depth += 1
                    if depth > _INSIDE:
                        refuse(self._file, f"byte {self._before + token.start()}", "nested too deeply")
                case b"]" | b"}":
                    if depth == 0:
                        return token.start()
                    depth -= 1
                case b",":
                    if depth == 0:
                        end = token.start()
                case _:
                    if not token[1]:
                        break  # a text that the window cuts
        return end


_PATH = re.compile(r" - at `\$\[(\d+)\](.*)`")


def _where(name: str, count: int, message: str) -> tuple[str, str]:
    """The record that a message of msgspec is about, and what it says."""
    if found := _PATH.search(message):
        inside = found[2].lstrip(".")
        return f"{name} {count + int(found[1])}" + (f", {inside}" if inside else ""), message[: found.start()]
    return f"{name} {count} or after it", message
