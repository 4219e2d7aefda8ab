"""The functions' entries on Google Cloud: name one of them as the entry point.

- ``push``: a Pub/Sub subscription that is pushed, which the template makes
- ``on_event``: Eventarc, of Cloud Storage or of a Pub/Sub topic
- ``create_gcs`` and ``delete_gcs``: background functions of the first generation
"""

import os

os.environ.setdefault("SYNCAGENT_HOME", "/tmp/syncagent")  # noqa: S108  # the first generation lets write nowhere else

import functions_framework
import google.cloud.storage  # noqa: F401  # loaded while the instance starts, and not by the first event

from syncagent.handlers import gcp
from syncagent.handlers.gcp import create_gcs, delete_gcs

# Said here, for Google takes a function without a trigger of its own for one of plain HTTP.
on_event = functions_framework.cloud_event(gcp.on_event)
push = functions_framework.http(gcp.push)

__all__ = ["create_gcs", "delete_gcs", "on_event", "push"]
