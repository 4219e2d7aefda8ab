"""Azure Blob Storage's events: by a subscription of Event Grid to a Storage Queue, or to a function.

Each subscription is a resource of its own, so nobody else's is ever touched. It is asked for over the resource manager's REST API,
whose SDKs are hundreds of megabytes.

https://learn.microsoft.com/rest/api/eventgrid/controlplane/event-subscriptions
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx

from syncagent.drivers.azure import SUFFIX, access_of
from syncagent.drivers.queues import parse_queue
from syncagent.drivers.wiring import KEPT_DAYS, MARK, Step, Target, name_of, waits
from syncagent.errors import AccessDenied, ConfigError, Conflict, NotFound, SyncAgentError, Transient
from syncagent.model import Action, DriverSpec, Integration, Scope
from syncagent.retry import retrying

EVENTS = tuple(
    f"Microsoft.Storage.{name}"
    for name in (
        "BlobCreated",
        "BlobDeleted",
        "BlobRenamed",
        "BlobTierChanged",
        "DirectoryRenamed",
        "DirectoryDeleted",
    )
)
"""What items depend on."""
# Where resources are managed, by the suffix of the cloud's hosts.
_MANAGERS = {
    SUFFIX: "https://management.azure.com",
    "core.chinacloudapi.cn": "https://management.chinacloudapi.cn",
    "core.usgovcloudapi.net": "https://management.usgovcloudapi.net",
}
_SUBSCRIPTIONS, _STORAGE, _GRID = "2022-12-01", "2023-05-01", "2022-06-15"  # api-version of each
# In Event Grid's own schema, which the functions' bindings know in every language; CloudEvents they do not.
_SCHEMA = "EventGridSchema"
_RETRIES = {"maxDeliveryAttempts": 30, "eventTimeToLiveInMinutes": 1440}  # the most there is
_SECONDS = 30.0
_STEP, _LONGEST_STEP, _PATIENCE = (
    0.5,
    5.0,
    300.0,
)  # seconds between two looks at what Azure is still doing, and in all

Json = dict[str, Any]


class AzureWiring:
    """`Wiring` over Azure's resource manager and azure-storage-queue."""

    def __init__(
        self, spec: DriverSpec, target: Target, to: str, integration: Integration | None = None
    ) -> None:
        self._spec, self._integration, self._target, self._to = spec, integration, target, to
        self._account, _, self._container = spec.bucket.partition("/")
        self._prefix = spec.path + ("/" if spec.path and spec.scope is Scope.FOLDER else "")
        self._given = parse_queue(target.queue) if target.queue and to == "queue" else None
        name = name_of(target.dataset, longest=63, allowed="a-z0-9-")
        self._place = self._given.name if self._given else f"{self._account}/{name}"
        if to == "function" and "/functions/" not in str(target.function):
            raise ConfigError(
                f"--function {target.function} is no function's resource id", resource=target.function,
                hint="write /subscriptions/…/providers/Microsoft.Web/sites/APP/functions/NAME",
            )  # fmt: skip
        self._name = f"syncagent-{target.id}"
        self._id = (target.scope or "").rstrip("/")
        self._manager = _MANAGERS.get(spec.options.get("suffix", SUFFIX), _MANAGERS[SUFFIX])
        self._http: httpx.Client | None = None
        self._token = ""
        self._queues: Any = None
        self._opened: list[Any] = []

    def __repr__(self) -> str:
        return f"<AzureWiring {self._account}/{self._container}>"

    @property
    def queue(self) -> str | None:
        """See `Wiring.queue`."""
        if self._to == "function":
            return None
        if self._target.queue:
            return self._target.queue
        suffix = self._spec.options.get("suffix", SUFFIX)
        return f"azqueue://{self._place}" + (f"?suffix={suffix}" if suffix != SUFFIX else "")

    def plan(self, *, unbind: bool = False) -> list[Step]:
        """See `Wiring.plan`."""
        account = self._find()
        self._id = str(account["id"])
        there = self._read()
        if unbind:
            steps = []
            if there is not None:
                steps.append(Step(Action.REMOVED, f"event subscription {self._name}", "", self._delete))
            return steps if self._to == "function" else [*steps, *self._remove_queue()]
        wanted = self._wanted(account, there)
        step = self._subscribe(wanted, there)
        return [step] if self._to == "function" else [self._make_queue(), step]

    def close(self) -> None:
        """See `Wiring.close`."""
        while self._opened:
            one = self._opened.pop()
            if hasattr(one, "close"):
                one.close()
        self._http, self._queues, self._token = None, None, ""

    # -- the event subscription ------------------------------------------------------------------

    def _wanted(self, account: Json, there: Json | None) -> Json:
        # In a hierarchical account a folder's own events name it without a slash, and a rename names the new place: what is
        # told of other folders is passed over where it is settled.
        tree = account.get("properties", {}).get("isHnsEnabled")
        prefix = "" if tree else self._prefix
        if self._to == "function":
            destination: Json = {
                "endpointType": "AzureFunction",
                "properties": {"resourceId": self._target.function},
            }
        else:
            owner, _, name = self._place.partition("/")
            resource = self._id if owner == self._account else str(self._find(owner)["id"])
            told = {
                "resourceId": resource,
                "queueName": name,
                "queueMessageTimeToLiveInSeconds": KEPT_DAYS * 24 * 3600,
            }
            destination = {"endpointType": "StorageQueue", "properties": told}
        wanted = {
            "destination": destination,
            "filter": {
                "subjectBeginsWith": f"/blobServices/default/containers/{self._container}/blobs/{prefix}",
                "includedEventTypes": list(EVENTS),
                "isSubjectCaseSensitive": True,
            },
            "eventDeliverySchema": _SCHEMA,
            "retryPolicy": _RETRIES,
            "labels": ["syncagent"],
        }  # fmt: skip
        if self._target.dead_letter:
            told = {"resourceId": self._id, "blobContainerName": self._target.dead_letter}
            wanted["deadLetterDestination"] = {"endpointType": "StorageBlob", "properties": told}
        elif there is not None and (told := there["properties"].get("deadLetterDestination")):
            wanted["deadLetterDestination"] = told  # what was not named is left as it is
        return wanted

    def _subscribe(self, wanted: Json, there: Json | None) -> Step:
        what = f"event subscription {self._name}"

        def put() -> None:
            self._ask(
                "PUT",
                self._path(),
                _GRID,
                "Microsoft.EventGrid/eventSubscriptions/write",
                {"properties": wanted},
            )
            self._settled(gone=False)

        if there is None:
            return Step(Action.ADDED, what, self._prefix, put)
        told = there["properties"]
        if told.get("provisioningState", "Succeeded") != "Succeeded":
            return Step(Action.CHANGED, what, f"it is {told['provisioningState']}", put)
        if _holds(told, wanted):
            return Step(Action.SAME, what, self._prefix)
        return Step(Action.CHANGED, what, "it was altered", put)

    def _read(self) -> Json | None:
        try:
            return self._ask("GET", self._path(), _GRID, "Microsoft.EventGrid/eventSubscriptions/read")
        except NotFound:
            return None

    def _delete(self) -> None:
        with contextlib.suppress(NotFound):
            self._ask("DELETE", self._path(), _GRID, "Microsoft.EventGrid/eventSubscriptions/delete")
            self._settled(gone=True)

    def _settled(self, *, gone: bool) -> None:
        """Wait until Azure has done what it said it would do."""
        until, step = time.monotonic() + _PATIENCE, _STEP
        while True:
            told = self._read()
            state = "" if told is None else str(told["properties"].get("provisioningState", "Succeeded"))
            if (told is None) if gone else state == "Succeeded":
                return
            if state in {"Failed", "Canceled"}:
                raise SyncAgentError(
                    f"Azure could not make event subscription {self._name}: {state}", resource=self._name,
                    hint="look at its queue or function, and run it again",
                )  # fmt: skip
            if time.monotonic() > until:
                raise Transient(
                    f"event subscription {self._name} is still {state}",
                    resource=self._name,
                    hint="run it again later",
                )
            time.sleep(step)
            step = min(step * 1.5, _LONGEST_STEP)

    def _path(self) -> str:
        return f"{self._id}/providers/Microsoft.EventGrid/eventSubscriptions/{self._name}"

    # -- the storage account ---------------------------------------------------------------------

    def _find(self, account: str | None = None) -> Json:
        """A storage account's resource: by its id, or among all that these credentials see. Its name is the world's only one."""
        action = "Microsoft.Storage/storageAccounts/read"
        if account is None and self._id:
            return self._ask("GET", self._id, _STORAGE, action)
        name = account or self._account
        for subscription in self._pages(
            "/subscriptions", _SUBSCRIPTIONS, "Microsoft.Resources/subscriptions/read"
        ):
            path = (
                f"/subscriptions/{subscription['subscriptionId']}/providers/Microsoft.Storage/storageAccounts"
            )
            for one in self._pages(path, _STORAGE, action):
                if str(one["name"]).lower() == name.lower():
                    return one
        raise NotFound(
            f"these credentials see no storage account {name}", resource=name,
            hint="give its resource id with --scope, or the role 'Reader' on it",
        )  # fmt: skip

    def _pages(self, path: str, version: str, action: str) -> Iterator[Json]:
        while path:
            told = self._ask("GET", path, version, action)
            yield from told.get("value", [])
            after = urlsplit(str(told.get("nextLink") or ""))  # its host is the manager's, and stays so
            path = f"{after.path}?{after.query}" if after.path else ""

    # -- the queue -------------------------------------------------------------------------------

    def _make_queue(self) -> Step:
        what = f"queue {self._place}"
        if self._properties() is not None:
            return Step(Action.SAME, what)

        def make() -> None:
            from azure.core.exceptions import ResourceExistsError

            with (
                self._translated("Microsoft.Storage/storageAccounts/queueServices/queues/write"),
                contextlib.suppress(ResourceExistsError),
            ):
                self._client().create_queue(metadata=dict([MARK]))

        return Step(Action.ADDED, what, "", make)

    def _remove_queue(self) -> list[Step]:
        what, told = f"queue {self._place}", self._properties()
        if told is None:
            return []
        why = waits(told.approximate_message_count or 0)
        if told.metadata.get(MARK[0]) != MARK[1]:
            why = "kept: bind did not make it"
        elif not why and (other := self._other_use()):
            why = f"kept: event subscription {other} sends to it"
        if why:
            return [Step(Action.SAME, what, why)]

        def remove() -> None:
            with (
                contextlib.suppress(NotFound),
                self._translated("Microsoft.Storage/storageAccounts/queueServices/queues/delete"),
            ):
                self._client().delete_queue()

        return [Step(Action.REMOVED, what, "", remove)]

    def _other_use(self) -> str:
        """Another event subscription of the account that sends to our queue."""
        path = f"{self._id}/providers/Microsoft.EventGrid/eventSubscriptions"
        name = self._place.partition("/")[2]
        for one in self._pages(path, _GRID, "Microsoft.EventGrid/eventSubscriptions/read"):
            told = one["properties"].get("destination", {}).get("properties", {})
            if one["name"] != self._name and told.get("queueName") == name:
                return str(one["name"])
        return ""

    def _properties(self) -> Any:
        """The queue's; None where there is none."""
        try:
            with self._translated("Microsoft.Storage/storageAccounts/queueServices/queues/read"):
                return self._client().get_queue_properties()
        except NotFound:
            return None

    def _client(self) -> Any:
        if self._queues is None:
            from azure.storage.queue import QueueClient

            account, _, name = self._place.partition("/")
            options = {**self._spec.options, **(self._given.options if self._given else {})}
            credential = access_of(
                DriverSpec(type="azureblob", bucket=self._place, options=options), self._integration
            ).credential
            url = options.get("endpoint") or f"https://{account}.queue.{options.get('suffix', SUFFIX)}"
            self._queues = QueueClient(
                url, name, credential=credential, retry_total=4, connection_timeout=10, read_timeout=60
            )
            self._opened += [credential, self._queues]
        return self._queues

    @contextlib.contextmanager
    def _translated(self, action: str) -> Generator[None, None, None]:
        """The one place where the queue SDK's errors become ours."""
        from azure.core import exceptions

        name = self._place
        try:
            yield
        except SyncAgentError:
            raise
        except exceptions.ClientAuthenticationError as error:
            raise self._unknown(f"queue {name}") from error
        except exceptions.HttpResponseError as error:
            status = error.status_code or 0
            if status == 404:
                raise NotFound(f"no such queue: {name}", resource=name, hint="check the name") from error
            if status == 403:
                raise _denied(action, f"queue {name}", name) from error
            if status in {408, 409, 429} or status >= 500:
                raise Transient(
                    f"Azure is busy ({status}) on queue {name}", resource=name, hint="run it again"
                ) from error
            raise SyncAgentError(f"Azure answered {status} for queue {name}", resource=name) from error
        except exceptions.AzureError as error:
            raise Transient(
                f"cannot reach queue {name}: {type(error).__name__}", resource=name, hint="check the network"
            ) from error

    # -- the resource manager --------------------------------------------------------------------

    def _ask(self, method: str, path: str, version: str, action: str, body: Json | None = None) -> Json:
        """One request to the resource manager; its answer's JSON, or nothing.

        :param action: the permission that is missing where it refuses.
        """
        url = f"{self._manager}{path}"
        if "api-version=" not in url:
            url += f"{'&' if '?' in url else '?'}api-version={version}"
        what = f"{path.partition('?')[0].rpartition('/')[2]} in Azure"

        def once() -> Json:
            if self._http is None:
                self._http = httpx.Client(timeout=_SECONDS)
                self._opened.append(self._http)
            self._token = self._token or self._fetch_token()
            try:
                answer = self._http.request(
                    method, url, json=body, headers={"Authorization": f"Bearer {self._token}"}
                )
            except httpx.HTTPError as error:
                raise Transient(
                    f"Azure's resource manager cannot be reached for {what}",
                    resource=path,
                    hint="check the network",
                ) from error
            return _told(answer, what, action)

        return retrying(once, attempts=4)()

    def _fetch_token(self) -> str:
        from azure.core.exceptions import ClientAuthenticationError
        from azure.identity import DefaultAzureCredential

        credential = None
        if self._integration is not None:
            credential = access_of(self._spec, self._integration).credential
        if not hasattr(credential, "get_token"):  # a key opens the account, and manages nothing
            credential = DefaultAzureCredential()
        self._opened.append(credential)
        try:
            return str(credential.get_token(f"{self._manager}/.default").token)  # type: ignore[union-attr]  # one that has it
        except ClientAuthenticationError as error:
            raise self._unknown(f"storage account {self._account}") from error

    def _unknown(self, what: str) -> AccessDenied:
        return AccessDenied(
            f"no usable Azure credentials for {what}",
            resource=what,
            hint="run 'az login', or check the integration",
        )


