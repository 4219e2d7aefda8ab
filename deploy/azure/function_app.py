"""The function app's entry on Azure Functions, in version 2 of the programming model.

An app tries to start every function that is declared here, and one whose connection has no setting stops them all. So the setting
``SYNCAGENT_WIRING`` names those that there are:

- ``queue``, the default: Event Grid fills the Storage Queue ``EVENTS_QUEUE`` of the connection ``EVENTS``
- ``function``: Event Grid calls the function
- ``servicebus``: Event Grid fills the queue ``EVENTS_QUEUE`` of the Service Bus connection ``EVENTS``
- ``blob``: the platform's tutorial's trigger, on the container ``BUCKET_CONTAINER`` of the connection ``BUCKET``; no deletes are told
- ``webhook``: Event Grid posts to ``/api/webhook?code=KEY``

Several are divided by commas.
"""

# ruff: noqa: E402  # what is said about the environment has to be said before the SDK loads

import logging
import os
import warnings

os.environ.setdefault("SYNCAGENT_HOME", "/tmp/syncagent")  # noqa: S108  # the app's own folder is a mounted package

# The archive leaves out what guesses how a text is encoded, and requests says so: nobody asks it for such texts.
warnings.filterwarnings("ignore", "Unable to find acceptable character detection")

import azure.core.pipeline.policies  # noqa: F401  # these three: loaded while the instance starts, not by the first event
import azure.functions as func
import msal  # noqa: F401
import requests  # noqa: F401

from syncagent.errors import ConfigError
from syncagent.handlers import azure as handlers

# They log every request's address, which ends in a key of the bucket.
for _chatty in ("azure.core", "azure.identity", "httpx", "msal"):
    logging.getLogger(_chatty).setLevel(logging.WARNING)

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)


def _on_queue(message: func.QueueMessage) -> None:
    handlers.on_queue(message)


def _on_event(event: func.EventGridEvent) -> None:
    handlers.on_event(event)


def _on_service_bus(message: func.ServiceBusMessage) -> None:
    handlers.on_service_bus(message)


def _main(myblob: func.InputStream) -> None:
    handlers.main(myblob)


def _webhook(request: func.HttpRequest) -> func.HttpResponse:
    status, headers, body = handlers.webhook(request)
    return func.HttpResponse(body, status_code=status, headers=headers)


def _declare(wiring: str) -> None:
    match wiring:
        case "queue":
            trigger = app.queue_trigger("message", queue_name="%EVENTS_QUEUE%", connection="EVENTS")
            app.function_name("on_queue")(trigger(_on_queue))
        case "function":
            app.function_name("on_event")(app.event_grid_trigger("event")(_on_event))
        case "servicebus":
            bus = app.service_bus_queue_trigger("message", queue_name="%EVENTS_QUEUE%", connection="EVENTS")
            app.function_name("on_service_bus")(bus(_on_service_bus))
        case "blob":
            path = "%BUCKET_CONTAINER%/{name}"
            blob = app.blob_trigger(
                "myblob", path=path, connection="BUCKET", source=func.BlobSource.EVENT_GRID
            )
            app.function_name("main")(blob(_main))
        case "webhook":
            route = app.route("webhook", trigger_arg_name="request", methods=["POST", "OPTIONS"])
            app.function_name("webhook")(route(_webhook))
        case _:
            raise ConfigError(
                f"SYNCAGENT_WIRING={wiring} is no wiring", resource=wiring,
                hint="choose queue, function, servicebus, blob or webhook",
            )  # fmt: skip


for _wiring in os.environ.get("SYNCAGENT_WIRING", "queue").split(","):
    _declare(_wiring.strip())
