"""The functions on Azure: Event Grid, Storage Queue, Service Bus and blob triggers, and a webhook.

Version 2 of the programming model: ``deploy/azure/function_app.py`` puts decorators on them. Version 1: a ``function.json`` names
them by ``entryPoint``; `main` is the platform's tutorial's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from syncagent.handlers.azure_events import parse, trigger, validation
from syncagent.handlers.deliveries import Front, to_logging
from syncagent.handlers.events import BadEvent, Parsed

_front = Front(to_logging)


def on_event(event: Any) -> None:
    """Settle what an event of Event Grid names.

    :param event: `azure.functions.EventGridEvent`, or `CloudEvent`.
    :raises SyncAgentError: it is not done, and Event Grid has to deliver it again.
    """
    _settle("event grid", lambda: parse(_grid(event)), event.id)


def on_queue(message: Any) -> None:
    """Settle what a message of a Storage Queue names.

    :param message: `azure.functions.QueueMessage`.
    :raises SyncAgentError: it is not done: it comes again, and after ``maxDequeueCount`` goes to the poison queue.
    """
    _settle("queue", partial(parse, message.get_body()), message.id)


def on_service_bus(message: Any) -> None:
    """Settle what a message of a Service Bus queue or topic names.

    :param message: `azure.functions.ServiceBusMessage`.
    :raises SyncAgentError: it is not done: it comes again, and after the maximum of deliveries goes to the dead letters.
    """
    _settle("service bus", partial(parse, message.get_body()), message.message_id)


def main(myblob: Any) -> None:
    """Settle what a blob trigger names. Such triggers tell of no deletes: a sweep finds those.

    :param myblob: `azure.functions.InputStream`; its bytes are not read.
    :raises SyncAgentError: it is not done: the host tries again five times.
    """
    _settle("blob trigger", lambda: Parsed([trigger(myblob.name, myblob.uri)]), None)


def webhook(request: Any) -> tuple[int, dict[str, str], str]:
    """Settle what Event Grid posts to a webhook, and shake its hand.

    :param request: `azure.functions.HttpRequest`.
    :return: status, headers, body. https://learn.microsoft.com/azure/event-grid/end-point-validation-event-grid-events-schema
        and, for CloudEvents, https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/http-webhook.md#4-abuse-protection
    """
    if request.method == "OPTIONS":
        origin = request.headers.get("WebHook-Request-Origin", "")
        if origin != "eventgrid.azure.net":
            return 403, {}, ""
        return 200, {"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*"}, ""
    body = request.get_body()
    try:
        code = validation(body)
        if code is not None:
            return 200, {"Content-Type": "application/json"}, json.dumps({"validationResponse": code})
        done = _front.take([("event", partial(parse, body))], source="webhook")
    except BadEvent as error:
        return 400, {}, str(error)
    reason = done.errors.get("event")
    if reason is None:
        return 200, {}, ""
    # 400 goes to the dead letters at once; 503 comes again.
    return (400, {}, str(reason)) if isinstance(reason, BadEvent) else (503, {}, "not done")


def _settle(source: str, read: Callable[[], Parsed], id: Any) -> None:
    _front.take([("event", read)], source=source, request=str(id or "")).done()


def _grid(event: Any) -> dict[str, Any]:
    """Event Grid's JSON of the object that the SDK makes of it."""
    cloud = hasattr(event, "source")
    at = event.time if cloud else event.event_time
    told = {
        "id": event.id, "subject": event.subject, "data": event.get_json(),
        "time" if cloud else "eventTime": at.isoformat() if at else None,
    }  # fmt: skip
    if cloud:
        return {**told, "type": event.type, "source": event.source, "specversion": "1.0"}
    return {**told, "eventType": event.event_type, "topic": event.topic}
