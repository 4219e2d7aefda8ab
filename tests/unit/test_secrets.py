"""Secrets by reference, from each cloud's store, through the SDKs' own credentials."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from syncagent.agent import Agent
from syncagent.config import load
from syncagent.drivers import azure_secrets, gcs_secrets
from syncagent.drivers.secrets import read_secret
from syncagent.errors import AccessDenied, ConfigError, NotFound, SyncAgentError, Transient
from tests.rigs.catalogs import url_of
from tests.rigs.fake_http import FakeHttp, Request
from tests.rigs.ministack import KEYS, AwsRig


def test_a_secret_that_is_no_reference_is_itself() -> None:
    for text in ("correct horse", "", "https://example.com/#a", "aws-secret:x"):
        assert read_secret(text) == text


def test_aws_secrets_are_read(aws_rig: AwsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    client = boto3.client("secretsmanager", endpoint_url=aws_rig.endpoint, **KEYS)
    made = client.create_secret(Name="team/login", SecretString='{"password": "pass", "n": 1}')
    client.create_secret(Name="plain", SecretString="pla in")
    client.create_secret(Name="binary", SecretBinary=b"\0")
    client.close()
    where = f"endpoint={aws_rig.endpoint}"
    assert read_secret(f"aws-secret://team/login?region=us-east-1&{where}#password") == "pass"
    assert read_secret(f"aws-secret://plain?region=us-east-1&{where}") == "pla in"
    assert read_secret(f"aws-secret://{made['ARN']}?{where}#password") == "pass", "an ARN tells the region"
    with pytest.raises(NotFound, match="no such secret: other"):
        read_secret(f"aws-secret://other?region=us-east-1&{where}")
    with pytest.raises(ConfigError, match="no text"):
        read_secret(f"aws-secret://binary?region=us-east-1&{where}")
    for field in ("n", "absent"):
        with pytest.raises(ConfigError) as told:
            read_secret(f"aws-secret://team/login?region=us-east-1&{where}#{field}")
        assert "pass" not in str(told.value).replace("password", "")
    with pytest.raises(ConfigError, match="no parameter 'zone'"):
        read_secret("aws-secret://a?zone=1")
    with pytest.raises(ConfigError, match="region"):
        read_secret(f"aws-secret://plain?{where}")
    with pytest.raises(Transient):
        read_secret("aws-secret://plain?region=us-east-1&endpoint=http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [
        ("AccessDeniedException", 400, AccessDenied),
        ("UnrecognizedClientException", 400, SyncAgentError),
        ("ThrottlingException", 400, Transient),
        ("InternalServiceError", 500, Transient),
        ("ExpiredTokenException", 400, AccessDenied),
    ],
)
def test_aws_errors_are_ours(
    kind: str, status: int, error: type[SyncAgentError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setattr("time.sleep", lambda _: None)
    body = json.dumps({"__type": kind, "message": "no"}).encode()
    answer = status, {"Content-Type": "application/x-amz-json-1.1"}, body
    with FakeHttp(lambda _: answer) as store, pytest.raises(error) as told:
        read_secret(f"aws-secret://a?region=us-east-1&endpoint={store.url}")
    assert type(told.value) is error


def test_google_secrets_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def reply(request: Request) -> tuple[int, dict[str, str], bytes]:
        versions = {
            "/v1/projects/team/secrets/login/versions/latest:access": b'{"password": "new"}',
            "/v1/projects/team/secrets/login/versions/2:access": b"old",
        }
        if request.path not in versions:
            return 404, {}, b"{}"
        data = base64.b64encode(versions[request.path]).decode()
        return 200, {}, json.dumps({"payload": {"data": data}}).encode()

    with FakeHttp(reply) as store:
        where = f"endpoint={store.url}"
        assert read_secret(f"gcp-secret://team/login?{where}#password") == "new"
        assert read_secret(f"gcp-secret://team/login/2?{where}") == "old"
        with pytest.raises(NotFound):
            read_secret(f"gcp-secret://team/other?{where}")
        store.always((200, {}, b'{"payload": {}}'))
        with pytest.raises(SyncAgentError, match="without a text"):
            read_secret(f"gcp-secret://team/login?{where}")
    with pytest.raises(ConfigError, match="PROJECT/NAME"):
        read_secret("gcp-secret://team")


def test_google_secrets_are_read_with_googles_credentials(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with FakeHttp() as google:
        google.always(
            (200, {"Content-Type": "application/json"}, b'{"access_token": "t", "expires_in": 3600}')
        )
        account = {
            "type": "service_account", "client_email": "a@b", "private_key": pem.decode(), "private_key_id": "1",
            "token_uri": f"{google.url}/token", "project_id": "team",
        }  # fmt: skip
        (tmp_path / "account.json").write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
        assert gcs_secrets._token("s") == "t"
        google.always((400, {"Content-Type": "application/json"}, b'{"error": "invalid_grant"}'))
        with pytest.raises(AccessDenied, match="no usable Google credentials"):
            gcs_secrets._token("s")


def test_azure_secrets_are_read() -> None:
    def reply(request: Request) -> tuple[int, dict[str, str], bytes]:
        assert request.query["api-version"]
        values = {"/secrets/login": "new", "/secrets/login/2": "old"}
        if request.path not in values:
            return 404, {}, b"{}"
        return 200, {}, json.dumps({"value": values[request.path], "id": "x"}).encode()

    with FakeHttp(reply) as store:
        where = f"endpoint={store.url}"
        assert read_secret(f"azure-secret://vault/login?{where}") == "new"
        assert read_secret(f"azure-secret://vault/login/2?{where}") == "old"
        with pytest.raises(NotFound):
            read_secret(f"azure-secret://vault/other?{where}")
        for status, error in ((401, AccessDenied), (403, AccessDenied), (429, Transient), (500, Transient), (302, SyncAgentError)):  # fmt: skip
            store.always((status, {}, b"secret words"))
            with pytest.raises(error) as told:
                read_secret(f"azure-secret://vault/login?{where}")
            assert "secret words" not in str(told.value)
        store.always((200, {}, b'{"value": 1}'))
        with pytest.raises(SyncAgentError, match="without a text"):
            read_secret(f"azure-secret://vault/login?{where}")
    with pytest.raises(ConfigError, match="VAULT/NAME"):
        read_secret("azure-secret://vault")


def test_azure_secrets_are_read_with_a_functions_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = json.dumps(
        {"access_token": "t", "expires_on": "4102444800", "resource": "r", "token_type": "Bearer"}
    )
    with FakeHttp(lambda _: (200, {"Content-Type": "application/json"}, answer.encode())) as identity:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{identity.url}/msi")
        monkeypatch.setenv("IDENTITY_HEADER", "h")
        assert azure_secrets._token("vault.vault.azure.net", "s") == "t"
        assert "vault.azure.net" in identity.requests[0].query["resource"]


def test_a_file_holds_a_secret(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("pass\n")
    assert read_secret(f"file://{tmp_path / 'password'}") == "pass"
    with pytest.raises(NotFound):
        read_secret(f"file://{tmp_path / 'absent'}")
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(ConfigError):
        read_secret(f"file://{tmp_path / 'bytes'}")


def test_settings_name_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.fernet import Fernet

    from syncagent.model import Integration

    (tmp_path / "key").write_bytes(Fernet.generate_key())
    monkeypatch.setenv("SYNCAGENT_SECRET_KEY", f"file://{tmp_path / 'key'}")
    with Agent(load(catalog=url_of(tmp_path / "catalog.db"))) as agent:
        agent.catalog.create_integration(Integration("a", "s3", {"key": "k", "secret": "s"}))
        assert agent.catalog.integration("a").options["secret"] == "s"
    assert not (tmp_path / "secret.key").exists()
