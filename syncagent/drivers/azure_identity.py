"""Who this process is on Azure, where no integration says so.

azure-identity knows every way there is, and loads cryptography for that of certificates: 10 MB. In a function there is one way, and
msal, which azure-identity stands on, knows it by itself.
"""

from __future__ import annotations

import os
import time
from typing import Any

# Where any of them is set, the SDK's chain would look elsewhere first, or would not be asked for a managed identity.
_OTHERS = (
    "AZURE_TENANT_ID",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_TOKEN_CREDENTIALS",
    "IDENTITY_SERVER_THUMBPRINT",
)


def default_credential(**cloud: str) -> Any:
    """The SDK's own chain of credentials, or what it comes to in a function: a `TokenCredential`. No request is sent yet.

    :param cloud: for the chain: the authority of a cloud that is not the public one.
    """
    if in_function():
        return ManagedIdentity(os.environ.get("AZURE_CLIENT_ID"))
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential(**cloud)


def in_function() -> bool:
    """Whether App Service, which functions run on, gives this process an identity, and nothing else does."""
    given = os.environ.get("IDENTITY_ENDPOINT") and os.environ.get("IDENTITY_HEADER")
    return bool(given) and not any(map(os.environ.get, _OTHERS))


class ManagedIdentity:
    """A `TokenCredential`: the identity that App Service gives a process. Used from many threads.

    https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference

    :param client_id: of a user-assigned identity; None for the app's own.
    """

    def __init__(self, client_id: str | None) -> None:
        import msal
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3 import Retry

        self._session = requests.Session()
        self._session.trust_env = False  # it is on this machine: no proxy leads there
        again = Retry(
            4, backoff_factor=0.2, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False
        )
        self._session.mount("http://", HTTPAdapter(max_retries=again))
        identity = (
            msal.UserAssignedManagedIdentity(client_id=client_id)
            if client_id
            else msal.SystemAssignedManagedIdentity()
        )
        self._client = msal.ManagedIdentityClient(identity, http_client=self._session)

    def get_token(self, *scopes: str, **_: Any) -> Any:
        """See `azure.core.credentials.TokenCredential`. Tokens are kept until they are about to end.

        :raises ClientAuthenticationError: the identity gets none.
        :raises ServiceRequestError: who hands them out cannot be reached.
        """
        import requests
        from azure.core.credentials import AccessToken
        from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError

        (scope,) = scopes
        try:
            told = self._client.acquire_token_for_client(resource=scope.removesuffix("/.default"))
        except requests.RequestException as error:
            raise ServiceRequestError("the managed identity cannot be reached") from error
        except ValueError:  # no JSON; not chained: it may quote what was answered
            told = {}
        if "access_token" not in told:
            raise ClientAuthenticationError(f"the managed identity gives no token for {scope}")
        return AccessToken(told["access_token"], int(time.time()) + int(told["expires_in"]))

    def close(self) -> None:
        """End its connections."""
        self._session.close()
