"""What commands print: lines, JSON, summaries, progress."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from syncagent.cli.root import hush
from syncagent.model import Action, Outcome, Report

LINES = 1000
"""Lines about single keys that a sync prints before it leaves the rest out."""


def printable(key: str) -> str:
    """A key for people: control characters escaped, so that no key moves the cursor or ends the line."""
    if key.isprintable():
        return key
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in key)


def line(outcome: Outcome) -> str:
    """One key's line: ``+ key``, ``> old -> new``, ``! key: reason``."""
    key = printable(outcome.key)
    if outcome.action is Action.MOVED and outcome.source is not None:
        return f"> {printable(outcome.source)} -> {key}"
    if outcome.action is Action.FAILED:
        return f"! {key}: {outcome.error}"
    return f"{outcome.action.value} {key}"


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """One key's line for a program."""
    found: dict[str, Any] = {"key": outcome.key, "action": outcome.action.name.lower()}
    for name in ("size", "source", "error"):
        if (value := getattr(outcome, name)) is not None:
            found[name] = value
    return found


encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


def emit_json(value: Mapping[str, Any]) -> None:
    """One object, one line."""
    sys.stdout.write(encode(value) + "\n")


def note(text: str) -> None:
    """To stderr: what is not data."""
    sys.stderr.write(f"{text}\n")


def table(rows: Iterable[Sequence[object]], header: Sequence[str]) -> None:
    """Columns, aligned; nothing at all when there are no rows."""
    lines = [list(map(str, row)) for row in rows]
    if not lines:
        return
    widths = [max(len(row[n]) for row in [list(header), *lines]) for n in range(len(header))]
    for row in [list(header), *lines]:
        sys.stdout.write(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n"
        )


def summary(report: Report, *, future: bool = False) -> str:
    """The last line of plan, sync and check."""
    counts = ", ".join(
        f"{getattr(report, name)} {verb}"
        for name, verb in (
            ("added", "to add" if future else "added"),
            ("changed", "changed"),
            ("moved", "to move" if future else "moved"),
            ("removed", "to remove" if future else "removed"),
        )
    )
    failed = f", {report.failed} failed" if report.failed else ""
    ignored = f", {report.ignored} folder markers passed over" if report.ignored else ""
    sent = ", ".join(f"{count} {kind}" for kind, count in sorted(report.requests.items()))
    cost = f", about ${report.cost:.6f}" if report.cost is not None else ""
    requests = f" ({sent} requests{cost})" if sent else ""
    return f"{counts}{failed}; {report.listed} listed{ignored} in {report.seconds:.1f} s{requests}"


def report_json(report: Report) -> dict[str, Any]:
    """The last line for a program."""
    return {"report": asdict(report)}


class Lines:
    """Prints outcomes as they come, up to a number of lines."""

    def __init__(self, *, as_json: bool, limit: int | None) -> None:
        self._as_json, self._limit = as_json, limit
        self._printed = 0

    def __call__(self, outcome: Outcome) -> None:
        self._printed += 1
        if self._limit is not None and self._printed > self._limit:
            if self._printed == self._limit + 1:
                note("… further lines left out; -v prints them all")
            return
        text = encode(outcome_json(outcome)) if self._as_json else line(outcome)
        try:
            sys.stdout.write(text + "\n")
        except BrokenPipeError:
            # `sync | head` has seen enough, but the sync goes on.
            hush()


class Progress:
    """How far a sweep is: a live line on a terminal, a plain line every ten seconds elsewhere."""

    def __init__(self, *, quiet: bool, total: int) -> None:
        self._total = total
        self._started = self._spoke = time.monotonic()
        self._bar: Any = None
        self._update: Callable[[Report], None] = self._ignore if quiet else self._plain
        if not quiet and sys.stderr.isatty():
            self._open_bar()

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        # rich would take stdout along to stderr; it may only where both are this terminal.
        self._bar = Progress(
            *columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()
        )
        task = self._bar.add_task("waiting for the first page", total=self._total or None)
        self._bar.start()

        def update(report: Report) -> None:
            self._bar.update(task, completed=report.listed, description=self._text(report))

        self._update = update

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, report: Report) -> None:
        self._update(report)

    def _text(self, report: Report) -> str:
        rate = report.listed / max(time.monotonic() - self._started, 0.001)
        waiting = "removing" if report.removed else "listing"
        return f"{waiting}: {report.listed:,} listed, {report.drift:,} different, {rate:,.0f}/s"

    def _plain(self, report: Report) -> None:
        if time.monotonic() - self._spoke >= 10:
            self._spoke = time.monotonic()
            note(self._text(report))

    def _ignore(self, report: Report) -> None:
        pass


class Counter:
    """How far a long command is, in words: a live line on a terminal, a plain line every ten seconds elsewhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._live = not quiet and sys.stderr.isatty()
        self._spoke = time.monotonic()
        self._shown = False

    def __enter__(self) -> Counter:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")

    def __call__(self, text: str) -> None:
        """Tell how far it is, unless that was told a moment ago."""
        now = time.monotonic()
        if self._quiet or now - self._spoke < (0.2 if self._live else 10):
            return
        self._spoke = now
        if self._live:
            self._shown = True
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
        else:
            note(text)
