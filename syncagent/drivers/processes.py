"""Lists in other processes, where a listing turns out to be long: `Listers`.

Reading a page costs Python more than waiting for it takes with several workers, and one process has one
core's worth of Python. So a crew's workers, once a listing has proved long, ask processes of ours for their
pages. Whatever goes wrong with a process, its worker goes on by itself, after the last page that came.
"""

from __future__ import annotations

import contextlib
import marshal
import math
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, NoReturn, Union

from syncagent.errors import SyncAgentError, packed, unpacked
from syncagent.model import ObjectInfo
from syncagent.pages import Column, ObjectPage, last_key

if TYPE_CHECKING:
    from syncagent.drivers.bucket import Bucket
    from syncagent.drivers.partition import Range

Pages = Callable[[str | None, str | None], Generator[Sequence[ObjectInfo], None, None]]
_Group = list[tuple[socket.socket, socket.socket]]
_Child = Union["_Copy", "subprocess.Popen[bytes]"]

_LONG = 24  # pages after which a listing is worth the start of processes (0.5 s of a core each)
_CODE = "import sys; sys.path.append({root!r}); from syncagent.drivers.processes import main; main()"
_SIZES = struct.Struct("!II")  # of what is marshalled, and of the texts after it
_SOON = 0.5  # seconds that workers wait for a process that is there and makes its client
_GOODBYE = 5.0  # seconds for a process to end by itself
_ROOM = 1 << 20  # bytes that a line holds, so that a process need not wait for a page to be read
_ENDING = (signal.SIGINT, signal.SIGTERM)
_NICE = 10  # who compares and writes goes first: all wait for that, and a tenth of a first sweep was its waiting for a core
_AHEAD = 1  # pages that a process lists before it is told that the one before was used


class StandBy:
    """A copy of this process that lists as soon as it is told what, and takes nothing until then.

    :param workers: how many listings there may be at once; :param processes: how many it is to become.
    :raises OSError: there is none.
    """

    def __init__(self, workers: int, processes: int) -> None:
        self.size = workers, processes
        self.child, self.lines = _begun(_pairs(workers, processes), _fork)

    @staticmethod
    def possible() -> bool:
        """Whether a copy of this process would be sound: a lock that another thread holds stays locked in it.

        One at a time: the second would hold the first one's connections open.
        """
        return (
            sys.platform == "linux" and not _copies and sum(1 for _ in Path("/proc/self/task").iterdir()) == 1
        )

    def close(self) -> None:
        """End it."""
        for line in self.lines:
            line.close()
        _end(self.child)