def _told(answer: httpx.Response, what: str, action: str) -> Json:
    status = answer.status_code
    try:
        told = answer.json() if answer.content else {}
    except ValueError:
        told = {}
    told = told if isinstance(told, dict) else {}
    error = told.get("error")
    code = str(error.get("code", "")) if isinstance(error, dict) else ""
    if status == 404:
        raise NotFound(f"no such resource: {what}", resource=what, hint="check the name")
    if status == 401:
        raise AccessDenied(
            f"Azure does not accept the credentials for {what}", resource=what, hint="run 'az login'"
        )
    if status == 403:
        raise _denied(action, what, what)
    if code in {"MissingSubscriptionRegistration", "SubscriptionNotRegistered"}:
        raise ConfigError(
            "Event Grid is not registered in this Azure subscription", resource=what,
            hint="run 'az provider register --namespace Microsoft.EventGrid'",
        )  # fmt: skip
    if status == 409:
        raise Conflict(f"{what} is being changed", resource=what, hint="run it again")
    if status == 429 or status >= 500:
        after = answer.headers.get("retry-after", "")
        raise Transient(
            f"Azure is busy ({status}) for {what}", resource=what, hint="run it again",
            retry_after=float(after) if after.isdecimal() else None,
        )  # fmt: skip
    if status >= 300:
        raise SyncAgentError(f"Azure answered {code or status} for {what}", resource=what)
    return told


def _denied(action: str, what: str, resource: str) -> AccessDenied:
    return AccessDenied(
        f"not allowed: {action} on {what}",
        resource=resource,
        hint="give a role that has it",
        permission=action,
    )


def _holds(told: Any, wanted: Any) -> bool:
    """Whether what Azure tells has all that is wanted; it adds defaults, and writes ids in capitals as it likes."""
    if isinstance(wanted, dict):
        return isinstance(told, dict) and all(_holds(told.get(name), value) for name, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(told, list) and sorted(told) == sorted(wanted)
    if isinstance(wanted, str) and wanted.startswith("/subscriptions/"):
        return isinstance(told, str) and told.lower() == wanted.lower()
    return bool(told == wanted)


def open_wiring(
    spec: DriverSpec, target: Target, to: str, integration: Integration | None = None
) -> AzureWiring:
    """Open a container's wiring. No request is sent yet."""
    import azure.identity
    import azure.storage.queue  # noqa: F401  # missing: said at once, with the extra to install

    return AzureWiring(spec, target, to, integration)
