"""Azure Storage Queues: ``azqueue://account/queue``, where Event Grid puts what happens to blobs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Generator, Sequence
from itertools import islice
from typing import Any

from syncagent.drivers.azure import SUFFIX, access_of
from syncagent.drivers.queues import Depth, Message, QueueSpec
from syncagent.errors import AccessDenied, ConfigError, NotFound, SyncAgentError, Transient
from syncagent.model import DriverSpec, Integration

OPTIONS = {
    "endpoint": "another server that speaks the same protocol",
    "suffix": "of the cloud's hosts; default core.windows.net",
}
_BATCH = 32  # messages of one request, as the service has it
_STEP, _LONGEST_STEP = 0.1, 2.0  # seconds between two looks: the service knows no long poll
_LONGEST = 7 * 24 * 3600
_ACTIONS = {
    "receive": "Microsoft.Storage/storageAccounts/queueServices/queues/messages/process/action",
    "delete": "Microsoft.Storage/storageAccounts/queueServices/queues/messages/delete",
    "change": "Microsoft.Storage/storageAccounts/queueServices/queues/messages/write",
    "read": "Microsoft.Storage/storageAccounts/queueServices/queues/read",
}


class AzureQueue:
    """`Queue` over azure-storage-queue."""

    provider = "azureblob"
    most = _BATCH
    keeps = True

    def __init__(self, spec: QueueSpec, integration: Integration | None = None) -> None:
        options = dict(spec.options)
        account, _, name = spec.name.partition("/")
        if not account or not name or "/" in name:
            raise ConfigError(f"{spec.url} names no queue", resource=spec.url, hint="azqueue://account/queue")
        self.url, self._name = spec.url, spec.name
        self.hold = spec.hold
        self._endpoint = options.pop("endpoint", None)
        self._spec = DriverSpec(type="azureblob", bucket=spec.name, options=options)
        self._integration = integration
        self._lock = threading.Lock()
        self._made: Any = None
        self._credential: Any = None

    def __repr__(self) -> str:
        return f"<AzureQueue {self._name}>"

    def receive(self, most: int, wait: float) -> list[Message]:
        """See `Queue.receive`."""
        until, step = time.monotonic() + wait, _STEP
        most = max(1, min(most, _BATCH))
        while True:
            with self._translated("receive"):
                given = {"messages_per_page": most, "visibility_timeout": self.hold, "max_messages": most}
                found = [_message(one) for one in islice(self._client().receive_messages(**given), most)]
            left = until - time.monotonic()
            if found or left <= 0:
                return found
            time.sleep(min(step, left))
            step = min(step * 1.5, _LONGEST_STEP)

    def delete(self, messages: Sequence[Message]) -> None:
        """See `Queue.delete`."""
        for one in messages:
            with self._translated("delete"), _passed_over():
                self._client().delete_message(one.id, one.handle.receipt)

    def extend(self, messages: Sequence[Message]) -> None:
        """See `Queue.extend`."""
        self.release(messages, self.hold)

    def release(self, messages: Sequence[Message], after: float = 0.0) -> None:
        """See `Queue.release`."""
        seconds = max(0, min(int(after), _LONGEST))
        for one in messages:
            with self._translated("change"), _passed_over():
                told = self._client().update_message(one.id, one.handle.receipt, visibility_timeout=seconds)
                one.handle.receipt = told.pop_receipt

    def depth(self) -> Depth:
        """See `Queue.depth`. Those in flight are counted as waiting."""
        with self._translated("read"):
            return Depth(self._client().get_queue_properties().approximate_message_count)

    def close(self) -> None:
        """See `Queue.close`."""
        with self._lock:
            for one in (self._made, self._credential):
                if hasattr(one, "close"):
                    one.close()

    def _client(self) -> Any:
        from azure.storage.queue import QueueClient

        with self._lock:
            if self._made is None:
                account, _, name = self._name.partition("/")
                self._credential = access_of(self._spec, self._integration).credential
                suffix = self._spec.options.get("suffix", SUFFIX)
                url = self._endpoint or f"https://{account}.queue.{suffix}"
                self._made = QueueClient(
                    url, name, credential=self._credential, retry_total=4, initial_backoff=1,
                    increment_base=2, random_jitter_range=1, connection_timeout=10, read_timeout=60,
                )  # fmt: skip
            return self._made

    # -- errors ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _translated(self, kind: str) -> Generator[None, None, None]:
        """The one place where the SDK's errors become ours."""
        from azure.core import exceptions

        name = self._name
        try:
            yield
        except SyncAgentError:
            raise
        except exceptions.HttpResponseError as error:
            if error.status_code:
                raise self._translate_answer(error, kind) from error
            raise self._unknown() from error  # of the credential, not of the queue: it got no token
        except exceptions.AzureError as error:
            raise Transient(
                f"cannot reach queue {name}: {type(error).__name__}", resource=name,
                hint="check the account, the endpoint and the network",
            ) from error  # fmt: skip

    def _translate_answer(self, error: Any, kind: str) -> SyncAgentError:
        name, status, code = self._name, error.status_code or 0, _code(error)
        if status == 404:
            return NotFound(f"no such queue: {name}", resource=name, hint="check the name")
        if status == 401 or code in {"AuthenticationFailed", "InvalidAuthenticationInfo"}:
            return self._unknown()
        if status == 403:
            return AccessDenied(
                f"not allowed: {_ACTIONS[kind]} on queue {name}", resource=name,
                hint="give the role 'Storage Queue Data Contributor'", permission=_ACTIONS[kind],
            )  # fmt: skip
        if status in {408, 409, 429} or status >= 500:
            return Transient(f"Azure is busy ({code or status}) on queue {name}", resource=name)
        return SyncAgentError(f"Azure answered {code or status} for queue {name}", resource=name)

    def _unknown(self) -> AccessDenied:
        return AccessDenied(
            f"Azure does not accept the credentials for queue {self._name}", resource=self._name,
            hint="run 'az login', or check the integration",
        )  # fmt: skip


class _Receipt:
    """The message's handle, which changes with each change of its visibility."""

    def __init__(self, receipt: str) -> None:
        self.receipt = receipt


def _message(told: Any) -> Message:
    sent = told.inserted_on.timestamp() if told.inserted_on else None
    return Message(told.id, told.content, {}, told.dequeue_count or 0, sent, _Receipt(told.pop_receipt))


@contextlib.contextmanager
def _passed_over() -> Generator[None, None, None]:
    """A message that ran out, or that somebody deleted, is no error: it comes again, or is done."""
    from azure.core.exceptions import HttpResponseError

    try:
        yield
    except HttpResponseError as error:
        if _code(error) not in {"MessageNotFound", "PopReceiptMismatch"}:
            raise


def _code(error: Any) -> str:
    return str(error.response.headers.get("x-ms-error-code", "")) if error.response is not None else ""


def open_queue(spec: QueueSpec, integration: Integration | None = None) -> AzureQueue:
    """Open a queue. No request is sent yet."""
    import azure.storage.queue  # noqa: F401  # missing: said at once, with the extra to install

    return AzureQueue(spec, integration)
