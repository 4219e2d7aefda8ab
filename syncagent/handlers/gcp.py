"""The functions on Google Cloud: ``on_event`` for Eventarc, ``create_gcs`` and ``delete_gcs`` for the first generation, ``push``.

A function of the first generation, or a trigger, needs *retry on failure*: without it Google drops the event of a call that
failed. See https://cloud.google.com/functions/docs/bestpractices/retries.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from syncagent.handlers.deliveries import Front, to_stdout
from syncagent.handlers.events import BadEvent
from syncagent.handlers.gcs_events import parse

_front = Front(to_stdout)
_CONTEXT = {"event_type": "eventType", "event_id": "eventId", "timestamp": "timestamp"}


def on_event(event: Any) -> None:
    """Settle what a CloudEvent names: of Cloud Storage, or of a Pub/Sub topic that its notifications go to.

    :param event: a `cloudevents.http.CloudEvent`.
    :raises SyncAgentError: it is not done, and Eventarc has to deliver it again.
    """
    attributes = {f"ce-{name}": value for name, value in event.get_attributes().items()}
    request = str(attributes.get("ce-id", ""))
    _front.take(
        [("event", partial(parse, event.data, attributes))], source="eventarc", request=request
    ).done()


def create_gcs(event: Any, context: Any = None) -> None:
    """Settle what an event of a first-generation function names; also what its Pub/Sub trigger brings.

    :param event: the object's resource, or a Pub/Sub message.
    :param context: `google.cloud.functions.Context`: an object, or a mapping.
    :raises SyncAgentError: it is not done, and the function has to be called again.
    """
    attributes = _attributes(context)
    request = str(attributes.get("eventId", ""))
    _front.take([("event", partial(parse, event, attributes))], source="background", request=request).done()


def delete_gcs(event: Any, context: Any = None) -> None:
    """The same as `create_gcs`: an event says where to look, and an overwrite's delete removes no live item."""
    create_gcs(event, context)


def push(request: Any) -> tuple[str, int]:
    """Settle what a Pub/Sub push subscription brings.

    :param request: a `flask.Request`, which Cloud Run has let through by its token.
    :return: 204, or a status that makes Pub/Sub deliver it again, and at last to the dead-letter topic.
    """
    body, headers = request.get_data(), dict(request.headers.items())
    done = _front.take([("event", partial(parse, body, headers))], source="push")
    if not done.errors:
        return "", 204
    reason = done.errors["event"]
    return ("not an event", 400) if isinstance(reason, BadEvent) else ("not done", 503)


def _attributes(context: Any) -> dict[str, Any]:
    if isinstance(context, Mapping):
        return {_CONTEXT.get(str(name), str(name)): value for name, value in context.items()}
    return {ours: getattr(context, theirs, None) for theirs, ours in _CONTEXT.items()} if context else {}
