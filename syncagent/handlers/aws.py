"""The function on AWS Lambda: ``syncagent.handlers.aws.handler``.

It takes S3's notifications directly or through SQS, SNS and EventBridge, tasks of S3 Batch Operations, and what was left of
invocations that failed. An SQS queue needs ``ReportBatchItemFailures``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from syncagent.errors import SyncAgentError
from syncagent.handlers.deliveries import Delivery, Front, to_stdout
from syncagent.handlers.events import BadEvent, Parsed
from syncagent.handlers.s3_events import parse, task

_MARGIN = 2.0  # seconds kept for the answer
_front = Front(to_stdout)


def handler(event: Any, context: Any = None) -> dict[str, Any] | None:
    """Settle what an event names.

    :return: for SQS, the messages that are not done, https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html;
        for S3 Batch Operations, the result of each task; else nothing.
    :raises SyncAgentError: something else is not done, and Lambda has to deliver it again.
    """
    left, request = _left(context), str(getattr(context, "aws_request_id", "") or "")
    if isinstance(event, dict) and isinstance(event.get("tasks"), list):
        return _batch(event, left, request)
    records = event.get("Records") if isinstance(event, dict) else None
    if isinstance(records, list) and records and all(map(_is_message, records)):
        messages: list[Delivery] = [
            (record["messageId"], partial(parse, {"Records": [record]})) for record in records
        ]
        done = _front.take(messages, left=left, source="sqs", request=request)
        return {"batchItemFailures": [{"itemIdentifier": id} for id in done.errors]}
    _front.take([("event", partial(parse, event))], left=left, source="direct", request=request).done()
    return None


def _batch(event: dict[str, Any], left: Callable[[], float], request: str) -> dict[str, Any]:
    tasks = [one if isinstance(one, dict) else {} for one in event["tasks"]]
    deliveries: list[Delivery] = [(str(number), partial(_task, one)) for number, one in enumerate(tasks)]
    errors = _front.take(deliveries, left=left, source="batch", request=request).errors
    return {
        "invocationSchemaVersion": event.get("invocationSchemaVersion", "1.0"),
        "treatMissingKeysAs": "PermanentFailure",
        "invocationId": event.get("invocationId", ""),
        "results": [
            {"taskId": one.get("taskId", ""), **_result(errors.get(str(number)))}
            for number, one in enumerate(tasks)
        ],
    }


def _task(told: dict[str, Any]) -> Parsed:
    return Parsed([task(told)])


def _result(reason: SyncAgentError | None) -> dict[str, str]:
    if reason is None:
        return {"resultCode": "Succeeded", "resultString": "settled"}
    again = reason.transient and not isinstance(reason, BadEvent)
    return {"resultCode": "TemporaryFailure" if again else "PermanentFailure", "resultString": str(reason)}


def _is_message(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and record.get("eventSource") == "aws:sqs"
        and isinstance(record.get("messageId"), str)
    )


def _left(context: Any) -> Callable[[], float]:
    remaining = getattr(context, "get_remaining_time_in_millis", None)
    if remaining is None:
        return lambda: math.inf
    return lambda: remaining() / 1000 - _MARGIN
