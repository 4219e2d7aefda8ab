"""Azurite, started once a session on free loopback ports."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from syncagent.model import Integration
from tests.rigs.gcs import free_port

if TYPE_CHECKING:
    from tests.conftest import Store

RIGS = Path(__file__).resolve().parents[2] / ".rigs"
# Azurite's own key, the same on every machine, and printed in its manual.
DEV_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


class AzureRig:
    """A running server, and fresh containers on it."""

    def __init__(self, endpoint: str, queues: str, service: Any) -> None:
        self.endpoint = endpoint
        self.queues = queues
        self.service = service
        self.integration = Integration("test", "azureblob", {"accountKey": DEV_KEY})

    def store(self, kind: str, name: str) -> Store:
        """A fresh container."""
        from tests.conftest import Store

        self.service.create_container(name)
        lacks = {
            "a/../b.txt": "the SDK's HTTP client resolves dot segments, as RFC 3986 has it",
            "back\\slash.txt": "Azure keeps a backslash as a slash",
            "a/./b.txt": "the SDK's HTTP client resolves dot segments, as RFC 3986 has it",
        }
        return Store(kind, f"az://devstoreaccount1/{name}?endpoint={self.endpoint}", self.integration, lacks)


@contextlib.contextmanager
def azurite(scheme: str = "http", *options: str, trust: Path | None = None) -> Iterator[AzureRig]:
    """Azurite with objects in memory. It is installed by scripts/rigs.sh.

    :param options: more of its own. :param trust: the certificate that it shows, as PEM.
    """
    from azure.core.exceptions import AzureError
    from azure.storage.blob import BlobServiceClient

    script = RIGS / "azurite/node_modules/azurite/dist/src/azurite.js"
    if not script.exists():
        pytest.fail("Azurite is not there: run scripts/rigs.sh")
    ports = [free_port() for _ in range(3)]
    command = [(RIGS / "node.path").read_text().strip(), str(script), "--silent", "--disableTelemetry"]
    command += ["--skipApiVersionCheck", "--inMemoryPersistence", *options]
    for option, port in zip(("--blobPort", "--queuePort", "--tablePort"), ports, strict=True):
        command += [option, str(port)]
    process = subprocess.Popen(command, cwd=RIGS, stdout=subprocess.DEVNULL)
    endpoint = f"{scheme}://127.0.0.1:{ports[0]}/devstoreaccount1"
    credential = {"account_name": "devstoreaccount1", "account_key": DEV_KEY}
    verify = {"connection_verify": str(trust)} if trust else {}
    service = BlobServiceClient(endpoint, credential=credential, retry_total=0, **verify)
    try:
        for _ in range(300):
            try:
                service.get_service_properties()
                break
            except AzureError:
                time.sleep(0.1)
        else:
            pytest.fail("Azurite did not start")
        yield AzureRig(endpoint, f"{scheme}://127.0.0.1:{ports[1]}/devstoreaccount1", service)
    finally:
        service.close()
        process.terminate()
        process.wait()


@pytest.fixture(scope="session")
def azure_rig() -> Iterator[AzureRig]:
    """One for all tests."""
    with azurite() as rig:
        yield rig


@pytest.fixture
def identity_rig(tmp_path: Path) -> Iterator[tuple[AzureRig, Path]]:
    """One that takes tokens of identities, for which it has to speak TLS; and its certificate."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    _certify(key, certificate)
    options = ("--oauth", "basic", "--cert", str(certificate), "--key", str(key))
    with azurite("https", *options, trust=certificate) as rig:
        yield rig, certificate


def _certify(key: Path, certificate: Path) -> None:
    """A certificate of this machine's loopback address."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
