"""The contract of a queue, over every queue. A new one is right when this says so.

To add an implementation, add a `Rig` for it to `rig`.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from syncagent.drivers.memory_queue import MemoryQueue
from syncagent.drivers.queues import Message, Queue, open_queue, parse_queue
from syncagent.errors import AccessDenied, ConfigError, NotFound, SyncAgentError, Transient
from syncagent.model import Integration
from tests.rigs.pubsub import PubSub
from tests.rigs.servicebus import ServiceBus

AGAIN = 1.5
"""Seconds, after which a message that is held for one second has come again."""
BODY = json.dumps({"key": "日本 + %20\n😀"})


class Rig:
    """A fresh queue, opened as often as wanted, and something that sends to it."""

    def __init__(
        self,
        url: str,
        integration: Integration | None,
        send: Callable[[str], None],
        *,
        counts: bool = True,
        shared: bool = True,
        missing: str = "",
    ) -> None:
        self.url, self.integration, self.send = url, integration, send
        self.counts, self.shared, self.missing = counts, shared, missing
        self.stack = ExitStack()

    def open(self) -> Queue:
        queue = open_queue(self.url, self.integration)
        self.stack.callback(queue.close)
        return queue


@pytest.fixture(params=["memory", "sqs", "sqs-moto", "azqueue", "servicebus", "pubsub", "watch"])
def rig(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    name = f"test-{uuid.uuid4().hex[:20]}"
    made = _made(request, name, tmp_path, monkeypatch)
    with made.stack:
        yield made


def _made(request: pytest.FixtureRequest, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    kind = request.param
    if kind == "memory":
        queue = open_queue(f"memory://{name}?hold=1")
        assert isinstance(queue, MemoryQueue)
        return Rig(f"memory://{name}?hold=1", None, queue.send)
    if kind == "watch":
        numbers = iter(range(1000))
        return Rig(
            f"watch://{folder}", None, lambda body: (folder / f"{next(numbers)}").write_text(body) and None,
            shared=False, missing=f"watch://{folder}/none",
        )  # fmt: skip
    if kind == "azqueue":
        from azure.storage.queue import QueueClient

        azure = request.getfixturevalue("azure_rig")
        key = azure.integration.options["accountKey"]
        credential = {"account_name": "devstoreaccount1", "account_key": key}
        client = QueueClient(azure.queues, name, credential=credential)
        client.create_queue()
        url = f"azqueue://devstoreaccount1/%s?endpoint={azure.queues}&hold=1"
        made = Rig(
            url % name,
            azure.integration,
            lambda body: client.send_message(body) and None,
            missing=url % "none",
        )
        made.stack.callback(client.close)
        return made
    if kind == "pubsub":
        fake = request.getfixturevalue("pubsub_rig")
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{fake.port}")
        url = fake.create(name, deadline=1) + "?hold=1"
        return Rig(
            url, None, lambda body: fake.publish(name, body.encode(), {"a": "b"}),
            counts=False, missing="pubsub://test/none",
        )  # fmt: skip
    if kind == "servicebus":
        bus = request.getfixturevalue("bus_rig")
        bus.create(name)
        return Rig(
            bus.url(name), bus.integration, lambda body: bus.send(name, body), missing=bus.url("none"),
        )  # fmt: skip
    import boto3

    aws = request.getfixturevalue("aws_rig" if kind == "sqs" else "s3_rig")
    client = boto3.client(
        "sqs", endpoint_url=aws.endpoint, region_name="us-east-1", aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )  # fmt: skip
    queue_url = client.create_queue(QueueName=name)["QueueUrl"]
    made = Rig(
        f"sqs://{name}?endpoint={aws.endpoint}&region=us-east-1&hold=1", aws.integration,
        lambda body: client.send_message(QueueUrl=queue_url, MessageBody=body) and None,
        missing=f"sqs://none?endpoint={aws.endpoint}&region=us-east-1",
    )  # fmt: skip
    made.stack.callback(client.close)
    return made


def received(queue: Queue, count: int, seconds: float = 20.0) -> list[Message]:
    """That many messages, each once."""
    found: list[Message] = []
    until = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < until:
        found += queue.receive(count - len(found), min(1.0, max(0.0, until - time.monotonic())))
    return found


def ready(rig: Rig) -> Queue:
    """Open; a watcher hears only of what comes after it began."""
    queue = rig.open()
    if not rig.shared:
        assert queue.receive(1, 0.2) == []
        rig.send("warm")
        queue.delete(received(queue, 1))
        while late := queue.receive(1000, 0.7):
            queue.delete(late)
    return queue


def test_an_empty_queue_gives_nothing_in_time(rig: Rig) -> None:
    queue = rig.open()
    started = time.monotonic()
    assert queue.receive(10, 0.5) == []
    assert time.monotonic() - started < 5


def test_what_was_sent_comes_as_it_was(rig: Rig) -> None:
    queue = ready(rig)
    rig.send(BODY)
    (message,) = received(queue, 1)
    if rig.shared:
        assert message.body == BODY
    assert message.attempts == (1 if rig.counts else 0)
    assert message.sent_at is not None
    assert abs(message.sent_at - time.time()) < 60
    assert message.body not in repr(message)
    assert message.id


def test_a_received_message_is_ours_for_a_while_and_then_comes_again(rig: Rig) -> None:
    queue = ready(rig)
    rig.send(BODY)
    (first,) = received(queue, 1)
    if not rig.shared:
        queue.release([first], after=1)
    (second,) = received(queue, 1)
    assert (second.id, second.body) == (first.id, first.body)
    assert second.attempts == (2 if rig.counts else 0)


def test_a_deleted_message_does_not_come_again(rig: Rig) -> None:
    queue = ready(rig)
    rig.send(BODY)
    queue.delete(received(queue, 1))
    assert received(queue, 1, AGAIN) == []


def test_deleting_what_is_not_ours_any_more_is_no_error(rig: Rig) -> None:
    queue = ready(rig)
    rig.send(BODY)
    (first,) = received(queue, 1)
    queue.release([first])
    (second,) = received(queue, 1)
    queue.delete([first])
    queue.delete([second])
    queue.delete([second])
    queue.extend([second])
    queue.release([second])


def test_a_released_message_comes_at_once(rig: Rig) -> None:
    queue = ready(rig)
    rig.send(BODY)
    (first,) = received(queue, 1)
    queue.release([first])
    started = time.monotonic()
    (second,) = received(queue, 1)
    assert second.id == first.id
    assert time.monotonic() - started < 1.0 or not rig.shared


def test_an_extended_message_stays_ours(rig: Rig) -> None:
    queue = ready(rig)
    rig.send(BODY)
    (message,) = received(queue, 1)
    until = time.monotonic() + AGAIN
    while time.monotonic() < until:
        queue.extend([message])
        assert queue.receive(1, 0.2) == [], "nobody else gets it"
    queue.delete([message])
    assert received(queue, 1, AGAIN) == []


def test_many_messages_come_each_once(rig: Rig) -> None:
    queue = ready(rig)
    for number in range(45):
        rig.send(f"{number}")
    seen: list[Message] = []
    while len(seen) < 45:
        found = received(queue, min(queue.most, 45 - len(seen)))
        assert found
        seen += found
        queue.delete(found)
    assert len({one.body for one in seen}) == 45
    assert received(queue, 1, AGAIN) == []


def test_two_takers_never_get_the_same_message(rig: Rig, request: pytest.FixtureRequest) -> None:
    if not rig.shared:
        return  # a folder's notices come to everybody who watches it
    for number in range(20):
        rig.send(f"{number}")
    # moto's own queue hands out a message twice if two ask at the same instant.
    asking = threading.Lock() if "moto" in request.node.callspec.id else contextlib.nullcontext()
    seen: list[str] = []

    def take() -> None:
        queue = rig.open()
        while True:
            with asking:
                found = queue.receive(3, 0.6)
            if not found:
                return
            queue.delete(found)
            seen.extend(one.body for one in found)

    takers = [threading.Thread(target=take) for _ in range(2)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join()
    assert sorted(seen, key=int) == [f"{number}" for number in range(20)]


def test_the_depth_is_told_where_it_is_known(rig: Rig) -> None:
    queue = ready(rig)
    for number in range(3):
        rig.send(f"{number}")
    if not rig.shared:
        received(queue, 3)
    depth = queue.depth()
    assert depth.waiting is None or depth.waiting + (depth.in_flight or 0) == 3


def test_a_queue_that_is_not_there_is_named(rig: Rig) -> None:
    if rig.missing:
        queue = open_queue(rig.missing, rig.integration)
        with pytest.raises(NotFound, match="none"):
            queue.receive(1, 0.1)
        queue.close()


def test_closing_twice_is_fine(rig: Rig) -> None:
    queue = rig.open()
    queue.receive(1, 0)
    queue.close()
    queue.close()


# -- URLs ----------------------------------------------------------------------------------------


def test_an_sqs_queues_own_url_is_one() -> None:
    spec = parse_queue("https://sqs.eu-west-1.amazonaws.com/123456789012/images")
    assert (spec.type, spec.name, dict(spec.options)) == ("sqs", "images", {"region": "eu-west-1"})


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("kafka://x", "unknown queue kafka://; known are sqs://, pubsub://"),
        ("sqs://", "names no queue"),
        ("sqs://q?regoin=x", "unknown parameter 'regoin'"),
        ("sqs://key:secret@q", "holds credentials"),
        ("https://example.com/q", "unknown queue"),
        ("azqueue://account", "names no queue"),
        ("servicebus://ns", "names no queue"),
        ("servicebus://ns/topic/mine", "names no queue"),
        ("pubsub://project", "names no subscription"),
        ("sqs://q?hold=soon", "hold=soon is no number of seconds"),
        ("sqs://q?hold=0", "from 1 to 43200"),
        ("memory://q?hold=-1", "hold=-1"),
        ("watch:///folder#1", "has a '#'"),
        ("https://sqs.evil.example/123456789012/q", "unknown queue"),
        ("http://sqs.eu-west-1.amazonaws.com/123456789012/q", "unknown queue"),
    ],
)
def test_a_wrong_url_says_so(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as told:
        open_queue(url)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "AuthorizationPermissionMismatch", "not allowed: Microsoft.Storage.*messages/process"),
        (403, "AuthenticationFailed", "does not accept the credentials"),
        (401, "InvalidAuthenticationInfo", "does not accept the credentials"),
        (404, "QueueNotFound", "no such queue: acc/queue"),
        (503, "ServerBusy", "busy"),
    ],
)
def test_what_a_storage_queue_answers_is_told_in_our_words(
    status: int, code: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.rigs.fake_http import FakeHttp

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with FakeHttp() as fake:
        fake.reply = lambda request: (status, {"x-ms-error-code": code}, b"")
        queue = open_queue(
            f"azqueue://acc/queue?endpoint={fake.url}/acc",
            Integration("t", "azureblob", {"accountKey": "a2V5"}),
        )
        with pytest.raises(SyncAgentError, match=said):
            queue.receive(1, 0)
        queue.close()


def test_a_service_bus_subscription_is_a_queue(bus_rig: ServiceBus) -> None:
    bus_rig.create("events/subscriptions/mine")
    bus_rig.send("events/subscriptions/mine", BODY)
    queue = open_queue(bus_rig.url("events/subscriptions/mine"), bus_rig.integration)
    (message,) = queue.receive(10, 1)
    assert message.body == BODY
    assert queue.hold == 1, "the queue's own lock"
    bus_rig.lock_seconds = 5.0
    queue.extend([message])
    bus_rig.send("events/subscriptions/mine", "other")
    (other,) = queue.receive(10, 1)
    assert 4 <= queue.hold <= 5, "it may become longer"
    queue.delete([other])
    bus_rig.lock_seconds = 1.0
    queue.extend([message])
    queue.release([message], after=30)
    assert queue.receive(1, 0) == [], "it comes when its lock ends"
    (again,) = received(queue, 1)
    assert (again.id, again.attempts) == (message.id, 2)
    queue.close()


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "does not accept the credentials"), (403, "not allowed: Microsoft.ServiceBus"), (410, "no such queue"),
     (503, "busy"), (429, "busy"), (400, "answered 400"), (201, "gave no message"), (0, "cannot reach")],
)  # fmt: skip
def test_what_a_service_bus_answers_is_told_in_our_words(status: int, said: str, bus_rig: ServiceBus) -> None:
    queue = open_queue(bus_rig.url("q"), bus_rig.integration)
    bus_rig.fake.always((status, {}, b""))
    with pytest.raises(SyncAgentError, match=said) as told:
        queue.receive(1, 0)
    assert "secret" not in str(told.value)
    queue.close()


def test_a_service_bus_is_asked_with_a_token_where_there_is_no_key(
    bus_rig: ServiceBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.rigs.fake_http import FakeHttp

    token = json.dumps(
        {"access_token": "t", "expires_on": "4102444800", "resource": "r", "token_type": "Bearer"}
    )
    with FakeHttp(lambda _: (200, {"Content-Type": "application/json"}, token.encode())) as identity:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{identity.url}/msi")
        monkeypatch.setenv("IDENTITY_HEADER", "h")
        bus_rig.fake.always((204, {}, b""))
        queue = open_queue(bus_rig.url("q"))
        assert queue.receive(1, 0) == []
        assert queue.receive(1, 0) == []
        queue.close()
        assert "servicebus.azure.net" in identity.requests[0].query["resource"]
        assert len(identity.requests) == 1, "the token is kept"
    assert bus_rig.fake.requests[0].headers["authorization"] == "Bearer t"
    wrong = open_queue(bus_rig.url("q"), Integration("t", "azureblob", {"accountKey": "a2V5"}))
    with pytest.raises(ConfigError, match="no credentials for Service Bus"):
        wrong.receive(1, 0)
    wrong.close()


def test_pubsub_holds_messages_longer_than_the_subscription_does(
    pubsub_rig: PubSub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{pubsub_rig.port}")
    name = f"test-{uuid.uuid4().hex[:20]}"
    queue = open_queue(pubsub_rig.create(name, deadline=1) + "?hold=30")
    pubsub_rig.publish(name, b"{}", {})
    assert len(queue.receive(1, 1.0)) == 1
    assert received(queue, 1, AGAIN) == []
    queue.close()


def test_pubsub_asks_for_the_scope_of_pubsub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials for storage alone would be refused."""
    from google.oauth2 import credentials

    asked: list[list[str]] = []

    def user(info: dict[str, str], scopes: list[str]) -> None:
        asked.append(scopes)
        raise ValueError("enough")

    monkeypatch.setattr(credentials.Credentials, "from_authorized_user_info", user)
    content = json.dumps({"type": "authorized_user"})
    queue = open_queue("pubsub://project/name", Integration("t", "gcs", {"content": content}))
    with pytest.raises(ConfigError):
        queue.receive(1, 0)
    assert asked == [["https://www.googleapis.com/auth/pubsub"]]


