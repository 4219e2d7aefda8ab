"""What a distributed engine does for a sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Order = Mapping[str, Any]
"""What a task is to do, in values that JSON has. No secret: schedulers keep, show and log it."""
Work = Callable[[Order, Callable[[Mapping[str, Any]], bool]], Mapping[str, Any]]
"""What a worker runs: an order, and whom to tell how far it is, which answers whether to go on; returns an answer."""


@dataclass(frozen=True, slots=True)
class Told:
    """A task says how far it is."""

    task: str
    what: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Done:
    """A task has returned."""

    task: str
    answer: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker of a task is gone. Nothing of the task runs any more, as far as the engine knows."""

    task: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A task has raised what it should not, or could not begin."""

    task: str
    error: BaseException


Event = Told | Done | Lost | Failed


class Engine(Protocol):
    """Runs tasks on the workers of a cluster. Used by one thread.

    Errors are the project's own: `Transient` where the scheduler is gone.
    """

    name: str
    """Its address, for people."""

    def slots(self) -> int:
        """How many tasks the workers run at once, by now; 0 where there are none."""
        ...

    def submit(self, task: str, work: Work, order: Order) -> None:
        """Have a task run, once. What its worker cannot end it does not begin again: that is told as `Lost`."""
        ...

    def next(self, timeout: float) -> Event | None:
        """What happened, in the order of each task; None if nothing did for so many seconds."""
        ...

    def stop(self) -> None:
        """Tell all tasks to return soon, and those that have not begun not to."""
        ...

    def close(self) -> None:
        """Leave the cluster as it was. Twice is fine."""
        ...
