"""The one place that uses tenacity: retries for catalog contention and HTTP calls.

The SDKs retry their own requests, and the platforms redeliver events; nothing else retries.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import tenacity

from syncagent.errors import SyncAgentError

P = ParamSpec("P")
T = TypeVar("T")


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, SyncAgentError) and error.transient


def _wait(state: tenacity.RetryCallState) -> float:
    if os.environ.get("SYNCAGENT_TEST_NO_BACKOFF"):
        return 0.0
    error = state.outcome.exception() if state.outcome else None
    after = getattr(error, "retry_after", None)
    backoff: float = tenacity.wait_random_exponential(multiplier=0.05, max=5)(state)
    return max(backoff, after or 0.0)


def retrying(
    function: Callable[P, T],
    *,
    attempts: int = 6,
    seconds: float = 30.0,
    when: Callable[[BaseException], bool] = _is_transient,
) -> Callable[P, T]:
    """Wrap `function` so that transient errors are tried again.

    Bounded by `attempts` and by `seconds` in all; the last error is raised as it is. A server that asks for a longer
    wait than that, by the error's `retry_after`, is not waited for.

    :param when: whether an error is worth it; default: those of ours that are transient.
    """
    return tenacity.retry(
        retry=tenacity.retry_if_exception(when),
        stop=tenacity.stop_after_attempt(attempts) | tenacity.stop_before_delay(seconds),
        wait=_wait,
        reraise=True,
    )(function)
