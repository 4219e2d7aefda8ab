"""Wires settings to consumers, a sweeper and an address; starts them, reloads them, drains them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from syncagent import tracing
from syncagent.agent import Agent
from syncagent.config import Settings, home
from syncagent.daemon.consumer import Consumer
from syncagent.daemon.health import Health
from syncagent.daemon.letters import DeadLetters
from syncagent.daemon.metrics import Metrics
from syncagent.daemon.schedule import Schedule
from syncagent.daemon.sweeper import Plan, Sweeper
from syncagent.drivers.queues import Queue, open_queue
from syncagent.drivers.secrets import read_secret
from syncagent.errors import ConfigError, SyncAgentError
from syncagent.handlers.deliveries import parser
from syncagent.handlers.mirror import Mirror
from syncagent.handlers.outbox import Teller

_log = logging.getLogger("syncagent.daemon")
_WITH_QUEUE, _WITHOUT = "24h", "15m"
_REQUESTS_SECONDS = 10.0
_STEP = 0.2
_AGAIN_SECONDS = 5.0


class _Work:
    """What works by one reading of the settings."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self._metrics = settings, metrics
        self.agent = Agent(settings)
        self.letters = letters(settings)
        self.consumers: list[Consumer] = []
        self.mirrors: list[Mirror] = []
        try:
            self._plans = [self._plan(name) for name in settings.datasets]
            for url, (name, integration) in self._queues().items():
                with _of(name):
                    queue = self._open(url, integration)  # sends nothing, and says what is wrong with the URL
                    parser(queue.provider)
                queue.close()
                names = [name for name, told in settings.datasets.items() if told.queue == url]
                mirror = Mirror(self.agent)
                self.mirrors.append(mirror)
                self.consumers.append(
                    Consumer(
                        url, partial(self._open, url, integration), mirror, metrics, self.letters,
                        in_flight=settings.run.in_flight, attempts=settings.run.attempts, poll=settings.run.poll,
                        lost=partial(self._sweep_soon, names),
                    )
                )  # fmt: skip
            for name in settings.datasets:
                with _of(name):
                    self.agent.catalog.dataset(name)  # raises, naming those there are
            self.token = token_of(settings, make=True) or "" if settings.run.listen else ""
            self.sweeper = Sweeper(self.agent, self._plans, metrics)
            webhooks = self.agent.webhooks()
            self.teller = Teller(webhooks, count=metrics.told) if webhooks else None
        except BaseException:
            self.agent.close()
            raise

    def _plan(self, name: str) -> Plan:
        told = self.settings.datasets[name]
        with _of(name):
            schedule = Schedule(told.sweep or (_WITH_QUEUE if told.queue else _WITHOUT))
        return Plan(name, schedule, told.max_deletes, told.drift_warning, bool(told.queue))

    def _sweep_soon(self, names: list[str]) -> None:
        self.sweeper.soon(names)

    def _queues(self) -> dict[str, tuple[str, str | None]]:
        """By URL, the first dataset that names it, and its integration."""
        found: dict[str, tuple[str, str | None]] = {}
        for name, told in self.settings.datasets.items():
            if told.queue and found.setdefault(told.queue, (name, told.integration))[1] != told.integration:
                raise ConfigError(
                    f"datasets.{name}: queue {told.queue} has another integration elsewhere", resource=name,
                    hint="name the same one wherever the queue stands",
                )  # fmt: skip
        return found

    def _open(self, url: str, integration: str | None) -> Queue:
        return open_queue(url, self.agent.catalog.integration(integration) if integration else None)

    def start(self) -> None:
        """Begin. :raises SyncAgentError: the catalog is out of reach, or a queue's URL is wrong."""
        self.agent.catalog.datasets()
        for plan in self._plans:
            if not plan.followed:
                _log.warning(
                    "%s: no queue tells of changes; they are seen %s", plan.name, plan.schedule.latency
                )
        self._metrics.dead.set(self.letters.count())
        for consumer in self.consumers:
            consumer.start()
        self.sweeper.start()
        if self.teller:
            self.teller.start()

    def stop(self, seconds: float) -> int:
        """End; returns how many messages are left for another delivery."""
        until = time.monotonic() + seconds
        self.sweeper.ask_to_stop()
        with ThreadPoolExecutor(max(1, len(self.consumers)), thread_name_prefix="syncagent-drain") as pool:
            left: int = sum(pool.map(lambda consumer: consumer.stop(seconds), self.consumers))
        ended = self.sweeper.stop(max(0.5, until - time.monotonic()))
        if self.teller:  # last: what was just settled is told as well, or by the next process
            ended &= self.teller.stop(max(0.5, until - time.monotonic()))
        if ended:
            self.agent.close()
        return left

    def follows(self) -> dict[str, dict[str, str | None]]:
        """By dataset, its queue and its schedule, for `status`."""
        return {
            plan.name: {"queue": self.settings.datasets[plan.name].queue, "sweep": plan.schedule.text}
            for plan in self._plans
        }

    def tell_requests(self) -> None:
        """Note what was asked of the buckets."""
        for number, mirror in enumerate(self.mirrors):
            for dataset, bucket in mirror.buckets():
                asked = dict(bucket.driver.requests)
                self._metrics.asked(dataset.name, number, asked, dict(bucket.caps.prices))


