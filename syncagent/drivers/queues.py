"""The contract of a queue of bucket events, and queues by URL: ``sqs://…``, ``pubsub://…``, ``azqueue://…``, ``servicebus://…``.

A queue is right when `tests/contract/test_queue.py` says so.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from syncagent.errors import ConfigError
from syncagent.model import Integration


@dataclass(frozen=True, slots=True)
class Message:
    """One message that is ours for a while. Its body is never in a repr: keys are people's own."""

    id: str
    body: str = field(repr=False)
    attributes: Mapping[str, str] = field(repr=False, default_factory=dict)
    attempts: int = 1
    """How often it was handed out, this time included; 0 where the queue does not count."""
    sent_at: float | None = None
    """When it came into the queue, in Unix seconds."""
    handle: Any = field(repr=False, compare=False, default=None)
    """What the queue knows it by, this time."""


@dataclass(frozen=True, slots=True)
class Depth:
    """How much waits in a queue, as far as it tells; such counts are approximate everywhere."""

    waiting: int | None = None
    in_flight: int | None = None


class Queue(Protocol):
    """Hands messages out, each to one taker at a time, until it is deleted. Used from many threads.

    :raises SyncAgentError: the queue cannot be reached, is not there, or does not let us.
    """

    provider: str
    """Whose events are in it: a `DriverSpec.type`."""
    url: str
    """Holds no secret."""
    hold: int
    """Seconds for which a received message is ours, and by which `extend` prolongs that from now on."""
    most: int
    """Messages that one `receive` can give."""
    keeps: bool
    """Whether what comes while nobody receives is kept."""

    def receive(self, most: int, wait: float) -> list[Message]:
        """Up to `most` messages, or none after about `wait` seconds."""
        ...

    def delete(self, messages: Sequence[Message]) -> None:
        """Forget messages: their work is done. One that is not ours any more may come again, and that is no error."""
        ...

    def extend(self, messages: Sequence[Message]) -> None:
        """Keep messages for `hold` seconds from now."""
        ...

    def release(self, messages: Sequence[Message], after: float = 0.0) -> None:
        """Give messages back, to be handed out again after some seconds."""
        ...

    def depth(self) -> Depth:
        """How much waits."""
        ...

    def close(self) -> None:
        """Release connections. Calling twice is fine."""
        ...


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """Where a queue is. Never holds a secret."""

    type: str
    """The scheme: ``sqs``, ``pubsub``, ``azqueue``, ``servicebus``, ``watch``, ``memory``."""
    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    hold: int = 60
    """Seconds for which a received message is ours."""
    url: str = ""


_SQS_HOST = re.compile(r"sqs\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?")
_LONGEST = 12 * 3600  # seconds that SQS lets a message be ours
_BUILTIN = {
    "memory": "syncagent.drivers.memory_queue",  # of the tests
    "sqs": "syncagent.drivers.s3_queue",
    "pubsub": "syncagent.drivers.gcs_queue",
    "azqueue": "syncagent.drivers.azure_queue",
    "azfeed": "syncagent.drivers.azure_feed",
    "servicebus": "syncagent.drivers.azure_service_bus",
    "watch": "syncagent.drivers.local_queue",
}


def parse_queue(url: str) -> QueueSpec:
    """Read a queue's URL. An SQS queue's own ``https://`` URL is one as well. Each takes ``hold``, in seconds; default 60.

    :raises ConfigError: unknown scheme or parameter, credentials in the URL, no name.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that are no address
        raise _no_url(url) from None
    if "@" in parts.netloc or "@" in parts.query:
        raise ConfigError(
            "a queue's URL holds credentials",  # not quoted
            hint="credentials never stand in a URL: use the environment or an integration",
        )
    scheme, name = parts.scheme, unquote(parts.netloc + parts.path).strip("/")
    if parts.fragment:
        raise ConfigError("a queue's URL has a '#'", resource=url, hint="write %23 where a name has one")
    if scheme == "https" and (host := _SQS_HOST.fullmatch(parts.netloc)) and not parts.query:
        return QueueSpec("sqs", parts.path.rpartition("/")[2], {"region": host[1]}, url=url)
    if not scheme:
        raise _no_url(url)
    if scheme not in _BUILTIN:
        raise ConfigError(f"unknown queue {scheme}://", resource=scheme, hint=_known())
    known = {**importlib.import_module(_BUILTIN[scheme]).OPTIONS, "hold": ""}
    options = {}
    for pair in filter(None, parts.query.split("&")):
        option, _, value = pair.partition("=")
        if option not in known:
            raise ConfigError(
                f"unknown parameter {option!r} in a {scheme}:// URL",
                resource=name,
                hint=f"known are {', '.join(sorted(known))}",
            )
        options[option] = unquote(value)
    if not name:
        raise ConfigError(f"{url} names no queue", resource=url)
    hold = options.pop("hold", "60")
    if not (hold.isascii() and hold.isdecimal() and 1 <= int(hold) <= _LONGEST):
        raise ConfigError(f"hold={hold} is no number of seconds from 1 to {_LONGEST}", resource=name)
    return QueueSpec(scheme, name, options, int(hold), url)


def _known() -> str:
    return f"known are {', '.join(f'{scheme}://' for scheme in _BUILTIN if scheme != 'memory')}"


def _no_url(text: str) -> ConfigError:
    # Some paste a connection string with its key here: only what looks like a name is quoted.
    shown = repr(text) if re.fullmatch(r"[\w.:/-]{1,80}", text) else "the text"
    return ConfigError(f"{shown} is no queue's URL", hint=_known())


def open_queue(url: str, integration: Integration | None = None) -> Queue:
    """Open a queue by its URL. No request is sent yet.

    :param integration: credentials; None for the SDK's own default chain.
    :raises ConfigError: the URL is wrong, or the queue's package is not installed.
    """
    spec = parse_queue(url)
    try:
        opened: Queue = importlib.import_module(_BUILTIN[spec.type]).open_queue(spec, integration)
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"{spec.type}:// queues need the package {missing.name}",
            hint="pip install 'syncagent[daemon]'",
        ) from missing
    return opened