class Listers:
    """Processes that list one bucket. They start once a listing has proved long, and end with `close`.

    :param bucket: has a `recipe`, by which another process opens it.
    :param here: lists in this process what a range has left.
    :param workers: how many listings there are at once, at most.
    :param pages: how many pages there are at least, as far as that is known: of a long listing processes start at once.
    :param standby: what may be there already.
    """

    def __init__(
        self,
        bucket: Bucket,
        here: Pages,
        *,
        workers: int,
        processes: int,
        pages: int = 0,
        standby: StandBy | None = None,
    ) -> None:
        self._bucket, self._here = bucket, here
        self._workers, self._wanted = workers, processes
        self._standby = standby
        self._lock = threading.Lock()
        self._seen, self._expected = 0, pages
        self._starter: threading.Thread | None = None
        self._started = threading.Event()
        self._children: list[_Child] = []
        self._free: list[_Line] = []
        self._closed = False

    def pages(self, taken: Range) -> Generator[Sequence[ObjectInfo], None, None]:
        """What a range has left, from wherever it is cheaper."""
        after = taken.cursor
        self._note(0)
        if self._standby is not None and self._expected >= _LONG:
            self._started.wait(_SOON)  # less than to make a client here
        while True:
            line = self._take()
            try:
                if line is None:
                    with contextlib.closing(self._here(after, taken.hi)) as pages:
                        for page in pages:
                            self._note(1)
                            after = last_key(page)
                            yield page
                            if self._free:
                                break
                        else:
                            return
                else:
                    for page in self._remote(line, after, taken):
                        after = last_key(page)
                        yield page
                    return
            except _LostError:
                pass  # go on here, after the last page that came
            finally:
                if line is not None:
                    self._give_back(line)

    def close(self) -> None:
        """End the processes; twice is fine."""
        with self._lock:
            self._closed = True
            starter = self._starter
        if starter is not None:
            starter.join()
        elif self._standby is not None:
            self._standby.close()
        for line in self._free:
            for told in line.finish():
                self._bucket.count(told.requests, told.ignored)
        for child in self._children:
            _end(child)
        self._free, self._children = [], []

    def _remote(
        self, line: _Line, after: str | None, taken: Range
    ) -> Generator[Sequence[ObjectInfo], None, None]:
        """Pages by another process. It is a page ahead, and is told how far to go with each that was used."""
        _yielding()
        done = False
        line.send("list", after, taken.hi)
        try:
            while True:
                told = line.answer()
                self._bucket.count(told.requests, told.ignored)
                if told.listing != line.listing:
                    continue  # it was told to stop, and had asked already
                if told.page is not None:
                    yield told.page
                    line.send("go", taken.hi)
                    continue
                done = True
                if told.error is not None:
                    raise unpacked(told.error)
                return
        finally:
            if not done and not line.lost:
                with contextlib.suppress(_LostError):
                    line.send("stop")

    # -- processes -------------------------------------------------------------------------------

    def _note(self, pages: int) -> None:
        with self._lock:
            self._seen += pages
            if max(self._seen, self._expected) < _LONG or self._starter is not None or self._closed:
                return
            self._starter = threading.Thread(target=self._start, name="syncagent-start-listers", daemon=True)
            self._starter.start()

    def _start(self) -> None:
        """Start the processes, and make known the lines of those that are ready."""
        begun = [(self._standby.child, self._standby.lines)] if self._standby is not None else []
        if not begun:
            groups = _pairs(self._workers, self._wanted)
            # A copy of a process that has everything loaded costs a hundredth of another one.
            for start in [groups] if sys.platform == "linux" else [[group] for group in groups]:
                # There may be no Python of its own, or a system without `pass_fds`.
                with contextlib.suppress(OSError, ValueError):
                    begun.append(_begun(start, _spawn))
        self._children += [child for child, _ in begun]
        share = -(-self._workers // self._wanted)
        for child, lines in begun:
            if self._introduce(child):
                # One of each process after the other: all are to have work.
                turns = [line for n in range(share) for line in lines[n::share]]
                with self._lock:
                    self._free += reversed(turns)
            else:
                for line in lines:
                    line.close()
        self._started.set()

    def _introduce(self, child: _Child) -> bool:
        """Tell a process what it is to list; whether it can."""
        assert child.stdin is not None and child.stdout is not None  # noqa: S101  # both are pipes
        try:
            child.stdin.write(pickle.dumps(self._bucket.recipe))
            child.stdin.flush()
            return child.stdout.read(1) == b"r"
        except OSError:
            return False

    def _take(self) -> _Line | None:
        with self._lock:
            return self._free.pop() if self._free else None

    def _give_back(self, line: _Line) -> None:
        with self._lock:
            if not line.lost and not self._closed:
                self._free.insert(0, line)
                return
        line.close()


class _LostError(Exception):
    """A process is gone."""


class _Told(NamedTuple):
    """What a process says: a page, or that a listing has ended, and what it has asked for since it said something last."""

    listing: int
    page: ObjectPage | None
    error: dict[str, Any] | None
    requests: dict[str, int]
    ignored: int


class _Line:
    """One connection to a process: one listing at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.listing = 0
        self.lost = False

    def send(self, word: str, *rest: str | None) -> None:
        """Send a word: ``list`` after one key and up to another, ``go`` on up to a key, ``stop``."""
        self.listing += word == "list"
        try:
            _send(self._sock, (word, *rest))
        except OSError as error:
            self.lost = True
            raise _LostError from error

    def answer(self) -> _Told:
        """What the process says next."""
        try:
            frame = _frame(self._sock)
        except OSError as error:
            self.lost = True
            raise _LostError from error
        if frame is None:
            self.lost = True
            raise _LostError
        (listing, size, columns, sizes, *rest), texts = frame
        page = None if size is None else ObjectPage(size, _filled(columns, sizes, texts))
        return _Told(listing, page, *rest)

    def finish(self) -> Iterator[_Told]:
        """Say that nothing more is wanted, and hear what was under way."""
        with contextlib.suppress(OSError, _LostError), self._sock:
            self._sock.shutdown(socket.SHUT_WR)
            while True:
                yield self.answer()

    def close(self) -> None:
        self._sock.close()


def _yielding() -> None:
    """Let this thread not interrupt others when it wakes: what it interrupts here is a page that is being read, on which more waits."""
    if hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _send(sock: socket.socket, what: Any, texts: Sequence[bytes] = ()) -> None:
    """Send a value of plain types, and texts apart from it: to marshal a long one, and to read it, takes three times as long."""
    frame = marshal.dumps(what)
    sock.sendall(b"".join([_SIZES.pack(len(frame), sum(map(len, texts))), frame, *texts]))


def _frame(sock: socket.socket) -> tuple[Any, memoryview] | None:
    """What comes next; None where it ends, also in the middle."""
    # Whole at once: each time that a thread comes back from the system it waits for Python's lock.
    head = sock.recv(_SIZES.size, socket.MSG_WAITALL)
    if len(head) < _SIZES.size:
        return None
    size, rest = _SIZES.unpack(head)
    frame = memoryview(sock.recv(size + rest, socket.MSG_WAITALL))
    return (marshal.loads(frame[:size]), frame[size:]) if len(frame) == size + rest else None  # noqa: S302  # from a process of ours


def _word(sock: socket.socket) -> Any:
    """What a process is told next; None where that ends."""
    frame = _frame(sock)
    return None if frame is None else frame[0]


def _parted(columns: Sequence[Column]) -> tuple[list[Column | None], list[bytes]]:
    """A page's columns without those that are one text, and these."""
    texts = [column.encode(errors="surrogatepass") for column in columns if isinstance(column, str)]
    return [None if isinstance(column, str) else column for column in columns], texts


def _filled(columns: Sequence[Column | None], sizes: Sequence[int], texts: memoryview) -> list[Column]:
    """The opposite of `_parted`."""
    ends = accumulate(sizes)
    each = (
        str(texts[end - size : end], "utf-8", "surrogatepass") for size, end in zip(sizes, ends, strict=True)
    )
    return [next(each) if column is None else column for column in columns]


def _pairs(workers: int, processes: int) -> list[_Group]:
    """A connection for each worker: both ends, by process."""
    share = -(-workers // processes)
    return [[socket.socketpair() for _ in range(share)] for _ in range(processes)]


def _begun(groups: list[_Group], start: Callable[[list[_Group]], _Child]) -> tuple[_Child, list[_Line]]:
    """A process that has the other ends of these connections, and ours."""
    lines = [_Line(ours) for group in groups for ours, _ in group]
    try:
        return start(groups), lines
    except BaseException:
        for line in lines:
            line.close()
        raise
    finally:
        for group in groups:
            for _, theirs in group:
                theirs.close()


def _spawn(groups: list[_Group]) -> subprocess.Popen[bytes]:
    # No folder of the caller's is searched for modules, and Ctrl-C is for the process that was started by hand. The same session,
    # as Linux shares the cores among sessions first.
    code = _CODE.format(root=str(Path(__file__).parents[2]))
    numbers = [[theirs.fileno() for _, theirs in group] for group in groups]
    return subprocess.Popen(  # noqa: S603  # this Python, our code
        [sys.executable, "-P", "-c", code, *(",".join(map(str, group)) for group in numbers)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[number for group in numbers for number in group],
        process_group=0,
    )


class _Copy:
    """A copy of this process: as much of `subprocess.Popen` as is needed here."""

    def __init__(self, pid: int, stdin: int, stdout: int) -> None:
        self.pid = pid
        self.stdin, self.stdout = os.fdopen(stdin, "wb"), os.fdopen(stdout, "rb")
        _copies.add(self)

    def wait(self, timeout: float = math.inf) -> None:
        until = time.monotonic() + timeout
        with contextlib.suppress(ChildProcessError):  # somebody waits for all children
            while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > until:
                    raise subprocess.TimeoutExpired("syncagent", timeout)
                time.sleep(0.002)
        _copies.discard(self)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


_copies: set[_Copy] = set()


def _fork(groups: list[_Group]) -> _Copy:
    given, ours = os.pipe(), os.pipe()
    # Ctrl-C in between would have the copy end what is its original's, as that does.
    held = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        pid = os.fork()
        if not pid:
            _be_copy(groups, given, ours)
        with contextlib.suppress(OSError):  # it is gone
            os.setpgid(pid, pid)
    except OSError:
        _close((*given, *ours))
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
    _close((given[0], ours[1]))
    return _Copy(pid, given[1], ours[0])


def _be_copy(groups: list[_Group], given: tuple[int, int], ours: tuple[int, int]) -> NoReturn:
    """Nothing of what the original has open is used or ended here, a catalog's file above all."""
    try:
        for number in _ENDING:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        _close((given[1], ours[0]))
        for group in groups:
            for mine, _ in group:
                mine.close()
        with os.fdopen(given[0], "rb") as words:
            _serve(words, ours[1], [[theirs.detach() for _, theirs in group] for group in groups])
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(0)


def _end(child: _Child) -> None:
    """It ends when its input does; or else now."""
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    try:
        child.wait(_GOODBYE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


# -- in the process ------------------------------------------------------------------------------


def main() -> None:
    """List for the process that started this one, until it ends or closes our input."""
    told = os.dup(1)
    _serve(sys.stdin.buffer, told, [[int(number) for number in group.split(",")] for group in sys.argv[1:]])


def _serve(given: BinaryIO, told: int, groups: list[list[int]]) -> None:
    """List what is given, for whoever has the other ends of these lines."""
    os.dup2(2, 1)  # nothing that a library prints may pass for anybody's word
    try:
        spec, integration = pickle.load(given)  # noqa: S301  # from the process that started us
    except EOFError:
        return  # nothing is wanted
    import gc

    from syncagent.drivers import open_bucket

    gc.set_threshold(50_000, 50, 50)
    os.nice(_NICE)
    _yielding()
    try:
        bucket = open_bucket(spec, integration)
        bucket.prepare()
    except SyncAgentError:
        return  # who asked lists by itself, and is told the same
    with bucket:
        gc.freeze()
        mine = _divide(groups)
        serving = _Serving(bucket)
        for number in mine:
            line = socket.socket(fileno=number)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
            threading.Thread(target=serving.serve, args=(line,), daemon=True).start()
        with contextlib.suppress(BrokenPipeError):  # its listing ended without us
            os.write(told, b"r")
            given.read()
    os._exit(0)  # whatever is under way is of no use to anybody


def _divide(groups: list[list[int]]) -> list[int]:
    """Make a copy of this process for each group of lines but the first; returns the lines of this one."""
    if threading.active_count() > 1:
        return [number for group in groups for number in group]  # no copy would be sound
    for mine in groups[1:]:
        if not os.fork():
            # Only whoever serves a line holds it, so that its end is seen.
            _close(number for group in groups if group is not mine for number in group)
            return mine
    _close(number for group in groups[1:] for number in group)
    return groups[0]


def _close(numbers: Iterable[int]) -> None:
    for number in numbers:
        os.close(number)


class _Serving:
    """Listings for one bucket's lines."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._lock = threading.Lock()
        self._requests: dict[str, int] = {}
        self._ignored = 0

    def serve(self, line: socket.socket) -> None:
        """Answer one line until it is closed."""
        listing = 0
        with contextlib.suppress(OSError), line:
            while (word := _word(line)) is not None:
                if word[0] != "list":
                    continue  # came after the last page
                listing += 1
                error = None
                try:
                    self._list(line, listing, word[1], word[2])
                except SyncAgentError as failure:
                    error = packed(failure)
                self._tell(line, listing, None, error)

    def _list(self, line: socket.socket, listing: int, after: str | None, until: str | None) -> None:
        pages = self._bucket.list(after=after, until=until, alone=False)
        ahead = 0
        with contextlib.closing(pages):  # type: ignore[type-var]
            for page in pages:
                self._tell(line, listing, ObjectPage.of(page), None)
                ahead += 1
                while ahead > _AHEAD or select.select([line], [], [], 0)[0]:
                    word = _word(line)
                    if word is None or word[0] == "stop":
                        return
                    ahead, until = ahead - 1, word[1]
                if until is not None and last_key(page) >= until:
                    return

    def _tell(
        self, line: socket.socket, listing: int, page: ObjectPage | None, error: dict[str, Any] | None
    ) -> None:
        size, columns = (None, []) if page is None else page.packed()
        parted, texts = _parted(columns)
        with self._lock:
            before, self._requests = self._requests, dict(self._bucket.driver.requests)
            requests = {name: n - before.get(name, 0) for name, n in self._requests.items()}
            ignored = self._bucket.ignored - self._ignored
            self._ignored += ignored
        _send(line, (listing, size, parted, list(map(len, texts)), error, requests, ignored), texts)
