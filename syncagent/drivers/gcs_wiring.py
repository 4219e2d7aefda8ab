"""Google Cloud Storage's events: to a topic of Pub/Sub, and from there to a subscription that is pulled, or pushed to a function.

A bucket has a list of notifications, each of which can be made and deleted, and not changed.

https://cloud.google.com/storage/docs/pubsub-notifications
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Generator
from typing import Any

from syncagent.drivers.gcs import credentials_of
from syncagent.drivers.queues import parse_queue
from syncagent.drivers.wiring import DELIVERIES, MARK, Step, Target, name_of
from syncagent.errors import AccessDenied, ConfigError, Conflict, NotFound, SyncAgentError, Transient
from syncagent.model import Action, DriverSpec, Integration, Scope

EVENTS = ("OBJECT_FINALIZE", "OBJECT_DELETE", "OBJECT_ARCHIVE", "OBJECT_METADATA_UPDATE")
"""What items depend on."""
_PAYLOAD = "JSON_API_V1"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_HOST = "//pubsub.googleapis.com/"
_DEADLINE = 60  # seconds, as the daemon holds a message
_WEEK = 7 * 24 * 3600
_SOONEST, _LATEST = 10, 600  # seconds until a message that failed comes again, as the daemon waits
_LOOK = 2.0  # seconds that a pull may take that looks whether a subscription is empty
_PUBLISHER, _SUBSCRIBER = "roles/pubsub.publisher", "roles/pubsub.subscriber"
_LONGEST_NAME = 255
_DELETED = "_deleted-topic_"

Json = dict[str, Any]


class GcsWiring:
    """`Wiring` over google-cloud-storage and google-cloud-pubsub."""

    def __init__(
        self, spec: DriverSpec, target: Target, to: str, integration: Integration | None = None
    ) -> None:
        self._bucket, self._spec, self._integration = spec.bucket, spec, integration
        self._target, self._to = target, to
        self._prefix = spec.path + ("/" if spec.path and spec.scope is Scope.FOLDER else "")
        name = name_of(target.dataset, longest=_LONGEST_NAME - 5, allowed="A-Za-z0-9._~+-")
        given = parse_queue(target.queue).name if target.queue and to == "queue" else ""
        self._project, _, self._name = given.rpartition("/")
        self._name = self._name or name
        if to == "function" and not str(target.function).startswith("https://"):
            raise ConfigError(
                f"--function {target.function} is no address", resource=target.function,
                hint="give the https:// URL of the function or the Cloud Run service",
            )  # fmt: skip
        self._lock = threading.Lock()
        self._clients: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<GcsWiring {self._bucket}>"

    @property
    def queue(self) -> str | None:
        """See `Wiring.queue`."""
        return (
            None if self._to == "function" else self._target.queue or f"pubsub://{self._project}/{self._name}"
        )

    def plan(self, *, unbind: bool = False) -> list[Step]:
        """See `Wiring.plan`."""
        self._project = self._project or self._own_project()
        subscription = self._read_subscription(self._path("subscriptions"))
        topic = self._path("topics")
        if subscription is not None and subscription.topic != topic:
            if subscription.topic == _DELETED and not unbind:
                raise ConfigError(
                    f"the topic of subscription {self._name} was deleted", resource=self._name,
                    hint="delete the subscription as well, and bind again",
                )  # fmt: skip
            if subscription.topic != _DELETED:
                topic = subscription.topic  # a subscription that was there before has its own
        if unbind:
            return self._unbind(topic, subscription)
        return self._bind(topic, subscription)

    def close(self) -> None:
        """See `Wiring.close`."""
        with self._lock:
            while self._clients:
                self._clients.popitem()[1].close()

    # -- what there is to do -----------------------------------------------------------------------

    def _bind(self, topic: str, subscription: Any) -> list[Step]:
        there = self._read_topic(topic)
        steps = [self._make_topic(topic, there)]
        agent, bury = self._agents(topic)
        dead, dead_subscription = self._path("topics", "-dead"), self._path("subscriptions", "-dead")
        # A subscription that was there before has dead letters of its own, or none.
        buried = subscription is None or subscription.dead_letter_policy.dead_letter_topic == dead
        if buried:
            kept = self._read_topic(dead)
            steps.append(self._make_topic(dead, kept, f"for what failed {DELIVERIES} times"))
            # Without a subscription, what is published to a topic is gone.
            steps.append(
                self._make_subscription(
                    dead_subscription, dead, self._read_subscription(dead_subscription), plain=True
                )
            )
            steps.append(self._grant("topic", dead, _PUBLISHER, bury, there=kept is not None))
        steps.append(self._grant("topic", topic, _PUBLISHER, agent, there=there is not None))
        steps.append(self._make_subscription(self._path("subscriptions"), topic, subscription))
        if buried:
            path = self._path("subscriptions")
            steps.append(self._grant("subscription", path, _SUBSCRIBER, bury, there=subscription is not None))
        return [*steps, *self._notify(topic)]

    def _unbind(self, topic: str, subscription: Any) -> list[Step]:
        steps = [self._denotify(one) for one in self._notifications() if self._ours(one)]
        dead, dead_path = self._path("topics", "-dead"), self._path("subscriptions", "-dead")
        if subscription is None:
            gone = {self._path("subscriptions")}
        else:
            steps.append(step := self._remove_subscription(subscription))
            gone = {subscription.name} if step.action is Action.REMOVED else set()
        if (told := self._read_topic(topic)) is not None:
            steps.append(self._remove_topic(told, gone))
        buried = self._read_subscription(dead_path)
        if gone and buried is not None:
            steps.append(step := self._remove_subscription(buried))
            gone = {dead_path} if step.action is Action.REMOVED else set()
        if gone and (told := self._read_topic(dead)) is not None:
            steps.append(self._remove_topic(told, {dead_path}))
        return steps

    # -- topics and subscriptions ----------------------------------------------------------------

    def _path(self, kind: str, suffix: str = "") -> str:
        return f"projects/{self._project}/{kind}/{self._name}{suffix}"

    def _read_topic(self, path: str) -> Any:
        try:
            with self._translated("topic", path, "pubsub.topics.get"):
                return self._publisher().get_topic(topic=path)
        except NotFound:
            return None

    def _make_topic(self, path: str, there: Any, detail: str = "") -> Step:
        what = f"topic {_last(path)}"
        if there is not None:
            return Step(Action.SAME, what)

        def make() -> None:
            with self._translated("topic", path, "pubsub.topics.create"):
                self._publisher().create_topic(request={"name": path, "labels": dict([MARK])})

        return Step(Action.ADDED, what, detail, make)

    def _remove_topic(self, topic: Any, gone: set[str]) -> Step:
        """:param gone: subscriptions that are removed before it."""
        what = f"topic {_last(topic.name)}"
        if topic.labels.get(MARK[0]) != MARK[1]:
            return Step(Action.SAME, what, "kept: bind did not make it")
        with self._translated("topic", topic.name, "pubsub.topics.get"):
            others = set(self._publisher().list_topic_subscriptions(topic=topic.name)) - gone
        told = [
            one for one in self._notifications() if one["topic"] == _HOST + topic.name and not self._ours(one)
        ]
        if others or told:
            return Step(Action.SAME, what, "kept: others use it")

        def remove() -> None:
            with contextlib.suppress(NotFound), self._translated("topic", topic.name, "pubsub.topics.delete"):
                self._publisher().delete_topic(topic=topic.name)

        return Step(Action.REMOVED, what, "", remove)

    def _read_subscription(self, path: str) -> Any:
        try:
            with self._translated("subscription", path, "pubsub.subscriptions.get"):
                return self._subscriber().get_subscription(subscription=path)
        except NotFound:
            return None

    def _make_subscription(self, path: str, topic: str, there: Any, *, plain: bool = False) -> Step:
        """:param plain: of dead letters: never pushed, no dead letters of its own."""
        what, push = f"subscription {_last(path)}", {} if plain else self._push(there)
        if there is not None:
            return self._push_again(there, push, what)
        wanted: Json = {
            "name": path, "topic": topic, "labels": dict([MARK]), "push_config": push, "ack_deadline_seconds": _DEADLINE,
            "message_retention_duration": {"seconds": _WEEK},
            "expiration_policy": {},  # without a time, it never expires, also when nothing happens for a month
        }  # fmt: skip
        if not plain:
            wanted["retry_policy"] = {
                "minimum_backoff": {"seconds": _SOONEST},
                "maximum_backoff": {"seconds": _LATEST},
            }
            dead = self._path("topics", "-dead")
            wanted["dead_letter_policy"] = {"dead_letter_topic": dead, "max_delivery_attempts": DELIVERIES}

        def make() -> None:
            if self._to == "function" and not plain and not self._target.account:
                raise ConfigError(
                    f"a push to {self._target.function} needs an account that it is signed for", resource=self._target.function,
                    hint="name one that may invoke the function with --service-account",
                )  # fmt: skip
            with self._translated("subscription", path, "pubsub.subscriptions.create"):
                self._subscriber().create_subscription(request=wanted)

        return Step(Action.ADDED, what, push.get("push_endpoint", ""), make)

    def _push(self, there: Any) -> Json:
        """The push settings that are wanted: none for a subscription that is pulled."""
        if self._to != "function":
            return {}
        account = self._target.account or (
            there.push_config.oidc_token.service_account_email if there is not None else ""
        )
        return {"push_endpoint": str(self._target.function), "oidc_token": {"service_account_email": account}}

    def _push_again(self, there: Any, push: Json, what: str) -> Step:
        told = there.push_config
        account = push.get("oidc_token", {}).get("service_account_email", "")
        if (told.push_endpoint, told.oidc_token.service_account_email) == (
            push.get("push_endpoint", ""),
            account,
        ):
            return Step(Action.SAME, what)
        if there.labels.get(MARK[0]) != MARK[1]:
            raise ConfigError(
                f"{what} is pushed to {told.push_endpoint or 'nobody'}, and bind did not make it", resource=_last(there.name),
                hint="name another one with --queue",
            )  # fmt: skip

        def change() -> None:
            with self._translated("subscription", there.name, "pubsub.subscriptions.update"):
                self._subscriber().modify_push_config(
                    request={"subscription": there.name, "push_config": push}
                )

        return Step(
            Action.CHANGED,
            what,
            f"was pushed to {told.push_endpoint}" if told.push_endpoint else "was pulled",
            change,
        )

    def _remove_subscription(self, there: Any) -> Step:
        what = f"subscription {_last(there.name)}"
        if there.labels.get(MARK[0]) != MARK[1]:
            return Step(Action.SAME, what, "kept: bind did not make it")
        if not there.push_config.push_endpoint and self._waiting(there.name):
            return Step(Action.SAME, what, "kept: there are messages in it")

        def remove() -> None:
            with (
                contextlib.suppress(NotFound),
                self._translated("subscription", there.name, "pubsub.subscriptions.delete"),
            ):
                self._subscriber().delete_subscription(subscription=there.name)

        return Step(Action.REMOVED, what, "", remove)

    def _waiting(self, path: str) -> bool:
        """Whether messages wait. Pub/Sub tells it by giving them only: they are given back at once."""
        from google.api_core.exceptions import DeadlineExceeded

        with self._translated("subscription", path, "pubsub.subscriptions.consume"):
            try:
                found = (
                    self._subscriber()
                    .pull(subscription=path, max_messages=1, timeout=_LOOK, retry=None)
                    .received_messages
                )
            except DeadlineExceeded:
                return False
            if found:
                given = {
                    "subscription": path,
                    "ack_ids": [one.ack_id for one in found],
                    "ack_deadline_seconds": 0,
                }
                self._subscriber().modify_ack_deadline(**given)
        return bool(found)

    # -- rights of Google's own accounts -------------------------------------------------------------

    def _agents(self, topic: str) -> tuple[str, str]:
        """Who publishes for the bucket, and who moves dead letters: accounts of Google's, one a project."""
        with self._translated("bucket", self._bucket, "storage.buckets.get"):
            number = self._storage().get_bucket(self._bucket).project_number
        with self._translated("bucket", self._bucket, "resourcemanager.projects.get"):
            # Asking is what makes the account, where the project never needed one.
            publishes = str(self._storage().get_service_account_email(project=str(number)))
            beside = str(self._storage().get_service_account_email(project=topic.split("/")[1]))
        # service-NUMBER@…: the number is the project's, which no library here tells otherwise.
        number = beside.partition("@")[0].removeprefix("service-")
        return (
            f"serviceAccount:{publishes}",
            f"serviceAccount:service-{number}@gcp-sa-pubsub.iam.gserviceaccount.com",
        )

    def _grant(self, kind: str, path: str, role: str, member: str, *, there: bool) -> Step:
        what = f"{role} on {kind} {_last(path)}"

        def grant() -> None:
            # The etag that was read goes with what is written, so a change of somebody else's in between is an error.
            policy = self._policy(kind, path)
            binding = next(
                (one for one in policy.bindings if one.role == role and not one.HasField("condition")), None
            )
            if binding is None:
                binding = policy.bindings.add(role=role)
            binding.members.append(member)
            with self._translated(kind, path, f"pubsub.{kind}s.setIamPolicy"):
                self._of(kind).set_iam_policy(request={"resource": path, "policy": policy})

        if there and any(
            one.role == role and member in one.members and not one.HasField("condition")
            for one in self._policy(kind, path).bindings
        ):
            return Step(Action.SAME, what)
        return Step(Action.ADDED, what, member.partition(":")[2], grant)

    def _policy(self, kind: str, path: str) -> Any:
        with self._translated(kind, path, f"pubsub.{kind}s.getIamPolicy"):
            # Version 3, or bindings with a condition would lose it.
            request = {"resource": path, "options": {"requested_policy_version": 3}}
            return self._of(kind).get_iam_policy(request=request)

    # -- notifications ---------------------------------------------------------------------------

    def _notifications(self) -> list[Json]:
        with self._translated("bucket", self._bucket, "storage.buckets.get"):
            bucket = self._storage().bucket(self._bucket, user_project=self._spec.options.get("user_project"))
            return [dict(one._properties) for one in bucket.list_notifications()]

    def _ours(self, told: Json) -> bool:
        return bool(told.get("custom_attributes", {}).get(MARK[0]) == self._target.id)

    def _notify(self, topic: str) -> list[Step]:
        there = self._notifications()
        mine = [one for one in there if self._ours(one)]
        what = f"notification of bucket {self._bucket}"
        if not mine and any(self._covers(one, topic) for one in there):
            return [Step(Action.SAME, what, "not made by bind")]
        right = [one for one in mine if self._right(one, topic)]
        steps = [Step(Action.SAME, what, self._prefix)] if right else []
        wrong = [one for one in mine if one not in right[:1]]

        def make() -> None:
            with self._translated("bucket", self._bucket, "storage.buckets.update"):
                self._bucket_notification(topic).create()

        if not right:
            steps.append(
                Step(
                    Action.CHANGED if wrong else Action.ADDED,
                    what,
                    "it was altered" if wrong else self._prefix,
                    make,
                )
            )
        # The new one is there before the old one goes: an event may come twice, and none is lost.
        return [*steps, *(self._denotify(one) for one in wrong)]

    def _bucket_notification(self, topic: str) -> Any:
        bucket = self._storage().bucket(self._bucket, user_project=self._spec.options.get("user_project"))
        _, project, _, name = topic.split("/")
        return bucket.notification(
            topic_name=name, topic_project=project, custom_attributes={MARK[0]: self._target.id}, event_types=list(EVENTS),
            blob_name_prefix=self._prefix or None, payload_format=_PAYLOAD,
        )  # fmt: skip

    def _right(self, told: Json, topic: str) -> bool:
        return (
            told["topic"] == _HOST + topic and set(told.get("event_types", [])) == set(EVENTS)
            and told.get("object_name_prefix", "") == self._prefix and told.get("payload_format") == _PAYLOAD
        )  # fmt: skip

    def _covers(self, told: Json, topic: str) -> bool:
        """Whether somebody else's notification tells all that ours would: one without event types tells of all."""
        events = told.get("event_types") or EVENTS
        return (
            told["topic"] == _HOST + topic
            and MARK[0]
            not in told.get("custom_attributes", {})  # another dataset's goes when that is unbound
            and set(EVENTS) <= set(events)
            and self._prefix.startswith(told.get("object_name_prefix", ""))
        )

    def _denotify(self, told: Json) -> Step:
        def remove() -> None:
            with (
                contextlib.suppress(NotFound),
                self._translated("bucket", self._bucket, "storage.buckets.update"),
            ):
                self._storage().bucket(
                    self._bucket, user_project=self._spec.options.get("user_project")
                ).notification(notification_id=told["id"]).delete()

        return Step(Action.REMOVED, f"notification {told['id']} of bucket {self._bucket}", "", remove)

    # -- the clients -----------------------------------------------------------------------------

    def _own_project(self) -> str:
        """The project that queues are made in: the URL's, the credentials', or the environment's."""
        if project := self._spec.options.get("project"):
            return project
        if self._integration is not None:
            with contextlib.suppress(ValueError):
                told = json.loads(self._integration.options.get("content", ""))
                if isinstance(told, dict) and (
                    project := told.get("project_id") or told.get("quota_project_id")
                ):
                    return str(project)
        elif project := os.environ.get("GOOGLE_CLOUD_PROJECT"):
            return project
        else:
            import google.auth
            from google.auth.exceptions import GoogleAuthError

            with contextlib.suppress(GoogleAuthError):
                if project := google.auth.default(scopes=[_SCOPE])[1]:
                    return str(project)
        raise ConfigError(
            f"the project for the events of bucket {self._bucket} is not known", resource=self._bucket,
            hint="name a subscription, --queue pubsub://PROJECT/NAME, or set GOOGLE_CLOUD_PROJECT",
        )  # fmt: skip

    def _storage(self) -> Any:
        def make() -> Any:
            from google.cloud import storage

            endpoint = self._spec.endpoint
            options = {"api_endpoint": endpoint.rstrip("/")} if endpoint else None
            credentials = credentials_of(self._spec, self._integration, _SCOPE)
            return storage.Client(
                project=self._project or "syncagent", credentials=credentials, client_options=options
            )

        return self._made("storage", make)

    def _publisher(self) -> Any:
        def make() -> Any:
            from google.cloud import pubsub_v1

            return _Closing(pubsub_v1.PublisherClient(**self._credentials()))

        return self._made("topic", make)

    def _subscriber(self) -> Any:
        def make() -> Any:
            from google.cloud import pubsub_v1

            return pubsub_v1.SubscriberClient(**self._credentials())

        return self._made("subscription", make)

    def _of(self, kind: str) -> Any:
        return self._publisher() if kind == "topic" else self._subscriber()

    def _credentials(self) -> Json:
        if self._integration is None:
            return {}
        spec = DriverSpec(type="gcs", bucket=self._bucket)
        return {"credentials": credentials_of(spec, self._integration, _SCOPE)}

    def _made(self, name: str, make: Any) -> Any:
        with self._lock:
            if name not in self._clients:
                self._clients[name] = make()
            return self._clients[name]

    @contextlib.contextmanager
    def _translated(self, kind: str, name: str, action: str) -> Generator[None, None, None]:
        """The one place where the SDKs' errors become ours.

        :param action: the permission that is missing where Google refuses.
        """
        import requests
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError, TransportError

        name = _last(name)
        try:
            yield
        except SyncAgentError:
            raise
        except exceptions.NotFound as error:
            raise NotFound(
                f"no such {kind}: {name}", resource=name, hint="check the name and the project"
            ) from error
        except (exceptions.PermissionDenied, exceptions.Forbidden) as error:
            raise AccessDenied(
                f"not allowed: {action} on {kind} {name}", resource=name, hint="give these credentials a role that has it",
                permission=action,
            ) from error  # fmt: skip
        except (exceptions.Aborted, exceptions.Conflict, exceptions.PreconditionFailed) as error:
            raise Conflict(
                f"somebody else changed {kind} {name} meanwhile", resource=name, hint="run it again"
            ) from error
        except (TransportError, requests.ConnectionError, requests.Timeout) as error:
            raise Transient(
                f"cannot reach Google for {kind} {name}", resource=name, hint="check the network"
            ) from error
        except (exceptions.Unauthenticated, exceptions.Unauthorized, GoogleAuthError) as error:
            raise AccessDenied(
                f"no usable Google credentials for {kind} {name}", resource=name,
                hint="run 'gcloud auth application-default login', or name an integration",
            ) from error  # fmt: skip
        except (exceptions.InvalidArgument, exceptions.BadRequest) as error:
            raise ConfigError(
                f"Google cannot use {kind} {name}", resource=name, hint="check its name and settings"
            ) from error
        except exceptions.GoogleAPIError as error:
            raise Transient(
                f"Google did not answer for {kind} {name}: {type(error).__name__}",
                resource=name,
                hint="run it again",
            ) from error


class _Closing:
    """A publisher whose end is called `close`, as with the other clients."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def close(self) -> None:
        self._client.stop()
        self._client.transport.close()


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def open_wiring(
    spec: DriverSpec, target: Target, to: str, integration: Integration | None = None
) -> GcsWiring:
    """Open a bucket's wiring. No request is sent yet."""
    import google.cloud.pubsub_v1
    import google.cloud.storage  # noqa: F401  # missing: said at once, with the extra to install

    return GcsWiring(spec, target, to, integration)
