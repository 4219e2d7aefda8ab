"""The command line. One module per group of verbs; this one runs it and maps errors to exit codes."""

from __future__ import annotations

import errno
import gc
import os
import sys
import traceback

import click

from syncagent.cli import (
    bind,
    browse,
    daemon,
    doctor,
    download,
    ingest,
    labelling,
    mirror,
    package,
    records,
    serve,
    upkeep,
    verify,
    webhook,
)
from syncagent.cli.root import cli, hush
from syncagent.errors import (
    EXIT_BUG,
    EXIT_DIFFERS,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    AccessDenied,
    NotFound,
    SyncAgentError,
)

__all__ = ["cli", "run"]

_PATHS = {
    FileNotFoundError: NotFound.exit_code,
    PermissionError: AccessDenied.exit_code,
    FileExistsError: EXIT_USAGE,
    IsADirectoryError: EXIT_USAGE,
    NotADirectoryError: EXIT_USAGE,
}
"""Exit codes of paths that cannot be read or written."""
_OF_DISKS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})

for _module in (
    mirror, verify, browse, ingest, download, labelling, records, upkeep, doctor, serve, daemon, bind, webhook, package,
):  # fmt: skip
    for _command in _module.COMMANDS:
        cli.add_command(_command)


def run(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code. One line for an expected error, never a traceback."""
    # A listing makes millions of small tuples and no cycles: looking for cycles all the time is a tenth of the work.
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)
    words = sys.argv[1:] if arguments is None else arguments
    verbose = "-v" in words or "--verbose" in words or bool(os.environ.get("SYNCAGENT_VERBOSE"))
    try:
        code = cli.main(words, prog_name="syncagent", standalone_mode=False)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.ClickException as wrong:
        wrong.show()
        return wrong.exit_code
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("syncagent: interrupted; run it again to go on\n")
        return EXIT_INTERRUPTED
    except SyncAgentError as error:
        if verbose:
            traceback.print_exc()
        sys.stderr.write(f"syncagent: error: {error}\n")
        return error.exit_code
    except OSError as error:
        # A path that somebody named, or a disk that is full. Without a name it is nobody's path, and ours to mend.
        if error.filename is None and error.errno not in _OF_DISKS:
            return _bug(error, verbose=verbose)
        if verbose:
            traceback.print_exc()
        where = f"{error.filename}: " if error.filename is not None else ""
        sys.stderr.write(f"syncagent: error: {where}{error.strerror}\n")
        return next((code for kind, code in _PATHS.items() if isinstance(error, kind)), EXIT_DIFFERS)
    except Exception as bug:
        return _bug(bug, verbose=verbose)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        hush()
    return code if isinstance(code, int) else 0


def _bug(bug: Exception, *, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    sys.stderr.write(f"syncagent: bug: {type(bug).__name__}; -v shows where. Please report it.\n")
    return EXIT_BUG
