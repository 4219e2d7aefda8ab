"""Amazon SQS: ``sqs://queue?region=eu-west-1``, or the queue's own ``https://sqs.…`` URL."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from syncagent.drivers.queues import Depth, Message, QueueSpec
from syncagent.drivers.s3 import BAD_KEY, BUSY, EXPIRED, PERFORM, client_of, sdk_error, session_of
from syncagent.errors import AccessDenied, ConfigError, NotFound, SyncAgentError, Transient
from syncagent.model import DriverSpec, Integration

OPTIONS = {
    "region": "the queue's region",
    "endpoint": "another server that speaks the same protocol",
    "profile": "a profile of the AWS configuration files",
}
_MISSING = {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"}
_ACTIONS = {
    "receive": "sqs:ReceiveMessage",
    "delete": "sqs:DeleteMessage",
    "change": "sqs:ChangeMessageVisibility",
    "read": "sqs:GetQueueAttributes",
    "find": "sqs:GetQueueUrl",
}
_BATCH = 10  # messages of one request, as SQS has it
_LONGEST = 12 * 3600


class SqsQueue:
    """`Queue` over boto3."""

    provider = "s3"
    most = _BATCH
    keeps = True

    def __init__(self, spec: QueueSpec, integration: Integration | None = None) -> None:
        options = dict(spec.options)
        self.url, self._name = spec.url, spec.name
        self.hold = spec.hold
        self._spec = DriverSpec(
            type="sqs", bucket=spec.name, region=options.pop("region", None),
            endpoint=options.pop("endpoint", None), options=options,
        )  # fmt: skip
        self._integration = integration
        self._queue = spec.url if spec.url.startswith("http") else None
        self._lock = threading.Lock()
        self._made: Any = None

    def __repr__(self) -> str:
        return f"<SqsQueue {self._name}>"

    def receive(self, most: int, wait: float) -> list[Message]:
        """See `Queue.receive`."""
        with self._translated("receive"):
            client, queue = self._client()
            told = client.receive_message(
                QueueUrl=queue, MaxNumberOfMessages=max(1, min(most, _BATCH)), VisibilityTimeout=self.hold,
                WaitTimeSeconds=max(0, min(int(wait), 20)),
                MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
            )  # fmt: skip
        return [_message(one) for one in told.get("Messages", [])]

    def delete(self, messages: Sequence[Message]) -> None:
        """See `Queue.delete`."""
        for batch in _entries(messages):
            with self._translated("delete"):
                client, queue = self._client()
                self._refused(client.delete_message_batch(QueueUrl=queue, Entries=batch), "delete")

    def extend(self, messages: Sequence[Message]) -> None:
        """See `Queue.extend`."""
        self.release(messages, self.hold)

    def release(self, messages: Sequence[Message], after: float = 0.0) -> None:
        """See `Queue.release`."""
        seconds = max(0, min(int(after), _LONGEST))
        for batch in _entries(messages):
            with self._translated("change"):
                client, queue = self._client()
                given = [{**one, "VisibilityTimeout": seconds} for one in batch]
                told = client.change_message_visibility_batch(QueueUrl=queue, Entries=given)
                self._refused(told, "change")

    def depth(self) -> Depth:
        """See `Queue.depth`."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        with self._translated("read"):
            client, queue = self._client()
            told = client.get_queue_attributes(QueueUrl=queue, AttributeNames=names).get("Attributes", {})
        return Depth(*(int(told[name]) if name in told else None for name in names))

    def close(self) -> None:
        """See `Queue.close`."""
        with self._lock:
            if self._made is not None:
                self._made.close()

    def _client(self) -> tuple[Any, str]:
        """The boto3 client and the queue's URL, made and asked for at the first request."""
        with self._lock:
            if self._made is None:
                session = session_of(self._spec, self._integration)
                region = (
                    self._spec.region or session.region_name or ("us-east-1" if self._spec.endpoint else None)
                )
                if region is None:
                    raise ConfigError(
                        f"the region of queue {self._name} is not known", resource=self._name,
                        hint="write sqs://queue?region=…",
                    )  # fmt: skip
                self._made = client_of(session, "sqs", self._spec, region)
            if self._queue is None:
                with self._translated("find"):
                    self._queue = str(self._made.get_queue_url(QueueName=self._name)["QueueUrl"])
            return self._made, self._queue

    def _refused(self, told: Any, kind: str) -> None:
        """A batch answers for each entry. A handle that ran out is no error: the message comes again."""
        for one in told.get("Failed", []):
            if not one.get("SenderFault"):
                raise Transient(f"SQS did not {kind} every message of {self._name}", resource=self._name)

    # -- errors ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _translated(self, kind: str) -> Generator[None, None, None]:
        """The one place where botocore's errors become ours."""
        from botocore.exceptions import ClientError

        try:
            yield
        except SyncAgentError:
            raise
        except ClientError as error:
            raise self._translate_answer(error, kind) from error
        except Exception as error:
            ours = sdk_error(error, f"queue {self._name}", self._spec.endpoint, self._name)
            if ours is None:
                raise
            raise ours from error

    def _translate_answer(self, error: Any, kind: str) -> SyncAgentError:
        told = error.response.get("Error", {})
        code, name = str(told.get("Code", "")), self._name
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _MISSING or code.endswith(".QueueDoesNotExist"):
            return NotFound(f"no such queue: {name}", resource=name, hint="check the name and the region")
        if code in EXPIRED:
            return AccessDenied(
                f"the credentials for queue {name} have expired", resource=name, hint="renew them"
            )
        if code in BAD_KEY:
            return AccessDenied(
                f"SQS does not accept the credentials for queue {name} ({code})", resource=name,
                hint="check the access key and the secret",
            )  # fmt: skip
        if status in {401, 403} or code.startswith("AccessDenied"):
            named = PERFORM.search(str(told.get("Message", "")))
            action = named[1] if named else _ACTIONS[kind]
            return AccessDenied(
                f"not allowed: {action} on queue {name}", resource=name,
                hint="add it to the policy of these credentials", permission=action,
            )  # fmt: skip
        if code in BUSY or status >= 500 or status == 429 or "Throttl" in code or code == "OverLimit":
            return Transient(f"SQS is busy ({code or status}) on queue {name}", resource=name)
        return SyncAgentError(f"SQS answered {code or status} for queue {name}", resource=name)


def _message(told: Any) -> Message:
    system = told.get("Attributes", {})
    sent = system.get("SentTimestamp")
    return Message(
        told["MessageId"], told["Body"], {}, int(system.get("ApproximateReceiveCount", 0)),
        int(sent) / 1000 if sent else None, told["ReceiptHandle"],
    )  # fmt: skip


def _entries(messages: Sequence[Message]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(messages), _BATCH):
        batch = messages[start : start + _BATCH]
        yield [{"Id": str(n), "ReceiptHandle": one.handle} for n, one in enumerate(batch)]


def open_queue(spec: QueueSpec, integration: Integration | None = None) -> SqsQueue:
    """Open a queue. No request is sent yet."""
    import boto3  # noqa: F401  # missing: said at once, with the extra to install

    return SqsQueue(spec, integration)
