"""The functions' entries on Google Cloud: name one of them as the entry point.

- ``push``: a Pub/Sub subscription that is pushed, which the template makes
- ``on_event``: Eventarc, of Cloud Storage or of a Pub/Sub topic
- ``create_gcs`` and ``delete_gcs``: background functions of the first generation
"""

import gc
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("SYNCAGENT_HOME", "/tmp/syncagent")  # noqa: S108  # the first generation lets write nowhere else
sys.path.insert(0, str(Path(__file__).resolve().with_name("packages")))

import functions_framework

from syncagent.handlers import gcp
from syncagent.handlers.gcp import create_gcs, delete_gcs

# The archive leaves out what guesses how a text is encoded, and requests says so: nobody asks it for such texts.
warnings.filterwarnings("ignore", "Unable to find acceptable character detection")

# Said here, for Google takes a function without a trigger of its own for one of plain HTTP.
on_event = functions_framework.cloud_event(gcp.on_event)
push = functions_framework.http(gcp.push)

# The server loads this file before it forks the process that answers: what is loaded here, or is touched there, is in memory
# twice. So the SDK is left to the first event, and what is here to no garbage collection.
gc.freeze()

__all__ = ["create_gcs", "delete_gcs", "on_event", "push"]