def test_a_queue_that_cannot_be_reached_is_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.rigs.gcs import free_port

    gone = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    keys = Integration("test", "s3", {"key": "k", "secret": "s"})
    azure = Integration("test", "azureblob", {"accountKey": "a2V5"})
    for url, integration in (
        (f"sqs://q?endpoint={gone}&region=us-east-1", keys),
        (f"azqueue://acc/queue?endpoint={gone}/acc", azure),
    ):
        queue = open_queue(url, integration)
        with pytest.raises(Transient, match="cannot reach"):
            queue.receive(1, 0)
        queue.close()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "AccessDeniedException", AccessDenied),
        (400, "ExpiredToken", AccessDenied),
        (403, "InvalidClientTokenId", AccessDenied),
        (400, "AWS.SimpleQueueService.NonExistentQueue", NotFound),
        (400, "ThrottlingException", Transient),
        (503, "ServiceUnavailable", Transient),
        (400, "InvalidAddress", SyncAgentError),
    ],
)
def test_what_sqs_answers_is_told_in_our_words(
    status: int, code: str, kind: type[SyncAgentError], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.rigs.fake_http import FakeHttp

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    body = json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": "account 4711"}).encode()
    with FakeHttp() as fake:
        fake.reply = lambda request: (status, {"Content-Type": "application/x-amz-json-1.0"}, body)
        queue = open_queue(
            f"sqs://q?endpoint={fake.url}&region=us-east-1",
            Integration("t", "s3", {"key": "k", "secret": "s"}),
        )
        with pytest.raises(kind) as told:
            queue.receive(1, 0)
        assert type(told.value) is kind
        assert "4711" not in str(told.value)
        assert "q" in str(told.value)
        queue.close()
