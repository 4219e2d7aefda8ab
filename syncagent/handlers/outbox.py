"""Tells a dataset's webhook what became of its items: CloudEvents over HTTP, signed, again until they were heard.

The signature is that of https://www.standardwebhooks.com, the event that of https://cloudevents.io. At least once: the receiver
knows an event by its id, and the order of what concerns one item by ``sequence``.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx

from syncagent.drivers.secrets import read_secret
from syncagent.errors import InvalidInput, SyncAgentError, Transient
from syncagent.ingest.fetch import send

if TYPE_CHECKING:
    from syncagent.catalog.sql.webhooks import Telling, Webhook, Webhooks

_log = logging.getLogger("syncagent.webhook")
_PREFIX = "whsec_"
_BATCH, _AT_ONCE = 200, 8
_TIMEOUT = 15.0
_FIRST_PAUSE, _LONGEST_PAUSE = 5, 3600
_KEPT_SECONDS = 3 * 86400
_IDLE_SECONDS = 1.0
_TURN_SECONDS = 30.0


def new_secret() -> str:
    """A secret to sign with, as Standard Webhooks writes it."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(24)).decode()


def key_of(secret: str) -> bytes:
    """The bytes that a secret stands for.

    :raises InvalidInput: it is none.
    """
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except ValueError:
        key = b""
    if not secret.startswith(_PREFIX) or not 24 <= len(key) <= 64:
        raise InvalidInput(
            "the webhook's secret is no 'whsec_' with 24 to 64 bytes in Base64",
            hint="leave it out: one is made",
        )
    return key


def signed(secret: str, id: str, at: int, body: bytes) -> dict[str, str]:
    """The headers that prove where a body comes from.

    :raises InvalidInput: the secret is none.
    """
    key = key_of(secret)
    mark = hmac.new(key, f"{id}.{at}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": id,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{base64.b64encode(mark).decode()}",
    }


def event_of(telling: Telling, dataset: str) -> dict[str, Any]:
    """The CloudEvent: what happened, and the item as it is now."""
    item = telling.item
    return {
        "specversion": "1.0",
        "id": f"{telling.dataset_id}-{telling.n}",
        "source": f"/syncagent/datasets/{telling.dataset_id}",
        "type": f"io.syncagent.item.{telling.what}",
        "subject": telling.key,
        "time": datetime.fromtimestamp(telling.at, UTC).isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "sequence": f"{telling.n:020}",
        "data": {
            "datasetId": telling.dataset_id,
            "datasetName": dataset,
            "itemId": telling.item_id,
            "key": telling.key,
            "movedFrom": telling.source,
            "item": item.to_json() if item else None,
        },
    }


class Refusal(InvalidInput):
    """The receiver does not want this event."""


def post(client: httpx.Client, hook: Webhook, secret: str, event: dict[str, Any]) -> None:
    """Tell one event.

    :param secret: to sign with.
    :raises Refusal: the receiver does not want it: 4xx, apart from 408 and 429.
    :raises SyncAgentError: it was not heard. :raises Refused: the address is private.
    """
    body = json.dumps(event, separators=(",", ":")).encode()
    headers = {
        "Content-Type": "application/cloudevents+json; charset=utf-8",
        "User-Agent": "syncagent",
        **signed(secret, event["id"], int(time.time()), body),
    }
    with contextlib.ExitStack() as stack:
        answer = send(
            client, hook.url, stack, private=hook.private, body=body, headers=headers, timeout=_TIMEOUT
        )
        if answer.is_success:
            return
        told = f"the webhook answers {answer.status_code}"
        if 400 <= answer.status_code < 500 and answer.status_code not in {408, 429}:
            raise Refusal(told)
        # A redirect too: what is signed goes where it was meant to go, or nowhere.
        raise Transient(told, retry_after=_retry_after(answer))


def _retry_after(answer: httpx.Response) -> float | None:
    told = answer.headers.get("retry-after", "")
    return float(told) if told.isdecimal() and len(told) < 6 else None


def _pause(times: int) -> int:
    """Seconds of rest after so many failures."""
    return min(_LONGEST_PAUSE, _FIRST_PAUSE << min(times, 12))


