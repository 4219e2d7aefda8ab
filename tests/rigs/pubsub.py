"""Pub/Sub as far as a subscriber and a wiring need it, over gRPC under the real client: no registry has Google's emulator."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest


class PubSub:
    """Topics and subscriptions by their paths; what is not acknowledged in time comes again."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.topics: dict[str, Any] = {}
        self.subscriptions: dict[str, Any] = {}
        self.waiting: dict[str, list[list[Any]]] = {}
        """Of each subscription: when it may be handed out, how often it was, the handle, the message."""
        self.policies: dict[str, Any] = {}
        """Who may do what with a topic or a subscription, by its path."""
        self.numbers = itertools.count(1)
        self.server: Any = None
        self.port = 0

    # -- for tests -------------------------------------------------------------------------------

    def create(self, name: str, *, deadline: int = 10, attempts: int = 0, project: str = "test") -> str:
        """A topic with one subscription of the same name; the subscription's URL."""
        from google.pubsub_v1 import types

        topic, path = f"projects/{project}/topics/{name}", f"projects/{project}/subscriptions/{name}"
        made = types.Subscription(name=path, topic=topic, ack_deadline_seconds=deadline)
        if attempts:
            made.dead_letter_policy.max_delivery_attempts = attempts
        with self.changed:
            self.topics[topic] = types.Topic(name=topic)
            self.subscriptions[path], self.waiting[path] = made, []
        return f"pubsub://{project}/{name}"

    def publish(self, name: str, data: bytes, attributes: dict[str, str]) -> None:
        from google.pubsub_v1 import types

        self._publish(f"projects/test/topics/{name}", types.PubsubMessage(data=data, attributes=attributes))

    # -- the protocol ----------------------------------------------------------------------------

    def _publish(self, topic: str, message: Any) -> str:
        with self.changed:
            message.message_id = str(next(self.numbers))
            message.publish_time = datetime.now(UTC)
            for path, subscription in self.subscriptions.items():
                if subscription.topic == topic:
                    self.waiting[path].append([0.0, 0, "", message])
            self.changed.notify_all()
            return str(message.message_id)

    def get_topic(self, request: Any, context: Any) -> Any:
        return self.topics.get(request.topic) or _missing(context)

    def publish_all(self, request: Any, context: Any) -> Any:
        from google.pubsub_v1 import types

        if request.topic not in self.topics:
            _missing(context)
        return types.PublishResponse(
            message_ids=[self._publish(request.topic, one) for one in request.messages]
        )

    def pull(self, request: Any, context: Any) -> Any:
        from google.pubsub_v1 import types

        until = time.monotonic() + min(context.time_remaining() or 5, 5) * 0.8
        with self.changed:
            subscription = self.subscriptions.get(request.subscription) or _missing(context)
            while not (found := self._take(subscription, request.max_messages)):
                if (left := until - time.monotonic()) <= 0:
                    break
                self.changed.wait(min(left, 0.05))
        return types.PullResponse(received_messages=found)

    def _take(self, subscription: Any, most: int) -> list[Any]:
        from google.pubsub_v1 import types

        now, found = time.monotonic(), []
        for entry in self.waiting[subscription.name]:
            if entry[0] <= now and len(found) < most:
                entry[0], entry[1] = now + subscription.ack_deadline_seconds, entry[1] + 1
                entry[2] = f"{entry[3].message_id}-{entry[1]}"
                counted = entry[1] if subscription.dead_letter_policy.max_delivery_attempts else 0
                found.append(
                    types.ReceivedMessage(ack_id=entry[2], message=entry[3], delivery_attempt=counted)
                )
        return found

    def acknowledge(self, request: Any, context: Any) -> Any:
        with self.changed:
            if request.subscription not in self.waiting:
                _missing(context)
            kept = [one for one in self.waiting[request.subscription] if one[2] not in request.ack_ids]
            self.waiting[request.subscription] = kept
        return _empty()

    def modify(self, request: Any, context: Any) -> Any:
        with self.changed:
            if request.subscription not in self.waiting:
                _missing(context)
            for one in self.waiting[request.subscription]:
                if one[2] in request.ack_ids:
                    one[0] = time.monotonic() + request.ack_deadline_seconds
            self.changed.notify_all()
        return _empty()

    # -- what wiring asks for ------------------------------------------------------------------------

    def create_topic(self, request: Any, context: Any) -> Any:
        if request.name in self.topics:
            _exists(context)
        self.topics[request.name] = request
        return request

    def delete_topic(self, request: Any, context: Any) -> Any:
        if self.topics.pop(request.topic, None) is None:
            _missing(context)
        for one in self.subscriptions.values():
            if one.topic == request.topic:
                one.topic = "_deleted-topic_"
        self.policies.pop(request.topic, None)
        return _empty()

    def list_topic_subscriptions(self, request: Any, context: Any) -> Any:
        from google.pubsub_v1 import types

        found = [path for path, one in self.subscriptions.items() if one.topic == request.topic]
        return types.ListTopicSubscriptionsResponse(subscriptions=found)

    def create_subscription(self, request: Any, context: Any) -> Any:
        if request.name in self.subscriptions:
            _exists(context)
        if request.topic not in self.topics:
            _missing(context)
        with self.changed:
            self.subscriptions[request.name], self.waiting[request.name] = request, []
        return request

    def get_subscription(self, request: Any, context: Any) -> Any:
        return self.subscriptions.get(request.subscription) or _missing(context)

    def delete_subscription(self, request: Any, context: Any) -> Any:
        if self.subscriptions.pop(request.subscription, None) is None:
            _missing(context)
        self.waiting.pop(request.subscription)
        self.policies.pop(request.subscription, None)
        return _empty()

    def modify_push_config(self, request: Any, context: Any) -> Any:
        found = self.subscriptions.get(request.subscription) or _missing(context)
        found.push_config = request.push_config
        return _empty()

    def get_iam_policy(self, request: Any, context: Any) -> Any:
        from google.iam.v1.policy_pb2 import Policy

        if request.resource not in self.topics and request.resource not in self.subscriptions:
            _missing(context)
        return self.policies.setdefault(request.resource, Policy(etag=b"1"))

    def set_iam_policy(self, request: Any, context: Any) -> Any:
        import grpc

        there = self.get_iam_policy(request, context)
        if request.policy.etag != there.etag:
            context.abort(grpc.StatusCode.ABORTED, "there were concurrent policy changes")
        request.policy.etag = str(next(self.numbers)).encode()
        self.policies[request.resource] = request.policy
        return request.policy

    def start(self) -> None:
        import grpc
        from google.iam.v1 import iam_policy_pb2
        from google.pubsub_v1 import types

        self.server = grpc.server(ThreadPoolExecutor(16))

        def method(function: Callable[[Any, Any], Any], request: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                function, getattr(request, "deserialize", None) or request.FromString, lambda answer: type(answer).serialize(answer)
                if hasattr(type(answer), "serialize") else answer.SerializeToString(),
            )  # fmt: skip

        publisher = {
            "GetTopic": method(self.get_topic, types.GetTopicRequest),
            "Publish": method(self.publish_all, types.PublishRequest),
            "CreateTopic": method(self.create_topic, types.Topic),
            "DeleteTopic": method(self.delete_topic, types.DeleteTopicRequest),
            "ListTopicSubscriptions": method(
                self.list_topic_subscriptions, types.ListTopicSubscriptionsRequest
            ),
        }
        subscriber = {
            "Pull": method(self.pull, types.PullRequest),
            "Acknowledge": method(self.acknowledge, types.AcknowledgeRequest),
            "ModifyAckDeadline": method(self.modify, types.ModifyAckDeadlineRequest),
            "CreateSubscription": method(self.create_subscription, types.Subscription),
            "GetSubscription": method(self.get_subscription, types.GetSubscriptionRequest),
            "DeleteSubscription": method(self.delete_subscription, types.DeleteSubscriptionRequest),
            "ModifyPushConfig": method(self.modify_push_config, types.ModifyPushConfigRequest),
        }
        rights = {
            "GetIamPolicy": method(self.get_iam_policy, iam_policy_pb2.GetIamPolicyRequest),
            "SetIamPolicy": method(self.set_iam_policy, iam_policy_pb2.SetIamPolicyRequest),
        }
        self.server.add_generic_rpc_handlers((
            grpc.method_handlers_generic_handler("google.pubsub.v1.Publisher", publisher),
            grpc.method_handlers_generic_handler("google.pubsub.v1.Subscriber", subscriber),
            grpc.method_handlers_generic_handler("google.iam.v1.IAMPolicy", rights),
        ))  # fmt: skip
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()


def _missing(context: Any) -> Any:
    import grpc

    context.abort(grpc.StatusCode.NOT_FOUND, "not found")


def _exists(context: Any) -> Any:
    import grpc

    context.abort(grpc.StatusCode.ALREADY_EXISTS, "it exists")


def _empty() -> Any:
    from google.protobuf.empty_pb2 import Empty

    return Empty()


@pytest.fixture(scope="session")
def pubsub_rig() -> Iterator[PubSub]:
    """Tests point the client to it by ``PUBSUB_EMULATOR_HOST``."""
    fake = PubSub()
    fake.start()
    yield fake
    fake.server.stop(0).wait()
