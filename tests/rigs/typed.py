"""`syncagent`, as a person types it, in this process: Python takes a second to start, and there are a hundred commands."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from syncagent.cli import run


@dataclass(frozen=True)
class Typed:
    """What a command did."""

    code: int
    out: str
    err: str


def typed(words: tuple[str | Path, ...], folder: Path, environment: Mapping[str, str]) -> Typed:
    """Run one command.

    :param folder: where it is typed; :param environment: all its variables.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environment, clear=True),
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = run([str(word) for word in words])
    return Typed(code, out.getvalue(), err.getvalue())
