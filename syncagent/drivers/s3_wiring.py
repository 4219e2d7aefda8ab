"""Amazon S3's events: to a queue of SQS, to a function of Lambda, or through EventBridge to a queue.

A bucket has one notification document, which is everybody's: it is read, one entry of it is ours, and all others are written
back as they were read.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/EventNotifications.html
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
from collections.abc import Callable, Generator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from syncagent.drivers.queues import parse_queue
from syncagent.drivers.s3 import BAD_KEY, BUSY, EXPIRED, PERFORM, S3Driver, client_of, sdk_error, session_of
from syncagent.drivers.s3_documents import (
    BRIDGE,
    DETAILS,
    EVENTS,
    KINDS,
    Json,
    allows,
    comparable,
    covers,
    encoded,
    entry_of,
    filter_of,
    matches,
    overlapping,
    parsed,
    plain,
    policy_of,
    statements_of,
    without,
)
from syncagent.drivers.wiring import (
    DELIVERIES,
    KEPT_DAYS,
    MARK,
    Step,
    Target,
    counted,
    in_the_way,
    name_of,
    waits,
)
from syncagent.errors import (
    AccessDenied,
    ConfigError,
    Conflict,
    NotFound,
    SyncAgentError,
    Transient,
    Unsupported,
)
from syncagent.model import Action, DriverSpec, Integration, Scope
from syncagent.retry import retrying

_MISSING = {
    "AWS.SimpleQueueService.NonExistentQueue",
    "QueueDoesNotExist",
    "ResourceNotFoundException",
    "ResourceNotFound",
}
_COUNTS = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)
# Actions whose name is not their request's.
_ACTIONS = {
    "GetBucketNotificationConfiguration": "s3:GetBucketNotification",
    "PutBucketNotificationConfiguration": "s3:PutBucketNotification",
}
_LONGEST_NAME = 80
_AWS_KEY = "alias/aws/sqs"
_PARTITION, _ACCOUNT = 1, 4  # parts of an ARN
_ID, _SID = "syncagent-", "Syncagent"  # what ours begin with; an Sid is letters and digits


class S3Wiring:
    """`Wiring` over boto3."""

    def __init__(
        self, spec: DriverSpec, target: Target, to: str, integration: Integration | None = None
    ) -> None:
        self._bucket, self._spec, self._integration = spec.bucket, spec, integration
        self._target, self._to = target, to
        self._id = f"{_ID}{target.id}"
        self._sid = _sid_of(self._id)
        self._prefix = spec.path + ("/" if spec.path and spec.scope is Scope.FOLDER else "")
        self._given = parse_queue(target.queue) if target.queue else None
        # Room for the "-dead" of its dead letters.
        name = name_of(target.dataset, longest=_LONGEST_NAME - 5, allowed="A-Za-z0-9_-")
        self._name = self._given.name if self._given else name
        if self._name.endswith(".fifo"):
            raise ConfigError(
                f"S3 cannot send to the FIFO queue {self._name}",
                resource=self._name,
                hint="name a standard queue",
            )
        self._clients: dict[str, Any] = {}
        self._session: Any = None
        self._region = ""

    def __repr__(self) -> str:
        return f"<S3Wiring {self._bucket}>"

    @property
    def queue(self) -> str | None:
        """See `Wiring.queue`."""
        if self._to == "function":
            return None
        return self._target.queue or self._url(self._name)

    def _url(self, queue: str) -> str:
        told = {
            "region": self._region,
            "endpoint": self._spec.endpoint,
            "profile": self._spec.options.get("profile"),
        }
        query = "&".join(f"{name}={quote(value, safe=':/')}" for name, value in told.items() if value)
        return f"sqs://{queue}?{query}"

    def plan(self, *, unbind: bool = False) -> list[Step]:
        """See `Wiring.plan`."""
        if self._bucket.endswith("--x-s3"):
            raise Unsupported(
                f"the directory bucket {self._bucket} tells of no events", resource=self._bucket,
                hint="let 'syncagent run' sweep it more often",
            )  # fmt: skip
        self._locate()
        if self._to == "function":
            return self._unbind_function() if unbind else self._bind_function()
        queue = self._read_queue(self._name)
        self._check_account(queue, unbind=unbind)
        if self._to == "eventbridge":
            return self._unbind_bridge(queue) if unbind else self._bind_bridge(queue)
        if unbind:
            return [*self._unnotify(queue), *self._remove_queue(queue)]
        return [
            *self._make_queue(queue),
            self._allow(queue, self._statement_of_bucket),
            self._notify(queue["QueueArn"] if queue is not None else None),
        ]

    def close(self) -> None:
        """See `Wiring.close`."""
        while self._clients:
            self._clients.popitem()[1].close()

    def _locate(self) -> None:
        """The bucket's region: what it sends to must be in it."""
        if self._region:
            return
        driver = S3Driver(self._spec, self._integration)
        try:
            self._region = driver.region()
        finally:
            driver.close()
        given = self._given.options.get("region") if self._given else None
        if given not in {None, self._region}:
            raise ConfigError(
                f"queue {self._name} is in {given}, and bucket {self._bucket} in {self._region}", resource=self._name,
                hint="name a queue of the bucket's region",
            )  # fmt: skip

    # -- the queue -------------------------------------------------------------------------------

    def _read_queue(self, name: str) -> Json | None:
        """A queue's attributes, with its ``Url``; None where there is none."""
        try:
            with self._translated(f"queue {name}"):
                sqs = self._client("sqs")
                url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
                return {
                    **sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"],
                    "Url": url,
                }
        except NotFound:
            return None

    def _check_account(self, queue: Json | None, *, unbind: bool) -> None:
        """A queue's own URL names its account; by its name, only a queue of these credentials' account is found or made."""
        if self._given is None or not self._given.url.startswith("https:"):
            return
        account = urlsplit(self._given.url).path.split("/")[1]
        if queue is not None and _part(queue, _ACCOUNT) != account:
            raise ConfigError(
                f"queue {self._name} is of account {account}, and these credentials are of {_part(queue, _ACCOUNT)}",
                resource=self._name, hint="name a queue of the bucket's account",
            )  # fmt: skip
        if queue is None and not unbind:
            raise NotFound(
                f"no such queue: {self._given.url}", resource=self._name,
                hint=f"check it, or let one be made: --queue '{self._url(self._name)}'",
            )  # fmt: skip

    def _there(self, name: str) -> Json:
        """A queue's attributes, of one that a step before this one made.

        :raises NotFound: somebody removed it meanwhile.
        """
        found = self._read_queue(name)
        if found is None:
            raise NotFound(f"no such queue: {name}", resource=name, hint="somebody removed it: run it again")
        return found

    def _make_queue(self, queue: Json | None) -> list[Step]:
        dead = f"{self._name[: _LONGEST_NAME - 5]}-dead"
        if queue is not None:
            if queue.get("KmsMasterKeyId") == _AWS_KEY:
                raise ConfigError(
                    f"queue {self._name} is sealed with {_AWS_KEY}, which neither S3 nor EventBridge may use",
                    resource=self._name, hint="let it use SSE-SQS, or a key of your own whose policy allows them",
                )  # fmt: skip
            # A queue that was there before may have other dead letters, or none.
            mine = _dead_of(queue) == dead
            return [*([self._make_dead(dead)] if mine else []), Step(Action.SAME, f"queue {self._name}")]

        def create() -> None:
            told = self._there(dead)
            # Only what receives decides how long a message is hidden: the daemon says so with each request.
            policy = {"deadLetterTargetArn": told["QueueArn"], "maxReceiveCount": DELIVERIES}
            self._create(self._name, {"RedrivePolicy": json.dumps(policy)})

        return [self._make_dead(dead), Step(Action.ADDED, f"queue {self._name}", "", create)]

    def _make_dead(self, name: str) -> Step:
        what = f"queue {name}"
        if self._read_queue(name) is not None:
            return Step(Action.SAME, what)
        return Step(Action.ADDED, what, f"for what failed {DELIVERIES} times", lambda: self._create(name, {}))

    def _create(self, name: str, attributes: Mapping[str, str]) -> None:
        given = {
            "MessageRetentionPeriod": str(KEPT_DAYS * 24 * 3600),
            "SqsManagedSseEnabled": "true",
            **attributes,
        }
        with self._translated(f"queue {name}"):
            self._client("sqs").create_queue(QueueName=name, Attributes=given, tags=dict([MARK]))

    def _remove_queue(self, queue: Json | None) -> list[Step]:
        """Our statement leaves the queue's policy; the queue itself goes where it is ours alone, and empty."""
        if queue is None:
            return []
        steps, others = [], [one for one in statements_of(queue) if one.get("Sid") != self._sid]
        if len(others) < len(statements_of(queue)):
            steps.append(Step(Action.REMOVED, f"policy of queue {self._name}", "our statement", self._forbid))
        if why := self._keeps(queue, shared=bool(others)):
            return [*steps, Step(Action.SAME, f"queue {self._name}", why)]
        steps.append(Step(Action.REMOVED, f"queue {self._name}", "", lambda: self._delete(self._name)))
        dead = _dead_of(queue)
        if dead and (found := self._read_queue(dead)) is not None:
            why = self._keeps(found, shared=False)
            action = Action.SAME if why else Action.REMOVED
            steps.append(Step(action, f"queue {dead}", why, None if why else lambda: self._delete(dead)))
        return steps

    def _keeps(self, queue: Json, *, shared: bool) -> str:
        """Why a queue is not removed; empty where it may go."""
        name = queue["QueueArn"].rpartition(":")[2]
        with self._translated(f"queue {name}"):
            tags = self._client("sqs").list_queue_tags(QueueUrl=queue["Url"]).get("Tags", {})
        if tags.get(MARK[0]) != MARK[1]:
            return "kept: bind did not make it"
        if shared:
            return "kept: others send to it"
        return waits(sum(int(queue.get(one, 0)) for one in _COUNTS))

    def _delete(self, name: str) -> None:
        queue = self._read_queue(name)
        if queue is None:
            return
        if count := sum(int(queue.get(one, 0)) for one in _COUNTS):  # they came since the plan was made
            raise Conflict(
                f"queue {name} is not removed: {counted(count)} came into it",
                resource=name,
                hint="run it again",
            )
        with contextlib.suppress(NotFound), self._translated(f"queue {name}"):
            self._client("sqs").delete_queue(QueueUrl=queue["Url"])

    # -- its policy ------------------------------------------------------------------------------

    def _statement_of_bucket(self, queue: Json) -> Json:
        return self._statement(
            queue, "s3.amazonaws.com", f"arn:{_part(queue, _PARTITION)}:s3:::{self._bucket}"
        )

    def _statement_of_rule(self, queue: Json) -> Json:
        arn = f"arn:{_part(queue, _PARTITION)}:events:{self._region}:{_part(queue, _ACCOUNT)}:rule/{self._id}"
        return self._statement(queue, "events.amazonaws.com", arn)

    def _statement(self, queue: Json, service: str, source: str) -> Json:
        return {
            "Sid": self._sid, "Effect": "Allow", "Principal": {"Service": service}, "Action": "sqs:SendMessage",
            "Resource": queue["QueueArn"],
            "Condition": {"ArnEquals": {"aws:SourceArn": source}, "StringEquals": {"aws:SourceAccount": _part(queue, _ACCOUNT)}},
        }  # fmt: skip

    def _allow(self, queue: Json | None, statement_of: Callable[[Json], Json]) -> Step:
        what = f"policy of queue {self._name}"

        def allow() -> None:
            told = self._there(self._name)
            kept = [one for one in statements_of(told) if one.get("Sid") != self._sid]
            self._put_policy(told, [*kept, statement_of(told)])

        if queue is None:
            return Step(Action.ADDED, what, "", allow)
        wanted, there = statement_of(queue), statements_of(queue)
        if wanted in there:
            return Step(Action.SAME, what)
        if any(one.get("Sid") == self._sid for one in there):
            return Step(Action.CHANGED, what, "our statement was altered", allow)
        # Another dataset's statement goes when that is unbound.
        if any(allows(one, wanted) for one in there if not str(one.get("Sid")).startswith(_SID)):
            return Step(Action.SAME, what, "allows it already")
        return Step(Action.ADDED, what, "one statement", allow)

    def _forbid(self) -> None:
        queue = self._read_queue(self._name)
        if queue is not None:
            self._put_policy(queue, [one for one in statements_of(queue) if one.get("Sid") != self._sid])

    def _put_policy(self, queue: Json, statements: list[Json]) -> None:
        policy = {"Version": "2012-10-17", **policy_of(queue), "Statement": statements}
        text = json.dumps(policy) if statements else ""  # an empty list is no policy
        with self._translated(f"queue {self._name}"):
            self._client("sqs").set_queue_attributes(QueueUrl=queue["Url"], Attributes={"Policy": text})

    # -- the notification ------------------------------------------------------------------------

    def _read_document(self) -> Json:
        with self._translated(f"bucket {self._bucket}"):
            told: Json = self._client("s3").get_bucket_notification_configuration(Bucket=self._bucket)
        return {name: value for name, value in told.items() if name != "ResponseMetadata"}

    def _notify(self, arn: str | None, kind: str = "QueueConfigurations") -> Step:
        """:param arn: of what it goes to; None where that is still to be made."""
        what = f"notification {self._id} of bucket {self._bucket}"
        document = self._read_document()
        mine, covering = entry_of(document, self._id), None
        if mine is None and arn is not None:
            covering = next(
                (one for one in document.get(kind, []) if self._covers(one, KINDS[kind], arn)), None
            )
        if covering is not None:
            id = str(covering.get("Id"))
            return Step(Action.SAME, f"notification {id} of bucket {self._bucket}", _whose(id))
        if error := self._overlap(document, arn):
            return in_the_way(what, error)

        def notify() -> None:
            sends_to = arn or self._there(self._name)["QueueArn"]

            def change(told: Json) -> Json:
                if error := self._overlap(told, sends_to):  # it came since the plan was made
                    raise error
                return {**told, kind: [*told.get(kind, []), self._wanted(sends_to, kind)]}

            self._write(change)

        if mine is None:
            return Step(Action.ADDED, what, self._prefix, notify)
        if arn is not None and mine == (kind, plain(self._wanted(arn, kind))):
            return Step(Action.SAME, what, self._prefix)
        return Step(
            Action.CHANGED, what, "it was altered" if mine[0] == kind else "it goes elsewhere", notify
        )

    def _wanted(self, arn: str, kind: str) -> Json:
        entry: Json = {"Id": self._id, KINDS[kind]: arn, "Events": list(EVENTS)}
        if self._prefix:
            rule = {"Name": "prefix", "Value": encoded(self._prefix)}
            entry["Filter"] = {"Key": {"FilterRules": [rule]}}
        return entry

    def _covers(self, entry: Json, field: str, arn: str) -> bool:
        prefix, suffix = filter_of(entry)
        told = entry.get("Events", [])
        every = all(any(fnmatch.fnmatchcase(event, one) for one in told) for event in EVENTS)
        reaches = not suffix and self._prefix.startswith(prefix) and matches(entry)
        return entry.get(field) == arn and every and reaches

    def _overlap(self, document: Json, arn: str | None) -> ConfigError | None:
        """S3 refuses two entries whose events and filters overlap, and does not say which."""
        for kind in KINDS:
            for entry in document.get(kind, []):
                prefix, _ = filter_of(entry)
                touches = prefix.startswith(self._prefix) or self._prefix.startswith(prefix)
                if entry.get("Id") != self._id and touches and overlapping(entry.get("Events", [])):
                    hint = "share them by --to eventbridge, or let it send to an SNS topic, and the topic to both"
                    if self._shares(entry):
                        queue = self._url(entry["QueueArn"].rpartition(":")[2])
                        hint = f"it is another dataset's, whose queue tells of both: --queue '{queue}'"
                    if entry.get(KINDS[kind]) == arn:
                        hint = "it sends to the same place, but not all that is needed: remove it, and run it again"
                    return ConfigError(
                        f"notification {entry.get('Id')!r} of bucket {self._bucket} has the same events already, of "
                        + (f"{prefix!r}" if prefix else "all keys"), resource=self._bucket,
                        hint=hint,
                    )  # fmt: skip
        return None

    def _shares(self, entry: Json) -> bool:
        """Whether an entry is another dataset's, and tells a queue all that this dataset needs."""
        theirs = self._to == "queue" and str(entry.get("Id")).startswith(_ID) and "QueueArn" in entry
        return theirs and self._covers(entry, "QueueArn", entry["QueueArn"])

    def _unnotify(self, queue: Json | None = None) -> list[Step]:
        """:param queue: from which other datasets may be fed by this entry."""
        document = self._read_document()
        if entry_of(document, self._id) is None:
            return []
        ids = [str(entry.get("Id")) for kind in KINDS for entry in document.get(kind, [])]
        return [
            Step(
                Action.REMOVED,
                f"notification {self._id} of bucket {self._bucket}",
                _left_without(queue, ids),
                lambda: self._write(lambda told: told),
            )
        ]

    def _write(self, change: Callable[[Json], Json]) -> None:
        """Read the document, take our entry out, change the rest, write it, and look whether it is there."""

        def put() -> Json:
            # Read anew at each try: S3 writes on no condition, so what others write meanwhile would be lost.
            others = {
                name: without(value, self._id) if name in KINDS else value
                for name, value in self._read_document().items()
            }
            told = {name: value for name, value in change(others).items() if value != []}
            with self._translated(f"bucket {self._bucket}"):
                # No SkipDestinationValidation: S3 then says at once that it may not send there.
                self._client("s3").put_bucket_notification_configuration(
                    Bucket=self._bucket, NotificationConfiguration=told
                )
            return told

        def verify() -> None:
            if comparable(self._read_document()) != comparable(wanted):
                raise Conflict(
                    f"somebody else changed the notifications of bucket {self._bucket} meanwhile", resource=self._bucket,
                    hint="run it again",
                )  # fmt: skip

        # A queue's new policy, and the document itself, may take seconds until all of AWS knows them.
        wanted = retrying(put, attempts=10)()
        retrying(verify)()

    # -- EventBridge -----------------------------------------------------------------------------

    def _bind_bridge(self, queue: Json | None) -> list[Step]:
        rule, target = self._read_rule()
        what = f"rule {self._id}"

        def make() -> None:
            arn = self._there(self._name)["QueueArn"]
            with self._translated(what):
                events = self._client("events")
                tags = {} if rule is not None else {"Tags": [{"Key": MARK[0], "Value": MARK[1]}]}
                description = f"syncagent: the events of bucket {self._bucket}"
                events.put_rule(
                    Name=self._id,
                    EventPattern=json.dumps(self._pattern()),
                    State="ENABLED",
                    Description=description,
                    **tags,
                )
                answer = events.put_targets(Rule=self._id, Targets=[{"Id": "syncagent", "Arn": arn}])
            if answer.get("FailedEntryCount"):
                raise Transient(
                    f"EventBridge did not take the target of rule {self._id}",
                    resource=self._id,
                    hint="run it again",
                )

        if rule is None:
            other = self._other_rule(queue)
            wired = (
                Step(Action.SAME, f"rule {other}", _whose(other))
                if other
                else Step(Action.ADDED, what, self._prefix, make)
            )
        elif (
            parsed(rule.get("EventPattern")) != self._pattern() or rule.get("State") != "ENABLED"
            or queue is None or target != queue["QueueArn"]
        ):  # fmt: skip
            wired = Step(Action.CHANGED, what, "it was altered", make)
        else:
            wired = Step(Action.SAME, what, self._prefix)
        on = BRIDGE in (document := self._read_document())
        step = Step(
            Action.SAME if on else Action.ADDED, f"EventBridge of bucket {self._bucket}", "",
            None if on else lambda: self._write(lambda told: {**told, BRIDGE: {}}),
        )  # fmt: skip
        old = []
        if entry_of(document, self._id) is not None:  # from another --to: each event would come twice
            old = self._unnotify()
        return [*self._make_queue(queue), self._allow(queue, self._statement_of_rule), wired, step, *old]

    def _unbind_bridge(self, queue: Json | None) -> list[Step]:
        rule, _ = self._read_rule()
        steps = []
        if rule is not None:
            why = _left_without(queue, self._rules_to(queue))
            steps.append(Step(Action.REMOVED, f"rule {self._id}", why, self._remove_rule))
        if BRIDGE in self._read_document():
            steps.append(
                Step(
                    Action.SAME, f"EventBridge of bucket {self._bucket}", "kept on: others' rules may need it"
                )
            )
        return [*steps, *self._remove_queue(queue)]

    def _pattern(self) -> Json:
        detail: Json = {"bucket": {"name": [self._bucket]}}
        if self._prefix:
            detail["object"] = {"key": [{"prefix": self._prefix}]}  # keys are not encoded here
        return {"source": ["aws.s3"], "detail-type": list(DETAILS), "detail": detail}

    def _other_rule(self, queue: Json | None) -> str:
        """Somebody else's rule that sends all that ours would to the queue, as our CloudFormation template has one; or nothing."""
        for name in self._rules_to(queue):
            with self._translated(f"rule {name}"):
                rule = self._client("events").describe_rule(Name=name)
            if rule.get("State") == "ENABLED" and covers(
                parsed(rule.get("EventPattern")), self._bucket, self._prefix
            ):
                return name
        return ""

    def _rules_to(self, queue: Json | None) -> list[str]:
        if queue is None:
            return []
        with self._translated(f"rule {self._id}"):
            told = self._client("events").list_rule_names_by_target(TargetArn=queue["QueueArn"])
        return list(told["RuleNames"])

    def _read_rule(self) -> tuple[Json | None, str]:
        """Our rule, and the ARN that it sends events to, as they are; or nothing."""
        try:
            with self._translated(f"rule {self._id}"):
                rule: Json = self._client("events").describe_rule(Name=self._id)
                told = self._client("events").list_targets_by_rule(Rule=self._id)["Targets"]
        except NotFound:
            return None, ""
        ours: Json = next((one for one in told if one["Id"] == "syncagent"), {})
        # An event that is made into another text on its way is none that we know.
        return rule, "" if any(name.startswith("Input") for name in ours) else str(ours.get("Arn", ""))

    def _remove_rule(self) -> None:
        with contextlib.suppress(NotFound), self._translated(f"rule {self._id}"):
            events = self._client("events")
            targets = [one["Id"] for one in events.list_targets_by_rule(Rule=self._id)["Targets"]]
            if "syncagent" in targets:
                events.remove_targets(Rule=self._id, Ids=["syncagent"])
            if targets in ([], ["syncagent"]):  # somebody may have given it a target of their own
                events.delete_rule(Name=self._id)

    # -- Lambda ----------------------------------------------------------------------------------

    def _bind_function(self) -> list[Step]:
        name = str(self._target.function)
        with self._translated(f"function {name}"):
            arn = str(self._client("lambda").get_function_configuration(FunctionName=name)["FunctionArn"])
        parts = arn.split(":")
        if parts[3] != self._region:
            raise ConfigError(
                f"function {name} is in {parts[3]}, and bucket {self._bucket} in {self._region}", resource=name,
                hint="name a function of the bucket's region",
            )  # fmt: skip
        source, what = f"arn:{parts[1]}:s3:::{self._bucket}", f"permission of function {name}"
        wanted = {
            "Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": "lambda:InvokeFunction", "Resource": arn,
            "Condition": {"ArnLike": {"AWS:SourceArn": source}, "StringEquals": {"AWS:SourceAccount": parts[4]}},
        }  # fmt: skip
        there = self._permissions(arn)
        mine = next((one for one in there if one.get("Sid") == self._id), None)

        def permit() -> None:
            with self._translated(f"function {name}"):
                if mine is not None:  # a statement cannot be changed
                    self._client("lambda").remove_permission(FunctionName=arn, StatementId=self._id)
                self._client("lambda").add_permission(
                    FunctionName=arn, StatementId=self._id, Action="lambda:InvokeFunction", Principal="s3.amazonaws.com",
                    SourceArn=source, SourceAccount=parts[4],
                )  # fmt: skip

        if mine is not None:
            same = allows(mine, wanted)
            step = Step(
                Action.SAME if same else Action.CHANGED,
                what,
                "" if same else "our statement was altered",
                None if same else permit,
            )
        elif any(allows(one, wanted) for one in there if not str(one.get("Sid")).startswith(_ID)):
            step = Step(Action.SAME, what, "allows it already")
        else:
            step = Step(Action.ADDED, what, "", permit)
        return [step, self._notify(arn, "LambdaFunctionConfigurations")]

    def _unbind_function(self) -> list[Step]:
        name, steps = str(self._target.function), self._unnotify()

        def forbid() -> None:
            with contextlib.suppress(NotFound), self._translated(f"function {name}"):
                self._client("lambda").remove_permission(FunctionName=name, StatementId=self._id)

        if any(one.get("Sid") == self._id for one in self._permissions(name)):
            steps.append(Step(Action.REMOVED, f"permission of function {name}", "our statement", forbid))
        return steps

    def _permissions(self, function: str) -> list[Json]:
        try:
            with self._translated(f"function {function}"):
                told = self._client("lambda").get_policy(FunctionName=function)["Policy"]
        except NotFound:  # no function, or no policy
            return []
        return statements_of({"Policy": told})

    # -- the clients -----------------------------------------------------------------------------

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._session = self._session or session_of(self._spec, self._integration)
            self._clients[service] = client_of(self._session, service, self._spec, self._region)
        return self._clients[service]

    @contextlib.contextmanager
    def _translated(self, what: str) -> Generator[None, None, None]:
        """The one place where botocore's errors become ours."""
        from botocore.exceptions import ClientError

        name = what.partition(" ")[2]
        try:
            yield
        except SyncAgentError:
            raise
        except ClientError as error:
            raise _translate_answer(error, what, name) from error
        except Exception as error:
            ours = sdk_error(error, what, self._spec.endpoint, name)
            if ours is None:
                raise
            raise ours from error


