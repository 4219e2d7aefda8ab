"""Azurite, started once a session on free loopback ports."""

from __future__ import annotations

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


@pytest.fixture(scope="session")
def azure_rig() -> Iterator[AzureRig]:
    """Azurite with objects in memory. It is installed by scripts/rigs.sh."""
    from azure.core.exceptions import AzureError
    from azure.storage.blob import BlobServiceClient

    script = RIGS / "azurite/node_modules/azurite/dist/src/azurite.js"
    if not script.exists():
        pytest.fail("Azurite is not there: run scripts/rigs.sh")
    ports = [free_port() for _ in range(3)]
    command = [(RIGS / "node.path").read_text().strip(), str(script), "--silent", "--disableTelemetry"]
    command += ["--skipApiVersionCheck", "--inMemoryPersistence"]
    for option, port in zip(("--blobPort", "--queuePort", "--tablePort"), ports, strict=True):
        command += [option, str(port)]
    process = subprocess.Popen(command, cwd=RIGS, stdout=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{ports[0]}/devstoreaccount1"
    credential = {"account_name": "devstoreaccount1", "account_key": DEV_KEY}
    service = BlobServiceClient(endpoint, credential=credential, retry_total=0)
    try:
        for _ in range(300):
            try:
                service.get_service_properties()
                break
            except AzureError:
                time.sleep(0.1)
        else:
            pytest.fail("Azurite did not start")
        yield AzureRig(endpoint, f"http://127.0.0.1:{ports[1]}/devstoreaccount1", service)
    finally:
        service.close()
        process.terminate()
        process.wait()