class Daemon:
    """``syncagent run``.

    :param read: reads the settings: at the start, and whenever told to.
    """

    def __init__(self, read: Callable[[], Settings]) -> None:
        self._read = read
        self.metrics = Metrics()
        self._work: _Work | None = None
        self._health: Health | None = None
        self._stop = self._again = False
        self._again_at: float | None = None
        self._following = False
        self._listen = ""

    def run(self, on_ready: Callable[[str | None], None] = lambda _: None) -> None:
        """Work until `stop` is called.

        :param on_ready: called when all is started, with the address that is listened on.
        :raises SyncAgentError: the settings are wrong, the address is taken, the catalog is out of reach.
        """
        settings = self._read()
        self._bind(settings.run.listen)  # first: whoever is refused has begun nothing
        end_tracing = tracing.start()
        try:
            self._work = _Work(settings, self.metrics)
            self._work.start()
            self._following = True
            on_ready(self._health.address if self._health else None)
            told_at = time.monotonic()
            while not self._stop:
                time.sleep(_STEP)
                if self._again or (self._again_at is not None and time.monotonic() > self._again_at):
                    self._again, self._again_at = False, None
                    self._reload()
                if time.monotonic() - told_at > _REQUESTS_SECONDS:
                    told_at = time.monotonic()
                    try:
                        self._work.tell_requests()
                    except Exception:
                        _log.exception("the requests were not counted")
        finally:
            left = self._work.stop(self._work.settings.run.drain) if self._work else 0
            if left:
                _log.warning("%d messages were not done in time; they will be delivered again", left)
            if self._health:
                self._health.close()
            end_tracing()

    def stop(self) -> None:
        """End soon. May be called from a signal's handler, which must not wait for a lock, and twice."""
        self._stop = True

    def reload(self) -> None:
        """Read the settings and the secrets again soon. May be called from a signal's handler."""
        self._again = True

    def _reload(self) -> None:
        """The new settings take over, or, where they are wrong, the old ones stay."""
        old = self._work
        try:
            settings = self._read()
            moved = settings.run.listen != self._listen
            # The address stays open, so its token has to be there as well.
            run = settings.run.model_copy(update={"listen": self._listen})
            work = _Work(settings.model_copy(update={"run": run}), self.metrics)
        except Exception as reason:
            if isinstance(reason, SyncAgentError):
                _log.error("the settings are as they were: %s", reason)
            else:
                _log.exception("the settings are as they were")
            if not self._following:  # nobody else would begin again
                self._again_at = time.monotonic() + _AGAIN_SECONDS
            return
        if old is not None:
            old.stop(old.settings.run.drain)
        self._work, self._following = work, False
        self.metrics.forget()
        try:
            work.start()
            self._following = True
        except Exception as reason:
            # The catalog may be away: all is read and tried again soon, whoever asks for it.
            _log.error("nothing is followed for now: %s", reason)
            self._again_at = time.monotonic() + _AGAIN_SECONDS
        else:
            if moved:
                _log.warning("run.listen has changed: that needs a restart; it is still %r", self._listen)
            _log.warning("the settings were read again")

    def _bind(self, listen: str) -> None:
        self._listen = listen
        if listen:
            self._health = Health(
                listen,
                self._token,
                ready=self._lacking,
                metrics=self.metrics.text,
                status=self._status,
            )

    def _token(self) -> str:
        return self._work.token if self._work else ""

    def _lacking(self) -> list[str]:
        """Queues that did not answer yet."""
        work = self._work
        return [one.url for one in work.consumers if not one.ready.is_set()] if work else ["settings"]

    def _status(self) -> dict[str, Any]:
        lacking = self._lacking()
        return {
            **self.metrics.status(), "datasets": self._work.follows() if self._work else {},
            "ready": not lacking, "waits_for": lacking, "pid": os.getpid(),
        }  # fmt: skip


@contextlib.contextmanager
def _of(name: str) -> Iterator[None]:
    """Whatever goes wrong says of which dataset. It stays what it is: its type is its exit code."""
    try:
        yield
    except SyncAgentError as reason:
        reason.message = f"datasets.{name}: {reason.message}"
        raise


def letters(settings: Settings) -> DeadLetters:
    """Where messages go that are given up."""
    return DeadLetters(settings.run.dead_letters or home() / "dead-letters")


def token_of(settings: Settings, *, make: bool = False) -> str | None:
    """What metrics and status ask for: the setting, or a file that only its owner reads.

    :param make: write the file where there is none.
    """
    if settings.run.token is not None:
        token = read_secret(settings.run.token.get_secret_value())
        if not token:
            raise ConfigError("run.token is empty", hint="leave it out: one is made")
        return token
    file = home() / "run.token"
    if make:
        try:
            _make_token(file)
        except OSError as error:
            raise ConfigError(
                f"{file.parent} cannot be written ({error.strerror}), and the token for metrics is kept there",
                resource=str(file.parent),
                hint='set run.token, or run.listen = "", or SYNCAGENT_HOME to another folder',
            ) from error
    try:
        token = file.read_text().strip()
    except OSError:
        token = ""
    if make and not token:
        raise ConfigError(
            f"{file} cannot be read", resource=str(file), hint="set run.token, or run.listen = ''"
        )
    return token or None


def _make_token(file: Path) -> None:
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=file.parent)
    try:
        with os.fdopen(handle, "w") as out:
            out.write(secrets.token_urlsafe(32))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, file)  # whoever comes first
    finally:
        Path(temporary).unlink()


class Lines(logging.Formatter):
    """Logs as text, or as one JSON object a line. Fields of a record are told; keys and payloads are not in them."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """One line; a bug's traceback is told by its last frames."""
        fields: dict[str, Any] = getattr(record, "fields", {})
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        if self._json:
            told = {"time": at, "level": record.levelname.lower(), "message": record.getMessage(), **fields}
            if record.exc_info:
                told["traceback"] = self.formatException(record.exc_info)
            return json.dumps(told, default=str)
        words = "".join(f" {name}={json.dumps(value, default=str)}" for name, value in fields.items())
        line = f"{at} {record.levelname.lower()}: {record.getMessage()}{words}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line
