"""Google Secret Manager: ``gcp-secret://PROJECT/NAME/VERSION#field``; the version is ``latest`` where it is left out.

https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/access
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from syncagent.drivers.secrets import fetch
from syncagent.errors import AccessDenied, ConfigError, SyncAgentError

OPTIONS = ("endpoint",)
FORM = "write gcp-secret://PROJECT/NAME#field"
_ACTION = "secretmanager.versions.access"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


def read(name: str, options: Mapping[str, str]) -> str:
    """See `secrets.read_secret`."""
    parts = name.split("/")
    if len(parts) not in {2, 3} or not all(parts):
        raise ConfigError(f"gcp-secret://{name} names no secret", resource=name, hint=FORM)
    project, secret, version = (quote(one, safe="") for one in [*parts, "latest"][:3])
    endpoint = options.get("endpoint")
    url = f"{endpoint or 'https://secretmanager.googleapis.com'}/v1/projects/{project}/secrets/{secret}/versions/{version}:access"
    told = fetch(url, None if endpoint else _token(name), name, _ACTION)
    try:
        return base64.b64decode(told["payload"]["data"], validate=True).decode()
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise SyncAgentError(f"the store of secret {name} answered without a text", resource=name) from None


def _token(name: str) -> str:
    from syncagent.drivers.gcs_metadata import Token, in_function

    if in_function():
        return Token(_SCOPE).value()
    import google.auth
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import Request

    try:
        credentials: Any = google.auth.default(scopes=[_SCOPE])[0]
        credentials.refresh(Request())
    except GoogleAuthError as error:
        raise AccessDenied(
            f"no usable Google credentials for secret {name}", resource=name,
            hint="run 'gcloud auth application-default login', or set GOOGLE_APPLICATION_CREDENTIALS",
        ) from error  # fmt: skip
    return str(credentials.token)
