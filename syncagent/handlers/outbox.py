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
from concurrent.futures import ThreadPoolExecutor
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

    :param secret: or a reference to one. :raises SyncAgentError: it cannot be read, or is none.
    """
    key = key_of(read_secret(secret))
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


def post(client: httpx.Client, hook: Webhook, event: dict[str, Any]) -> None:
    """Tell one event.

    :raises SyncAgentError: it was not heard. :raises Refused: the address is private.
    """
    body = json.dumps(event, separators=(",", ":")).encode()
    headers = {
        "Content-Type": "application/cloudevents+json; charset=utf-8",
        "User-Agent": "syncagent",
        **signed(hook.secret, event["id"], int(time.time()), body),
    }
    with contextlib.ExitStack() as stack:
        answer = send(
            client, hook.url, stack, private=hook.private, body=body, headers=headers, timeout=_TIMEOUT
        )
        if not answer.is_success:  # a redirect too: what is signed goes where it was meant to go, or nowhere
            raise Transient(f"the webhook answers {answer.status_code}", retry_after=_retry_after(answer))


def _retry_after(answer: httpx.Response) -> float | None:
    told = answer.headers.get("retry-after", "")
    return float(told) if told.isdecimal() and len(told) < 6 else None


class Teller:
    """A thread that empties the outbox of a catalog. Several processes may: each event is taken by one of them."""

    def __init__(
        self, webhooks: Webhooks, *, count: Callable[[str, str, int], None] = lambda *_: None
    ) -> None:
        self._webhooks, self._count = webhooks, count
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="syncagent-webhook", daemon=True)

    def start(self) -> None:
        """Begin. Returns at once."""
        self._thread.start()

    def stop(self, seconds: float) -> bool:
        """End after what is in hand; whether that was in time."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        with (
            httpx.Client(follow_redirects=False, trust_env=False) as client,
            ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="syncagent-webhook") as pool,
        ):
            while not self._stopping.is_set():
                told = 0
                try:
                    for hook in self._webhooks.all():
                        told += self._tell(hook, client, pool)
                except SyncAgentError as reason:
                    _log.warning("webhooks wait: %s", reason)
                except Exception:
                    _log.exception("telling webhooks failed")
                self._stopping.wait(0 if told else _IDLE_SECONDS)

    def _tell(self, hook: Webhook, client: httpx.Client, pool: ThreadPoolExecutor) -> int:
        """Tell one webhook some of what waits; returns how much it heard."""
        batch = self._webhooks.take(hook.dataset, _BATCH)
        if not batch:
            return 0
        by_item: dict[str, list[Telling]] = {}
        for one in batch:
            by_item.setdefault(one.item_id, []).append(one)
        failed: list[SyncAgentError] = []
        until = (
            time.monotonic() + _TURN_SECONDS
        )  # a slow one must not keep the others waiting, nor hold what it took too long

        def in_order(of_item: Sequence[Telling]) -> list[int]:
            """One item's events one after the other; the first that fails ends it, for all items."""
            heard = []
            for one in of_item:
                if failed or self._stopping.is_set() or time.monotonic() > until:
                    break
                try:
                    post(client, hook, event_of(one, hook.dataset))
                except SyncAgentError as reason:
                    failed.append(reason)
                    break
                heard.append(one.n)
            return heard

        heard = [n for some in pool.map(in_order, by_item.values()) for n in some]
        if heard:
            self._webhooks.told(hook.dataset, heard)
            self._count(hook.dataset, "told", len(heard))
        left = [one.n for one in batch if one.n not in set(heard)]
        if failed:
            self._failed(hook, left, failed[0])
        elif left:
            self._webhooks.release(left)
        return len(heard)

    def _failed(self, hook: Webhook, left: Sequence[int], reason: SyncAgentError) -> None:
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(hook.failures, 12))
        pause = max(pause, int(getattr(reason, "retry_after", None) or 0))
        dropped = self._webhooks.failed(
            hook.dataset, left, reason.message, pause, int(time.time()) - _KEPT_SECONDS
        )
        self._count(hook.dataset, "failed", 1)
        if dropped:
            self._count(hook.dataset, "dropped", dropped)
            _log.error(
                "%s: %d events are given up: the webhook did not hear them for three days",
                hook.dataset,
                dropped,
            )
        _log.warning("%s: the webhook rests for %d s: %s", hook.dataset, pause, reason.message)
