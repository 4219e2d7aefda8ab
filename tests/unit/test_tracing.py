"""Spans reach a collector, and cost nothing where there is none."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.rigs.fake_http import FakeHttp

SCRIPT = """
from syncagent import tracing
from syncagent.handlers.deliveries import take
from syncagent.handlers.events import Parsed
from syncagent.handlers.mirror import Settled

class Mirror:
    def settle(self, events, left):
        return Settled()

end = tracing.start()
take(Mirror(), [("1", Parsed)])
with tracing.span("syncagent.sweep", dataset="photos") as note:
    note(listed=3)
end()
print("done")
"""


def run(**variables: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**env, **variables}, capture_output=True, text=True, check=False
    )


def test_spans_reach_a_collector() -> None:
    with FakeHttp(lambda _: (200, {}, b"")) as collector:
        done = run(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_SERVICE_NAME="mirror")
    assert done.stdout == "done\n", done.stderr
    (request,) = collector.requests
    assert request.path == "/v1/traces"
    for words in (b"syncagent.batch", b"syncagent.sweep", b"deliveries", b"photos", b"listed", b"mirror"):
        assert words in request.body


def test_without_a_collector_nothing_is_sent() -> None:
    assert run().stdout == "done\n"
