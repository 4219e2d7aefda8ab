"""Azure Service Bus, by its REST interface: ``servicebus://namespace/queue``, ``servicebus://namespace/topic/subscriptions/name``.

One request gives one message: for more than some hundred events a second let Event Grid write into a Storage Queue.
https://learn.microsoft.com/rest/api/servicebus/service-bus-runtime-rest
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, quote_plus

import httpx

from syncagent.drivers.azure import access_of
from syncagent.drivers.queues import Depth, Message, QueueSpec
from syncagent.errors import AccessDenied, ConfigError, NotFound, SyncAgentError, Transient
from syncagent.model import DriverSpec, Integration

OPTIONS = {
    "endpoint": "another server that speaks the same protocol",
    "suffix": "of the cloud's hosts; default servicebus.windows.net",
}
SUFFIX = "servicebus.windows.net"
_AUDIENCE = "https://servicebus.azure.net/.default"
_EARLY = 300  # seconds before its end that a token is renewed
_LONGEST_LOCK = 300  # seconds, as the service has it
_SAS_SECONDS = 3600
_ACTION = "Microsoft.ServiceBus/namespaces/messages/receive/action"


class ServiceBusQueue:
    """`Queue` over HTTP. A message is ours for the queue's own lock duration; its maximum of deliveries counts too."""

    provider = "azureblob"
    most = 1
    keeps = True

    def __init__(self, spec: QueueSpec, integration: Integration | None = None) -> None:
        namespace, _, path = spec.name.partition("/")
        parts = path.split("/")
        named = all(parts) and (len(parts) == 1 or (len(parts) == 3 and parts[1].lower() == "subscriptions"))
        if not namespace or not named:
            raise ConfigError(
                f"{spec.url} names no queue", resource=spec.url,
                hint="servicebus://namespace/queue, or servicebus://namespace/topic/subscriptions/name",
            )  # fmt: skip
        self.url, self._name = spec.url, spec.name
        self.hold = spec.hold
        host = namespace if "." in namespace else f"{namespace}.{spec.options.get('suffix', SUFFIX)}"
        self._base = (spec.options.get("endpoint") or f"https://{host}").rstrip("/")
        self._path = quote(path)
        self._integration = integration
        self._lock = threading.Lock()
        self._token: tuple[str, float] | None = None
        self._credential: Any = None
        self._http = httpx.Client(timeout=httpx.Timeout(30, read=90), trust_env=True)

    def __repr__(self) -> str:
        return f"<ServiceBusQueue {self._name}>"

    def receive(self, most: int, wait: float) -> list[Message]:
        """See `Queue.receive`."""
        answer = self._send(
            "POST", f"{self._base}/{self._path}/messages/head", {"timeout": str(max(0, int(wait)))}
        )
        if answer.status_code == 204:
            return []
        try:
            told = json.loads(answer.headers["BrokerProperties"])
            token, number = str(told["LockToken"]), str(told["SequenceNumber"])
            sent = (
                parsedate_to_datetime(told["EnqueuedTimeUtc"]).timestamp()
                if "EnqueuedTimeUtc" in told
                else None
            )
            until = parsedate_to_datetime(told["LockedUntilUtc"]) if "LockedUntilUtc" in told else None
            # By the service's clock: ours may be wrong.
            now = parsedate_to_datetime(answer.headers["Date"]) if "Date" in answer.headers else None
        except (KeyError, TypeError, ValueError) as error:
            raise SyncAgentError(
                f"Service Bus gave no message of queue {self._name}", resource=self._name
            ) from error
        if until is not None and now is not None:
            self.hold = max(1, min(_LONGEST_LOCK, round((until - now).total_seconds())))
        # Its own address: a Location header may name a host that we did not choose.
        at = f"{self._base}/{self._path}/messages/{quote(number, safe='')}/{quote(token, safe='')}"
        return [Message(number, answer.text, {}, int(told.get("DeliveryCount", 0)), sent, at)]

    def delete(self, messages: Sequence[Message]) -> None:
        """See `Queue.delete`."""
        for one in messages:
            self._send("DELETE", one.handle, gone=True)

    def extend(self, messages: Sequence[Message]) -> None:
        """See `Queue.extend`. For as long as the queue's lock lasts."""
        for one in messages:
            self._send("POST", one.handle, gone=True)

    def release(self, messages: Sequence[Message], after: float = 0.0) -> None:
        """See `Queue.release`. The service knows no delay: what is to come later comes when its lock ends."""
        if after <= 0:
            for one in messages:
                self._send("PUT", one.handle, gone=True)

    def depth(self) -> Depth:
        """See `Queue.depth`. Telling it needs the right to manage the queue, which we do not ask for."""
        return Depth()

    def close(self) -> None:
        """See `Queue.close`."""
        with self._lock:
            self._http.close()
            if hasattr(self._credential, "close"):
                self._credential.close()

    def _send(
        self, method: str, url: str, params: dict[str, str] | None = None, *, gone: bool = False
    ) -> httpx.Response:
        """:param gone: a message that is not ours any more is no error."""
        name = self._name
        try:
            answer = self._http.request(
                method, url, params=params, headers={"Authorization": self._authorization()}
            )
        except httpx.HTTPError as error:
            raise Transient(
                f"cannot reach queue {name}: {type(error).__name__}", resource=name,
                hint="check the namespace and the network",
            ) from error  # fmt: skip
        status = answer.status_code
        if answer.is_success or (gone and status in {404, 410}):
            return answer
        if status in {404, 410}:
            raise NotFound(f"no such queue: {name}", resource=name, hint="check the name")
        if status == 401:
            with self._lock:
                self._token = None
            raise self._unknown()
        if status == 403:
            raise AccessDenied(
                f"not allowed: {_ACTION} on queue {name}", resource=name,
                hint="give the role 'Azure Service Bus Data Receiver'", permission=_ACTION,
            )  # fmt: skip
        if status in {408, 429} or status >= 500:
            raise Transient(f"Service Bus is busy ({status}) on queue {name}", resource=name)
        raise SyncAgentError(f"Service Bus answered {status} for queue {name}", resource=name)

    # -- credentials -----------------------------------------------------------------------------

    def _authorization(self) -> str:
        with self._lock:
            if self._token is None or self._token[1] - _EARLY < time.time():
                self._token = self._signed() or self._asked()
            return self._token[0]

    def _signed(self) -> tuple[str, float] | None:
        """A shared access signature, where the integration has a connection string with a key.

        https://learn.microsoft.com/rest/api/eventhub/generate-sas-token
        """
        connection = self._integration.options.get("connectionString", "") if self._integration else ""
        told = dict(part.partition("=")[::2] for part in connection.split(";") if part)
        name, key = told.get("SharedAccessKeyName"), told.get("SharedAccessKey")
        if not name or not key:
            return None
        end = int(time.time()) + _SAS_SECONDS
        where = quote_plus(self._base.partition("://")[2])
        mark = hmac.new(key.encode(), f"{where}\n{end}".encode(), hashlib.sha256).digest()
        signature = quote_plus(base64.b64encode(mark))
        return f"SharedAccessSignature sr={where}&sig={signature}&se={end}&skn={quote_plus(name)}", float(end)

    def _asked(self) -> tuple[str, float]:
        from azure.core.exceptions import AzureError

        if self._credential is None:
            spec = DriverSpec(type="azureblob", bucket=self._name.partition("/")[0])
            self._credential = access_of(spec, self._integration).credential
        if not hasattr(self._credential, "get_token"):
            raise ConfigError(
                f"the integration has no credentials for Service Bus queue {self._name}", resource=self._name,
                hint="give clientId, tenantId and secret, or the connection string of the namespace",
            )  # fmt: skip
        try:
            token = self._credential.get_token(_AUDIENCE)
        except AzureError as error:
            raise self._unknown() from error
        return f"Bearer {token.token}", float(token.expires_on)

    def _unknown(self) -> AccessDenied:
        return AccessDenied(
            f"Azure does not accept the credentials for queue {self._name}", resource=self._name,
            hint="run 'az login', or check the integration",
        )  # fmt: skip


def open_queue(spec: QueueSpec, integration: Integration | None = None) -> ServiceBusQueue:
    """Open a queue. No request is sent yet."""
    return ServiceBusQueue(spec, integration)