class Teller:
    """Empties the outbox of a catalog, a thread for each webhook: a slow one keeps no other waiting.

    Several processes may: each event is taken by one of them.
    """

    def __init__(
        self, webhooks: Webhooks, *, count: Callable[[str, str, int], None] = lambda *_: None
    ) -> None:
        self._webhooks, self._count = webhooks, count
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="syncagent-webhooks", daemon=True)
        self._telling: dict[str, threading.Thread] = {}

    def start(self) -> None:
        """Begin. Returns at once."""
        self._thread.start()

    def stop(self, seconds: float) -> bool:
        """End after what is in hand; whether that was in time."""
        until = time.monotonic() + seconds
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)  # from then on no thread is added
        telling = list(self._telling.values())
        for thread in telling:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in [self._thread, *telling])

    def _run(self) -> None:
        """Sees to it that each webhook has its thread."""
        while not self._stopping.wait(0 if not self._telling else _IDLE_SECONDS):
            try:
                names = {hook.dataset for hook in self._webhooks.all() if hook.waiting}
            except Exception:
                _log.exception("webhooks wait: the catalog does not tell them")
                self._stopping.wait(_IDLE_SECONDS)
                continue
            self._telling = {name: thread for name, thread in self._telling.items() if thread.is_alive()}
            for name in names - self._telling.keys():
                thread = threading.Thread(
                    target=self._tell, args=(name,), name="syncagent-webhook", daemon=True
                )
                self._telling[name] = thread
                thread.start()
            if not names:
                self._stopping.wait(_IDLE_SECONDS)

    def _tell(self, dataset: str) -> None:
        """Tell one webhook what waits, until there is nothing, or it rests."""
        try:
            told = 1
            while told and not self._stopping.is_set():
                told = _Turn(self._webhooks, self._webhooks.get(dataset), self._stopping, self._count).run()
        except Exception:  # the next look begins anew
            _log.exception("%s: its webhook was not told", dataset)
            self._stopping.wait(_IDLE_SECONDS)


class _Turn:
    """Some events for one webhook: those of different items at once, those of one item in their order."""

    def __init__(
        self,
        webhooks: Webhooks,
        hook: Webhook,
        stopping: threading.Event,
        count: Callable[[str, str, int], None],
    ) -> None:
        self._webhooks, self._hook, self._stopping, self._count = webhooks, hook, stopping, count
        self._until = time.monotonic() + _TURN_SECONDS  # by then nobody else may have taken them
        self._heard: list[int] = []
        self._refused: list[tuple[Telling, SyncAgentError]] = []
        self._failed: list[SyncAgentError] = []

    def run(self) -> int:
        """Returns how many were heard, or refused."""
        batch = self._webhooks.take(self._hook.dataset, _BATCH)
        if not batch:
            return 0
        by_item: dict[str, list[Telling]] = {}
        for one in batch:
            by_item.setdefault(one.item_id, []).append(one)
        try:
            secret = read_secret(self._webhooks.secret(self._hook))
            key_of(secret)
        except SyncAgentError as error:
            self._failed.append(error)
        else:
            self._post(secret, list(by_item.values()))
        heard, refused = list(self._heard), list(self._refused)
        if heard:
            self._webhooks.told(self._hook.dataset, heard)
            self._count(self._hook.dataset, "told", len(heard))
        for telling, reason in refused:
            self._refuse(telling, reason)
        ended = {*heard, *(telling.n for telling, _ in refused)}
        left = [one.n for one in batch if one.n not in ended]
        if self._failed:
            self._fall(left, self._failed[0])
        elif left:
            self._webhooks.release(left)
        return 0 if self._failed else len(ended)

    def _post(self, secret: str, of_items: list[list[Telling]]) -> None:
        client = httpx.Client(follow_redirects=False, trust_env=False)
        pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="syncagent-webhook")
        try:
            told = [pool.submit(self._in_order, client, secret, of_item) for of_item in of_items]
            # A receiver that drips its answer byte by byte never times out by itself.
            _, hanging = wait(told, timeout=_TURN_SECONDS + 2 * _TIMEOUT)
            if hanging:
                self._failed.append(Transient("the webhook does not end its answers"))
        finally:
            client.close()
            pool.shutdown(wait=False, cancel_futures=True)

    def _in_order(self, client: httpx.Client, secret: str, of_item: Sequence[Telling]) -> None:
        """One item's events one after the other, until one is not heard."""
        for one in of_item:
            if self._failed or self._stopping.is_set() or time.monotonic() > self._until:
                return
            try:
                post(client, self._hook, secret, event_of(one, self._hook.dataset))
            except Refusal as reason:
                self._refused.append((one, reason))
                return
            except SyncAgentError as reason:
                self._failed.append(reason)
                return
            except Exception as bug:
                _log.exception("%s: an event could not be told", self._hook.dataset)
                self._failed.append(SyncAgentError(f"a bug of ours, {type(bug).__name__}"))
                return
            self._heard.append(one.n)

    def _refuse(self, telling: Telling, reason: SyncAgentError) -> None:
        before = int(time.time()) - _KEPT_SECONDS
        given_up = self._webhooks.refused(
            self._hook.dataset, telling, reason.message, _pause(telling.attempts), before
        )
        self._count(self._hook.dataset, "dropped" if given_up else "refused", 1)
        if given_up:
            _log.error("%s: an event is given up: %s", self._hook.dataset, reason.message)

    def _fall(self, left: Sequence[int], reason: SyncAgentError) -> None:
        pause = max(_pause(self._hook.failures), int(getattr(reason, "retry_after", None) or 0))
        name, before = self._hook.dataset, int(time.time()) - _KEPT_SECONDS
        dropped = self._webhooks.failed(name, left, reason.message, pause, before)
        self._count(name, "failed", 1)
        if dropped:
            self._count(name, "dropped", dropped)
            _log.error(
                "%s: %d events are given up: the webhook did not hear them for three days", name, dropped
            )
        _log.warning("%s: the webhook rests for %d s: %s", name, pause, reason.message)
