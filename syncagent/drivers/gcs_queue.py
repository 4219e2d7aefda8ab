"""Google Pub/Sub, by pull: ``pubsub://project/subscription``."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Sequence
from typing import Any

from syncagent.drivers.gcs import credentials_of
from syncagent.drivers.queues import Depth, Message, QueueSpec
from syncagent.errors import AccessDenied, ConfigError, NotFound, SyncAgentError, Transient
from syncagent.model import DriverSpec, Integration

OPTIONS: dict[str, str] = {}
_SCOPE = "https://www.googleapis.com/auth/pubsub"
_BATCH = 1000
_LONGEST = 600  # seconds, as Pub/Sub has it
_ACTIONS = {"receive": "pubsub.subscriptions.consume"}


class PubSubQueue:
    """`Queue` over google-cloud-pubsub. It counts attempts only where the subscription has a dead-letter topic."""

    provider = "gcs"
    most = _BATCH
    keeps = True

    def __init__(self, spec: QueueSpec, integration: Integration | None = None) -> None:
        project, _, name = spec.name.partition("/")
        if not project or not name or "/" in name:
            raise ConfigError(
                f"{spec.url} names no subscription", resource=spec.url, hint="pubsub://project/subscription"
            )
        self.url, self._name = spec.url, spec.name
        self.hold = min(spec.hold, _LONGEST)
        self._path = f"projects/{project}/subscriptions/{name}"
        self._integration = integration
        self._lock = threading.Lock()
        self._made: Any = None

    def __repr__(self) -> str:
        return f"<PubSubQueue {self._name}>"

    def receive(self, most: int, wait: float) -> list[Message]:
        """See `Queue.receive`."""
        from google.api_core.exceptions import DeadlineExceeded

        with self._translated():
            client = self._client()
            try:
                told = client.pull(
                    subscription=self._path, max_messages=max(1, min(most, _BATCH)), timeout=max(wait, 0.5),
                    retry=None,
                )  # fmt: skip
            except DeadlineExceeded:  # there was nothing
                return []
            found = [_message(one) for one in told.received_messages]
        self.extend(found)  # the subscription's own deadline may be as short as ten seconds
        return found

    def delete(self, messages: Sequence[Message]) -> None:
        """See `Queue.delete`."""
        if messages:
            with self._translated():
                self._client().acknowledge(subscription=self._path, ack_ids=[one.handle for one in messages])

    def extend(self, messages: Sequence[Message]) -> None:
        """See `Queue.extend`."""
        self.release(messages, self.hold)

    def release(self, messages: Sequence[Message], after: float = 0.0) -> None:
        """See `Queue.release`."""
        if messages:
            with self._translated():
                self._client().modify_ack_deadline(
                    subscription=self._path,
                    ack_ids=[one.handle for one in messages],
                    ack_deadline_seconds=max(0, min(int(after), _LONGEST)),
                )

    def depth(self) -> Depth:
        """See `Queue.depth`. Pub/Sub tells it to Cloud Monitoring only."""
        return Depth()

    def close(self) -> None:
        """See `Queue.close`."""
        with self._lock:
            if self._made is not None:
                self._made.close()

    def _client(self) -> Any:
        from google.cloud import pubsub_v1

        with self._lock:
            if self._made is None:
                given = {}
                if self._integration is not None:
                    spec = DriverSpec(type="gcs", bucket=self._name)
                    given["credentials"] = credentials_of(spec, self._integration, _SCOPE)
                self._made = pubsub_v1.SubscriberClient(**given)
            return self._made

    # -- errors ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _translated(self) -> Generator[None, None, None]:
        """The one place where the SDK's errors become ours."""
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError, TransportError

        name = self._name
        try:
            yield
        except SyncAgentError:
            raise
        except exceptions.NotFound as error:
            raise NotFound(f"no such subscription: {name}", resource=name, hint="check the name") from error
        except exceptions.PermissionDenied as error:
            raise AccessDenied(
                f"not allowed: {_ACTIONS['receive']} on {name}", resource=name,
                hint="give the role 'roles/pubsub.subscriber'", permission=_ACTIONS["receive"],
            ) from error  # fmt: skip
        except TransportError as error:
            raise Transient(f"cannot reach Google for credentials for {name}", resource=name) from error
        except (exceptions.Unauthenticated, GoogleAuthError) as error:
            raise AccessDenied(
                f"no usable Google credentials for subscription {name}", resource=name,
                hint="run 'gcloud auth application-default login', or name an integration",
            ) from error  # fmt: skip
        except ValueError as error:  # another thread has closed the client
            raise Transient(f"the connection to {name} was closed", resource=name) from error
        except exceptions.GoogleAPIError as error:
            if isinstance(error, exceptions.InvalidArgument):
                raise ConfigError(f"Pub/Sub cannot use subscription {name}", resource=name) from error
            raise Transient(
                f"Pub/Sub did not answer for {name}: {type(error).__name__}", resource=name
            ) from error


def _message(told: Any) -> Message:
    one = told.message
    sent = one.publish_time.timestamp() if one.publish_time else None
    body = one.data.decode("utf-8", "replace")
    return Message(one.message_id, body, dict(one.attributes), told.delivery_attempt, sent, told.ack_id)


def open_queue(spec: QueueSpec, integration: Integration | None = None) -> PubSubQueue:
    """Open a subscription. No request is sent yet."""
    import google.cloud.pubsub_v1  # noqa: F401  # missing: said at once, with the extra to install

    return PubSubQueue(spec, integration)
