"""AWS Secrets Manager: ``aws-secret://NAME-OR-ARN?region=…#field``."""

from __future__ import annotations

from collections.abc import Mapping

from syncagent.drivers.s3 import client_of, sdk_error, session_of
from syncagent.drivers.secrets import denied
from syncagent.errors import ConfigError, NotFound, SyncAgentError, Transient
from syncagent.model import DriverSpec

OPTIONS = ("region", "endpoint", "profile")
FORM = "write aws-secret://NAME-OR-ARN?region=us-east-1#field"
_ACTION = "secretsmanager:GetSecretValue"


def read(name: str, options: Mapping[str, str]) -> str:
    """See `secrets.read_secret`."""
    from botocore.exceptions import ClientError

    chosen = {"profile": options["profile"]} if "profile" in options else {}
    spec = DriverSpec(type="s3", bucket="", endpoint=options.get("endpoint"), options=chosen)
    try:
        session = session_of(spec, None)
        of_arn = name.split(":")[3] if name.startswith("arn:") and name.count(":") >= 6 else None
        region = options.get("region") or of_arn or session.region_name
        if region is None:
            raise ConfigError(f"the region of secret {name} is not known", resource=name, hint=FORM)
        client = client_of(session, "secretsmanager", spec, region)
        try:
            told = client.get_secret_value(SecretId=name)
        finally:
            client.close()
    except SyncAgentError:
        raise
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code == "ResourceNotFoundException":
            raise NotFound(f"no such secret: {name}", resource=name) from error
        if status >= 500 or status == 429 or "Throttl" in code:
            raise Transient(f"Secrets Manager is busy ({code or status})", resource=name) from error
        if status in {400, 401, 403} and ("AccessDenied" in code or "Token" in code or "Signature" in code):
            raise denied(name, _ACTION) from error
        raise SyncAgentError(
            f"Secrets Manager answered {code or status} for secret {name}", resource=name
        ) from error
    except Exception as error:
        ours = sdk_error(error, f"secret {name}", spec.endpoint, name)
        if ours is None:
            raise
        raise ours from error
    if "SecretString" not in told:
        raise ConfigError(f"secret {name} is no text", resource=name)
    return str(told["SecretString"])
