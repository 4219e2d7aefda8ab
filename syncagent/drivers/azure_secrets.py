"""Azure Key Vault: ``azure-secret://VAULT/NAME/VERSION#field``; the newest version where it is left out.

https://learn.microsoft.com/rest/api/keyvault/secrets/get-secret/get-secret
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from urllib.parse import quote

from syncagent.drivers.secrets import fetch
from syncagent.errors import AccessDenied, ConfigError, SyncAgentError, Transient

OPTIONS = ("endpoint",)
FORM = "write azure-secret://VAULT/NAME#field"
_ACTION = "Microsoft.KeyVault/vaults/secrets/getSecret/action"
_VERSION = "7.4"


def read(name: str, options: Mapping[str, str]) -> str:
    """See `secrets.read_secret`."""
    vault, *rest = name.split("/")
    if len(rest) not in {1, 2} or not all([vault, *rest]):
        raise ConfigError(f"azure-secret://{name} names no secret", resource=name, hint=FORM)
    host = vault if "." in vault else f"{vault}.vault.azure.net"
    endpoint = options.get("endpoint")
    path = "/".join(quote(one, safe="") for one in rest)
    told = fetch(
        f"{endpoint or f'https://{host}'}/secrets/{path}", None if endpoint else _token(host, name), name, _ACTION,
        {"api-version": _VERSION},
    )  # fmt: skip
    if not isinstance(told.get("value"), str):
        raise SyncAgentError(f"the store of secret {name} answered without a text", resource=name)
    return str(told["value"])


def _token(host: str, name: str) -> str:
    from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError

    from syncagent.drivers.azure_identity import default_credential

    try:
        with contextlib.closing(default_credential()) as credential:
            return str(credential.get_token(f"https://{host.partition('.')[2]}/.default").token)
    except ServiceRequestError as error:
        raise Transient(f"who hands out tokens for secret {name} cannot be reached", resource=name) from error
    except ClientAuthenticationError as error:
        raise AccessDenied(
            f"no usable Azure credentials for secret {name}", resource=name,
            hint="run 'az login', or give this function an identity",
        ) from error  # fmt: skip
