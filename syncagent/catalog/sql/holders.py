"""Names of processes, by which others tell whether who began something is still there."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def this_process() -> str:
    """Names this process so that others can tell whether it still lives: host, number, start."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def shown(holder: str) -> str:
    """A holder for people: host and number."""
    host, _, rest = holder.partition(":")
    return f"{host}:{rest.partition(':')[0]}"


def alive(holder: str) -> bool | None:
    """Whether the process of a holder lives; None if it is on another host."""
    host, _, rest = holder.partition(":")
    pid, _, rest = rest.partition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return None
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it lives, and is somebody else's
    # A process number is used again after a while; the start time tells the two apart.
    return _started(int(pid)) == rest.partition(":")[0]


def _started(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