def _translate_answer(error: Any, what: str, name: str) -> SyncAgentError:
    told, operation = error.response.get("Error", {}), str(error.operation_name)
    code = str(told.get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _MISSING or code.endswith(".QueueDoesNotExist") or code == "NoSuchBucket" or status == 404:
        return NotFound(
            f"no such {what.partition(' ')[0]}: {name}", resource=name, hint="check the name and the region"
        )
    if code in EXPIRED:
        return AccessDenied(f"the credentials for {what} have expired", resource=name, hint="renew them")
    if code in BAD_KEY:
        return AccessDenied(
            f"AWS does not accept the credentials for {what} ({code})",
            resource=name,
            hint="check the access key and the secret",
        )
    if status in {401, 403} or code.startswith("AccessDenied"):
        named = PERFORM.search(str(told.get("Message", "")))
        service = {"queue": "sqs", "rule": "events", "function": "lambda", "bucket": "s3"}[
            what.partition(" ")[0]
        ]
        action = _ACTIONS.get(operation, f"{service}:{operation}")
        if named and named[1].lower() != action.lower():  # SQS says it in small letters
            action = named[1]
        return AccessDenied(
            f"not allowed: {action} on {what}",
            resource=name,
            hint="add it to the policy of these credentials",
            permission=action,
        )
    if operation == "PutBucketNotificationConfiguration" and code == "InvalidArgument":
        return Transient(
            f"S3 may not send to what {what} is bound to, or not yet", resource=name,
            hint="run it again in a minute; look whether a key seals the queue, or another notification names what is gone",
        )  # fmt: skip
    if code in {
        "QueueAlreadyExists",
        "QueueNameExists",
    }:  # it was not there when we looked, and has other attributes
        return Conflict(f"somebody else made {what} meanwhile", resource=name, hint="run it again")
    if code.endswith("QueueDeletedRecently"):
        return Transient(f"{what} was removed a moment ago", resource=name, hint="run it again in a minute")
    if (
        code in BUSY
        or status >= 500
        or status == 429
        or "Throttl" in code
        or code in {"OverLimit", "OperationAborted", "ConcurrentModificationException"}
    ):
        return Transient(f"AWS is busy ({code or status}) on {what}", resource=name, hint="run it again")
    return SyncAgentError(f"AWS answered {code or status} for {what}", resource=name)


def _whose(id: str) -> str:
    return "shared with another dataset" if id.startswith(_ID) else "not made by bind"


def _sid_of(id: str) -> str:
    """A statement's id from a dataset's entry's."""
    return f"{_SID}{id.removeprefix(_ID).replace('-', '')}"


def _left_without(queue: Json | None, ids: list[str]) -> str:
    """What to say when ours goes: other datasets may send to the queue by their statements, and have no entry of these ids."""
    sids = {str(one.get("Sid")) for one in statements_of(queue or {})}
    without = {sid for sid in sids if sid.startswith(_SID)} - set(map(_sid_of, ids))
    return "other datasets of its queue have no other: bind them again" if without else ""


def _dead_of(queue: Json) -> str:
    """The name of a queue's dead-letter queue, or nothing."""
    told = parsed(queue.get("RedrivePolicy"))
    return str(told.get("deadLetterTargetArn", "")).rpartition(":")[2] if isinstance(told, dict) else ""


def _part(queue: Json, number: int) -> str:
    return str(queue["QueueArn"]).split(":")[number]


def open_wiring(
    spec: DriverSpec, target: Target, to: str, integration: Integration | None = None
) -> S3Wiring:
    """Open a bucket's wiring. No request is sent yet."""
    import boto3  # noqa: F401  # missing: said at once, with the extra to install

    return S3Wiring(spec, target, to, integration)
