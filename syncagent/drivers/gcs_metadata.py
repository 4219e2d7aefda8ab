"""Who a function on Google Cloud runs as: tokens of the metadata server, and a session that sends them.

google-auth has both, and loads cryptography for them, whether it signs or not: 12 MB, a sixth of what a function of ours needs.
Where anything else may hold credentials, it stays with google-auth.

https://cloud.google.com/run/docs/container-contract#metadata-server
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import requests

from syncagent.errors import AccessDenied, Transient
from syncagent.retry import retrying

_PATH = "computeMetadata/v1/instance/service-accounts/default/token"
_RENEW_SECONDS = 225  # before the token ends: the metadata server has another by then
_SECONDS = 5.0
# What google-auth looks at before it asks the metadata server, or what it would ask it otherwise for.
_OTHERS = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_API_USE_CLIENT_CERTIFICATE",
    "GOOGLE_CLOUD_UNIVERSE_DOMAIN",
    "CLOUDSDK_CONFIG",
    "NO_GCE_CHECK",
)


def in_function() -> bool:
    """Whether this is a function, or a service of Cloud Run, whose credentials are the metadata server's."""
    return "K_SERVICE" in os.environ and not any(map(os.environ.get, _OTHERS))


class Token:
    """The account's tokens, for requests: an ``auth``. Used from many threads.

    :param scope: what they are good for.
    """

    def __init__(self, scope: str) -> None:
        self._scope = scope
        self._lock = threading.Lock()
        self._token, self._ends = "", 0.0

    def __repr__(self) -> str:
        return f"<Token {self._scope}>"

    def __call__(self, request: Any) -> Any:
        """Sign a request.

        :raises SyncAgentError: see `value`.
        """
        request.headers["Authorization"] = f"Bearer {self.value()}"
        return request

    def value(self) -> str:
        """A token that is good for some minutes at least.

        :raises Transient: the metadata server cannot be reached, or is busy. :raises AccessDenied: it gives none.
        """
        with self._lock:
            if time.monotonic() > self._ends:
                self._token, seconds = retrying(self._asked, attempts=4)()
                self._ends = time.monotonic() + seconds - _RENEW_SECONDS
            return self._token

    def forget(self) -> None:
        """Ask for another: this one was refused."""
        with self._lock:
            self._ends = 0.0

    def _asked(self) -> tuple[str, float]:
        """A token, and how many seconds it is good for."""
        host = os.environ.get("GCE_METADATA_HOST") or "metadata.google.internal"
        try:
            with requests.Session() as session:
                session.trust_env = False  # no proxy leads there
                answer = session.get(
                    f"http://{host}/{_PATH}", params={"scopes": self._scope}, headers={"Metadata-Flavor": "Google"},
                    timeout=_SECONDS, allow_redirects=False,
                )  # fmt: skip
        except requests.RequestException as error:
            raise Transient("Google's metadata server cannot be reached", resource=host) from error
        if answer.status_code == 429 or answer.status_code >= 500:
            raise Transient(f"Google's metadata server is busy ({answer.status_code})", resource=host)
        try:
            told = answer.json()
            return str(told["access_token"]), float(told["expires_in"])
        except (ValueError, TypeError, KeyError):  # not chained: it may quote the token
            raise AccessDenied(
                f"no usable Google credentials: the metadata server answered {answer.status_code} without a token",
                resource=host, hint="give the function a service account",
            ) from None  # fmt: skip


class Session(requests.Session):
    """A session of requests that are signed with the account's tokens, or not at all.

    :param token: None where nothing is signed.
    """

    def __init__(self, token: Token | None) -> None:
        super().__init__()
        self._own = token
        self.auth = token

    def request(self, method: str, url: Any, *args: Any, **given: Any) -> requests.Response:
        """See `requests.Session.request`. A token that is refused is asked for anew, once."""
        answer = super().request(method, url, *args, **given)
        if answer.status_code == 401 and self._own is not None:
            _ = answer.content  # its connection is free again
            self._own.forget()
            answer = super().request(method, url, *args, **given)
        return answer
