"""The contract of wiring: what makes a bucket's events come to a queue or a function, and how it is taken away again.

Nothing is remembered: what is wanted follows from the dataset's driver and from a `Target`, what is there is asked
for, and a `Step` is one difference, or one thing that is as it should be. A wiring is right when
`tests/contract/test_wiring.py` says so.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote

from syncagent.errors import ConfigError, SyncAgentError
from syncagent.model import Action, DriverSpec, Integration

MARK = "syncagent", "bind"
"""Name and value of the tag, label or metadata on every queue and topic that a wiring made."""
KEPT_DAYS = 14
"""Days that a queue which a wiring makes keeps a message; more than that, SQS does not."""
DELIVERIES = 100
"""After which a queue's own dead letters take a message.

The daemon gives up by itself what fails for good, after 10 deliveries, and never what may pass; so this is for what
ends the daemon before it can say so. An outage must stay below: waits double from 5 seconds to 10 minutes, and 100
deliveries are 16 hours. More than 100, Pub/Sub does not take.
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that the wiring consists of, and what becomes of it."""

    action: Action
    """Added, changed, removed, the same; failed where something of somebody else's is in the way."""
    what: str
    """Such as ``queue photos``."""
    detail: str = ""
    """Why, or how; may be empty."""
    run: Callable[[], None] | None = field(default=None, repr=False, compare=False)

    def apply(self) -> None:
        """Do it. Steps are to be applied in their order, each once.

        :raises SyncAgentError: it could not be done; what came before stays, and a new plan goes on from there.
        """
        if self.run is not None:
            self.run()


@dataclass(frozen=True, slots=True)
class Target:
    """Where a dataset's events are to come to. Never holds a secret."""

    dataset: str
    """Its name."""
    id: str
    """The dataset's id: what is ours is known by it."""
    to: str = "queue"
    queue: str | None = None
    """URL of the queue; None for one with the dataset's name."""
    function: str | None = None
    account: str | None = None
    """The service account that a push is signed for; Google only."""
    scope: str | None = None
    """The storage account's resource id; None to look for it; Azure only."""
    dead_letter: str | None = None
    """Container of the storage account for what could not be delivered; Azure only."""


class Wiring(Protocol):
    """One bucket's wiring. Asks the cloud anew at every `plan`."""

    def plan(self, *, unbind: bool = False) -> list[Step]:
        """What there is to do, in the order in which it has to be done. Changes nothing, and needs rights to read only.

        :raises SyncAgentError: what is there cannot be read, or cannot be used.
        """
        ...

    @property
    def queue(self) -> str | None:
        """URL of the queue as `open_queue` takes it, after a `plan`; None where events go to a function."""
        ...

    def close(self) -> None:
        """Release connections. Calling twice is fine."""
        ...


_CLOUDS = {
    "s3": ("syncagent.drivers.s3_wiring", "s3", {"queue": "queue", "function": "function", "eventbridge": "eventbridge"}),
    "gcs": ("syncagent.drivers.gcs_wiring", "gcs", {"queue": "queue", "pubsub": "queue", "function": "function"}),
    "azureblob": (
        "syncagent.drivers.azure_wiring", "azure", {"queue": "queue", "eventgrid": "queue", "function": "function"},
    ),
}  # fmt: skip
"""Driver type -> module, extra, and what it makes of each word of ``--to``."""
_SCHEMES = {"s3": "sqs", "gcs": "pubsub", "azureblob": "azqueue"}


def open_wiring(spec: DriverSpec, target: Target, integration: Integration | None = None) -> Wiring:
    """Open a bucket's wiring. No request is sent yet.

    :param integration: credentials; None for the SDK's own default chain.
    :raises ConfigError: this cloud cannot be wired so, or its package is not installed.
    """
    if spec.type not in _CLOUDS:
        hint = (
            f"follow it with 'syncagent run --queue watch://{quote(spec.bucket)}'"
            if spec.type == "file"
            else None
        )
        raise ConfigError(
            f"dataset {target.dataset!r} is in no bucket that tells of events",
            resource=target.dataset,
            hint=hint,
        )
    module, extra, words = _CLOUDS[spec.type]
    if target.to not in words:
        raise ConfigError(
            f"--to {target.to} is not for dataset {target.dataset!r}", resource=target.dataset,
            hint=f"its cloud takes {', '.join(words)}",
        )  # fmt: skip
    to = words[target.to]
    if to == "function" and not target.function:
        raise ConfigError(
            f"--to function needs the function of dataset {target.dataset!r}", resource=target.dataset,
            hint="name it with --function",
        )  # fmt: skip
    if to != "function" and target.function:
        raise ConfigError(
            f"--function is for --to function, not for --to {target.to}", resource=target.dataset
        )
    if to != "function" and target.queue and not _fits(spec.type, target.queue):
        raise ConfigError(
            f"the events of dataset {target.dataset!r} can be bound to {_SCHEMES[spec.type]}:// only",
            resource=target.dataset, hint="name such a queue, or leave it out",
        )  # fmt: skip
    try:
        opened: Wiring = importlib.import_module(module).open_wiring(spec, target, to, integration)
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"wiring needs the package {missing.name}", hint=f"pip install 'syncagent[{extra},daemon]'"
        ) from missing
    return opened


def _fits(kind: str, url: str) -> bool:
    return url.startswith(f"{_SCHEMES[kind]}://") or (kind == "s3" and url.startswith("https://sqs."))


def name_of(dataset: str, *, longest: int, allowed: str = "A-Za-z0-9-") -> str:
    """``syncagent-DATASET`` as a store's name rules have it.

    :param longest: characters that the name may have.
    :param allowed: of a regular expression's set; where it has no capitals, they become small.
    """
    told = dataset if "A-Z" in allowed else dataset.lower()
    cleaned = re.sub(rf"[^{allowed}]+", "-", told)
    cleaned = re.sub(r"-{2,}", "-", cleaned).strip("-")
    name = f"syncagent-{cleaned}" if cleaned else "syncagent"
    if cleaned == dataset and len(name) <= longest:
        return name
    # Two datasets whose names become the same must not share a queue by chance.
    digest = hashlib.sha256(dataset.encode()).hexdigest()[:8]
    return f"{name[: longest - 9].rstrip('-')}-{digest}"


def counted(messages: int) -> str:
    """A number of messages, in words."""
    return f"{messages} message{'s' if messages != 1 else ''}"


def waits(messages: int) -> str:
    """Why a queue is not removed; empty for one that is empty."""
    return f"kept: {counted(messages)} in it" if messages else ""


def in_the_way(what: str, error: SyncAgentError) -> Step:
    """A step that cannot be: nothing is applied while there is one."""

    def refuse() -> None:
        raise error

    return Step(Action.FAILED, what, str(error), refuse)
