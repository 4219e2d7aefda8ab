"""Requests to blobs without azure-storage-blob: azure-core's pipeline, which that one is built on.

azure-storage-blob loads cryptography, for encryption on this side, and the models of all operations: 10 MB, which a function that
looks at blobs has no use for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

VERSION = "2026-10-06"
"""Of the service, https://learn.microsoft.com/rest/api/storageservices/versioning-for-the-azure-storage-services."""
_SCOPE = "https://storage.azure.com/.default"
_LONGEST = 10.0  # seconds that a server may ask to be waited for


def pipeline(
    url: str, credential: Any, *, sent: Callable[[Any], None], received: Callable[[Any], None]
) -> Any:
    """What sends requests to an account: a `PipelineClient`.

    :param credential: a `TokenCredential`, or None for what is public.
    :param sent: called before each request that is sent, retries among them.
    :param received: called at each answer; where it raises an error of the SDK, the request is tried again.
    """
    from azure.core import PipelineClient
    from azure.core.pipeline import policies
    from azure.core.pipeline.transport import RequestsTransport

    class Retry(policies.RetryPolicy[Any, Any]):
        """The SDK's, with the manners of its client of blobs.

        It would wait for as long as a server asks it to, break where that is no number, and go on where it is asked to stop.
        """

        def is_retry(self, settings: dict[str, Any], response: Any) -> bool:
            return response.http_response.status_code != 429 and super().is_retry(settings, response)

        def get_retry_after(self, response: Any) -> float | None:
            asked = response.http_response.headers.get("Retry-After", "")
            return float(asked) if re.fullmatch(r"[0-9]+", asked) and float(asked) <= _LONGEST else None

    transport: Any = RequestsTransport(connection_timeout=10, read_timeout=60)
    steps: list[Any] = [
        policies.RequestIdPolicy(),
        policies.UserAgentPolicy("syncagent"),
        # Some 10 seconds in all.
        Retry(retry_total=3, retry_backoff_factor=1.5),
        policies.CustomHookPolicy(raw_request_hook=sent, raw_response_hook=received),
    ]
    if credential is not None:
        steps.append(policies.BearerTokenCredentialPolicy(credential, _SCOPE))
    return PipelineClient(url, policies=steps, transport=transport)
