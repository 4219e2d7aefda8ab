"""What each format can carry, for the contract suite: one module a format, with a `PROFILE`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module

from hypothesis import strategies as st

from syncagent.ingest.annotations import Label, Labelled
from syncagent.ingest.formats import NAMES, Context, Format, get
from tests.labelled import HEIGHT, WIDTH, declared

KNOWN = Context(size=lambda key, stem: (WIDTH, HEIGHT), fps=lambda key, stem: "10")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How the suite tries a format."""

    items: st.SearchStrategy[list[Labelled]]
    """Items within what the format carries."""
    seen: Callable[[Labelled], Labelled] = lambda item: item
    """What of an item comes back: the files of some formats do not tell its size, say. Identity is the aim."""
    labels: Sequence[Label] = field(default_factory=declared)
    make: Callable[[], Format] | None = None
    """The format, where it needs settings; else by its name."""
    context: Context = KNOWN
    xml: bool = False
    cut: bool = True
    """A file of it that is cut off anywhere is no file of it any more (a table's is, at the end of a line)."""


def profile(name: str) -> tuple[Format, Profile]:
    """A format and its profile."""
    found: Profile = import_module(f"tests.profiles.{name.replace('-', '_')}").PROFILE
    return found.make() if found.make else get(name), found


__all__ = ["NAMES", "Profile", "profile"]
