"""Spans for OpenTelemetry, where it is installed: the extra ``otel``. Nowhere else does anything know of it.

Without a collector's address in ``OTEL_EXPORTER_OTLP_ENDPOINT``, and without a provider that somebody else set up, a span costs nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator
from functools import cache
from typing import Any

from syncagent.errors import ConfigError

_ADDRESSES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@cache
def _tracer() -> Any:
    try:
        from opentelemetry import trace
    except ModuleNotFoundError:
        return None
    return trace.get_tracer("syncagent")


@contextlib.contextmanager
def span(name: str, **attributes: str | int | float | bool) -> Generator[Callable[..., None]]:
    """A span around what happens inside; an error that passes is noted in it.

    :return: notes more attributes. Counts and names of ours: no key, no payload, no secret.
    """
    tracer = _tracer()
    if tracer is None:
        yield lambda **_: None
        return
    with tracer.start_as_current_span(name, attributes=attributes, record_exception=False) as made:
        yield lambda **more: made.set_attributes(more)


def start() -> Callable[[], None]:
    """Send spans to a collector, where the environment names one; returns what sends the rest, for the end.

    :raises ConfigError: it names one, and the extra is not installed.
    """
    if not any(os.environ.get(name) for name in _ADDRESSES):
        return lambda: None
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"traces need the package {missing.name}",
            hint="pip install 'syncagent[otel]', or unset OTEL_EXPORTER_OTLP_ENDPOINT",
        ) from missing
    provider = TracerProvider(
        resource=Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "syncagent")})
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.shutdown
