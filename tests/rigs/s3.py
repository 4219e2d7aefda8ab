"""moto's S3 server, started once a session on a free loopback port."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from syncagent.model import Integration

if TYPE_CHECKING:
    from tests.conftest import Store


class S3Rig:
    """A running server, and fresh buckets on it."""

    def __init__(self, endpoint: str, client: Any) -> None:
        self.endpoint = endpoint
        self.client = client
        self.integration = Integration("test", "s3", {"key": "testing", "secret": "testing"})

    def store(self, kind: str, name: str) -> Store:
        """A fresh bucket."""
        from tests.conftest import Store

        self.client.create_bucket(Bucket=name)
        path, lacks = "", {"new\nline.txt": "moto's routes do not match a newline"}
        if "prefixed" in kind:
            path = "/some/folder"
            lacks["k" * 1024] = "longer than a key may be"
        return Store(
            kind, f"s3://{name}{path}?endpoint={self.endpoint}&region=us-east-1", self.integration, lacks
        )


@pytest.fixture(scope="session")
def s3_rig() -> Iterator[S3Rig]:
    """moto's server."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    yield S3Rig(endpoint, client)
    client.close()
    server.stop()
